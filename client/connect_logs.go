package client

import (
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// StartLog sends a request about logs. What ClusterState answers teaches the
// transport where nodes are.
func (t *remote) StartLog(node NodeID, m rpc.Method, req, resp rpc.Message, deadline time.Time, done func(error)) {
	if cs, ok := resp.(*wire.ClusterStateResponse); ok {
		told := done
		done = func(err error) {
			if err == nil {
				t.learn(descriptors(cs))
			}
			told(err)
		}
	}
	if node != 0 {
		c := (*t.nodes.Load())[node]
		if c == nil {
			done(errUnknownNode(node))
			return
		}
		c.Start(deadline, m, req, resp, done)
		return
	}
	peers := t.peers()
	peer := peers[int(t.at.Load())%len(peers)]
	peer.Start(deadline, m, req, resp, func(err error) {
		if err != nil {
			t.at.Add(1) // the next who asks anybody asks another
		}
		done(err)
	})
}

func descriptors(cs *wire.ClusterStateResponse) []*catalog.Node {
	nodes := make([]*catalog.Node, 0, len(cs.Nodes))
	for _, n := range cs.Nodes {
		if n.Descriptor_ != nil {
			nodes = append(nodes, n.Descriptor_)
		}
	}
	return nodes
}
