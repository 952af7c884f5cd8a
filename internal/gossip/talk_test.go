package gossip

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// TestConversations plays the files of testdata: events in, effects out. A file
// is run with -rewrite to record it anew; the difference is to be read.
//
//	nodes ids=(1,2,3) [at=(eu/a,eu/a,us/a)]  the catalog's nodes; new ones begin
//	ready node=1 | starting node=1           it can sequence, or not
//	tick [n=20] [without=2] [quiet]          intervals pass, messages arrive
//	cut a=1 b=2 | heal                       nothing passes between them
//	crash node=3 [refuses]                   it ends; its address refuses
//	restart node=3                           a new instance begins
//	failover node=3                          it is about to stop
//	declare node=3 dead                      so says the catalog
//	hearsay to=1 from=2 node=3 instance=1 counter=9 [leaving]
//	refused node=1 by=3                      a probe that came back late
//	show node=1                              its rows, its view
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 7 {
		t.Fatalf("%d conversations: %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			x := &talk{t: t, cut: map[[2]catalog.NodeID]bool{}}
			datadriven.RunTest(t, f, x.command)
		})
	}
}

type talk struct {
	t       *testing.T
	now     time.Duration
	nodes   []*talker
	catalog []*catalog.Node
	cut     map[[2]catalog.NodeID]bool
	out     []string
	quiet   bool
}

type talker struct {
	x        *talk
	id       catalog.NodeID
	instance uint64
	core     *core
	down     bool
	refuses  bool
	was      map[catalog.NodeID]string
	probed   map[catalog.NodeID]int
}

func (x *talk) say(format string, args ...any) {
	if !x.quiet {
		x.out = append(x.out, fmt.Sprintf(format, args...))
	}
}

func (x *talk) node(id catalog.NodeID) *talker {
	for _, n := range x.nodes {
		if n.id == id {
			return n
		}
	}
	n := &talker{x: x, id: id}
	x.nodes = append(x.nodes, n)
	n.boot()
	return n
}

func (n *talker) boot() {
	n.instance++
	n.down, n.was, n.probed = false, map[catalog.NodeID]string{}, map[catalog.NodeID]int{}
	n.core = newCore(Config{}, n.id, n.instance, rand.New(rand.NewPCG(uint64(n.id), n.instance)))
	n.core.step(n.x.now, event{nodes: n.x.catalog})
	n.look()
}

// look says what n believes now and did not before.
func (n *talker) look() {
	for _, r := range n.core.rows() {
		if r.Node == n.id {
			continue
		}
		is := r.State.String()
		if r.Starting {
			is += " starting"
		}
		if r.FailingOver {
			is += " failing over"
		}
		if r.Instance > 1 {
			is += fmt.Sprintf(" instance %d", r.Instance)
		}
		if was, known := n.was[r.Node]; known && was != is {
			n.x.say("%d: node %d is %s", n.id, r.Node, is)
		}
		n.was[r.Node] = is
	}
	v := n.core.view()
	is := fmt.Sprintf("isolated=%v", v.Isolated)
	for parts, name := range []string{"", "region", "zone", "rack"} {
		if parts > 0 && n.core.domainIsolated(parts) {
			is += " " + name
		}
	}
	if n.was[n.id] != is && (n.was[n.id] != "" || is != "isolated=false") {
		n.x.say("%d: %s", n.id, is)
	}
	n.was[n.id] = is
}

func (n *talker) step(e event) {
	if n.down {
		return
	}
	out := n.core.step(n.x.now, e)
	n.look()
	for _, s := range out.sends {
		to := n.x.node(s.to)
		if !n.x.cut[[2]catalog.NodeID{n.id, s.to}] {
			to.step(event{message: s.msg})
		}
	}
	for _, id := range out.probes {
		n.x.say("%d: probes node %d", n.id, id)
		if to := n.x.node(id); to.down && to.refuses && !n.x.cut[[2]catalog.NodeID{n.id, id}] {
			n.step(event{refused: id})
		}
	}
}

func (x *talk) command(t *testing.T, d *datadriven.TestData) string {
	x.out, x.quiet = nil, d.HasArg("quiet")
	arg := func(name string) int {
		var v int
		if d.HasArg(name) {
			d.ScanArgs(t, name, &v)
		}
		return v
	}
	list := func(name string) []string {
		for _, a := range d.CmdArgs {
			if a.Key == name {
				return a.Vals
			}
		}
		return nil
	}
	n := func() *talker { return x.node(catalog.NodeID(arg("node"))) }
	yes, no := true, false
	switch d.Cmd {
	case "nodes":
		x.setNodes(list("ids"), list("at"))
	case "ready":
		n().step(event{starting: &no})
	case "starting":
		n().step(event{starting: &yes})
	case "tick":
		for range max(1, arg("n")) {
			x.now += 50 * time.Millisecond
			for _, n := range x.nodes {
				if !slices.Contains(list("without"), strconv.FormatUint(uint64(n.id), 10)) {
					n.step(event{tick: true})
				}
			}
		}
	case "cut":
		a, b := catalog.NodeID(arg("a")), catalog.NodeID(arg("b"))
		x.cut[[2]catalog.NodeID{a, b}], x.cut[[2]catalog.NodeID{b, a}] = true, true
	case "heal":
		clear(x.cut)
	case "crash":
		n().down, n().refuses = true, d.HasArg("refuses")
	case "restart":
		n().boot()
		n().step(event{begin: true})
	case "failover":
		n().step(event{failOver: true})
	case "declare":
		for _, c := range x.catalog {
			if c.Id == uint64(arg("node")) {
				c.State = catalog.NodeState_NODE_STATE_DEAD
			}
		}
		for _, n := range x.nodes {
			n.step(event{nodes: x.catalog})
		}
	case "hearsay":
		x.node(catalog.NodeID(arg("to"))).step(event{message: &wire.Gossip{FromNode: uint64(arg("from")), Nodes: []*wire.GossipNode{
			{Node: uint64(arg("node")), Instance: uint64(arg("instance")), Counter: uint32(arg("counter")), FailingOver: d.HasArg("leaving")}}}})
	case "refused":
		n().step(event{refused: catalog.NodeID(arg("by"))})
	case "show":
		x.show(n())
	default:
		t.Fatalf("no command %s", d.Cmd)
	}
	if len(x.out) == 0 {
		return "ok\n"
	}
	return strings.Join(x.out, "\n") + "\n"
}

func (x *talk) setNodes(ids, at []string) {
	x.catalog = nil
	for i, s := range ids {
		id, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			x.t.Fatal(err)
		}
		c := &catalog.Node{Id: id}
		if i < len(at) {
			c.Location = at[i]
		}
		x.catalog = append(x.catalog, c)
	}
	for _, n := range x.nodes {
		n.step(event{nodes: x.catalog})
	}
	for _, c := range x.catalog {
		known := len(x.nodes)
		if n := x.node(catalog.NodeID(c.Id)); len(x.nodes) > known {
			n.step(event{begin: true})
		}
	}
}

func (x *talk) show(n *talker) {
	for _, r := range n.core.rows() {
		x.say("node %d: %s instance %d heartbeat %d silent %d since %v", r.Node, r.State, r.Instance, r.Heartbeat, r.SilentIntervals, r.Since)
	}
	v := n.core.view()
	x.say("view %d isolated=%v", v.Version, v.Isolated)
	for _, c := range v.Nodes {
		x.say("  %+v", c)
	}
}
