package client

import (
	"context"
	"errors"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// routes is where the tablets of a table are, as of one catalog version. It is
// immutable but for the leaders, so that a lookup takes no lock.
type routes struct {
	desc    *catalog.Table
	version uint64   // of the catalog
	starts  []uint64 // tablets[i].start, beside one another for the search
	tablets []*tablet
}

// tablet is one tablet as the client knows it.
type tablet struct {
	id         catalog.GroupID
	start, end uint64
	replicas   []ReplicaInfo
	leader     atomic.Uint64 // node, 0 unknown; corrected by every answer
	running    *running      // survives refreshes; children of a split share their parent's
	pressure   *pressure     // likewise
}

// find gives the tablet that owns a hash. The tablets tile the hash space
// (checked in newRoutes), so there is one.
func (r *routes) find(hash uint64) *tablet {
	starts := r.starts
	i := sort.Search(len(starts), func(i int) bool { return starts[i] > hash })
	return r.tablets[i-1]
}

// newRoutes makes routes of an answer, keeping what the old ones know.
func newRoutes(resp *wire.LocationsResponse, old *routes) (*routes, error) {
	if resp.Table == nil || len(resp.Tablets) == 0 {
		return nil, newError(wire.Code_CODE_UNAVAILABLE, nil, "the answer names no tablets")
	}
	nodes := make(map[NodeID]NodeInfo, len(resp.Nodes))
	for _, n := range resp.Nodes {
		nodes[NodeID(n.Id)] = nodeInfo(n)
	}
	r := &routes{desc: resp.Table, version: resp.CatalogVersion}
	for _, l := range resp.Tablets {
		r.tablets = append(r.tablets, newTablet(l, nodes, old))
	}
	slices.SortFunc(r.tablets, func(a, b *tablet) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	var at uint64
	for i, tb := range r.tablets {
		last := i == len(r.tablets)-1
		if tb.start != at || (tb.end == 0) != last || (!last && tb.end <= tb.start) {
			return nil, newError(wire.Code_CODE_INTERNAL, nil, "tablets of table %d do not tile the hash space at %#x", r.desc.Id, at)
		}
		at = tb.end
		r.starts = append(r.starts, tb.start)
	}
	return r, nil
}

func newTablet(l *wire.TabletLocation, nodes map[NodeID]NodeInfo, old *routes) *tablet {
	d := l.Tablet
	tb := &tablet{id: catalog.GroupID(d.Id), start: d.HashStart, end: d.HashEnd}
	for _, rep := range d.Replicas {
		info, ok := nodes[NodeID(rep.Node)]
		if !ok {
			info.ID = NodeID(rep.Node)
		}
		tb.replicas = append(tb.replicas, ReplicaInfo{Node: info, Learner: rep.Role == catalog.Role_ROLE_LEARNER})
	}
	tb.leader.Store(l.LeaderNode)
	if old == nil {
		tb.running, tb.pressure = newRunning(), new(pressure)
		return tb
	}
	// The same tablet, or the parent that was split: its requests may still run.
	before := old.find(d.HashStart)
	tb.running, tb.pressure = before.running, before.pressure
	if l.LeaderNode == 0 && before.id == tb.id {
		tb.leader.Store(before.leader.Load())
	}
	return tb
}

func nodeInfo(n *catalog.Node) NodeInfo {
	return NodeInfo{
		ID: NodeID(n.Id), RPCAddr: n.RpcAddr, ClientAddr: n.ClientAddr, RedisAddr: n.RedisAddr,
		ConsoleAddr: n.ConsoleAddr, Location: n.Location, Version: n.Version,
		Draining: n.State == catalog.NodeState_NODE_STATE_DRAINING,
		Dead:     n.Gone(),
	}
}

// refresh asks for the routes again, in the background, one at a time.
func (t *Table) refresh() {
	t.mu.Lock()
	t.refreshLocked()
	t.mu.Unlock()
}

// refreshLocked reports false when the client is closed.
func (t *Table) refreshLocked() bool {
	if !t.mu.refreshing {
		t.mu.refreshing = t.client.spawn(t.fetch)
	}
	return t.mu.refreshing
}

// spawn starts a goroutine that Close waits for; it refuses once closed.
func (c *Client) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return false
	}
	c.running.Add(1)
	go func() {
		defer c.running.Done()
		f()
	}()
	return true
}

// wait parks a call until routes newer than the ones it knows are there, or
// until its time is up. It gives the routes when they are there already.
func (t *Table) wait(c *call) (newer *routes, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.routes.Load(); r != nil && r != c.routes {
		return r, nil
	}
	if !t.refreshLocked() {
		return nil, ErrClosed
	}
	t.mu.waiters = append(t.mu.waiters, c)
	clock := t.client.opts.Clock
	c.stopWait = clock.AfterFunc(max(0, c.limit().Sub(clock.Now())), func() { t.stopWaiting(c) })
	return nil, nil
}

// stopWaiting ends a call whose time is up, unless it is being dispatched.
func (t *Table) stopWaiting(c *call) {
	t.mu.Lock()
	i := slices.Index(t.mu.waiters, c)
	if i >= 0 {
		t.mu.waiters = slices.Delete(t.mu.waiters, i, i+1)
	}
	t.mu.Unlock()
	if i >= 0 {
		c.giveUp(nil)
	}
}

// fetch asks for the table's locations once, and lets everyone go on who waits
// for them.
func (t *Table) fetch() {
	c := t.client
	c.metrics.Refreshes.Add(1)
	ctx, cancel := context.WithCancel(c.ctx)
	stop := c.opts.Clock.AfterFunc(c.opts.Attempt, cancel)
	resp, err := c.transport.Locations(ctx, &wire.LocationsRequest{TableId: uint32(t.id)})
	stop()
	cancel()
	old := t.routes.Load()
	next := old
	switch {
	case err != nil:
		err = transportError(err)
	case resp.Error != nil:
		err = fromWire(resp.Error)
	case old != nil && resp.CatalogVersion < old.version:
		// A node that is behind: what we have is newer.
	default:
		var made *routes
		if made, err = newRoutes(resp, old); err == nil {
			next = made
		}
	}
	t.settle(next, err)
}

// settle publishes routes and dispatches the calls that waited for them. The
// first routes are published last, so that none that come later can overtake
// those (I5): they find no routes, and queue.
func (t *Table) settle(next *routes, err error) {
	if err == nil && t.routes.Load() != nil {
		t.routes.Store(next)
	}
	var watchers []chan<- error
	for {
		t.mu.Lock()
		waiters := t.mu.waiters
		t.mu.waiters = nil
		if len(waiters) == 0 {
			if err == nil {
				t.routes.Store(next)
			}
			t.mu.refreshing = false
			watchers, t.mu.watchers = t.mu.watchers, nil
		}
		t.mu.Unlock()
		if len(waiters) == 0 {
			break
		}
		for _, c := range waiters {
			c.stopWait()
			c.routed(next, err)
		}
	}
	for _, w := range watchers {
		w <- err
	}
}

// transportError classifies an error of the transport that concerns a request
// without effect.
func transportError(err error) error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, rpc.ErrOverloaded):
		return newError(wire.Code_CODE_OVERLOADED, err, "%v", err)
	}
	return newError(wire.Code_CODE_UNAVAILABLE, err, "%v", err)
}

// uncertain reports whether a request that ended with a transport's error may
// have had an effect.
func uncertain(err error) bool {
	if c := codeOf(err); c != wire.Code_CODE_OK {
		return c == wire.Code_CODE_UNKNOWN_OUTCOME || c == wire.Code_CODE_INTERNAL
	}
	return !errors.Is(err, rpc.ErrUnreachable) && !errors.Is(err, rpc.ErrOverloaded) &&
		!errors.Is(err, rpc.ErrTooLarge) && !errors.Is(err, rpc.ErrNoMethod)
}

// errTimeout reports whether err says that time ran out.
func errTimeout(err error) bool {
	return errors.Is(err, rpc.ErrDeadline) || errors.Is(err, context.DeadlineExceeded)
}

// remaining is what is left until a deadline, in milliseconds, at least one.
func remaining(now, deadline time.Time) int64 {
	return max(1, deadline.Sub(now).Milliseconds())
}
