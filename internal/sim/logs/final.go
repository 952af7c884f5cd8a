package logs

import (
	"errors"
	"fmt"
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/checker"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/wire"
)

// reign is the sequencer that numbers a log; nil if none, or two, say so.
func (c *cluster) reign(t *truth) *sequencer.Row {
	r, _ := c.reigning(t)
	return r
}

func (c *cluster) reigning(t *truth) (found *sequencer.Row, on *member) {
	for _, m := range c.members {
		if m.doors == nil {
			continue
		}
		m.sequencer.Rows(func(r sequencer.Row) bool {
			if r.Log == t.id && r.State == sequencer.StateActive.String() && (found == nil || r.Epoch > found.Epoch) {
				found, on = &r, m
			}
			return true
		})
	}
	return found, on
}

// settled says that every log is released up to its end, every recovery and purge
// is over, no shard is in doubt and readers are at the tail.
func (c *cluster) settled() error {
	for _, m := range c.members {
		if c.beyond() {
			break // nodes may be gone, and recoveries wait for them
		}
		if m.doors == nil || m.fatal != nil {
			return fmt.Errorf("node %d does not run", m.n.ID)
		}
		if n := m.recovery.Metrics().Running.Load() + m.recovery.Metrics().Waiting.Load(); n > 0 {
			return fmt.Errorf("node %d: %d recoveries are not over: %+v", m.n.ID, n, m.recovery.Rows())
		}
		if rows := m.purger.Rows(); len(rows) > 0 {
			return fmt.Errorf("node %d: purges are not over: %+v", m.n.ID, rows)
		}
		if m.store.Suspect() {
			return fmt.Errorf("node %d: its shard is in doubt, of logs %v; comparisons %+v", m.n.ID, m.store.Doubts(), m.comparer.Rows())
		}
		if m == c.flipped && !m.sound {
			m.scrub()
			return fmt.Errorf("node %d: its files may be damaged", m.n.ID)
		}
	}
	for _, t := range c.truths {
		if !t.appended() || !c.well(t) {
			continue
		}
		for _, m := range c.members {
			if m.doors == nil || m.hurt.kind != "" {
				continue
			}
			// What was decided against is there until the purge, which begins with the
			// release: that may be on its way.
			if clean := m.store.LastClean(t.id); m.given[t.id] && clean < c.epochs.clean(t.id) && !c.waitsForMetadata(m, t) {
				return fmt.Errorf("log %d: node %d knows it to be clean up to epoch %d only: %s", t.id, m.n.ID, clean, c.describe(t))
			}
		}
		r := c.reign(t)
		if r == nil || r.Recovering || r.InFlight > 0 || r.Buffered > 0 || r.LastReleased != r.Next-1 && r.Next.ESN() > 1 {
			return fmt.Errorf("log %d is not at rest: %s", t.id, c.describe(t))
		}
		for _, x := range t.readers {
			if r.Next.ESN() > 1 && x.next < r.Next {
				return fmt.Errorf("log %d: reader %s is at %s, the tail is %s: %+v health %+v view %+v", t.id, x.name, x.next, r.Next-1, x.core.Health(), x.core.Counters, x.core.View())
			}
		}
	}
	return nil
}

func (c *cluster) describe(t *truth) string {
	out := fmt.Sprintf("epoch record %v", c.epochs.seen[t.id])
	for _, m := range c.members {
		if m.doors == nil {
			out += fmt.Sprintf("\n  node %d is down", m.n.ID)
			continue
		}
		out += fmt.Sprintf("\n  node %d: in doubt %v, last clean %d, recoveries %+v, purges %+v, comparisons %+v", m.n.ID, m.store.Suspect(), m.store.LastClean(t.id),
			m.recovery.Rows(), m.purger.Rows(), m.comparer.Rows())
		m.sequencer.Rows(func(r sequencer.Row) bool {
			if r.Log == t.id {
				out += fmt.Sprintf("\n    %s epoch %d next %s released %s good %d in flight %d buffered %d preempted by %d recovering %v readable %v trouble %q",
					r.State, r.Epoch, r.Next, r.LastReleased, r.LastKnownGood, r.InFlight, r.Buffered, r.PreemptedBy, r.Recovering, r.MetadataRead, r.Trouble)
			}
			return true
		})
	}
	return out
}

// readAll begins the last reading of every log, from its oldest record to its tail,
// and the check of its copies.
func (c *cluster) readAll() {
	c.readAt = c.w.Now()
	for _, t := range c.truths {
		r, on := c.reigning(t)
		if c.beyond() {
			c.readBeyond(t, r)
			continue
		}
		if r == nil || r.LastReleased == 0 {
			continue
		}
		for _, x := range t.readers {
			x.over = true
		}
		t.last = t.newReading("last", logs.LSNOldest, r.LastReleased, false)
		look := func(s *wire.SequencerStateResponse, err error) {
			if err != nil || len(s.Metadata) == 0 {
				c.w.Fail("log %d: its metadata cannot be learned in the end: %v %w", t.id, s, err)
				return
			}
			t.report = checker.New(checker.Config{Log: t.id, Epochs: s.Metadata, From: logs.LSNOldest, To: r.LastReleased, Page: 200})
			t.looked = r.LastReleased
			c.check(t)
		}
		on.sequencer.State(&wire.SequencerStateRequest{Log: uint64(t.id), Flags: logs.StateMetadata | logs.StateNoRedirect}, func(s *wire.SequencerStateResponse) {
			switch s.Status {
			case wire.LogStatus_LOG_STATUS_NOT_READY, // drained: a log that nobody appends to has not moved yet
				wire.LogStatus_LOG_STATUS_PREEMPTED: // the last reader has asked its home, which took it back
				c.sequencerState(t.id, &wire.SequencerStateRequest{Log: uint64(t.id), Flags: logs.StateMetadata}, look)
				return
			}
			look(s, nil)
		})
	}
}

// check asks the shards what the checker wants to know, all at once, and again
// when all have answered.
func (c *cluster) check(t *truth) {
	reqs := t.report.Want()
	left := len(reqs)
	for _, req := range reqs {
		id := logs.ShardID(req.Shard)
		c.members[id.Node()-1].store.Records(req, func(a *wire.RecordsResponse) {
			t.ends(a)
			t.report.Answer(id, a)
			if left--; left == 0 {
				c.check(t)
			}
		})
	}
}

func (c *cluster) allRead() error {
	for _, t := range c.truths {
		if t.last != nil && !t.last.over && !c.mayRefuse(t, c.readAt, readTime) {
			return fmt.Errorf("log %d: the last reading is at %s: %+v", t.id, t.last.next, t.last.core.Health())
		}
		if t.last != nil && !c.beyond() && (t.report == nil || len(t.report.Want()) > 0) {
			return fmt.Errorf("log %d: its copies are still being checked", t.id)
		}
	}
	return nil
}

// Check is the last word.
func (c *cluster) Check() error {
	for _, t := range c.truths {
		if err := t.complete(); err != nil {
			return err
		}
		if err := c.stands(t); err != nil {
			return err
		}
		if err := t.conditionsHeld(); err != nil {
			return err
		}
		if err := t.kept(); err != nil {
			return err
		}
		if err := t.ascend(); err != nil {
			return err
		}
		if t.report != nil {
			if err := t.bridged(); err != nil {
				return err
			}
			if rep := t.report.Report(); !rep.Clean() {
				bad := slices.DeleteFunc(slices.Clone(rep.Problems), leftBehind)
				if len(bad) > 0 || len(rep.Silent) > 0 || len(rep.Problems) == checker.ProblemsMax {
					return fmt.Errorf("log %d: the copies are not as they should be: %d problems, silent %v, the first: %v", t.id, len(bad), rep.Silent, firstOf(bad))
				}
				c.w.Sometimes("copies: those of the last wave are too few, and all together enough")
			}
		}
		for _, r := range t.readers {
			if r.core.Counters.Rewinds > 0 {
				c.w.Sometimes("reader: rewound")
			}
			if r.core.Counters.AllSendAll > 0 {
				c.w.Sometimes("reader: all send all")
			}
		}
	}
	for _, m := range c.members {
		if m.comparer != nil && m.comparer.Metrics().Done.Load() > 0 {
			c.w.Sometimes("shard: sure again")
		}
	}
	return nil
}

// leftBehind says of a problem that it is what a recovery leaves that was preempted
// while it stored: some copies of its wave. Those of the wave before, on which the
// record was complete, are there as well, and all of them together lie as they must.
func leftBehind(p checker.Problem) bool { return p.Findings == checker.BadReplicationLastWave }

func firstOf(p []checker.Problem) any {
	if len(p) == 0 {
		return nil
	}
	return p[0]
}

var errCondition = errors.New("a conditional append was taken though its condition did not hold")

// conditionsHeld says that no record lies between what a conditional append took
// for the tail and the append.
func (t *truth) conditionsHeld() error {
	for _, x := range t.conditions {
		for lsn, list := range t.told {
			if x.from < lsn && lsn < x.to && !t.isLost(lsn) && !t.harmed(lsn) {
				return fmt.Errorf("log %d: %w: tail %s, taken as %s, and %q is at %s", t.id, errCondition, x.from, x.to, list, lsn)
			}
		}
	}
	return nil
}
