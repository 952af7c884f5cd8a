package recovery

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// Sequencers are who numbers logs.
type Sequencers interface {
	// Sequencer is the node that should number a log, as far as is known here.
	Sequencer(log logs.LogID) (catalog.NodeID, bool)
	// SequencerState asks a node; done is called at most once, maybe at once.
	SequencerState(node catalog.NodeID, req *wire.SequencerStateRequest, done func(*wire.SequencerStateResponse, error))
}

// reigns ends what keeps logs in doubt: an epoch is compared when nobody adds to it
// any more, and on a quiet log nothing else would end it (D5).
//
//	a comparison leaves an epoch ─► grace ─► the sequencer: a later one! ─┐
//	   ▲ nothing left: forgotten                                          │
//	   └────────────────── the log is compared again ◄────────────────────┘
//
// It waits also for what is over and not clean yet: then the question changes nothing
// where somebody reigns, and has somebody begin to where nobody does, who recovers it.
type reigns struct {
	cfg     *Config
	deps    *ComparerDeps
	compare func(logs.LogID)

	mu       sync.Mutex
	closed   bool
	all      map[logs.LogID]*openReign
	queue    reignQueue // those that nobody is asked about just now
	asking   int        // at most Config.Ends
	notUntil time.Duration
	wakeAt   time.Duration // when the timer fires, 0: it is not set
	disarm   func() bool
}

// openReign is one log's.
type openReign struct {
	log   logs.LogID
	epoch logs.Epoch    // is to be over
	due   time.Duration // when the sequencer is asked
	tries int
	ended bool // it was, when it was asked last
	place int  // in the queue, -1: it is being asked about
}

func newReigns(cfg *Config, d *ComparerDeps, compare func(logs.LogID)) *reigns {
	return &reigns{cfg: cfg, deps: d, compare: compare, all: map[logs.LogID]*openReign{}}
}

// left says up to which epoch a comparison left a log in doubt, 0: not at all.
func (r *reigns) left(log logs.LogID, epoch logs.Epoch) {
	if r.deps.Sequencers == nil {
		return
	}
	r.mu.Lock()
	o := r.all[log]
	switch {
	case r.closed:
	case epoch == 0 && o != nil:
		delete(r.all, log)
		if o.place >= 0 {
			heap.Remove(&r.queue, o.place)
		}
	case epoch == 0:
	case o != nil && epoch > o.epoch: // for a later doubt: that the one before took long says nothing
		o.epoch, o.tries, o.ended, o.due = epoch, 0, false, r.deps.Mono()+r.cfg.EndGrace
		if o.place >= 0 {
			heap.Fix(&r.queue, o.place)
		}
	case o != nil:
	default:
		o = &openReign{log: log, epoch: epoch, due: r.deps.Mono() + r.cfg.EndGrace}
		r.all[log] = o
		heap.Push(&r.queue, o)
	}
	r.mu.Unlock()
	r.run()
}

// run asks about those that are due, as many as may be.
func (r *reigns) run() {
	for {
		r.mu.Lock()
		now := r.deps.Mono()
		if r.closed || len(r.queue) == 0 || r.asking >= r.cfg.Ends {
			r.mu.Unlock()
			return
		}
		if at := max(r.queue[0].due, r.notUntil); at > now {
			r.arm(at, now)
			r.mu.Unlock()
			return
		}
		o := heap.Pop(&r.queue).(*openReign)
		r.asking++
		r.notUntil = now + r.cfg.EndPause
		epoch := o.epoch
		r.mu.Unlock()
		r.ask(o, epoch)
	}
}

// arm has run called at a time. mu is held.
func (r *reigns) arm(at, now time.Duration) {
	if r.wakeAt != 0 && r.wakeAt <= at {
		return
	}
	if r.disarm != nil {
		r.disarm()
	}
	r.wakeAt = at
	r.disarm = r.deps.AfterFunc(at-now, func() {
		r.mu.Lock()
		r.wakeAt, r.disarm = 0, nil
		r.mu.Unlock()
		r.run()
	})
}

// ask begins with the node that should number the log.
func (r *reigns) ask(o *openReign, epoch logs.Epoch) {
	to, ok := r.deps.Sequencers.Sequencer(o.log)
	if !ok {
		r.asked(o, fmt.Errorf("no node can number log %d", o.log))
		return
	}
	r.askNode(o, epoch, to, nil)
}

// redirectsMax is how often a question is sent on.
const redirectsMax = 3

// askNode asks one, and then whom it names. One that is named again is made to take
// the log.
func (r *reigns) askNode(o *openReign, epoch logs.Epoch, to catalog.NodeID, before []catalog.NodeID) {
	req := &wire.SequencerStateRequest{Log: uint64(o.log), SeenEpoch: uint32(epoch), Flags: logs.StateEndSeen}
	if slices.Contains(before, to) {
		req.Flags |= logs.StateNoRedirect | logs.StateReactivateIfPreempted
	}
	var once sync.Once
	stop := r.deps.AfterFunc(r.cfg.EndRetryMax, func() {
		once.Do(func() { r.asked(o, fmt.Errorf("node %d does not answer", to)) })
	})
	r.deps.Sequencers.SequencerState(to, req, func(resp *wire.SequencerStateResponse, err error) {
		answered := false
		once.Do(func() { answered = true })
		if !answered {
			return
		}
		stop()
		switch {
		case err != nil:
		case resp.Status == statusOK && logs.Epoch(resp.Epoch) > epoch:
		case resp.Redirect != 0 && len(before) < redirectsMax:
			r.askNode(o, epoch, catalog.NodeID(resp.Redirect), append(before, to))
			return
		default:
			err = fmt.Errorf("node %d: %s %s", to, resp.Status, resp.Message)
		}
		r.asked(o, err)
	})
}

// asked puts a log back, to be asked about later than last time, and has it compared
// if its sequencer says that the epoch is over.
func (r *reigns) asked(o *openReign, err error) {
	r.mu.Lock()
	r.asking--
	if r.all[o.log] == o && !r.closed {
		if ended := err == nil; ended != o.ended { // what is awaited now is its recovery, which has just begun
			if o.ended = ended; ended {
				o.tries = 0
			}
		}
		o.due = r.deps.Mono() + min(r.cfg.EndGrace<<min(o.tries, 16), r.cfg.EndRetryMax)
		o.tries++
		heap.Push(&r.queue, o)
	}
	tries, closed := o.tries, r.closed
	r.mu.Unlock()
	switch {
	case closed:
		return
	case err == nil:
		r.compare(o.log)
	case tries%8 == 0:
		r.deps.Logger.Warn("this node's shard may have lost copies of an epoch of a log that goes on, and nobody ends it", "log", o.log, "epoch", o.epoch, "error", err)
	}
	r.run()
}

// logs lists those that wait, ascending.
func (r *reigns) logs() []logs.LogID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []logs.LogID
	for id := range r.all {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func (r *reigns) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.disarm != nil {
		r.disarm()
		r.disarm = nil
	}
}

// reignQueue is a heap, by when its logs are due.
type reignQueue []*openReign

// Len is sort.Interface's.
func (q reignQueue) Len() int { return len(q) }

// Less is sort.Interface's.
func (q reignQueue) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[i].due, q[j].due), cmp.Compare(q[i].log, q[j].log)) < 0
}

// Swap is sort.Interface's.
func (q reignQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push is heap.Interface's.
func (q *reignQueue) Push(x any) {
	o := x.(*openReign)
	o.place = len(*q)
	*q = append(*q, o)
}

// Pop is heap.Interface's.
func (q *reignQueue) Pop() any {
	last := len(*q) - 1
	o := (*q)[last]
	(*q)[last] = nil
	*q, o.place = (*q)[:last], -1
	return o
}
