package store

import (
	"slices"

	"github.com/braiddb/braid/internal/logs"
)

// recent is the record cache's memory: batches in the order in which they became
// durable. Whole batches leave, oldest first, since their copies share memory.
type recent struct {
	queue []*batch
	bytes int64
}

// entryBytes is about what a copy costs in memory besides its bytes.
const entryBytes = 160

func (b *batch) cacheBytes() int64 { return int64(len(b.buf)) + int64(len(b.entries))*entryBytes }

func (r *recent) push(b *batch) {
	r.queue = append(r.queue, b)
	r.bytes += b.cacheBytes()
}

// keep takes a durable copy into its log's cache, if the cache covers it. mu is
// held.
func (s *Store) keep(l *logState, e *entry) {
	if l.id.IsMetadata() {
		return
	}
	if l.coverFrom == logs.LSNMax && e.lsn > l.last {
		l.coverFrom = e.lsn // the first above all that is here
	}
	if e.lsn < l.coverFrom {
		return
	}
	n := len(l.cached)
	if n == 0 || l.cached[n-1].compare(e) < 0 {
		l.cached = append(l.cached, e)
		return
	}
	at, found := slices.BinarySearchFunc(l.cached, e, (*entry).compare)
	if found {
		l.cached[at] = e
		return
	}
	l.cached = slices.Insert(l.cached, at, e)
}

// evict lets go of the oldest batches above the bound. A batch that is not in
// the LSMs yet stays, and all behind it: what is in neither could not be read
// (P4). mu is held.
func (s *Store) evict() {
	r := &s.recent
	n := 0
	for n < len(r.queue) && r.bytes > s.o.RecordCacheBytes && r.queue[n].applied {
		b := r.queue[n]
		r.bytes -= b.cacheBytes()
		for i := range b.entries {
			if l := s.logs[b.entries[i].log]; l != nil {
				l.uncover(b.entries[i].lsn)
			}
		}
		r.queue[n] = nil
		n++
	}
	if n > 0 {
		r.queue = r.queue[n:]
	}
}

// uncover ends the cover of LSNs up to lsn.
func (l *logState) uncover(lsn logs.LSN) {
	if lsn < l.coverFrom || l.coverFrom == logs.LSNMax {
		return
	}
	n, _ := slices.BinarySearchFunc(l.cached, lsn+1, func(e *entry, lsn logs.LSN) int {
		if e.lsn < lsn {
			return -1
		}
		return 1
	})
	clear(l.cached[:n])
	l.cached = l.cached[n:]
	if len(l.cached) == 0 {
		l.cached = nil
	}
	l.coverFrom = lsn + 1
}

// from finds the first cached copy at or above an LSN.
func (l *logState) from(lsn logs.LSN) int {
	at, _ := slices.BinarySearchFunc(l.cached, lsn, func(e *entry, lsn logs.LSN) int {
		if e.lsn < lsn {
			return -1
		}
		return 1
	})
	return at
}

// forget removes copies of a stretch that is deleted. mu is held.
func (l *logState) forget(from, to logs.LSN) {
	l.cached = slices.DeleteFunc(l.cached, func(e *entry) bool { return e.lsn >= from && e.lsn <= to })
}
