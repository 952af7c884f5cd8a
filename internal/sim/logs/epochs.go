package logs

import (
	"google.golang.org/protobuf/proto"

	"errors"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/epochstore"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/wire"
)

// epochs is the one epoch store of the cluster, outside of its nodes: linearizable,
// slow, and sometimes silent about what it did.
type epochs struct {
	c     *cluster
	inner *epochstore.Memory
	away  time.Duration // until when it does not answer
	seen  map[logs.LogID]*wire.EpochRecord
	won   map[reign]time.Duration // when epochs were given out
}

func newEpochs(c *cluster) *epochs {
	return &epochs{c: c, inner: epochstore.NewMemory(), seen: map[logs.LogID]*wire.EpochRecord{}, won: map[reign]time.Duration{}}
}

var errEpochs = errors.New("sim: the epoch store does not answer")

// door is the epoch store as one life of a node reaches it.
type epochDoor struct {
	m *member
	e *epochs
}

// trip carries a question there and its answer back, if both arrive.
func (d epochDoor) trip(what string, there func() func(), fail func()) {
	c, w, n := d.e.c, d.e.c.w, d.m.n
	lost := !w.Calm() && w.OneIn(int(w.Opt.Knob("epochLostOneIn")))
	before := lost && w.OneIn(2)
	n.After(w.Between(0, c.ms("epochMs")), what, func() {
		if before || w.Now() < d.e.away {
			n.After(w.Between(0, time.Second), what+" fails", fail)
			return
		}
		back := there()
		if lost {
			w.Sometimes("epoch store: an answer was lost")
			n.After(w.Between(0, time.Second), what+" fails", fail)
			return
		}
		n.After(w.Between(0, c.ms("epochMs")), what+" answers", back)
	})
}

// Read gives a log's record.
func (d epochDoor) Read(log logs.LogID, done func(*wire.EpochRecord, error)) {
	d.trip("epoch?", func() (back func()) {
		d.e.inner.Read(log, func(r *wire.EpochRecord, err error) { back = func() { done(r, err) } })
		return back
	}, func() { done(nil, errEpochs) })
}

// CompareAndSet replaces it.
func (d epochDoor) CompareAndSet(log logs.LogID, expect uint64, next *wire.EpochRecord, done func(error)) {
	sent := proto.Clone(next).(*wire.EpochRecord)
	if d.e.seen[log].GetLastCleanEpoch() < next.LastCleanEpoch {
		d.m.comes(momentAdvances)
	} else {
		d.m.comes(momentReigns)
	}
	d.trip("epoch=", func() (back func()) {
		d.e.inner.CompareAndSet(log, expect, sent, func(err error) {
			d.e.check(log, expect, sent, err)
			back = func() { done(err) }
		})
		return back
	}, func() { done(errEpochs) })
}

// check is L6.
func (e *epochs) check(log logs.LogID, expect uint64, next *wire.EpochRecord, err error) {
	w, was := e.c.w, e.seen[log]
	if errors.Is(err, sequencer.ErrConflict) {
		w.Sometimes("epoch store: a lost race")
	}
	if err != nil || was.GetVersion() == next.Version { // the second is a repetition of what is there
		return
	}
	switch {
	case was.GetVersion() != expect:
		w.Fail("log %d: a compare-and-set of version %d succeeded over version %d", log, expect, was.GetVersion())
	case next.GetMetadata().GetEpoch() < was.GetMetadata().GetEpoch() || next.LastCleanEpoch < was.GetLastCleanEpoch():
		w.Fail("log %d: the epoch store goes back from %v to %v", log, was, next)
	case next.LastCleanEpoch > was.GetLastCleanEpoch():
		w.Sometimes("log: recovered")
	}
	if to := logs.Epoch(next.GetMetadata().GetEpoch()); to > logs.Epoch(was.GetMetadata().GetEpoch()) {
		e.won[reign{log, to - 1}] = w.Now()
	}
	e.seen[log] = next
	e.c.truths[log-1].learns(next.Metadata)
	e.c.truths[log-1].setting(next.Metadata)
	w.Note(next.Version)
	if w.Tracing() {
		w.Tracef("epoch store: log %d version %d next epoch %d clean %d by node %d", log, next.Version, next.GetMetadata().GetEpoch(), next.LastCleanEpoch, next.WriterNode)
	}
}

// clean is the last epoch of a log that the store says is recovered.
func (e *epochs) clean(log logs.LogID) logs.Epoch { return logs.Epoch(e.seen[log].GetLastCleanEpoch()) }
