package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// What is left of producers (P11). A producer that numbers its appends itself goes
// on where it was, whatever became of its records: the last sequence that was taken
// must be found after a trim, by a sequencer that knows nothing of it. While a
// trimmed record's partition is there, the index by producer has it. When the space
// comes back the highest sequence of each producer is written to the marks.

// left is a producer's highest sequence of those whose space came back.
type left struct {
	sequence uint64
	lsn      logs.LSN
	ms       int64 // the record's timestamp: what it is remembered from
}

const (
	// leftDepth is how far back a producer's highest sequence is looked for: holes
	// that were filled later have lower ones, and appends in flight are no more.
	leftDepth = 1000
	// sweepEvery is how often producers are forgotten that were silent for long.
	sweepEvery = time.Hour
)

func (x *left) encode(dst []byte) []byte {
	for _, v := range [...]uint64{x.sequence, uint64(x.lsn), uint64(x.ms)} {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

func decodeLeft(b []byte) (left, error) {
	d := decoder{b: b}
	x := left{d.uvarint(), logs.LSN(d.uvarint()), int64(d.uvarint())}
	if d.bad || len(d.b) > 0 {
		return left{}, fmt.Errorf("%w: what is left of a producer does not decode", ErrCorrupt)
	}
	return x, nil
}

// expiredLeft says whether a producer was silent for so long that it is forgotten.
func (s *Store) expiredLeft(x *left) bool {
	return x.ms < s.o.WallMs()-s.o.ProducerKeep.Milliseconds()
}

// readLeft gives what is left of a producer's records, an empty one if nothing.
func (s *Store) readLeft(id logs.LogID, producer uint64) (left, error) {
	v, done, err := s.marks.db.Get(pairKey(nil, spaceLeft, uint64(id), producer))
	if errors.Is(err, pebble.ErrNotFound) {
		return left{}, nil
	}
	if err != nil {
		return left{}, err
	}
	x, err := decodeLeft(v)
	return x, errors.Join(err, done.Close())
}

// leftOf is what a lookup is told of it.
func (s *Store) leftOf(id logs.LogID, producer uint64) (*wire.ProducerEntry, error) {
	x, err := s.readLeft(id, producer)
	if err != nil || x.sequence == 0 || s.expiredLeft(&x) {
		return nil, err
	}
	return &wire.ProducerEntry{Lsn: uint64(x.lsn), Sequence: x.sequence, Flags: logs.FlagProducer, TimestampMs: x.ms}, nil
}

// keepProducers writes down what is to be left of logs of which nothing in a
// partition is needed any more. false: of a record it is not decided yet whether it
// is part of its log, so its space has to wait.
func (s *Store) keepProducers(p *partition, dead []logs.LogID) (bool, error) {
	mb := s.marks.db.NewBatch()
	defer mb.Close()
	for _, id := range dead {
		if _, configured := s.o.Attributes(id); !configured {
			continue // the log is gone
		}
		kept, err := s.keepProducersOf(mb, p, id)
		if isDamage(err) { // where it is, others are asked first what was there
			return false, nil
		}
		if err != nil || !kept {
			return false, err
		}
	}
	if mb.Empty() {
		return true, nil
	}
	s.left.count += int(mb.Count())
	if err := s.marks.take(mb); err != nil {
		return false, err
	}
	return true, s.marks.flush()
}

func (s *Store) keepProducersOf(mb *pebble.Batch, p *partition, id logs.LogID) (bool, error) {
	l, err := s.acquire(p)
	if err != nil {
		return false, err
	}
	defer s.release(p)
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: numberKey(nil, spaceProducer, uint64(id)), UpperBound: logEnd(spaceProducer, id)})
	if err != nil {
		return false, err
	}
	defer it.Close()
	for ok := it.Last(); ok; {
		key := it.Key()
		if len(key) != 33 {
			ok = it.Prev()
			continue
		}
		producer := binary.BigEndian.Uint64(key[9:])
		first := pairKey(nil, spaceProducer, uint64(id), producer)
		best, err := s.highest(it, id, producer, first)
		if err != nil {
			s.spoils(p, it.Error())
			return false, err
		}
		if best.sequence > 0 && !s.decided(id, best.lsn) {
			return false, nil
		}
		if err := s.setLeft(mb, id, producer, best); err != nil {
			return false, err
		}
		ok = it.SeekLT(first)
	}
	s.spoils(p, it.Error())
	return true, it.Error()
}

// setLeft replaces what is left of a producer by more of it.
func (s *Store) setLeft(mb *pebble.Batch, id logs.LogID, producer uint64, x left) error {
	if x.sequence == 0 || s.expiredLeft(&x) {
		return nil
	}
	was, err := s.readLeft(id, producer)
	if err != nil {
		return err
	}
	x.ms = max(x.ms, was.ms)
	if was.sequence > x.sequence {
		x.sequence, x.lsn = was.sequence, was.lsn
	}
	return mb.Set(pairKey(nil, spaceLeft, uint64(id), producer), x.encode(nil), nil)
}

// highest is a producer's highest sequence among its newest records; it stands on the
// newest. The index also has what was purged, or lost to a hole: that is no record.
func (s *Store) highest(it *pebble.Iterator, id logs.LogID, producer uint64, first []byte) (left, error) {
	var found []left
	for ok := true; ok && len(found) < leftDepth; ok = it.Prev() {
		key := it.Key()
		if string(key[:min(len(key), len(first))]) != string(first) {
			break
		}
		if len(key) == 33 {
			found = append(found, left{sequence: binary.BigEndian.Uint64(key[25:]), lsn: logs.LSN(binary.BigEndian.Uint64(key[17:]))})
		}
	}
	if err := it.Error(); err != nil {
		return left{}, err
	}
	slices.SortStableFunc(found, func(a, b left) int { // of one sequence the newest first, as found
		switch {
		case a.sequence > b.sequence:
			return -1
		case a.sequence < b.sequence:
			return 1
		}
		return 0
	})
	for _, x := range found {
		v, err := s.view(id, x.lsn, x.lsn)
		if err != nil {
			return left{}, err
		}
		if v.next() {
			found, whole := v.entriesOf(&wire.ProducerLookupRequest{Producer: producer})
			if !whole {
				v.close()
				return left{}, fmt.Errorf("%w: a copy at %s", ErrCorrupt, x.lsn)
			}
			for _, e := range found {
				if e.Sequence == x.sequence {
					x.ms = e.TimestampMs
					v.close()
					return x, nil
				}
			}
		}
		v.close()
		if v.err != nil {
			return left{}, v.err
		}
	}
	return left{}, nil
}

// decided says whether what is here of an LSN is part of its log: it was released, or
// its epoch is clean. Before that it may yet be purged, and its sequence taken anew.
func (s *Store) decided(id logs.LogID, lsn logs.LSN) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.peek(id)
	return lsn <= l.deliverable() || lsn.Epoch() <= l.lce
}

// sweepLeft forgets producers that were silent for long, and those that were for
// longest where there are too many.
func (s *Store) sweepLeft() error {
	now := s.o.Mono()
	if s.left.swept && now < s.left.next && s.left.count <= s.o.ProducersKept {
		return nil
	}
	times, err := s.deleteLeft(s.o.WallMs() - s.o.ProducerKeep.Milliseconds())
	if err != nil {
		return err
	}
	if over := len(times) - s.o.ProducersKept; over > 0 {
		slices.Sort(times)
		s.o.Logger.Warn("logs/store: more producers than are remembered after a trim: those that were silent for longest are forgotten",
			"remembered", s.o.ProducersKept, "forgotten", over)
		if times, err = s.deleteLeft(times[over-1] + 1); err != nil {
			return err
		}
	}
	s.left = leftSweep{swept: true, next: now + sweepEvery, count: len(times)}
	return nil
}

// leftSweep is when producers were looked at last; of the one goroutine that keeps house.
type leftSweep struct {
	swept bool
	next  time.Duration
	count int // of producers, those twice that were written since the last sweep
}

// deleteLeft deletes what is from before a time, and gives the times of the others.
func (s *Store) deleteLeft(before int64) (times []int64, err error) {
	it, err := s.marks.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceLeft}, UpperBound: []byte{spaceLeft + 1}})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	mb := s.marks.db.NewBatch()
	defer mb.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		x, err := decodeLeft(v)
		if err != nil {
			return nil, err
		}
		if x.ms >= before {
			times = append(times, x.ms)
		} else if err := mb.Delete(it.Key(), nil); err != nil {
			return nil, err
		}
	}
	if err := it.Error(); err != nil || mb.Empty() {
		return times, err
	}
	return times, s.marks.take(mb)
}
