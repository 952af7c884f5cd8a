package master

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// Forgetting a node says that its data directory will never be read again. Nobody but
// a person can know that: a node that is silent may come back with all it acknowledged,
// and until somebody says otherwise the logs wait for it where nobody else can answer
// in its place. Of a forgotten node nothing is waited for any more; readers are told of
// records that only forgotten nodes can have had (M9).

// forgettable refuses to give a node up that was heard from a moment ago.
func (m *Master) forgettable(now time.Duration, x *catalog.Index, id catalog.NodeID) *wire.Error {
	n := x.Node(id)
	if n == nil || n.Forgotten() {
		return nil // for the catalog to say
	}
	m.mu.Lock()
	heard := m.heardLocked(id)
	m.mu.Unlock()
	if now-heard < m.o.SilentAfter {
		return refuse(wire.Code_CODE_UNAVAILABLE, "node %d may be alive: stop it; it can be forgotten once it has been silent for %v", id, m.o.SilentAfter)
	}
	return nil
}

// isForgotten is what a forgotten node is told when it comes back.
func isForgotten(id uint64) *wire.Error {
	return refuse(wire.Code_CODE_INVALID, "node %d was given up by hand (braid nodes forget), and the others went on without what it held: start it with an empty data directory", id)
}

// forget gives a node up for good. What may be lost by that must have been accepted.
func (c *change) forget(id uint64, lossAccepted bool) *wire.Error {
	n := c.node(id)
	switch {
	case n == nil:
		return refuse(wire.Code_CODE_NOT_FOUND, "no node %d", id)
	case n.Forgotten():
		return nil
	}
	gone := func(node uint64) bool { return node == id || c.node(node).Forgotten() }
	if losses := append(c.lostTablets(gone), c.lostLogs(gone)...); len(losses) > 0 && !lossAccepted {
		return refuse(wire.Code_CODE_INVALID, "without node %d %s: if it is gone for good all the same, accept the loss (--data-lost)",
			id, strings.Join(losses, ", and "))
	}
	c.setState(n, catalog.NodeState_NODE_STATE_FORGOTTEN)
	return nil
}

// lostTablets says which groups have no majority of voters but of nodes that are gone.
func (c *change) lostTablets(gone func(node uint64) bool) (losses []string) {
	var lost []string
	for _, g := range groupsOf(c.was) {
		voters, left := 0, 0
		for _, r := range g.Replicas {
			if r.Role != catalog.Role_ROLE_VOTER {
				continue
			}
			voters++
			if !gone(r.Node) {
				left++
			}
		}
		if 2*left <= voters {
			lost = append(lost, fmt.Sprint(g.Id))
		}
	}
	return losing(lost, "tablet %s has no majority of its copies left", "tablets %s have no majority of their copies left")
}

// lostLogs says which log groups may have records that lie only on nodes that are gone:
// those of which a copyset fits among them, as the groups are replicated now.
func (c *change) lostLogs(gone func(node uint64) bool) []string {
	var shards []placement.LogShard
	for _, n := range c.next.Nodes {
		if gone(n.Id) && n.Has(catalog.RoleStorage) {
			shards = append(shards, placement.ShardOf(n))
		}
	}
	var lost []string
	_ = c.was.Logs().Walk("/", func(e catalog.LogEntry) bool { // there always is a root
		if e.Group != nil {
			set := placement.NewShardSet(e.Attributes.GetReplication(), shards)
			if set.CanReplicate(placement.ShardUnheard) {
				lost = append(lost, e.Path)
			}
		}
		return true
	})
	return losing(lost, "records of log %s may have no copy left", "records of logs %s may have no copy left")
}

// namesMax is how many of what is lost are named.
const namesMax = 5

func losing(names []string, one, several string) []string {
	switch n := len(names); {
	case n == 0:
		return nil
	case n == 1:
		return []string{fmt.Sprintf(one, names[0])}
	case n > namesMax:
		names = append(slices.Clone(names[:namesMax]), fmt.Sprintf("%d more", n-namesMax))
	}
	return []string{fmt.Sprintf(several, strings.Join(names, ", "))}
}
