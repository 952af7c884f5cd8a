package sim

import (
	"errors"
	"time"
)

// ErrDisk is what a write learns of a disk that failed to sync. The node must
// end: what it wrote may or may not be there.
var ErrDisk = errors.New("sim: the disk failed to sync")

// Disk orders a node's writes: they are gathered, synced some at a time, and
// told of when that is done. What a write changes is the wing's: keep.
type Disk struct {
	n       *Node
	pending []diskWrite
	syncing bool
	down    bool // a sync failed: nothing reaches the platter any more in this life
	fail    bool // the next sync fails
	full    bool
	slow    time.Duration // virtual time until which syncs take long

	Syncs, Lost int // for tests and traces
}

type diskWrite struct {
	keep func()
	done func(error)
}

// Write hands a write to the disk. keep is run when it has reached the platter,
// in the order of writes; done after, if the life that asked still lasts. A crash in
// between keeps a prefix of what was not told of yet.
func (d *Disk) Write(keep func(), done func(error)) {
	d.pending = append(d.pending, diskWrite{keep, done})
	d.sync()
}

// Full says that the disk takes no more.
func (d *Disk) Full() bool { return d.full }

func (d *Disk) sync() {
	if d.syncing || d.down || len(d.pending) == 0 {
		return
	}
	d.syncing = true
	w, o := d.n.w, &d.n.w.Opt.Disk
	took := len(d.pending)
	t := w.Between(time.Duration(o.SyncMin), time.Duration(o.SyncMax))
	if !w.calm && w.OneIn(o.StallOneIn) {
		t = w.Between(0, time.Duration(o.Stall))
	}
	if w.now < d.slow {
		t += w.Between(0, time.Duration(o.Slow))
	}
	// A pause stops the process and not the disk: the sync goes on, its word waits.
	life := d.n.life
	w.at(w.now+t, "sync", d.n.ID, func() {
		if d.n.life == life && d.n.alive {
			d.synced(took)
		}
	})
}

func (d *Disk) synced(took int) {
	d.syncing = false
	d.Syncs++
	writes := d.pending[:took]
	d.pending = d.pending[took:]
	if d.fail {
		d.fault(writes)
		return
	}
	for i := range writes {
		writes[i].keep()
	}
	life := d.n.life
	d.n.run(life, func() {
		for i := range writes {
			if d.n.life == life && d.n.alive {
				writes[i].done(nil)
			}
		}
	})
	d.sync()
}

// fault is a sync that fails: some of it is there, nobody knows how much.
func (d *Disk) fault(writes []diskWrite) {
	d.fail, d.down = false, true
	d.n.w.Tracef("node %d: the disk fails to sync", d.n.ID)
	d.n.w.Sometimes("disk: sync failed")
	for i := range writes[:d.n.w.dice.IntN(len(writes)+1)] {
		writes[i].keep()
	}
	life := d.n.life
	d.n.run(life, func() {
		for i := range writes {
			if d.n.life == life && d.n.alive {
				writes[i].done(ErrDisk)
			}
		}
	})
}

// crash keeps a prefix of what was on its way: the disk may have got further
// than anyone was told.
func (d *Disk) crash() {
	if k := len(d.pending); k > 0 && !d.down {
		kept := d.n.w.dice.IntN(k + 1)
		for i := range d.pending[:kept] {
			d.pending[i].keep()
		}
		d.Lost += k - kept
	}
	d.pending, d.syncing = nil, false
}

func (d *Disk) boot() { d.down, d.fail, d.syncing = false, false, false }
