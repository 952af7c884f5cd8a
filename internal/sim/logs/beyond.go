package logs

import (
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/wire"
)

// Faults that exceed what is promised: of a log's nodeset so many nodes lose what they
// had that a record may have had all its copies there. What may not happen then is
// silence (truth.gap, beyond_judge.go); a log of which too little is left may stand
// still, and must say why.
const (
	faultGone    = "beyond: gone"         // nodes are off for ever, and nobody says so
	faultGiven   = "beyond: given up"     // nodes are off for ever, are forgotten, and new ones come
	faultVouched = "beyond: damaged"      // journals are damaged, and say so
	faultTails   = "beyond: lost tails"   // disks lose the last appends that they confirmed
	faultRot     = "beyond: rotten files" // bits of the stores' files are flipped, on every copy
	faultMixed   = "beyond: mixed"        // each node has another of these
)

var (
	beyondKinds = []string{faultGone, faultGiven, faultVouched, faultTails, faultRot, faultMixed}
	mixedKinds  = []string{faultGiven, faultVouched, faultTails, faultGone}
)

// drawBeyond makes a seed's options with one such fault among others. The others are
// those that leave durable state alone.
func drawBeyond(seed uint64) *sim.Options {
	o := draw(seed)
	s := sim.NewSwarm(seed ^ 0xbe_401d)
	k := o.Knobs
	k["beyond"], k["more"] = 1, int64(s.IntN(2)) // every other log has a copy more
	if s.Coin(15) {                              // one node is enough then
		k["copies"], k["racks"] = 1, 0
	}
	o.Safety, o.Liveness = sim.Duration(25*time.Second), sim.Duration(60*time.Second)
	o.Faults = slices.DeleteFunc(o.Faults, func(f sim.Fault) bool { return tears(&f) || f.Kind == faultFlip || f.At > o.Safety*9/10 })
	f := sim.Fault{Kind: beyondKinds[s.IntN(len(beyondKinds))], At: s.Dur(8*time.Second, 22*time.Second), For: s.Dur(10*time.Millisecond, 5*time.Second),
		X: s.Int64N(k["logs"]), Peer: s.IntN(3)}
	k["spares"] = int64(s.IntN(4)) // machines that join when others are given up
	k["joinMs"] = time.Duration(f.At).Milliseconds() + int64(s.Int(1000, 8000))
	o.Nodes += int(k["spares"])
	o.Faults = append(o.Faults, f)
	slices.SortStableFunc(o.Faults, func(a, b sim.Fault) int { return int(a.At - b.At) })
	return o
}

// hurt is what a fault beyond what is promised did to a node, or that it did not yet
// exist.
type hurt struct {
	spare   bool                // it is not of the cluster, yet
	kind    string              // the fault, if there was one
	gone    bool                // for ever
	corrupt bool                // its journal, when it boots
	rotten  bool                // its files
	tail    map[place]bool      // copies that its disk confirmed and lost without saying which
	had     map[logs.LogID]bool // logs of whose nodesets it was when it was struck
}

func (c *cluster) beyond() bool { return c.w.Opt.Knob("beyond") != 0 }

// exceed carries one out. f.Peer is how many more it strikes than a record has copies.
func (c *cluster) exceed(t *truth, f *sim.Fault) bool {
	all := c.holders(t)
	if len(all) < t.copies() {
		return false
	}
	struck := min(t.copies()+f.Peer, len(all))
	if f.Kind == faultRot {
		struck = len(all)
	}
	c.w.Dice().Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, m := range all {
		switch {
		case i < struck:
			kind := f.Kind
			if kind == faultMixed {
				kind = mixedKinds[c.w.Dice().IntN(len(mixedKinds))]
			}
			c.ruin(m, kind, time.Duration(f.For))
		case c.w.OneIn(3):
			m.n.Crash("power off, longer than for the others", c.w.Between(time.Duration(f.For), 20*time.Second))
		}
	}
	return true
}

// holders are the members that keep a log's records now.
func (c *cluster) holders(t *truth) (out []*member) {
	for _, s := range c.epochs.seen[t.id].GetMetadata().GetNodeset() {
		if m := c.members[logs.ShardID(s).Node()-1]; !m.hurt.gone {
			out = append(out, m)
		}
	}
	return out
}

// ruin does to one node what the fault does to several.
func (c *cluster) ruin(m *member, kind string, d time.Duration) {
	if kind == faultRot && m.n.Up() && m.fatal == nil && m.store != nil && c.w.OneIn(2) {
		m.store.Pressure()
	}
	m.hurt.kind = kind
	switch kind {
	case faultGone:
		m.hurt.gone = true
		m.n.Crash(kind, 0)
	case faultGiven:
		m.hurt.gone = true
		m.n.Crash(kind, 0)
		c.w.After(c.w.Between(d, 8*time.Second), "forget", func() { c.forget(m) })
	case faultVouched:
		m.n.Crash(kind, d)
		m.hurt.corrupt = c.w.Opt.Knob("silent") == 0
		m.platter.records = m.platter.records[:c.w.Dice().IntN(len(m.platter.records)+1)]
	case faultTails:
		m.n.Crash(kind, d)
		before := slices.Clone(m.platter.records)
		m.suspect = m.platter.tear(1+c.w.Dice().IntN(4)) > 0
		m.hurt.tail = placesIn(before[len(m.platter.records):])
	case faultRot:
		m.n.Crash(kind, d)
		m.hurt.rotten = true
		m.rot()
	}
}

// forget has the catalog say that a node never comes back.
func (c *cluster) forget(m *member) {
	c.set(m, catalog.NodeState_NODE_STATE_FORGOTTEN)
	c.w.Sometimes("beyond: a node is given up")
}

// set gives a node another state in the catalog.
func (c *cluster) set(m *member, to catalog.NodeState) {
	nodes := slices.Clone(c.nodes)
	for i, d := range nodes {
		if d.Id == uint64(m.n.ID) {
			d = proto.Clone(d).(*catalog.Node)
			d.State = to
			nodes[i] = d
		}
	}
	c.nodes = nodes
	c.change()
}

// described finds a node in the catalog as it is.
func (c *cluster) described(n catalog.NodeID) *catalog.Node {
	for _, d := range c.nodes {
		if d.Id == uint64(n) {
			return d
		}
	}
	return nil
}

// joins makes a spare one of the cluster, if somebody was given up, and says whether
// the node has a life to begin.
func (m *member) joins() bool {
	h, c := &m.hurt, m.c
	switch {
	case h.gone:
		m.n.Crash("gone", 0)
		return false
	case !h.spare:
		return true
	case !slices.ContainsFunc(c.nodes, (*catalog.Node).Forgotten):
		wait := c.ms("joinMs")
		if m.n.Life() > 1 {
			wait = 0
		}
		m.n.Crash("not there yet", wait)
		return false
	}
	h.spare = false
	c.nodes = append(slices.Clone(c.nodes), c.newNode(m.n))
	c.w.Sometimes("beyond: a new node comes")
	c.change()
	return true
}

// rot flips a bit in every stretch of the store's files of records.
func (m *member) rot() {
	var walk func(dir string) error
	walk = func(dir string) error {
		names, err := m.fs.List(dir)
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, name := range names {
			at := path.Join(dir, name)
			info, err := m.fs.Stat(at)
			switch {
			case err != nil:
			case info.IsDir():
				err = walk(at)
			case strings.HasSuffix(name, ".sst"):
				err = rotFile(m.fs, at)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk("logs"); err != nil {
		m.w.Fail("node %d: flip bits: %w", m.n.ID, err)
	}
}

// rotFile spoils the blocks of one file. Pebble looks for a single flipped bit of a
// block for long, so few of them are.
func rotFile(fs vfs.FS, name string) error {
	return changeFile(fs, name, func(size int64, flip func(at int64, bit int64) error) error {
		for at, i := int64(100), int64(0); at < size; at, i = at+1024, i+1 {
			if err := flip(at, i%8); err != nil {
				return err
			}
		}
		return nil
	})
}

// unfit ends a life that rotten files do not let begin, or go on.
func (m *member) unfit(err error) {
	if !m.hurt.rotten {
		m.w.Fail("node %d: %w", m.n.ID, err)
		return
	}
	m.w.Sometimes("beyond: a node does not serve")
	m.store = nil
	m.n.Crash("its files are rotten: "+err.Error(), 0)
}

// bad says which nodes lost what they had.
func (c *cluster) bad(s logs.ShardID) bool { return c.members[s.Node()-1].hurt.kind != "" }

// struck says that a record of the log may have had all its copies, or an entry of its
// metadata log, on nodes that lost what they had.
func (c *cluster) struck(t *truth) bool {
	if !c.beyond() {
		return false
	}
	n, gone := 0, 0
	for _, m := range c.members {
		if m.hurt.kind != "" {
			n++
		}
		if m.hurt.gone {
			gone++
		}
	}
	// An entry of the metadata log has a copy more, or as many where nodes were few: of
	// those who are gone it cannot be told which.
	if n >= max(2, min(3, t.copies()+1)) || gone >= t.copies() {
		return true
	}
	return slices.ContainsFunc(t.metadata, func(m *wire.EpochMetadata) bool { return fits(m, c.bad) })
}

// fits says whether a copyset lies among some shards of a nodeset.
func fits(m *wire.EpochMetadata, among func(logs.ShardID) bool) bool {
	var nodeset []placement.LogShard
	for i, s := range m.Nodeset {
		shard := placement.LogShard{Shard: logs.ShardID(s)}
		if i < len(m.Locations) {
			shard.Location = m.Locations[i]
		}
		nodeset = append(nodeset, shard)
	}
	set := placement.NewShardSet(m.Replication, nodeset)
	return set.Missing(func(i int) bool { return among(nodeset[i].Shard) }) == 0
}
