package master

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// A Former brings nodes that were started with one join list to found exactly
// one cluster (M8), or finds the cluster that there already is.
//
//	         HELLO, WELCOME            PREPARE, PROMISE         ACCEPT, ACCEPTED
//	alone ───────────────────▶ met ──────────────────────▶ asked ────────────▶ founded
//	  │    a majority, and all      a majority of the list   a majority of the list
//	  │    or the stragglers' time         ▲                     │
//	  │                                    └─────────────────────┘
//	  │                              refused or unanswered: a higher ballot, later
//	  └──────── MEMBER: somebody has a cluster ──▶ join it
//
// The founding (cluster id, members, first catalog) is decided as one decree of
// Paxos with the nodes of the list as acceptors: a founding that a majority has
// accepted is what every later ballot proposes, so two majorities cannot found
// two clusters. What a node has promised and accepted is durable before it says
// so, hence nodes may stop and start again at any point.
//
// A directory that is wiped while the cluster is being founded forgets what it
// accepted; where its vote was needed for the majority and the others that cast
// theirs are away, a second cluster can be founded. Both cannot serve: the first
// lacks the wiped directory's replicas.
//
// It is a core: it is stepped, and its effects are taken from Ready.
type Former struct {
	self *catalog.Node
	seat int      // of self in join; -1: it only looks for a cluster to join
	join []string // sorted addresses; whose nodes are the acceptors
	rand *rand.Rand
	o    FormOptions

	state *wire.BootstrapState // what is durable, once it has been taken from Ready and saved
	dirty bool
	out   []Envelope // to send once state is durable

	met        []meeting     // by position in join
	majorityAt time.Duration // since when a majority is met; -1: none is
	waited     bool          // for stragglers
	helloAt    time.Duration // when to greet next
	proposal   *proposal     // this node's own, under way
	tryAt      time.Duration // when to propose
	formed     *Formed
}

// meeting is what is known of the node at one address of the list.
type meeting struct {
	node    *catalog.Node // nil: not met
	at      time.Duration
	trouble error
}

// proposal is one ballot of this node's.
type proposal struct {
	ballot   *wire.Ballot
	promises map[int]*wire.BootstrapMessage
	founding *catalog.Catalog // nil until a majority has promised
	accepted map[int]bool
}

// FormOptions say how patient a Former is. Zero means the default.
type FormOptions struct {
	HelloEvery time.Duration // 100 ms
	Stragglers time.Duration // how long a majority waits for the rest; 2 s
	Attempt    time.Duration // how long a proposal may take, and nodes of higher addresses leave it to those of lower; 1 s
	First      First
}

func (o FormOptions) withDefaults() FormOptions {
	if o.HelloEvery == 0 {
		o.HelloEvery = 100 * time.Millisecond
	}
	if o.Stragglers == 0 {
		o.Stragglers = 2 * time.Second
	}
	if o.Attempt == 0 {
		o.Attempt = time.Second
	}
	return o
}

// Formed is how forming ended: in a founding that this node is a member of, or
// in a cluster that it is to join.
type Formed struct {
	ClusterID string
	Node      catalog.NodeID   // 0: not a member; ask for an id with JoinRequest
	Catalog   *catalog.Catalog // the founding; nil if only MEMBER told of the cluster
	Nodes     []*catalog.Node  // of the cluster, as far as known
	Leader    catalog.NodeID   // of the master's group, 0 if unknown
}

// Envelope is a message and the address it goes to.
type Envelope struct {
	To  string
	Msg *wire.BootstrapMessage
}

// Ready is what the host is to do, in this order.
type Ready struct {
	Save *wire.BootstrapState // make durable first, if not nil
	Send []Envelope           // then send; loss is no harm
}

// JoinListError says that a node of the list was started with another list.
type JoinListError struct {
	Addr         string
	Theirs, Ours []string
}

func (e *JoinListError) Error() string {
	return fmt.Sprintf("node %s was started with --join %s, this one with --join %s: start all with one list",
		e.Addr, strings.Join(e.Theirs, ","), strings.Join(e.Ours, ","))
}

// JoinList is the list in the form that all nodes agree on: sorted, each address
// once.
func JoinList(addrs []string) []string {
	list := slices.Clone(addrs)
	for i := range list {
		list[i] = strings.ToLower(strings.TrimSpace(list[i]))
	}
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(a string) bool { return a == "" })
}

// NewFormer starts forming. self carries the directory id, addresses and location
// of this node, and id 0; its RpcAddr is its place in the join list. saved is
// what an earlier life saved, or nil.
func NewFormer(self *catalog.Node, join []string, saved *wire.BootstrapState, rng *rand.Rand, o FormOptions) (*Former, error) {
	f := &Former{
		self: self.CloneVT(), join: JoinList(join), rand: rng, o: o.withDefaults(),
		state: &wire.BootstrapState{Format: bootstrapFormat}, majorityAt: -1,
	}
	f.seat = slices.Index(f.join, strings.ToLower(self.RpcAddr))
	f.met = make([]meeting, len(f.join))
	if len(f.join) == 0 {
		return nil, fmt.Errorf("the join list is empty")
	}
	if saved != nil {
		if len(saved.Join) > 0 && !slices.Equal(saved.Join, f.join) && !saved.Decided {
			return nil, &JoinListError{Addr: self.RpcAddr + " (its earlier start)", Theirs: saved.Join, Ours: f.join}
		}
		f.state = saved
	}
	f.state.Join = f.join
	if f.state.Decided {
		f.finish()
	}
	return f, nil
}

// Alone founds a cluster of one.
func Alone(self *catalog.Node, rng *rand.Rand, first First) *Formed {
	founding := FirstCatalog(newClusterID(rng), []*catalog.Node{self}, first)
	return &Formed{ClusterID: founding.ClusterId, Node: 1, Catalog: founding, Nodes: founding.Nodes}
}

func newClusterID(rng *rand.Rand) string {
	raw := make([]byte, 16)
	for i := range raw {
		raw[i] = byte(rng.Uint32())
	}
	return hex.EncodeToString(raw)
}

// Formed is how it ended, or nil while it has not; act on it once what Ready gave
// is saved. A node that is a member keeps
// answering others with AnswerBootstrap.
func (f *Former) Formed() *Formed { return f.formed }

// Trouble is what keeps the cluster from forming and needs an operator, or nil.
func (f *Former) Trouble() error {
	for _, m := range f.met {
		if m.trouble != nil {
			return m.trouble
		}
	}
	return nil
}

// Missing lists the addresses of the list that have not been heard of.
func (f *Former) Missing() (missing []string) {
	for i, addr := range f.join {
		if i != f.seat && f.met[i].node == nil {
			missing = append(missing, addr)
		}
	}
	return missing
}

// Ready takes the effects of all steps since it was last called.
func (f *Former) Ready() Ready {
	r := Ready{Send: f.out}
	if f.dirty {
		// Parts of the state are replaced, never changed, so it is enough to copy the top.
		r.Save = &wire.BootstrapState{
			Format: f.state.Format, Join: f.state.Join, Promised: f.state.Promised,
			Accepted: f.state.Accepted, Founding: f.state.Founding, Decided: f.state.Decided,
		}
	}
	f.out, f.dirty = nil, false
	return r
}

// Tick lets time pass.
func (f *Former) Tick(now time.Duration) {
	if f.formed != nil {
		return
	}
	if now >= f.helloAt {
		f.helloAt = now + f.o.HelloEvery
		f.broadcast(wire.BootstrapMessage_KIND_HELLO, nil, nil)
	}
	if f.seat < 0 {
		return
	}
	present := f.present(now)
	if len(present) < f.majority() {
		f.majorityAt, f.waited = -1, false
		return
	}
	if f.majorityAt < 0 {
		f.majorityAt = now
	}
	if len(present) < len(f.join) && now-f.majorityAt < f.o.Stragglers {
		return
	}
	if !f.waited {
		f.waited = true
		// The lowest address proposes at once, the others in case it does not.
		f.tryAt = max(f.tryAt, now+time.Duration(slices.Index(present, f.seat))*f.o.Attempt)
	}
	if now >= f.tryAt {
		f.propose(now)
	}
}

func (f *Former) majority() int { return len(f.join)/2 + 1 }

// present is the positions of the nodes heard of lately, this one included.
func (f *Former) present(now time.Duration) (list []int) {
	for i, m := range f.met {
		if i == f.seat || (m.node != nil && m.trouble == nil && now-m.at <= 10*f.o.HelloEvery) {
			list = append(list, i)
		}
	}
	return list
}

func (f *Former) send(to string, kind wire.BootstrapMessage_Kind, ballot *wire.Ballot, founding *catalog.Catalog) *wire.BootstrapMessage {
	m := &wire.BootstrapMessage{
		Kind: kind, From: f.self.RpcAddr, Node: f.self, Join: f.join, Ballot: ballot, Founding: founding,
	}
	f.out = append(f.out, Envelope{To: to, Msg: m})
	return m
}

// broadcast sends to every other address of the list.
func (f *Former) broadcast(kind wire.BootstrapMessage_Kind, ballot *wire.Ballot, founding *catalog.Catalog) {
	for i, addr := range f.join {
		if i != f.seat {
			f.send(addr, kind, ballot, founding)
		}
	}
}

// propose begins a ballot above every one that this node knows of. Its own
// promise is in the state that Ready gives before the messages: a node that
// stops after asking must not ask again under the same ballot.
func (f *Former) propose(now time.Duration) {
	ballot := &wire.Ballot{Round: f.state.GetPromised().GetRound() + 1, Proposer: f.join[f.seat]}
	f.state.Promised, f.dirty = ballot, true
	f.proposal = &proposal{
		ballot: ballot, accepted: map[int]bool{},
		promises: map[int]*wire.BootstrapMessage{f.seat: {Accepted: f.state.Accepted, Founding: f.state.Founding}},
	}
	f.yield(now)
	f.broadcast(wire.BootstrapMessage_KIND_PREPARE, ballot, nil)
	f.promisedBy(now)
}

// yield leaves time for a proposal, this node's or another's.
func (f *Former) yield(now time.Duration) {
	f.tryAt = now + f.o.Attempt + time.Duration(f.rand.Int64N(int64(f.o.Attempt)+1))
}

// higher reports whether a comes after b.
func higher(a, b *wire.Ballot) bool {
	if a.GetRound() != b.GetRound() {
		return a.GetRound() > b.GetRound()
	}
	return a.GetProposer() > b.GetProposer()
}

func equal(a, b *wire.Ballot) bool { return !higher(a, b) && !higher(b, a) }
