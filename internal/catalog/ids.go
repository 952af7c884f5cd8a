package catalog

import (
	"fmt"
	"slices"
	"strings"
)

// Identities. Each is a type of its own so that the compiler refuses mixtures;
// all are given out by the master and never reused.
type (
	// NodeID names one data directory for its whole life. 0 is nobody.
	NodeID uint64
	// ReplicaID names one copy of a group on one node. It is the Raft peer id. 0 is nobody.
	ReplicaID uint64
	// GroupID names a Raft group. A tablet's id is its group's id.
	GroupID uint64
	// TableID names a table. It is the first component of every document's key.
	TableID uint32
)

// MasterGroup is the Raft group that holds the catalog.
const MasterGroup GroupID = 1

// SystemKeyspace and RedisTable name the table behind the Redis port; it is
// created with the cluster and always has the id RedisTableID.
const (
	SystemKeyspace         = "system"
	RedisTable             = "redis"
	RedisTableID   TableID = 1
)

// EpochTable is the table of the system keyspace that holds the epoch store. It is
// made when it is first needed, always with the columns below.
const EpochTable = "epochs"

// The columns of the epoch store's table. All but the record repeat what is in it,
// so that a write can be conditional on them.
const (
	EpochColumnLog     = "log"
	EpochColumnVersion = "version"
	EpochColumnEpoch   = "epoch"      // the next one to be given out
	EpochColumnClean   = "last_clean" // the last clean epoch
	EpochColumnRecord  = "record"
)

// Roles of a node, bits of Node.roles.
const (
	RoleMaster uint32 = 1 << iota
	RoleTablet
	RoleSequencer
	RoleStorage
	RoleAll = RoleMaster | RoleTablet | RoleSequencer | RoleStorage
)

// roleNames are the roles as people write them, in the order of their bits.
var roleNames = []string{"master", "tablet", "sequencer", "storage"}

// ParseRoles reads names of roles.
func ParseRoles(names []string) (uint32, error) {
	var roles uint32
	for _, name := range names {
		i := slices.Index(roleNames, name)
		if i < 0 {
			return 0, fmt.Errorf("%q is no role: there are %s", name, strings.Join(roleNames, ", "))
		}
		roles |= 1 << i
	}
	return roles, nil
}

// RoleNames names roles; 0 means all.
func RoleNames(roles uint32) (names []string) {
	for i, name := range roleNames {
		if roles == 0 || roles&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// Has says whether the node has a role.
func (n *Node) Has(role uint32) bool { return n.GetRoles() == 0 || n.GetRoles()&role != 0 }

// Gone says whether the node takes part in nothing: it has been silent for long, or
// was given up by hand.
func (n *Node) Gone() bool {
	return n.GetState() == NodeState_NODE_STATE_DEAD || n.Forgotten()
}

// Forgotten says whether the node was given up by hand: it never comes back, and what
// it alone held is lost.
func (n *Node) Forgotten() bool { return n.GetState() == NodeState_NODE_STATE_FORGOTTEN }
