package logs

import (
	"time"

	"github.com/braiddb/braid/internal/sim"
)

// A fault that waits for its moment: whoever comes to it next is struck. Most of what
// was promised and not kept shows only where trouble comes between a word and the deed.

// moment is a step of the protocols that somebody has just done.
type moment int

// The moments.
const (
	momentSealed   moment = iota // a shard answered a seal
	momentDigested               // a digest
	momentCleaned                // a CLEAN
	momentStored                 // stores
	momentSeals                  // a recovery asked for a seal
	momentDigests                // for a digest
	momentDecides                // a recovery had something stored
	momentCleans                 // it said how an epoch ended
	momentAdvances               // it asked the epoch store to say that an epoch is clean
	momentReigns                 // somebody asked the epoch store for an epoch
	moments
)

// What happens to who comes to it.
const (
	strikeCrash = iota
	strikeCut
	strikePause
	strikeTear // it crashes, and loses the last of its journal
	strikes
)

// await has a fault strike whoever comes to its moment next.
func (c *cluster) await(f *sim.Fault) bool {
	c.waiting[moment(f.X%int64(moments))] = f
	return true
}

// tears says that a fault takes from a journal what it confirmed.
func tears(f *sim.Fault) bool {
	return f.Kind == faultTorn || f.Kind == faultMoment && f.X/int64(moments)%strikes == strikeTear
}

// comes says that a node has come to a moment.
func (m *member) comes(at moment) {
	c, w := m.c, m.w
	f := c.waiting[at]
	if f == nil || w.Calm() || !m.n.Up() || m.fatal != nil {
		return
	}
	c.waiting[at] = nil
	kind := [strikes]string{sim.FaultCrash, sim.FaultCut, sim.FaultPause, faultTorn}[f.X/int64(moments)%strikes]
	hit := &sim.Fault{Kind: kind, Node: m.n.ID, For: f.For, X: 1 + f.X%3}
	life := m.n.Life()
	w.After(w.Between(0, time.Duration(f.Peer)*100*time.Microsecond), "moment", func() {
		if !w.Calm() && m.n.Life() == life && m.n.Up() {
			w.Tracef("node %d has come to moment %d: %s for %s", m.n.ID, at, kind, time.Duration(f.For))
			w.Sometimes("moment: somebody comes to it")
			w.CarryOut(hit)
		}
	})
}
