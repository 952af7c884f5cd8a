package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// ProducerLookup finds a producer's appends above one LSN and up to another. A
// request with a limit asks for the newest of a producer that numbers its appends
// itself, which an index has, the trimmed ones too, of which a mark is left when
// their space has come back (producers.go); one without looks through the headers of
// the range, where holes count too: one there says that no append was kept.
func (s *Store) ProducerLookup(req *wire.ProducerLookupRequest, reply func(*wire.ProducerLookupResponse)) {
	switch {
	case !s.addressed(req.Shard):
		reply(&wire.ProducerLookupResponse{Status: statusMisplaced})
		return
	case !logs.LogID(req.Log).Valid() || req.Producer == 0:
		reply(&wire.ProducerLookupResponse{Status: statusInvalid})
		return
	case s.isUnknown(logs.LogID(req.Log)):
		reply(&wire.ProducerLookupResponse{Status: statusUnknown})
		return
	}
	if !s.run(func() { reply(s.producerLookup(req)) }) {
		reply(&wire.ProducerLookupResponse{Status: statusShutdown})
	}
}

// producerLookup: where something may yet come back, who asks has to come again; where
// something cannot be read, or is lost for good, the answer is PARTIAL: what it leaves out
// proves nothing, now or later.
func (s *Store) producerLookup(req *wire.ProducerLookupRequest) *wire.ProducerLookupResponse {
	id := logs.LogID(req.Log)
	s.mu.Lock()
	l := s.peek(id)
	trim, clean := l.trim, l.lce
	from, to := max(logs.LSN(req.After), trim)+1, logs.LSN(req.To)
	if req.Limit > 0 {
		from = logs.LSN(req.After) + 1
	}
	doubted, whole := s.doubted(l).meets(from, to), !l.lost().meets(from, to)
	if doubted {
		s.askOthers(l, l.hard.epoch)
	}
	s.mu.Unlock()
	if doubted {
		return &wire.ProducerLookupResponse{Status: statusAgain}
	}
	a := &wire.ProducerLookupResponse{TrimPoint: uint64(trim), LastCleanEpoch: uint32(clean)}
	var read bool
	var err error
	if req.Limit > 0 {
		a.Entries, read, err = s.newestOf(req, id, from, to)
		if err == nil { // after the partitions, for what leaves them is here before (P11)
			a.Mark, err = s.leftOf(id, req.Producer)
		}
	} else {
		a.Entries, read, err = s.searchRange(req, id, from, to)
	}
	if err != nil {
		s.o.Logger.Error("logs/store: producer lookup", "log", id, "error", err)
		return &wire.ProducerLookupResponse{Status: statusFailed}
	}
	if !whole || !read {
		a.Status = statusPartial
	}
	return a
}

// searchRange looks through every LSN of a range; newest first. It says whether all of
// it could be read.
func (s *Store) searchRange(req *wire.ProducerLookupRequest, id logs.LogID, from, to logs.LSN) (out []*wire.ProducerEntry, whole bool, err error) {
	v, err := s.view(id, from, to)
	if err != nil {
		return nil, false, err
	}
	defer v.close()
	whole = true
	for v.next() {
		found, read := v.entriesOf(req)
		out, whole = append(out, found...), whole && read
	}
	slices.Reverse(out)
	return out, whole, v.err
}

// entriesOf is what the copies at an LSN say of a producer, and whether that could be
// read: a damaged header says nothing.
func (v *view) entriesOf(req *wire.ProducerLookupRequest) (out []*wire.ProducerEntry, read bool) {
	h, _, err := v.merged()
	if err != nil && !errors.Is(err, errHollow) {
		return nil, false
	}
	e := wire.ProducerEntry{Lsn: uint64(h.lsn), Wave: h.wave, TimestampMs: h.timestamp}
	if pseudo(h.flags) {
		return []*wire.ProducerEntry{{Lsn: e.Lsn, Wave: e.Wave, Flags: h.flags, TimestampMs: e.TimestampMs}}, true
	}
	h.eachOrigin(func(o origin) {
		if o.producer == req.Producer && o.sequence >= req.FirstSequence {
			flags := h.flags&^logs.FlagProducer | o.flags
			out = append(out, &wire.ProducerEntry{Lsn: e.Lsn, Wave: e.Wave, Flags: flags, TimestampMs: e.TimestampMs, Sequence: o.sequence})
		}
	})
	return out, true
}

// newestOf asks the index by producer, until it has as many records as were
// asked for: the index also has LSNs whose copies were purged, or lost to a hole. It says
// whether all could be read that it came by.
func (s *Store) newestOf(req *wire.ProducerLookupRequest, id logs.LogID, from, to logs.LSN) (out []*wire.ProducerEntry, whole bool, err error) {
	n := int(min(req.Limit, 1000))
	whole = true
	for found := 0; ; {
		lsns, read, err := s.producerLSNs(id, req.Producer, from, to, n)
		if err != nil {
			return nil, false, err
		}
		whole = whole && read
		// Each partition gave its newest, so of all of them only as many are known
		// to leave none out.
		last := len(lsns) < n
		for _, lsn := range lsns[:min(n, len(lsns))] {
			v, err := s.view(id, lsn, lsn)
			if err != nil {
				return nil, false, err
			}
			if v.next() {
				here, read := v.entriesOf(req)
				whole = whole && read
				for _, e := range here {
					out = append(out, e)
					if e.Sequence > 0 {
						found++
					}
				}
			}
			v.close()
			if v.err != nil {
				return nil, false, v.err
			}
			if found >= n {
				return out, whole, nil
			}
			to = lsn - 1
		}
		if last {
			return out, whole, nil
		}
	}
}

// producerLSNs lists where the index has a producer, newest first, at most n of
// each partition, and says whether it could be read.
func (s *Store) producerLSNs(id logs.LogID, producer uint64, from, to logs.LSN, n int) (out []logs.LSN, whole bool, err error) {
	s.settled()
	if from > to {
		return nil, true, nil
	}
	parts, err := s.partitionsOf(id, from, to)
	if err != nil {
		return nil, false, err
	}
	whole = true
	for _, p := range parts {
		l, err := s.acquire(p.partition)
		if errors.Is(err, errDropped) {
			continue
		}
		if err == nil {
			out, err = producerIn(l.db, id, producer, from, to, n, out)
			s.release(p.partition)
		}
		if isDamage(err) {
			s.spoils(p.partition, err)
			whole = false
		} else if err != nil {
			return nil, false, err
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return slices.Compact(out), whole, nil
}

func producerIn(db *pebble.DB, id logs.LogID, producer uint64, from, to logs.LSN, n int, out []logs.LSN) ([]logs.LSN, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: producerKey(nil, id, producer, from, 0),
		UpperBound: append(producerKey(nil, id, producer, to, 1<<64-1), 0)})
	if err != nil {
		return out, err
	}
	defer it.Close()
	for ok := it.Last(); ok && n > 0; ok = it.Prev() {
		if key := it.Key(); len(key) == 33 {
			out = append(out, logs.LSN(binary.BigEndian.Uint64(key[17:])))
			n--
		}
	}
	return out, it.Error()
}

// ReadMetadata gives what the metadata log of a log has here, by effective_since.
func (s *Store) ReadMetadata(req *wire.ReadMetadataRequest, reply func(*wire.ReadMetadataResponse)) {
	id := logs.LogID(req.Log)
	switch {
	case !s.addressed(req.Shard):
		reply(&wire.ReadMetadataResponse{Status: statusMisplaced})
		return
	case !id.DataLog().Valid():
		reply(&wire.ReadMetadataResponse{Status: statusInvalid})
		return
	}
	if !s.run(func() { reply(s.readMetadata(id.DataLog().MetadataLog())) }) {
		reply(&wire.ReadMetadataResponse{Status: statusShutdown})
	}
}

func (s *Store) readMetadata(id logs.LogID) *wire.ReadMetadataResponse {
	out := &wire.ReadMetadataResponse{}
	if s.isUnknown(id) {
		out.Status = statusUnknown
	}
	v, err := s.view(id, 0, logs.LSNMax)
	if err != nil {
		return &wire.ReadMetadataResponse{Status: statusFailed}
	}
	defer v.close()
	for v.next() {
		r, err := v.content()
		m := new(wire.EpochMetadata)
		if err == nil {
			err = m.UnmarshalVT(bytes.Clone(r.Payload))
		}
		if err != nil { // other shards have the same; this one has none of it
			s.count.damaged.Add(1)
			s.o.Logger.Error("logs/store: damaged metadata", "log", id, "error", err)
			out.Status = statusPartial
			continue
		}
		out.Metadata = append(out.Metadata, m)
	}
	if v.err != nil {
		return &wire.ReadMetadataResponse{Status: statusFailed}
	}
	slices.SortStableFunc(out.Metadata, func(a, b *wire.EpochMetadata) int {
		return int(int64(a.EffectiveSince) - int64(b.EffectiveSince))
	})
	s.mu.Lock()
	switch l := s.peek(id); {
	case s.unlisted(l):
		out.Status = statusPartial
		s.askOthers(l, 0)
	case !l.lost().empty():
		out.Status = statusPartial
	}
	s.mu.Unlock()
	return out
}
