package sim

import (
	"strings"
	"time"
)

// Shrink leaves out of a failing run what it fails without: faults first, then
// the trouble that is always there. It stops after so many runs, and gives the
// smallest options that still fail, and how.
func (g *Wing) Shrink(failed *Result, runs int) *Result {
	s := &shrinker{wing: g, best: failed, left: runs, kind: kindOf(failed.Error)}
	for chunk := (len(s.best.Options.Faults) + 1) / 2; chunk >= 1; chunk /= 2 {
		for s.dropFaults(chunk) {
		}
	}
	s.calm()
	return s.best
}

type shrinker struct {
	wing *Wing
	best *Result
	left int
	kind string
}

// kindOf is what makes two failures the same one: the words before the first
// number, so that another node or index does not make another failure.
func kindOf(err string) string {
	if i := strings.IndexAny(err, "0123456789"); i > 0 && i < len(err) {
		err = err[:i]
	}
	return err
}

// try runs options and keeps them if they fail alike.
func (s *shrinker) try(o *Options) bool {
	if s.left <= 0 {
		return false
	}
	s.left--
	r := s.wing.Run(o, nil)
	if r.Error == "" || kindOf(r.Error) != s.kind {
		return false
	}
	s.best = r
	return true
}

// dropFaults leaves out chunks of the schedule, and says whether one was not needed.
func (s *shrinker) dropFaults(chunk int) bool {
	dropped := false
	for at := 0; at < len(s.best.Options.Faults) && s.left > 0; {
		o := s.best.Options.Clone()
		o.Faults = append(o.Faults[:at:at], o.Faults[min(at+chunk, len(o.Faults)):]...)
		if s.try(o) {
			dropped = true
		} else {
			at += chunk
		}
	}
	return dropped && s.left > 0
}

// calm takes away, one by one, what makes every moment of a run uneasy.
func (s *shrinker) calm() {
	for _, quieten := range []func(*Options){
		func(o *Options) { o.Net.LoseOneIn = 0 },
		func(o *Options) { o.Net.DoubleOneIn = 0 },
		func(o *Options) { o.Net.LateOneIn = 0 },
		func(o *Options) { o.Net.Ordered = true },
		func(o *Options) { o.Disk.StallOneIn = 0 },
		func(o *Options) { o.Clock.DriftPPM = 0 },
		func(o *Options) { o.Clock.Skew, o.Clock.Apart = 0, false },
		func(o *Options) { o.Sched.LagOneIn = 0 },
		func(o *Options) { o.Safety = Duration(last(o) + 3*time.Second) },
	} {
		o := s.best.Options.Clone()
		quieten(o)
		s.try(o)
	}
}

// last is when the last fault of a schedule is over.
func last(o *Options) time.Duration {
	d := time.Duration(0)
	for _, f := range o.Faults {
		d = max(d, time.Duration(f.At+f.For))
	}
	return d
}
