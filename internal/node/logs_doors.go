package node

import (
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// logMethod serves one method of logs: in a request, and, once, its answer out.
type logMethod func(req rpc.Message, reply func(rpc.Message))

// served makes a logMethod of a typed one.
func served[Q, R rpc.Message](f func(req Q, reply func(R))) logMethod {
	return func(req rpc.Message, reply func(rpc.Message)) { f(req.(Q), func(r R) { reply(r) }) }
}

// logMethods is what this node serves of logs: to everybody, and to nodes alone.
// What belongs to a role that it does not have is answered with a status that
// says so.
func (n *Node) logMethods() (all, nodes map[rpc.Method]logMethod) {
	all = map[rpc.Method]logMethod{rpc.MethodClusterState: served(n.clusterState)}
	nodes = map[rpc.Method]logMethod{}
	if q := n.logs.sequencer; q != nil {
		all[rpc.MethodAppend] = served(q.Append)
		all[rpc.MethodSequencerState] = served(q.State)
	} else {
		all[rpc.MethodAppend] = served(func(_ *wire.AppendRequest, reply func(*wire.AppendResponse)) {
			reply(&wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_NOT_READY, Message: "this node has no sequencer role"})
		})
		all[rpc.MethodSequencerState] = served(func(_ *wire.SequencerStateRequest, reply func(*wire.SequencerStateResponse)) {
			reply(&wire.SequencerStateResponse{Status: wire.LogStatus_LOG_STATUS_NOT_READY, Message: "this node has no sequencer role"})
		})
	}
	if s := n.logs.store; s != nil {
		all[rpc.MethodReadStart], all[rpc.MethodReadNext], all[rpc.MethodReadStop] = served(s.ReadStart), served(s.ReadNext), served(s.ReadStop)
		all[rpc.MethodReadMetadata], all[rpc.MethodFindLSN], all[rpc.MethodTrim] = served(s.ReadMetadata), served(s.Find), served(s.Trim)
		all[rpc.MethodDataSize], all[rpc.MethodLogState], all[rpc.MethodRecords] = served(s.DataSize), served(s.LogState), served(s.Records)
		nodes[rpc.MethodSeal], nodes[rpc.MethodDigest], nodes[rpc.MethodClean] = served(s.Seal), served(s.Digest), served(s.Clean)
		nodes[rpc.MethodCheckSeal], nodes[rpc.MethodEpochRecovery] = served(s.CheckSeal), served(s.EpochRecovery)
		nodes[rpc.MethodProducerLookup] = served(s.ProducerLookup)
	} else {
		n.refuseStorage(all, nodes)
	}
	return all, nodes
}

// refuseStorage answers for a node that stores no logs.
func (n *Node) refuseStorage(all, nodes map[rpc.Method]logMethod) {
	const no = wire.LogStatus_LOG_STATUS_NOT_STORAGE
	answer := func(r rpc.Message) logMethod {
		return func(_ rpc.Message, reply func(rpc.Message)) { reply(r) }
	}
	all[rpc.MethodReadStart], all[rpc.MethodReadNext] = answer(&wire.ReadStartResponse{Status: no}), answer(&wire.ReadNextResponse{Status: no})
	all[rpc.MethodReadStop], all[rpc.MethodReadMetadata] = answer(&wire.ReadStopResponse{Status: no}), answer(&wire.ReadMetadataResponse{Status: no})
	all[rpc.MethodFindLSN], all[rpc.MethodTrim] = answer(&wire.FindResponse{Status: no}), answer(&wire.TrimResponse{Status: no})
	all[rpc.MethodDataSize], all[rpc.MethodLogState] = answer(&wire.DataSizeResponse{Status: no}), answer(&wire.LogStateResponse{Status: no})
	all[rpc.MethodRecords] = answer(&wire.RecordsResponse{Status: no})
	nodes[rpc.MethodSeal], nodes[rpc.MethodDigest] = answer(&wire.SealResponse{Status: no}), answer(&wire.DigestResponse{Status: no})
	nodes[rpc.MethodClean], nodes[rpc.MethodCheckSeal] = answer(&wire.CleanResponse{Status: no}), answer(&wire.CheckSealResponse{Status: no})
	nodes[rpc.MethodEpochRecovery], nodes[rpc.MethodProducerLookup] = answer(&wire.EpochRecoveryResponse{Status: no}), answer(&wire.ProducerLookupResponse{Status: no})
}

// handleLogs opens the doors of the log wing: the table of what is served is
// made when the storage is open, and until then calls are refused.
func (n *Node) handleLogs(s *rpc.Server) {
	serve := func(m rpc.Method) {
		s.Handle(m, nil, func(r *rpc.Request) {
			f, ok := n.logDoor(m)
			if !ok {
				return // not open: the caller's deadline ends it, and it asks another node
			}
			f(r.Msg, func(resp rpc.Message) { n.reply(r, resp) })
		})
	}
	for _, m := range logMethodsForAll {
		serve(m)
	}
	if s != n.nodeServer {
		return
	}
	for _, m := range logMethodsForNodes {
		serve(m)
	}
	s.Handle(rpc.MethodGossip, nil, n.whenOpen(nil, func(r *rpc.Request) { n.logs.gossip.Handle(r.Msg.(*wire.Gossip)) }))
	s.Handle(rpc.MethodLogBatch, nil, n.whenOpen(nil, func(r *rpc.Request) { n.handleLogBatch(r.Msg.(*wire.LogBatch)) }))
}

var logMethodsForAll = []rpc.Method{
	rpc.MethodClusterState, rpc.MethodAppend, rpc.MethodSequencerState, rpc.MethodReadStart, rpc.MethodReadNext, rpc.MethodReadStop,
	rpc.MethodReadMetadata, rpc.MethodFindLSN, rpc.MethodTrim, rpc.MethodDataSize, rpc.MethodLogState, rpc.MethodRecords,
}

var logMethodsForNodes = []rpc.Method{
	rpc.MethodSeal, rpc.MethodDigest, rpc.MethodClean, rpc.MethodCheckSeal, rpc.MethodEpochRecovery, rpc.MethodProducerLookup,
}

// openLogDoors makes the table of what is served.
func (n *Node) openLogDoors() {
	all, nodes := n.logMethods()
	for m, f := range nodes {
		all[m] = f
	}
	n.logDoors.Store(&all)
}

// logDoor finds what serves a method.
func (n *Node) logDoor(m rpc.Method) (logMethod, bool) {
	doors := n.logDoors.Load()
	if doors == nil || !n.opened.Load() || n.dead.Load() {
		return nil, false
	}
	f, ok := (*doors)[m]
	return f, ok
}

// handleLogBatch takes what another node has to say about logs: copies and
// releases for the store here, answers for the sequencer here.
func (n *Node) handleLogBatch(b *wire.LogBatch) {
	if len(b.Stored) > 0 {
		n.logs.takeStored(b)
	}
	if len(b.Stores) == 0 && len(b.Releases) == 0 {
		return
	}
	from := b.FromNode
	if n.logs.store == nil {
		n.sendStored(from, refuseStores(b))
		return
	}
	n.logs.store.HandleBatch(b, func(answers *wire.LogBatch) { n.sendStored(from, answers) })
}

func refuseStores(b *wire.LogBatch) *wire.LogBatch {
	out := new(wire.LogBatch)
	for _, s := range b.Stores {
		out.Stored = append(out.Stored, &wire.Stored{
			Log: s.Record.GetLog(), Lsn: s.Record.GetLsn(), Wave: s.Record.GetWave(), Cookie: s.Cookie, Status: wire.LogStatus_LOG_STATUS_NOT_STORAGE,
		})
	}
	return out
}
