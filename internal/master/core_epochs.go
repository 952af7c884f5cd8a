package master

import (
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// Of a log's epoch each number is given out once, by compare-and-set on one epoch
// store. Two nodes that use different stores would both reign, and each would fence
// off what the other acknowledged, so the store is the cluster's and not a node's (M10).

// otherEpochs refuses a node that keeps epochs elsewhere than the cluster does.
func otherEpochs(c *catalog.Catalog, n *catalog.Node) *wire.Error {
	ours, theirs := c.GetLogEpochStore(), n.GetEpochStore()
	if ours == "" || theirs == "" || ours == theirs {
		return nil
	}
	return refuse(wire.Code_CODE_INVALID, "the cluster keeps the epochs of its logs on %s, for ever, and this node on %s: start it with the --epoch-store of the others",
		ours, theirs)
}

// noteEpochs takes the epoch store of the first node that says which.
func (c *change) noteEpochs(n *catalog.Node) {
	if c.next.LogEpochStore == "" && n.GetEpochStore() != "" {
		c.next.LogEpochStore, c.changed = n.EpochStore, true
	}
}
