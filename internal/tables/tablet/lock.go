package tablet

import (
	"sync"
	"time"
)

// Intent is a set of lock intents on one path. Strong is for the path that an
// operation works on, weak for every prefix of it.
type Intent uint8

const (
	WeakRead Intent = 1 << iota
	WeakWrite
	StrongRead
	StrongWrite

	intentKinds = 4
	intentAll   = WeakRead | WeakWrite | StrongRead | StrongWrite
)

// weak is what a prefix of a path gets where the path itself gets i.
func (i Intent) weak() Intent {
	return (i&StrongRead)>>2 | (i&StrongWrite)>>2 | i&(WeakRead|WeakWrite)
}

// conflicting[s] is the set of intents that conflict with some intent of s. Two
// intents conflict if at least one is strong and one reads what the other
// writes: blind writes of one cell do not exclude each other, and neither do
// two requests that only pass through a prefix.
var conflicting = func() (table [intentAll + 1]Intent) {
	for s := range table {
		for a := Intent(1); a <= intentAll; a <<= 1 {
			for b := Intent(1); b <= intentAll; b <<= 1 {
				strong := (a|b)&(StrongRead|StrongWrite) != 0
				reads := func(i Intent) bool { return i&(WeakRead|StrongRead) != 0 }
				if Intent(s)&a != 0 && strong && reads(a) != reads(b) {
					table[s] |= b
				}
			}
		}
	}
	return table
}()

// lockTable is the lock manager of a tablet's leader. A request names every
// path it needs at once and gets all or none (so nothing ever deadlocks); one
// that cannot have them waits behind what came before it and conflicts with it
// (so nothing ever starves). It holds nothing on followers: locks are taken by
// writes under a lease and given back with the outcome of the write's proposal,
// which a lost leadership brings for all of them.
//
//	paths ── id ──> lockPath ── held      counts by intent
//	                         ── waiting   counts by intent
//	                         ── first <-> ... <-> last   waiting wants, oldest first
//
// A path is known by a 64-bit hash of its bytes. Two paths that collide share a
// lock: they wait for each other without need, and nothing else happens.
//
// Invariants:
//
//	L1. No two holders have conflicting intents on a path.
//	L2. A waiter is granted only when it conflicts with no holder and with no
//	    waiter older than itself, on any of its paths. Waits therefore lead to
//	    older requests only: no cycle, no starvation.
//	L3. A path with neither holder nor waiter is not in the map.
type lockTable struct {
	mu struct {
		sync.Mutex
		root     lockPath // the empty path, prefix of all: no lookup for it
		paths    map[uint64]*lockPath
		free     []*lockPath
		sequence uint64
		waiters  lockList // oldest first, for deadlines
	}
}

// pathsFreeMax bounds the paths kept for reuse.
const pathsFreeMax = 1024

// rootPath is the id of the empty path.
const rootPath uint64 = 0

type lockPath struct {
	id      uint64
	held    intentCounts
	waiting intentCounts
	first   *lockWant
	last    *lockWant
}

// intentCounts counts intents and keeps the set of those present.
type intentCounts struct {
	count [intentKinds]uint32
	set   Intent
}

func (c *intentCounts) add(i Intent) {
	for k := range c.count {
		if i&(1<<k) != 0 {
			c.count[k]++
		}
	}
	c.set |= i
}

func (c *intentCounts) remove(i Intent) {
	for k := range c.count {
		if i&(1<<k) == 0 {
			continue
		}
		if c.count[k] == 0 {
			panic("BUG: an intent is given back that nobody holds")
		}
		if c.count[k]--; c.count[k] == 0 {
			c.set &^= 1 << k
		}
	}
}

// without is the set that would remain if i were removed.
func (c *intentCounts) without(i Intent) (set Intent) {
	set = c.set
	for k := range c.count {
		if i&(1<<k) != 0 && c.count[k] == 1 {
			set &^= 1 << k
		}
	}
	return set
}

// lockWant is one path of a request.
type lockWant struct {
	id      uint64
	intents Intent
	path    *lockPath
	owner   *lockRequest
	prev    *lockWant // in the path's queue while waiting
	next    *lockWant
}

type lockState uint8

const (
	lockIdle lockState = iota
	lockWaiting
	lockHeld
)

// lockRequest is everything one write locks. It is part of the write, so that a
// parked write is a value which is resumed, not a stack that waits.
type lockRequest struct {
	wants    []lockWant
	inline   [2]lockWant // root and one document: the common case allocates nothing
	state    lockState
	sequence uint64
	deadline time.Time // guarded by the table while waiting; zero: none
	write    *write    // whose it is
	prev     *lockRequest
	next     *lockRequest
}

// want adds intents on a path, merged with those already wanted on it. It is
// called before acquire only.
func (r *lockRequest) want(id uint64, i Intent) {
	for k := range r.wants {
		if r.wants[k].id == id {
			r.wants[k].intents |= i
			return
		}
	}
	if r.wants == nil {
		r.wants = r.inline[:0]
	}
	r.wants = append(r.wants, lockWant{id: id, intents: i})
}

func newLockTable() *lockTable {
	t := &lockTable{}
	t.mu.paths = make(map[uint64]*lockPath)
	return t
}

// acquire takes all of r's paths and reports true, or queues r for all of them
// and reports false: then r comes out of a later release, cancel, expire or
// drain, exactly once.
func (t *lockTable) acquire(r *lockRequest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.state != lockIdle {
		panic("BUG: a lock request is used twice")
	}
	free := true
	for k := range r.wants {
		w := &r.wants[k]
		w.owner, w.path = r, t.pathLocked(w.id)
		if conflicting[w.intents]&(w.path.held.set|w.path.waiting.set) != 0 {
			free = false
		}
	}
	if free {
		r.hold()
		return true
	}
	t.mu.sequence++
	r.sequence, r.state = t.mu.sequence, lockWaiting
	for k := range r.wants {
		r.wants[k].enqueue()
	}
	t.mu.waiters.push(r)
	return false
}

// release gives back what r holds and appends to granted the waiters that now
// hold theirs.
func (t *lockTable) release(r *lockRequest, granted []*lockRequest) []*lockRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.state != lockHeld {
		panic("BUG: a lock request is released that holds nothing")
	}
	r.state = lockIdle
	for k := range r.wants {
		r.wants[k].path.held.remove(r.wants[k].intents)
	}
	return t.leaveLocked(r, granted)
}

// cancel takes a waiting r out and reports true. It reports false when r does
// not wait: it was granted or cancelled before.
func (t *lockTable) cancel(r *lockRequest, granted []*lockRequest) ([]*lockRequest, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.state != lockWaiting {
		return granted, false
	}
	return t.cancelLocked(r, granted), true
}

// expire cancels every waiter whose deadline is not after now, and tells the
// earliest deadline of those that still wait (zero: none).
func (t *lockTable) expire(now time.Time) (expired, granted []*lockRequest, earliest time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for r := t.mu.waiters.first; r != nil; r = r.next {
		if !r.deadline.IsZero() && !r.deadline.After(now) {
			expired = append(expired, r)
		}
	}
	for _, r := range expired {
		if r.state == lockWaiting { // a waiter granted by an earlier cancel of this loop stays granted
			granted = t.cancelLocked(r, granted)
		}
	}
	expired = keepIdle(expired)
	for r := t.mu.waiters.first; r != nil; r = r.next {
		if !r.deadline.IsZero() && (earliest.IsZero() || r.deadline.Before(earliest)) {
			earliest = r.deadline
		}
	}
	return expired, granted, earliest
}

// extend moves the deadline of a waiting r outwards; later is ignored otherwise.
func (t *lockTable) extend(r *lockRequest, later time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.state == lockWaiting && !r.deadline.IsZero() && (later.IsZero() || later.After(r.deadline)) {
		r.deadline = later
	}
}

// drain cancels every waiter, granting none.
func (t *lockTable) drain() (cancelled []*lockRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for r := t.mu.waiters.first; r != nil; r = t.mu.waiters.first {
		t.dequeueLocked(r)
		r.state = lockIdle
		for k := range r.wants {
			t.recycleLocked(r.wants[k].path)
		}
		cancelled = append(cancelled, r)
	}
	return cancelled
}

// size tells how many paths are locked or waited for, and how many requests wait.
func (t *lockTable) size() (paths, waiters int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.mu.paths), t.mu.waiters.len
}

func keepIdle(requests []*lockRequest) []*lockRequest {
	kept := requests[:0]
	for _, r := range requests {
		if r.state == lockIdle {
			kept = append(kept, r)
		}
	}
	return kept
}

func (t *lockTable) cancelLocked(r *lockRequest, granted []*lockRequest) []*lockRequest {
	t.dequeueLocked(r)
	r.state = lockIdle
	return t.leaveLocked(r, granted)
}

// leaveLocked grants whoever r was in the way of, and lets go of r's paths.
func (t *lockTable) leaveLocked(r *lockRequest, granted []*lockRequest) []*lockRequest {
	for k := range r.wants {
		w := &r.wants[k]
		// Whoever waits for other reasons than w's intents still waits for
		// them: on the root, where everyone is weak, nobody is looked at.
		if conflicting[w.intents]&w.path.waiting.set != 0 {
			granted = t.wakeLocked(w.path, granted)
		}
	}
	for k := range r.wants {
		t.recycleLocked(r.wants[k].path)
	}
	return granted
}

// wakeLocked grants, oldest first, the waiters of p that nothing older or held
// excludes (L2). It stops where what is held or older excludes everything, so
// that a queue on a hot key costs one look per release.
func (t *lockTable) wakeLocked(p *lockPath, granted []*lockRequest) []*lockRequest {
	var older Intent
	for w := p.first; w != nil; {
		if conflicting[p.held.set|older] == intentAll {
			break
		}
		next := w.next
		if w.owner.grantable() {
			t.dequeueLocked(w.owner)
			w.owner.hold()
			granted = append(granted, w.owner)
		} else {
			older |= w.intents
		}
		w = next
	}
	return granted
}

func (t *lockTable) dequeueLocked(r *lockRequest) {
	for k := range r.wants {
		r.wants[k].dequeue()
	}
	t.mu.waiters.remove(r)
}

func (t *lockTable) pathLocked(id uint64) *lockPath {
	if id == rootPath {
		return &t.mu.root
	}
	p := t.mu.paths[id]
	if p == nil {
		if n := len(t.mu.free); n > 0 {
			p, t.mu.free = t.mu.free[n-1], t.mu.free[:n-1]
		} else {
			p = new(lockPath)
		}
		p.id = id
		t.mu.paths[id] = p
	}
	return p
}

// recycleLocked forgets p if nobody holds it or waits for it (L3).
func (t *lockTable) recycleLocked(p *lockPath) {
	if p.id == rootPath || p.held.set != 0 || p.waiting.set != 0 {
		return
	}
	delete(t.mu.paths, p.id)
	p.id = rootPath // a second call for the same path finds it gone
	if len(t.mu.free) < pathsFreeMax {
		t.mu.free = append(t.mu.free, p)
	}
}

// hold turns r into a holder of all it wants.
func (r *lockRequest) hold() {
	r.state = lockHeld
	for k := range r.wants {
		r.wants[k].path.held.add(r.wants[k].intents)
	}
}

// grantable is L2.
func (r *lockRequest) grantable() bool {
	for k := range r.wants {
		w := &r.wants[k]
		against := conflicting[w.intents]
		if against&w.path.held.set != 0 {
			return false
		}
		if against&w.path.waiting.without(w.intents) == 0 {
			continue // no waiter at all is in the way: the usual answer, without a walk
		}
		for o := w.path.first; o != w; o = o.next {
			if against&o.intents != 0 {
				return false
			}
		}
	}
	return true
}

// enqueue puts w last: requests enter all their queues at once, so every queue
// is in the order of sequence.
func (w *lockWant) enqueue() {
	p := w.path
	p.waiting.add(w.intents)
	w.prev, w.next = p.last, nil
	if p.last != nil {
		p.last.next = w
	} else {
		p.first = w
	}
	p.last = w
}

func (w *lockWant) dequeue() {
	p := w.path
	p.waiting.remove(w.intents)
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		p.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		p.last = w.prev
	}
	w.prev, w.next = nil, nil
}

// lockList is the waiting requests, oldest first.
type lockList struct {
	first, last *lockRequest
	len         int
}

func (l *lockList) push(r *lockRequest) {
	r.prev, r.next = l.last, nil
	if l.last != nil {
		l.last.next = r
	} else {
		l.first = r
	}
	l.last = r
	l.len++
}

func (l *lockList) remove(r *lockRequest) {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		l.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		l.last = r.prev
	}
	r.prev, r.next = nil, nil
	l.len--
}
