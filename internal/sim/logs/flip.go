package logs

import (
	"path"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// flip changes a bit of a file of records that a node has. Nobody knows when that is found,
// so in all of the run no other node loses anything: what this one lost has other copies.
func (c *cluster) flip(m *member, dice int64) bool {
	if c.flipped != nil && c.flipped != m {
		return false
	}
	for _, o := range c.members {
		if o != m && (o.suspect || !o.n.Alive() || o.store == nil || o.store.Suspect()) {
			return false
		}
	}
	files := m.recordFiles()
	if len(files) == 0 {
		return false
	}
	if err := flipIn(m.fs, files[int(dice)%len(files)], dice); err != nil {
		c.w.Fail("node %d: flip a bit: %w", m.n.ID, err)
		return false
	}
	c.flipped, m.sound = m, false
	return true
}

// mayLose says whether a node may lose something: nobody else has damage that may not
// have been found.
func (c *cluster) mayLose(m *member) bool { return c.flipped == nil || c.flipped == m }

// recordFiles lists the files of a node's partitions.
func (m *member) recordFiles() (out []string) {
	dirs, err := m.fs.List("logs")
	if err != nil {
		return nil // it never began
	}
	for _, dir := range dirs {
		if !strings.HasPrefix(dir, "p-") {
			continue
		}
		names, err := m.fs.List(path.Join("logs", dir))
		if err != nil {
			m.w.Fail("node %d: list its files: %w", m.n.ID, err)
			return nil
		}
		for _, name := range names {
			if strings.HasSuffix(name, ".sst") {
				out = append(out, path.Join("logs", dir, name))
			}
		}
	}
	slices.Sort(out)
	return out
}

// flipIn flips one bit of a file.
func flipIn(fs vfs.FS, name string, dice int64) error {
	return changeFile(fs, name, func(size int64, flip func(at int64, bit int64) error) error {
		return flip(dice/8%size, dice%8)
	})
}

// changeFile flips bits of a file, durably.
func changeFile(fs vfs.FS, name string, change func(size int64, flip func(at int64, bit int64) error) error) error {
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	err = change(info.Size(), func(at, bit int64) error {
		b := []byte{0}
		if _, err := f.ReadAt(b, at); err != nil {
			return err
		}
		b[0] ^= 1 << bit
		_, err := f.WriteAt(b, at)
		return err
	})
	if err != nil {
		return err
	}
	return f.Sync()
}

// scrub reads all that a node has, as whoever looks for damage does, and once more until
// there is none, and none was lost.
func (m *member) scrub() {
	if m.scrubbing || m.store == nil || m.store.Suspect() {
		return
	}
	m.scrubbing = true
	life, left, sound := m.n.Life(), len(m.c.truths), true
	for _, t := range m.c.truths {
		var page func(from logs.LSN)
		page = func(from logs.LSN) {
			m.store.Records(&wire.RecordsRequest{Log: uint64(t.id), From: uint64(from), To: uint64(logs.LSNMax), Shard: uint64(m.shard()), Payloads: true}, func(a *wire.RecordsResponse) {
				if m.n.Life() != life {
					m.scrubbing = false
					return
				}
				sound = sound && len(a.Damaged) == 0 && !a.Doubt && (a.Status == wire.LogStatus_LOG_STATUS_OK || a.Status == wire.LogStatus_LOG_STATUS_NOT_FOUND)
				if !sound {
					m.w.Tracef("node %d: log %d from %s: %s, damaged %v, doubt %v", m.n.ID, t.id, from, a.Status, a.Damaged, a.Doubt)
				}
				if a.Next > 0 {
					page(logs.LSN(a.Next))
					return
				}
				if left--; left == 0 {
					m.scrubbing, m.sound = false, sound
				}
			})
		}
		page(logs.LSNOldest)
	}
}
