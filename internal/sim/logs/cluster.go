package logs

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/gossip"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/sim"
)

// cluster is sim.Cluster.
type cluster struct {
	w         *sim.World
	members   []*member // by node
	nodes     []*catalog.Node
	tree      *catalog.Logs
	version   uint64 // of the catalog
	epochs    *epochs
	truths    []*truth // by log, from 1
	producers []*producer
	ops       int
	readers   int
	stage     int
	waiting   [moments]*sim.Fault // faults that wait for somebody to come to their moments
	calmAt    time.Duration       // since when the faults are over
	readAt    time.Duration       // since when all is read once more
	flipped   *member             // of whose files a bit was flipped
	slab      []byte              // what is left of it for messages
}

func newCluster(w *sim.World) *cluster {
	c := &cluster{w: w, version: 1}
	c.epochs = newEpochs(c)
	for _, n := range w.Nodes {
		if !c.isSpare(n) {
			c.nodes = append(c.nodes, c.newNode(n))
		}
	}
	c.tree = catalog.NewLogs(&catalog.Catalog{})
	for i := range w.Opt.Knob("logs") {
		a := c.attributes(i, w.Opt.Knob("nodeset"))
		tree, g, err := c.tree.MakeGroup(c.version, catalog.NewLogGroup{Path: fmt.Sprintf("/log%d", i+1), Logs: 1, Attributes: a})
		if err != nil {
			w.Fail("make a log: %w", err)
			return c
		}
		c.tree = tree
		if g.FirstLog != uint64(i+1) {
			w.Fail("log %d has the id %d", i+1, g.FirstLog)
		}
		c.truths = append(c.truths, newTruth(c, logs.LogID(g.FirstLog), a))
	}
	for _, n := range w.Nodes {
		c.members = append(c.members, newMember(c, n))
	}
	return c
}

// isSpare says of a node that it joins when others are given up.
func (c *cluster) isSpare(n *sim.Node) bool {
	return int64(n.ID) > int64(len(c.w.Nodes))-c.w.Opt.Knob("spares")
}

// newNode describes a node as one that lives.
func (c *cluster) newNode(n *sim.Node) *catalog.Node {
	d := &catalog.Node{Id: uint64(n.ID), State: catalog.NodeState_NODE_STATE_ALIVE, Location: "region/zone/rack1"}
	if racks := c.w.Opt.Knob("racks"); racks > 0 {
		d.Location = fmt.Sprintf("region/zone/rack%d", int64(n.ID)%racks)
	}
	return d
}

func (c *cluster) attributes(log, nodeset int64) *catalog.LogAttributes {
	k := c.w.Opt.Knob
	r := &catalog.Replication{Node: uint32(k("copies"))}
	if k("more") > 0 && log%2 == 1 && int64(r.Node) < int64(len(c.nodes)) {
		r.Node++
		if nodeset > 0 {
			nodeset = max(nodeset, int64(r.Node))
		}
	}
	if k("racks") > 0 {
		r.Rack = 2
	}
	return &catalog.LogAttributes{Replication: r, NodesetSize: proto.Uint32(uint32(nodeset)), MaxWritesInFlight: proto.Uint32(uint32(k("window"))),
		SequencerBatching: proto.Bool(k("batching") != 0), SequencerBatchingTimeMs: proto.Uint32(30), SequencerBatchingBytes: proto.Uint32(2000),
		SequencerBatchingCompression: catalog.Compression_COMPRESSION_NONE.Enum(),
		StickyCopysets:               proto.Bool(k("sticky") != 0), SingleCopyDelivery: proto.Bool(k("singleCopy") != 0)}
}

func (c *cluster) sequencerConfig() sequencer.Config {
	k := c.w.Opt.Knob
	return sequencer.Config{Loops: int(k("loops")), StoreTimeout: c.ms("storeMs"), StoreTimeoutMax: 5 * time.Second, GraylistFor: c.ms("graylistMs"),
		ESNMax: logs.ESN(k("esnMax")), InlineMax: int(k("inline")), SessionsMax: int(k("sessionsMax")), AppenderBytes: k("appendKiB") << 10,
		NodesetDelayMin: 200 * time.Millisecond, NodesetDelayMax: 2 * time.Second}
}

// gossipConfig has rounds that are rarer in most seeds, as they are much of what a run
// costs, and a silence that lasts as long as ever until somebody is held for dead.
func (c *cluster) gossipConfig() gossip.Config {
	every := c.ms("gossipMs")
	if every == 0 { // options that were written down before there was a choice
		return gossip.Config{}
	}
	return gossip.Config{Interval: every, RefusedThreshold: max(3, int(650*time.Millisecond/every)), ProbeAfter: max(2, int(250*time.Millisecond/every))}
}

// Boot begins a life.
func (c *cluster) Boot(n *sim.Node) { c.members[n.ID-1].boot() }

// Down ends one.
func (c *cluster) Down(n *sim.Node) { c.members[n.ID-1].down() }

// Start begins the load.
func (c *cluster) Start() {
	for i := range c.w.Opt.Knob("producers") {
		c.producers = append(c.producers, newProducer(c, c.truths[i%int64(len(c.truths))], int(i+1)))
	}
	for _, t := range c.truths {
		for range c.w.Opt.Knob("readers") {
			c.newReader(t, logs.LSNOldest)
		}
	}
}

func (c *cluster) newReader(t *truth, from logs.LSN) *reading {
	c.readers++
	return t.newReading(fmt.Sprint("r", c.readers), from, logs.LSNMax, c.w.OneIn(2) && t.attrs.GetSingleCopyDelivery())
}

// someone is a node that runs, as clients would find one.
func (c *cluster) someone() *member {
	at := c.w.Dice().IntN(len(c.members))
	for i := range c.members {
		if m := c.members[(at+i)%len(c.members)]; m.n.Up() && m.fatal == nil && m.doors != nil {
			return m
		}
	}
	return nil
}

// Heal is told that the faults are over.
func (c *cluster) Heal() {
	c.epochs.away = 0
	c.calmAt = c.w.Now()
}

// Watch has nothing to look at that the spies do not see.
func (c *cluster) Watch() {}

// MayLose is never so: what a torn tail loses is bounded by the fault itself.
func (c *cluster) MayLose(*sim.Node) bool { return false }

// opsMin is what a run is to have of acknowledged appends.
const opsMin = 500

// The stages of converging: the load, then its end, then everybody has everything,
// then what is there is read once more and checked.
const (
	stageLoad = iota
	stageStop
	stageEqual
	stageRead
	stageDone
)

// Converged says what is missing.
func (c *cluster) Converged() error {
	for c.stage != stageDone {
		if err := c.stageOver(); err != nil {
			return err
		}
		c.stage++
		if c.stage == stageRead {
			c.readAll()
		}
	}
	return nil
}

func (c *cluster) stageOver() error {
	switch c.stage {
	case stageLoad:
		if c.ops < opsMin && !c.beyond() {
			return fmt.Errorf("%d appends were acknowledged, %d are due", c.ops, opsMin)
		}
		for _, t := range c.truths {
			if t.appended() && !t.healed && !c.mayRefuse(t, c.calmAt, serveTime) && !c.holdsForMetadata(t) {
				return fmt.Errorf("log %d: no append was acknowledged since the world healed: %s", t.id, c.describe(t))
			}
		}
	case stageStop:
		for _, p := range c.producers {
			if p.flying > 0 {
				return errors.New("producers still wait for answers")
			}
		}
	case stageEqual:
		return c.settled()
	case stageRead:
		return c.allRead()
	}
	return nil
}

// appended says that anybody appends to the log.
func (t *truth) appended() bool {
	for _, p := range t.c.producers {
		if p.t == t {
			return true
		}
	}
	return false
}

// Ops is what was acknowledged.
func (c *cluster) Ops() int { return c.ops }

// Close lets the stores go.
func (c *cluster) Close() {
	for _, p := range c.producers {
		_ = p.cl.Close() // nobody waits any more
	}
	for _, m := range c.members {
		m.close()
	}
}
