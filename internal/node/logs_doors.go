package node

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

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
		refuse(all, []rpc.Method{rpc.MethodAppend, rpc.MethodSequencerState}, wire.LogStatus_LOG_STATUS_NOT_READY, "this node has no sequencer role")
	}
	if s := n.logs.store; s != nil {
		all[rpc.MethodReadStart], all[rpc.MethodReadNext], all[rpc.MethodReadStop] = served(s.ReadStart), served(s.ReadNext), served(s.ReadStop)
		all[rpc.MethodReadMetadata], all[rpc.MethodFindLSN], all[rpc.MethodTrim] = served(s.ReadMetadata), served(s.Find), served(s.Trim)
		all[rpc.MethodDataSize], all[rpc.MethodLogState], all[rpc.MethodRecords] = served(s.DataSize), served(s.LogState), served(s.Records)
		nodes[rpc.MethodSeal], nodes[rpc.MethodDigest], nodes[rpc.MethodClean] = served(s.Seal), served(s.Digest), served(s.Clean)
		nodes[rpc.MethodCheckSeal], nodes[rpc.MethodEpochRecovery] = served(s.CheckSeal), served(s.EpochRecovery)
		nodes[rpc.MethodProducerLookup] = served(s.ProducerLookup)
	} else {
		refuse(all, storageMethodsForAll, wire.LogStatus_LOG_STATUS_NOT_STORAGE, "this node has no storage role")
		refuse(nodes, storageMethodsForNodes, wire.LogStatus_LOG_STATUS_NOT_STORAGE, "this node has no storage role")
	}
	return all, nodes
}

// refuse has methods answered with a status that says why they are not served.
func refuse(doors map[rpc.Method]logMethod, methods []rpc.Method, status wire.LogStatus, why string) {
	for _, m := range methods {
		doors[m] = func(_ rpc.Message, reply func(rpc.Message)) { reply(refusal(m, status, why)) }
	}
}

// refusal is a method's answer with nothing but a status and its cause in words,
// as far as the answer has places for them.
func refusal(m rpc.Method, status wire.LogStatus, why string) rpc.Message {
	resp := m.NewResponse()
	r := resp.(proto.Message).ProtoReflect()
	if f := r.Descriptor().Fields().ByName("status"); f != nil {
		r.Set(f, protoreflect.ValueOfEnum(status.Number()))
	}
	if f := r.Descriptor().Fields().ByName("message"); f != nil {
		r.Set(f, protoreflect.ValueOfString(why))
	}
	return resp
}

// handleLogs opens the doors of the log wing: the table of what is served is
// made when the storage is open, and until then calls are refused.
func (n *Node) handleLogs(s *rpc.Server) {
	serve := func(m rpc.Method) {
		s.Handle(m, nil, func(r *rpc.Request) {
			f, ok := n.logDoor(m)
			if !ok {
				n.reply(r, refusal(m, wire.LogStatus_LOG_STATUS_NOT_READY, "the node is starting or stopping, or has no catalog yet"))
				return
			}
			f(r.Msg, func(resp rpc.Message) { n.reply(r, resp) })
		})
	}
	for _, m := range append([]rpc.Method{rpc.MethodClusterState, rpc.MethodAppend, rpc.MethodSequencerState}, storageMethodsForAll...) {
		serve(m)
	}
	if s != n.nodeServer {
		return
	}
	for _, m := range storageMethodsForNodes {
		serve(m)
	}
	s.Handle(rpc.MethodGossip, nil, n.whenOpen(nil, func(r *rpc.Request) { n.logs.gossip.Handle(r.Msg.(*wire.Gossip)) }))
	s.Handle(rpc.MethodLogBatch, nil, n.whenOpen(nil, func(r *rpc.Request) { n.handleLogBatch(r.Msg.(*wire.LogBatch)) }))
}

// What a storage node serves, to everybody and to nodes alone.
var (
	storageMethodsForAll = []rpc.Method{
		rpc.MethodReadStart, rpc.MethodReadNext, rpc.MethodReadStop, rpc.MethodReadMetadata, rpc.MethodFindLSN, rpc.MethodTrim,
		rpc.MethodDataSize, rpc.MethodLogState, rpc.MethodRecords,
	}
	storageMethodsForNodes = []rpc.Method{
		rpc.MethodSeal, rpc.MethodDigest, rpc.MethodClean, rpc.MethodCheckSeal, rpc.MethodEpochRecovery, rpc.MethodProducerLookup,
	}
)

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
	// A node that started while there was no master has not heard of any log: it
	// must not say of one that it does not exist, which callers take for final.
	if (m == rpc.MethodAppend || m == rpc.MethodSequencerState) && n.index.Load().Version() == 0 {
		return nil, false
	}
	f, ok := (*doors)[m]
	if ok && (m == rpc.MethodAppend || m == rpc.MethodSequencerState) {
		f = n.unlessUnheard(m, f)
	}
	return f, ok
}

// heardLately is how old a catalog may be for a node to say that there is no such
// log: half of the time for which clients do not believe it.
const heardLately = time.Second

// unlessUnheard serves a method, but for the word that there is no such log, where
// the master was not heard of lately: it may have been made since.
func (n *Node) unlessUnheard(m rpc.Method, f logMethod) logMethod {
	if n.deps.Mono()-time.Duration(n.heardMaster.Load()) <= heardLately {
		return f
	}
	return func(req rpc.Message, reply func(rpc.Message)) {
		f(req, func(resp rpc.Message) {
			if r, ok := resp.(interface{ GetStatus() wire.LogStatus }); ok && r.GetStatus() == wire.LogStatus_LOG_STATUS_NOT_FOUND {
				resp = refusal(m, wire.LogStatus_LOG_STATUS_NOT_READY, "this node knows of no such log, and did not hear of the master lately")
			}
			reply(resp)
		})
	}
}

// handleLogBatch takes what another node has to say about logs: copies and
// releases for the store here, answers for the sequencer here.
func (n *Node) handleLogBatch(b *wire.LogBatch) {
	if len(b.Stored)+len(b.Released) > 0 {
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
