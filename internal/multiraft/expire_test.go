package multiraft

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// TestWhatNobodyWaitsForIsNotProposed looks at the queue of a group when its turn comes.
func TestWhatNobodyWaitsForIsNotProposed(t *testing.T) {
	var m Metrics
	c := &core{metrics: &m, now: 10 * time.Second}
	never, late, now, soon := &Proposal{}, &Proposal{expires: 9 * time.Second}, &Proposal{expires: c.now}, &Proposal{expires: c.now + 1}
	g := &group{waiting: []*Proposal{never, late, soon, now}}
	c.dropExpired(g)
	if !slices.Equal(g.waiting, []*Proposal{never, soon}) {
		t.Errorf("%d wait still", len(g.waiting))
	}
	if len(c.fx.answers) != 2 || c.fx.answers[0].p != late || c.fx.answers[1].p != now || !errors.Is(c.fx.answers[0].r.Err, ErrExpired) {
		t.Errorf("answers: %+v", c.fx.answers)
	}
	if m.ProposalsExpired.Load() != 2 {
		t.Errorf("%d are counted", m.ProposalsExpired.Load())
	}
}
