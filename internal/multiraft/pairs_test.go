package multiraft

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/wire"
)

// A promise runs at its giver from when the beat came, which was after it was sent:
// its holder counts from there, however late the answer, and less what clocks drift.
func TestAPromiseCountsFromWhenItWasAskedFor(t *testing.T) {
	cfg := Config{}.withDefaults()
	d := &Deps{Node: 1, Incarnation: 1, Clock: hlc.New(func() int64 { return int64(simEpoch) }, cfg.MaxSkew)}
	p := newPairs(d, &cfg, &Metrics{})
	p.retain(2)
	const asked = time.Hour
	b := p.beats(asked)[0].beat
	answer := &wire.Beat{FromNode: 2, ToNode: 1, Incarnation: 1, ToIncarnation: 1, Answer: true, Sequence: b.Sequence,
		Promise: 1, PromiseUs: b.PromiseUs, HybridTime: b.HybridTime}
	if _, ok := p.hear(asked+cfg.Lease/2, answer); !ok {
		t.Fatal("the answer is refused")
	}
	if got, want := p.grantOf(2).until, asked+cfg.Lease-cfg.Lease/driftShare; got != want {
		t.Errorf("asked at %s for %s, answered after half of it: it holds until %s, not %s", asked, cfg.Lease, got, want)
	}
}
