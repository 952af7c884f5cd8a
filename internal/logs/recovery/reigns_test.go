package recovery

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// benchReigns are logs kept in doubt by reigns, and their sequencers.
type benchReigns struct {
	*bench
	r        *reigns
	home     catalog.NodeID // 0: none
	asked    []reignAsked
	answer   func(reignAsked) (*wire.SequencerStateResponse, error) // nil, nil: none comes
	compared []logs.LogID
}

type reignAsked struct {
	at    time.Duration
	node  catalog.NodeID
	log   logs.LogID
	seen  logs.Epoch
	flags uint32
	done  func(*wire.SequencerStateResponse, error)
}

func (b *benchReigns) Sequencer(logs.LogID) (catalog.NodeID, bool) { return b.home, b.home != 0 }

func (b *benchReigns) SequencerState(n catalog.NodeID, q *wire.SequencerStateRequest, done func(*wire.SequencerStateResponse, error)) {
	a := reignAsked{b.mono(), n, logs.LogID(q.Log), logs.Epoch(q.SeenEpoch), q.Flags, done}
	b.asked = append(b.asked, a)
	if resp, err := b.answer(a); resp != nil || err != nil {
		done(resp, err)
	}
}

var errNobody = errors.New("unreachable")

func newBenchReigns(t *testing.T) *benchReigns {
	b := &benchReigns{bench: newBench(t, 3), home: 1, answer: func(reignAsked) (*wire.SequencerStateResponse, error) { return nil, errNobody }}
	cfg := Config{}.withDefaults()
	b.r = newReigns(&cfg, &ComparerDeps{Mono: b.mono, AfterFunc: b.after, Logger: slog.New(slog.DiscardHandler), Sequencers: b},
		func(log logs.LogID) { b.compared = append(b.compared, log) })
	return b
}

func (b *benchReigns) pass(d time.Duration) {
	for end := b.mono() + d; b.mono() < end; {
		b.ring(5 * time.Millisecond)
	}
}

func reigning(e logs.Epoch) *wire.SequencerStateResponse {
	return &wire.SequencerStateResponse{Epoch: uint32(e)}
}

// TestAReignIsLeftToEndByItself: D5, nobody is asked before the grace is over, and
// nobody at all if nothing is in doubt by then.
func TestAReignIsLeftToEndByItself(t *testing.T) {
	b := newBenchReigns(t)
	b.r.left(1, 5)
	b.r.left(2, 7)
	b.pass(time.Second)
	b.r.left(2, 0)
	if b.pass(900 * time.Millisecond); len(b.asked) != 0 {
		t.Fatalf("asked at once: %+v", b.asked)
	}
	b.answer = func(reignAsked) (*wire.SequencerStateResponse, error) { return reigning(6), nil }
	b.pass(200 * time.Millisecond)
	if len(b.asked) != 1 || b.asked[0].log != 1 || b.asked[0].seen != 5 || b.asked[0].flags != logs.StateEndSeen || !slices.Equal(b.compared, []logs.LogID{1}) {
		t.Fatalf("asked %+v, compared %v", b.asked, b.compared)
	}
	b.r.left(1, 0)
	if b.pass(5 * time.Minute); len(b.asked) != 1 || len(b.r.logs()) != 0 {
		t.Errorf("asked again: %+v", b.asked)
	}
}

// TestReignsAreEndedAFewAtATime: D5's bounds, with very many logs in doubt at once.
func TestReignsAreEndedAFewAtATime(t *testing.T) {
	b := newBenchReigns(t)
	b.answer = func(reignAsked) (*wire.SequencerStateResponse, error) { return nil, nil }
	const all = 100_000
	for id := logs.LogID(1); id <= all; id++ {
		b.r.left(id, 5)
	}
	if b.pass(3 * time.Second); len(b.asked) != b.r.cfg.Ends {
		t.Fatalf("%d at a time", len(b.asked))
	}
	b.answer = func(a reignAsked) (*wire.SequencerStateResponse, error) { return reigning(6), nil }
	b.r.compare = func(id logs.LogID) { b.r.left(id, 0) }
	for _, a := range b.asked[:b.r.cfg.Ends:b.r.cfg.Ends] {
		a.done(reigning(6), nil)
	}
	before := len(b.asked)
	b.pass(time.Second)
	if n := len(b.asked) - before; n < 50 || n > 101 {
		t.Errorf("%d in a second", n)
	}
	for i := b.r.cfg.Ends + 1; i < len(b.asked); i++ {
		if d := b.asked[i].at - b.asked[i-1].at; d < b.r.cfg.EndPause {
			t.Fatalf("%v from one to the next", d)
		}
	}
	if left := len(b.r.logs()); left != all-len(b.asked) {
		t.Errorf("%d are left", left)
	}
}

// TestAReignIsAskedAboutAgain: D5, whatever fails, and later each time: who is asked
// cannot be reached, never answers, reigns on in that epoch, or there is nobody.
func TestAReignIsAskedAboutAgain(t *testing.T) {
	for what, answer := range map[string]func(reignAsked) (*wire.SequencerStateResponse, error){
		"unreachable": func(reignAsked) (*wire.SequencerStateResponse, error) { return nil, errNobody },
		"silent":      func(reignAsked) (*wire.SequencerStateResponse, error) { return nil, nil },
		"the same":    func(reignAsked) (*wire.SequencerStateResponse, error) { return reigning(5), nil },
		"not settled": func(reignAsked) (*wire.SequencerStateResponse, error) { return reigning(6), nil },
	} {
		b := newBenchReigns(t)
		b.answer = answer
		b.r.left(1, 5)
		b.pass(10 * time.Minute)
		if n := len(b.asked); n < 5 || n > 15 {
			t.Errorf("%s: asked %d times in ten minutes", what, n)
			continue
		}
		if settled := len(b.compared) > 0; settled != (what == "not settled") {
			t.Errorf("%s: compared %v", what, b.compared)
		}
		for i := 2; i < len(b.asked); i++ {
			if d, before := b.asked[i].at-b.asked[i-1].at, b.asked[i-1].at-b.asked[i-2].at; d < before-100*time.Millisecond {
				t.Errorf("%s: %v after %v", what, d, before)
			}
		}
	}
	b := newBenchReigns(t)
	b.home = 0
	b.r.left(1, 5)
	b.pass(10 * time.Second)
	b.home = 2
	if b.pass(20 * time.Second); len(b.asked) == 0 {
		t.Error("there was nobody, and now there is")
	}
	b.r.close()
	n := len(b.asked)
	if b.pass(5 * time.Minute); len(b.asked) != n {
		t.Error("asked after it was closed")
	}
}

// TestALaterReignIsAskedAboutSoon: a log that is in doubt of a later epoch, for another
// doubt, is not asked about as late as the epoch before had come to be.
func TestALaterReignIsAskedAboutSoon(t *testing.T) {
	b := newBenchReigns(t)
	b.r.left(1, 5)
	b.pass(70 * time.Second) // asked at 2 s, 4, 8, ... 64
	n := len(b.asked)
	b.r.left(1, 5)
	if b.pass(3 * time.Second); len(b.asked) != n {
		t.Errorf("asked %d times more for the same", len(b.asked)-n)
	}
	b.r.left(1, 6)
	if b.pass(3 * time.Second); len(b.asked) != n+1 || b.asked[n].seen != 6 {
		t.Errorf("asked %+v", b.asked[n:])
	}
	if b.pass(3 * time.Second); len(b.asked) != n+2 {
		t.Errorf("asked %+v", b.asked[n:])
	}
}

// TestAnEndedReignIsLookedAtSoon: nobody could be reached for long, so that it is asked only
// now and then. Once the reign has ended, and its recovery may take a moment, the log is not
// left to the next question as late as that.
func TestAnEndedReignIsLookedAtSoon(t *testing.T) {
	b := newBenchReigns(t)
	b.r.left(1, 5)
	b.pass(100 * time.Second)
	b.answer = func(reignAsked) (*wire.SequencerStateResponse, error) { return reigning(6), nil }
	for end := b.mono() + 2*b.r.cfg.EndRetryMax; len(b.compared) == 0 && b.mono() < end; {
		b.pass(100 * time.Millisecond)
	}
	if b.pass(2 * b.r.cfg.EndGrace); len(b.compared) < 2 {
		t.Fatalf("compared %d times in the four seconds since it ended", len(b.compared))
	}
	n := len(b.compared)
	if b.pass(10 * time.Minute); len(b.compared) > n+15 {
		t.Errorf("compared %d times in ten minutes", len(b.compared)-n)
	}
}

// TestAQuestionAboutAReignIsSentOn: to whom is named; who is named again has to take
// the log; and an answer that comes too late is nothing.
func TestAQuestionAboutAReignIsSentOn(t *testing.T) {
	b := newBenchReigns(t)
	b.answer = func(a reignAsked) (*wire.SequencerStateResponse, error) {
		if a.flags&logs.StateReactivateIfPreempted != 0 {
			return reigning(6), nil
		}
		return &wire.SequencerStateResponse{Status: wire.LogStatus_LOG_STATUS_PREEMPTED, Redirect: uint64(3 - a.node)}, nil
	}
	b.r.left(1, 5)
	b.pass(3 * time.Second)
	var nodes []catalog.NodeID
	for _, a := range b.asked {
		nodes = append(nodes, a.node)
	}
	if !slices.Equal(nodes, []catalog.NodeID{1, 2, 1}) || len(b.compared) != 1 {
		t.Errorf("asked %v, compared %v", nodes, b.compared)
	}
	late := newBenchReigns(t)
	late.answer = func(reignAsked) (*wire.SequencerStateResponse, error) { return nil, nil }
	late.r.left(1, 5)
	late.pass(late.r.cfg.EndGrace + late.r.cfg.EndRetryMax + time.Second)
	late.asked[0].done(reigning(6), nil)
	if late.r.asking < 0 || len(late.compared) != 0 {
		t.Errorf("%d are asked, compared %v", late.r.asking, late.compared)
	}
}

// TestComparerLeavesReigns: a comparison that ends before the epoch that reigns says
// so, and the log is compared again when that is over.
func TestComparerLeavesReigns(t *testing.T) {
	b, own, c := inDoubtBench(t, 1)
	b.mu.Lock()
	b.records[1].Metadata.Epoch = 2 // epoch 1, of which copies are lost, reigns
	b.mu.Unlock()
	s := &benchReigns{bench: b, home: 1}
	s.answer = func(reignAsked) (*wire.SequencerStateResponse, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.records[1].Metadata.Epoch = 3
		return reigning(2), nil
	}
	c.deps.Sequencers = s
	c.Compare(1, 0)
	until(t, "it waits for the reign", func() bool {
		return slices.ContainsFunc(c.Rows(), func(r CompareRow) bool { return r.Log == 1 && r.State == "REIGN" })
	})
	until(t, "the copy is back", func() bool {
		b.ring(100 * time.Millisecond)
		b.mu.Lock()
		defer b.mu.Unlock()
		f := b.shards[1][1]
		return f.id == own.id && f.winner(logs.MakeLSN(1, 1)) != nil && f.sure >= logs.MakeLSN(2, 0)-1
	})
	if len(s.asked) != 1 {
		t.Errorf("asked %d times", len(s.asked))
	}
	c.Close()
}
