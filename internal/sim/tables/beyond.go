package tables

import (
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/sim"
)

// Faults that exceed what is promised: a majority of a group's copies goes. Nothing
// can keep what was on them then, and a group that cannot is asked for no answers. What
// it answers must be true all the same: what was acknowledged is there, or whoever asks
// is refused. Every other check of the wing goes on as it is.
const (
	faultWipe    = "beyond: wiped"        // directories are gone: the machines come back as other nodes
	faultVouched = "beyond: damaged"      // journals are damaged below a watermark, and say so
	faultTails   = "beyond: lost tails"   // disks lose the last group that they confirmed, in one moment
	faultRot     = "beyond: rotten files" // bits of the engine's files are flipped, on every copy
)

var beyondKinds = []string{faultWipe, faultVouched, faultTails, faultRot}

// drawBeyond makes a seed's options with one such fault among others. What needs a
// sound majority is left out.
func drawBeyond(seed uint64) *sim.Options {
	o := draw(seed)
	s := sim.NewSwarm(seed ^ 0xbe_401d)
	k := o.Knobs
	k["beyond"], k["managed"] = 1, 0
	k["patienceMs"] = int64(s.Int(2000, 6000))
	o.Safety, o.Liveness = sim.Duration(25*time.Second), sim.Duration(60*time.Second)
	o.Faults = slices.DeleteFunc(o.Faults, func(f sim.Fault) bool {
		return slices.Contains([]string{faultMove, faultDamage, faultTorn, faultForget, faultOutage}, f.Kind) || f.At > o.Safety*9/10
	})
	f := sim.Fault{Kind: beyondKinds[s.IntN(len(beyondKinds))], At: s.Dur(8*time.Second, 22*time.Second), For: s.Dur(10*time.Millisecond, 5*time.Second),
		X: s.Int64N(k["tablets"]), Peer: s.IntN(3)}
	o.Faults = append(o.Faults, f)
	slices.SortStableFunc(o.Faults, func(a, b sim.Fault) int { return int(a.At - b.At) })
	return o
}

// exceed carries one out. f.Peer is how many more than a majority it strikes.
func (c *cluster) exceed(v *view, f *sim.Fault) bool {
	d := time.Duration(f.For)
	all := c.holders(v)
	struck := min(len(all)/2+1+f.Peer, len(all))
	if f.Kind == faultRot {
		struck = len(all)
	}
	c.w.Dice().Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, m := range all {
		switch {
		case i < struck:
			c.ruin(v, m, f.Kind, d)
		case f.Kind == faultTails && c.w.OneIn(2):
			m.n.Crash("power off, longer than for the others", c.w.Between(d, 20*time.Second))
		}
	}
	if f.Kind == faultTails {
		for _, g := range c.views {
			if last := g.last(); c.keep(g, last) <= len(g.founders)/2 {
				// A journal cannot tell the loss of its last group from a crash before it was
				// written (docs/formats/journal.md). Of a majority that is silent.
				c.w.Expose("group %d: entry %d is on %d disks of %d", g.id, last, c.keep(g, last), len(g.founders))
			}
		}
	}
	return true
}

// holders are the members that have a replica of a group, by node.
func (c *cluster) holders(v *view) (out []*member) {
	for _, m := range c.members {
		if m.listed(v.id) != nil {
			out = append(out, m)
		}
	}
	return out
}

// last is the last entry that was applied anywhere: nothing above it was acknowledged.
func (v *view) last() uint64 {
	return v.first + uint64(len(v.seen)) - 1
}

// keep counts the disks that have an entry of a group.
func (c *cluster) keep(v *view, index uint64) (n int) {
	for _, m := range c.holders(v) {
		last := m.inEngine[v.id]
		if s := m.platter.streams[journal.StreamID(v.id)]; s != nil && len(s.Records) > 0 {
			last = max(last, s.Records[len(s.Records)-1].Pos)
		}
		if last >= index {
			n++
		}
	}
	return n
}

// ruin does to one node what the fault does to several.
func (c *cluster) ruin(v *view, m *member, kind string, d time.Duration) {
	if kind == faultRot && m.n.Up() && m.fatal == nil && c.w.OneIn(2) {
		m.flush()
	}
	m.inEngine = make(map[catalog.GroupID]uint64)
	for _, h := range m.hosted {
		m.inEngine[h.view.id] = h.flushed
	}
	m.n.Crash(kind, d)
	switch kind {
	case faultWipe:
		m.platter.streams, m.fs, m.registry, m.suspect, m.robbed = map[journal.StreamID]*journal.StreamReplay{}, vfs.NewCrashableMem(), nil, false, false
	case faultVouched:
		if s := m.platter.streams[journal.StreamID(v.id)]; s != nil {
			s.Corrupt = c.w.Opt.Knob("silent") == 0
			s.Records = s.Records[:c.w.Dice().IntN(len(s.Records)+1)]
		}
	case faultTails:
		m.suspect = true
		for _, e := range m.registry {
			if s := m.platter.streams[journal.StreamID(e.group)]; s != nil && len(s.Records) > 0 {
				s.Records = s.Records[:len(s.Records)-1]
			}
		}
	case faultRot:
		m.rot()
	}
}

// rot flips a bit in every stretch of the engine's files of records: which files there
// are, and when they become fewer, its own goroutines decide.
func (m *member) rot() {
	const dir, every = "db/db", 256 // Pebble's directory, in the engine's
	m.rotten = true
	names, err := m.fs.List(dir)
	for _, name := range names {
		if err == nil && strings.HasSuffix(name, ".sst") {
			err = m.rotFile(path.Join(dir, name), every)
		}
	}
	if err != nil {
		m.c.w.Fail("node %d: flip bits: %w", m.n.ID, err)
	}
}

func (m *member) rotFile(name string, every int64) error {
	f, err := m.fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	for at := int64(every / 2); err == nil && at < info.Size(); at += every {
		b := []byte{0}
		if _, err = f.ReadAt(b, at); err == nil {
			b[0] ^= 1 << (at / every % 8)
			_, err = f.WriteAt(b, at)
		}
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// helpless says that too few of a group's copies are left for it to serve.
func (v *view) helpless() bool {
	if v.c.w.Opt.Knob("beyond") == 0 {
		return false
	}
	sound := 0
	for _, m := range v.c.holders(v) {
		s := m.platter.streams[journal.StreamID(v.id)]
		if !m.rotten && (s == nil || !s.Corrupt) {
			sound++
		}
	}
	return 2*sound <= len(v.founders) || v.c.w.Exposed()
}

// unfit ends a life that damage beyond what is promised does not let begin or go on,
// and says so; where nothing of the kind has happened that is a failure.
func (m *member) unfit(what string, err error) {
	if !m.rotten {
		m.c.w.Fail("node %d: %s: %w", m.n.ID, what, err)
		return
	}
	m.c.w.Sometimes("beyond: a node does not serve")
	m.n.Crash(what+": "+err.Error(), 0)
}

// sumUp says how groups stand in the end.
func (c *cluster) sumUp() {
	if c.w.Opt.Knob("beyond") == 0 {
		return
	}
	for _, v := range c.views {
		switch {
		case !v.helpless():
			c.w.Sometimes("beyond: a group that was not struck")
		case v.leader() == nil:
			c.w.Sometimes("beyond: a group refuses")
		default:
			c.w.Sometimes("beyond: a group serves what it has")
		}
	}
}
