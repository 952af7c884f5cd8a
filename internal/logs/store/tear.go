package store

import (
	"fmt"

	"github.com/braiddb/braid/internal/logs"
)

// tear is what cannot be read: a partition that does not open, or a block of one.
type tear struct {
	err   error
	last  logs.LSN // nothing behind it is of that partition
	block bool     // the partition is open: some of it can be read
}

// probesMax bounds the search for the end of a damaged stretch. Where it is bad
// each step is dear, since Pebble looks for the bit that was flipped; so the end
// is found to a 32nd of what the partition has of the log, and remembered.
const probesMax = 5

// stretch is a range of LSNs.
type stretch struct{ from, to logs.LSN }

// knownDamage finds the first stretch of a log at or behind an LSN that is known
// not to be readable. mu is held.
func (s *Store) knownDamage(log logs.LogID, at logs.LSN) (stretch, bool) {
	best, found := stretch{}, false
	for _, d := range s.torn[log] {
		if d.to >= at && (!found || d.from < best.from) {
			best, found = d, true
		}
	}
	return best, found
}

// skip goes on behind what cannot be read: it becomes one stretch of damage. What
// could be read within that stretch is given up here; the other shards have it.
func (v *view) skip() bool {
	t := *v.torn
	for _, c := range v.cursors {
		c.close()
	}
	v.cursors, v.pending, v.disk, v.torn = v.cursors[:0], nil, false, nil
	bad, end := v.reached, max(min(v.diskTo, t.last), v.reached)
	if t.block {
		good := end + 1
		bad = v.reached
		for range probesMax {
			if good-bad <= 1 {
				break
			}
			if mid := bad + (good-bad)/2; v.s.readable(v.log, mid, v.diskTo) {
				good = mid
			} else {
				bad = mid
			}
		}
		end = good - 1
	}
	v.versions = append(v.versions[:0], version{lsn: v.reached, upTo: end, damage: fmt.Errorf("%w: %w", ErrCorrupt, t.err)})
	v.s.mu.Lock()
	if t.block {
		v.s.torn[v.log] = append(v.s.torn[v.log], stretch{v.reached, end})
	}
	v.s.mu.Unlock()
	v.reached = end + 1
	v.advance(end)
	return true
}

// readable says whether the first copy of a stretch can be found.
func (s *Store) readable(log logs.LogID, from, to logs.LSN) bool {
	v := &view{s: s, log: log, at: from, to: to, diskTo: to}
	defer v.close()
	v.openDisk()
	v.stand()
	return v.err == nil && v.torn == nil
}
