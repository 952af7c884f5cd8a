package multiraft

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
)

// handTimer collects what was to run later. The test runs it.
type handTimer struct{ due []func() }

func (h *handTimer) AfterFunc(_ time.Duration, f func()) func() bool {
	h.due = append(h.due, f)
	return func() bool { return true }
}

func (h *handTimer) fire() {
	due := h.due
	h.due = nil
	for _, f := range due {
		f()
	}
}

// handJournal takes appends and lets the test say what becomes of them.
type handJournal struct {
	recs    []journal.Record
	done    []func(error)
	onWrite func()
}

func (j *handJournal) Append(recs []journal.Record, done func(error)) {
	j.recs, j.done = append(j.recs, recs...), append(j.done, done)
	if f := j.onWrite; f != nil {
		j.onWrite = nil
		f()
	}
}
func (j *handJournal) SetLowWater(journal.StreamID, uint64) {}
func (j *handJournal) Full() bool                           { return false }

// handHost is a host that was never started: the test is its loops.
func handHost(t *testing.T, cfg Config, d Deps) *Host {
	d.Node, d.Incarnation = 1, 1
	d.Clock = hlc.New(func() int64 { return simEpoch }, cfg.withDefaults().MaxSkew)
	d.Mono = func() time.Duration { return time.Hour }
	d.Rand = rand.New(rand.NewPCG(1, 1))
	if d.Transport == nil {
		d.Transport = &testTransport{net: newTestNet(), self: 1}
	}
	if d.Timer == nil {
		d.Timer = &handTimer{}
	}
	if d.Journal == nil {
		d.Journal = &handJournal{}
	}
	h := New(cfg, d)
	t.Cleanup(h.Close)
	return h
}

// What the loop appends while refused appends are written again must not come
// before any of them, or replay would void what was acknowledged.
func TestRefusedAppendsAreWrittenAgainInOrder(t *testing.T) {
	timer, disk := &handTimer{}, &handJournal{}
	h := handHost(t, Config{Loops: 1}, Deps{Timer: timer, Journal: disk})
	a := &h.loops[0].journal
	entry := func(pos uint64) []journal.Record {
		return []journal.Record{{Stream: 7, Kind: journal.KindEntry, Pos: pos}}
	}
	a.add(1, entry(100))
	disk.done[0](journal.ErrNoSpace)
	a.add(2, entry(101))
	if len(disk.recs) != 1 {
		t.Fatalf("written behind a refused append: %v", disk.recs)
	}
	disk.recs, disk.done = nil, nil
	disk.onWrite = func() { a.add(3, entry(102)) } // the loop is fast
	timer.fire()
	a.add(4, entry(103))
	var got []string
	for _, r := range disk.recs {
		got = append(got, fmt.Sprintf("%d:%d", r.Kind, r.Pos))
	}
	want := []string{fmt.Sprintf("%d:100", journal.KindTruncate)}
	for pos := 100; pos <= 103; pos++ {
		want = append(want, fmt.Sprintf("%d:%d", journal.KindEntry, pos))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("written again as %v, want %v", got, want)
	}
	// Refused once more in the middle: only what is before counts, and all from
	// there on is written a third time.
	for i, done := range slices.Clone(disk.done) {
		if i == 2 {
			done(journal.ErrNoSpace)
		} else {
			done(nil)
		}
	}
	turn := uint64(0)
	for _, e := range h.loops[0].mail.events {
		turn = max(turn, e.turn)
	}
	if turn != 2 {
		t.Fatalf("turn %d counts as durable, want 2", turn)
	}
	disk.recs, disk.done = nil, nil
	timer.fire()
	if len(disk.done) != 2 || disk.recs[0].Kind != journal.KindTruncate || disk.recs[0].Pos != 102 {
		t.Fatalf("third attempt writes %v", disk.recs)
	}
}
