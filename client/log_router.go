package client

import (
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
)

// logRouter finds the node that sequences one log, starting from a view of the
// cluster that may be old, with the help of nodes whose views may be old too. It
// is pure: it is told what a node answered and says whom to ask next.
//
//	begin ──▶ the node of the view ──▶ OK: stay with it
//	             │ redirected to another ──▶ ask that
//	             │   that was asked already: a cycle. Its highest node is made to take it
//	             │   that cannot be reached: the one who named it is made to take it
//	             │ cannot be reached ──▶ the node of the view without it
//	             └ too many answers ──▶ nobody: pause, newer view, begin again
//
// A node is made to take an append by AppendNoRedirect; and if it had said that it
// is preempted, by AppendReactivateIfPreempted too.
type logRouter struct {
	log      LogID
	affinity string
	view     *logs.Cluster

	at          NodeID // asked now; 0: nobody yet
	flags       uint32 // to ask it with
	hops        int    // answers since begin
	path        []hop  // who sent the append on, since begin
	unreachable []NodeID
}

type hop struct {
	node      NodeID
	preempted bool
}

// preemptedMax is how many nodes may say that they are preempted before nobody is
// believed to be a sequencer.
const preemptedMax = 3

// hopsMax bounds how often an append is sent on before there is a pause.
func (r *logRouter) hopsMax() int { return max(10, 3*len(r.view.Nodes)) }

// begin starts anew, from a view. Who has just taken appends is asked first,
// unless the view holds it for dead.
func (r *logRouter) begin(v *logs.Cluster, affinity string, last NodeID) bool {
	r.view, r.affinity = v, affinity
	r.flags, r.hops, r.path, r.unreachable = 0, 0, r.path[:0], r.unreachable[:0]
	if n, ok := v.Node(last); ok && placement.CanSequence(&n) {
		r.at = last
		return true
	}
	return r.locate()
}

// locate takes the node of the view, as if those that could not be reached were dead.
func (r *logRouter) locate() bool {
	v := r.view
	if len(r.unreachable) > 0 {
		v = &logs.Cluster{Nodes: slices.Clone(v.Nodes)}
		for i := range v.Nodes {
			if slices.Contains(r.unreachable, v.Nodes[i].ID) {
				v.Nodes[i].Alive = false
			}
		}
	}
	var ok bool
	r.at, ok = placement.SequencerNode(v, r.log, r.affinity)
	r.flags = 0
	return ok
}

// failed takes that the node asked could not be reached, or will not serve. False:
// everybody who could be asked has been: begin anew after a pause.
func (r *logRouter) failed() bool {
	r.hops++
	if !slices.Contains(r.unreachable, r.at) {
		r.unreachable = append(r.unreachable, r.at)
	}
	return r.hops < r.hopsMax() && r.locate()
}

// redirected takes that the node asked named another. False: nobody seems to
// sequence the log: begin anew after a pause.
func (r *logRouter) redirected(to NodeID, preempted bool) bool {
	from := r.at
	r.hops++
	r.path = append(r.path, hop{from, preempted})
	if r.hops >= r.hopsMax() || to == 0 || r.preemptions() > preemptedMax {
		return false
	}
	if slices.Contains(r.unreachable, to) {
		before := r.flags
		if r.force(from); r.flags == before {
			return r.failed() // it was made to take it, and will not
		}
		return true
	}
	if i := slices.IndexFunc(r.path, func(h hop) bool { return h.node == to }); i >= 0 {
		highest := NodeID(0)
		for _, h := range r.path[i:] {
			if !slices.Contains(r.unreachable, h.node) {
				highest = max(highest, h.node)
			}
		}
		r.force(highest)
		return true
	}
	r.at, r.flags = to, 0
	return true
}

// force has a node take the append itself.
func (r *logRouter) force(node NodeID) {
	r.at, r.flags = node, logs.AppendNoRedirect
	for _, h := range r.path {
		if h.node == node && h.preempted {
			r.flags |= logs.AppendReactivateIfPreempted
		}
	}
}

func (r *logRouter) preemptions() int {
	var nodes []NodeID
	for _, h := range r.path {
		if h.preempted && !slices.Contains(nodes, h.node) {
			nodes = append(nodes, h.node)
		}
	}
	return len(nodes)
}
