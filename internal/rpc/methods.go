package rpc

import (
	"fmt"

	"github.com/braiddb/braid/internal/wire"
)

// Message is what every generated message is.
type Message interface {
	SizeVT() int
	// MarshalToSizedBufferVT writes the message at the end of a buffer and
	// returns its length.
	MarshalToSizedBufferVT([]byte) (int, error)
	UnmarshalVT([]byte) error
	// UnmarshalVTUnsafe makes a message that aliases the buffer (R4).
	UnmarshalVTUnsafe([]byte) error
}

// Method numbers what a listener serves. Numbers are for ever.
type Method uint16

// The methods; the table below says everything about each.
const (
	MethodRaftBatch      Method = 1
	MethodBeat           Method = 2
	MethodTailQuery      Method = 3
	MethodSnapshotChunk  Method = 4
	MethodHello          Method = 5
	MethodJoin           Method = 6
	MethodHeartbeat      Method = 7
	MethodLocations      Method = 8
	MethodCatalog        Method = 9
	MethodWrite          Method = 10
	MethodRead           Method = 11
	MethodBootstrap      Method = 12
	MethodLogBatch       Method = 13
	MethodAppend         Method = 14
	MethodSequencerState Method = 15
	MethodSeal           Method = 16
	MethodDigest         Method = 17
	MethodClean          Method = 18
	MethodCheckSeal      Method = 19
	MethodEpochRecovery  Method = 20
	MethodProducerLookup Method = 21
	MethodReadStart      Method = 22
	MethodReadNext       Method = 23
	MethodReadStop       Method = 24
	MethodReadMetadata   Method = 25
	MethodFindLSN        Method = 26
	MethodTrim           Method = 27
	MethodDataSize       Method = 28
	MethodLogState       Method = 29
	MethodRecords        Method = 30
	MethodGossip         Method = 31
	MethodClusterState   Method = 32
	MethodQuery          Method = 33
	MethodTableRows      Method = 34
)

// Lane is one of the connections between two nodes. What must not wait behind
// something else has a lane of its own.
type Lane uint8

const (
	LaneBeat   Lane = 0 // promises between nodes: the failure detector
	LaneRaft   Lane = 1 // replication
	LaneClient Lane = 2 // requests of users
	LaneBulk   Lane = 3 // snapshots, readers of logs
	LaneLog    Lane = 4 // copies of log records
	// LaneControl is for what the cluster lives by: reports to the master, where
	// things are, who is alive, and what fences logs. No request of a user is in it.
	LaneControl Lane = 5

	lanes = 6
)

func (l Lane) String() string {
	switch l {
	case LaneBeat:
		return "beat"
	case LaneRaft:
		return "raft"
	case LaneClient:
		return "client"
	case LaneBulk:
		return "bulk"
	case LaneLog:
		return "log"
	case LaneControl:
		return "control"
	}
	return fmt.Sprintf("lane %d", uint8(l))
}

// Role is what a peer is; a listener serves one role.
type Role uint8

const (
	RoleNode   Role = 1 // another node of the cluster
	RoleClient Role = 2 // anybody else
)

func (r Role) String() string {
	switch r {
	case RoleNode:
		return "node"
	case RoleClient:
		return "client"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// methodInfo describes a method.
type methodInfo struct {
	name   string
	lane   Lane
	oneWay bool // sent, never answered
	node   bool // served by the listener for nodes
	client bool // served by the listener for clients
	// user: work of a user, refused early where too much waits (lag.go). All else
	// is what the cluster lives by, and is always taken.
	user bool
	// open: served before it is known that both belong to one cluster, for
	// those are how a node finds and joins its cluster.
	open bool
	req  func() Message
	resp func() Message // nil if one-way
}

var methods = [...]methodInfo{
	MethodRaftBatch: {name: "RaftBatch", lane: LaneRaft, oneWay: true, node: true,
		req: func() Message { return new(wire.RaftBatch) }},
	MethodBeat: {name: "Beat", lane: LaneBeat, oneWay: true, node: true,
		req: func() Message { return new(wire.Beat) }},
	MethodTailQuery: {name: "TailQuery", lane: LaneControl, node: true,
		req: func() Message { return new(wire.TailQuery) }, resp: func() Message { return new(wire.TailAnswer) }},
	MethodSnapshotChunk: {name: "SnapshotChunk", lane: LaneBulk, node: true,
		req: func() Message { return new(wire.SnapshotChunk) }, resp: func() Message { return new(wire.SnapshotAck) }},
	MethodHello: {name: "Hello", lane: LaneControl, node: true, client: true, open: true,
		req: func() Message { return new(wire.HelloRequest) }, resp: func() Message { return new(wire.HelloResponse) }},
	MethodJoin: {name: "Join", lane: LaneControl, node: true, open: true,
		req: func() Message { return new(wire.JoinRequest) }, resp: func() Message { return new(wire.JoinResponse) }},
	MethodBootstrap: {name: "Bootstrap", lane: LaneControl, oneWay: true, node: true, open: true,
		req: func() Message { return new(wire.BootstrapMessage) }},
	MethodHeartbeat: {name: "Heartbeat", lane: LaneControl, node: true,
		req: func() Message { return new(wire.HeartbeatRequest) }, resp: func() Message { return new(wire.HeartbeatResponse) }},
	MethodLocations: {name: "Locations", lane: LaneControl, node: true, client: true,
		req: func() Message { return new(wire.LocationsRequest) }, resp: func() Message { return new(wire.LocationsResponse) }},
	MethodCatalog: {name: "Catalog", lane: LaneControl, node: true, client: true,
		req: func() Message { return new(wire.CatalogRequest) }, resp: func() Message { return new(wire.CatalogResponse) }},
	MethodWrite: {name: "Write", lane: LaneClient, user: true, node: true, client: true,
		req: func() Message { return new(wire.WriteRequest) }, resp: func() Message { return new(wire.WriteResponse) }},
	MethodRead: {name: "Read", lane: LaneClient, user: true, node: true, client: true,
		req: func() Message { return new(wire.ReadRequest) }, resp: func() Message { return new(wire.ReadResponse) }},
	MethodLogBatch: {name: "LogBatch", lane: LaneLog, oneWay: true, node: true,
		req: func() Message { return new(wire.LogBatch) }},
	MethodAppend: {name: "Append", lane: LaneClient, user: true, node: true, client: true,
		req: func() Message { return new(wire.AppendRequest) }, resp: func() Message { return new(wire.AppendResponse) }},
	MethodSequencerState: {name: "SequencerState", lane: LaneClient, node: true, client: true,
		req: func() Message { return new(wire.SequencerStateRequest) }, resp: func() Message { return new(wire.SequencerStateResponse) }},
	MethodSeal: {name: "Seal", lane: LaneControl, node: true,
		req: func() Message { return new(wire.SealRequest) }, resp: func() Message { return new(wire.SealResponse) }},
	MethodDigest: {name: "Digest", lane: LaneBulk, node: true,
		req: func() Message { return new(wire.DigestRequest) }, resp: func() Message { return new(wire.DigestResponse) }},
	MethodClean: {name: "Clean", lane: LaneControl, node: true,
		req: func() Message { return new(wire.CleanRequest) }, resp: func() Message { return new(wire.CleanResponse) }},
	MethodCheckSeal: {name: "CheckSeal", lane: LaneControl, node: true,
		req: func() Message { return new(wire.CheckSealRequest) }, resp: func() Message { return new(wire.CheckSealResponse) }},
	MethodEpochRecovery: {name: "EpochRecovery", lane: LaneBulk, node: true,
		req: func() Message { return new(wire.EpochRecoveryRequest) }, resp: func() Message { return new(wire.EpochRecoveryResponse) }},
	MethodProducerLookup: {name: "ProducerLookup", lane: LaneBulk, node: true,
		req: func() Message { return new(wire.ProducerLookupRequest) }, resp: func() Message { return new(wire.ProducerLookupResponse) }},
	MethodReadStart: {name: "ReadStart", lane: LaneBulk, node: true, client: true,
		req: func() Message { return new(wire.ReadStartRequest) }, resp: func() Message { return new(wire.ReadStartResponse) }},
	MethodReadNext: {name: "ReadNext", lane: LaneBulk, node: true, client: true,
		req: func() Message { return new(wire.ReadNextRequest) }, resp: func() Message { return new(wire.ReadNextResponse) }},
	MethodReadStop: {name: "ReadStop", lane: LaneBulk, node: true, client: true,
		req: func() Message { return new(wire.ReadStopRequest) }, resp: func() Message { return new(wire.ReadStopResponse) }},
	MethodReadMetadata: {name: "ReadMetadata", lane: LaneBulk, node: true, client: true,
		req: func() Message { return new(wire.ReadMetadataRequest) }, resp: func() Message { return new(wire.ReadMetadataResponse) }},
	MethodFindLSN: {name: "FindLSN", lane: LaneBulk, node: true, client: true,
		req: func() Message { return new(wire.FindRequest) }, resp: func() Message { return new(wire.FindResponse) }},
	MethodTrim: {name: "Trim", lane: LaneBulk, node: true, client: true,
		req: func() Message { return new(wire.TrimRequest) }, resp: func() Message { return new(wire.TrimResponse) }},
	MethodDataSize: {name: "DataSize", lane: LaneBulk, node: true, client: true,
		req: func() Message { return new(wire.DataSizeRequest) }, resp: func() Message { return new(wire.DataSizeResponse) }},
	MethodLogState: {name: "LogState", lane: LaneBulk, node: true, client: true,
		req: func() Message { return new(wire.LogStateRequest) }, resp: func() Message { return new(wire.LogStateResponse) }},
	MethodRecords: {name: "Records", lane: LaneBulk, node: true, client: true,
		req: func() Message { return new(wire.RecordsRequest) }, resp: func() Message { return new(wire.RecordsResponse) }},
	MethodGossip: {name: "Gossip", lane: LaneBeat, oneWay: true, node: true,
		req: func() Message { return new(wire.Gossip) }},
	MethodClusterState: {name: "ClusterState", lane: LaneControl, node: true, client: true,
		req: func() Message { return new(wire.ClusterStateRequest) }, resp: func() Message { return new(wire.ClusterStateResponse) }},
	MethodQuery: {name: "Query", lane: LaneBulk, node: true, client: true,
		req: func() Message { return new(wire.QueryRequest) }, resp: func() Message { return new(wire.QueryResponse) }},
	MethodTableRows: {name: "TableRows", lane: LaneBulk, node: true,
		req: func() Message { return new(wire.TableRowsRequest) }, resp: func() Message { return new(wire.TableRowsResponse) }},
}

// info describes m, nil if there is no such method.
func (m Method) info() *methodInfo {
	if int(m) < len(methods) && methods[m].req != nil {
		return &methods[m]
	}
	return nil
}

// mustInfo is info for methods that the program itself names.
func (m Method) mustInfo() *methodInfo {
	i := m.info()
	if i == nil {
		panic(fmt.Sprintf("BUG: no method %d", uint16(m)))
	}
	return i
}

func (m Method) String() string {
	if i := m.info(); i != nil {
		return i.name
	}
	return fmt.Sprintf("method %d", uint16(m))
}

// NewResponse makes an empty response of a method, nil if it has none.
func (m Method) NewResponse() Message {
	if i := m.info(); i != nil && i.resp != nil {
		return i.resp()
	}
	return nil
}

func (i *methodInfo) servedTo(r Role) bool {
	return (r == RoleNode && i.node) || (r == RoleClient && i.client)
}
