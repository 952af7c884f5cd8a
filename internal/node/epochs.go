package node

import (
	"fmt"

	"github.com/braiddb/braid/internal/logs/epochstore"
)

// epochStoreName is what the catalog calls the epoch store: all nodes must have one.
// The servers of a ZooKeeper may change, what is kept there may not.
func (c Config) epochStoreName() string {
	if c.EpochStore == "" || c.EpochStore == epochStoreTable {
		return epochStoreTable
	}
	_, root, err := epochstore.ParseZooKeeper(c.EpochStore)
	if err != nil {
		panic("BUG: a configuration with a bad epoch store was let through: " + err.Error())
	}
	return "zookeeper:" + root
}

// rightEpochs refuses to use an epoch store that is not the cluster's. The master
// ends a node that has another; until it has heard of it nothing is taken from there.
func (n *Node) rightEpochs() error {
	ours := n.index.Load().Catalog().GetLogEpochStore()
	if mine := n.cfg.epochStoreName(); ours != "" && ours != mine {
		return fmt.Errorf("the cluster keeps the epochs of its logs on %q, and this node on %q", ours, mine)
	}
	return nil
}
