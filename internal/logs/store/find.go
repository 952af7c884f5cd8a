package store

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// Find narrows down where a time or a key begins: by the copies here that readers
// may see the answer is in (low, high], high being LSNMax where nothing here is
// that late. Timestamps and keys ascend with LSNs, or the answer is one of
// several.
func (s *Store) Find(req *wire.FindRequest, reply func(*wire.FindResponse)) {
	switch {
	case !s.addressed(req.Shard):
		reply(&wire.FindResponse{Status: statusMisplaced})
		return
	case !logs.LogID(req.Log).Valid():
		reply(&wire.FindResponse{Status: statusInvalid})
		return
	case s.isUnknown(logs.LogID(req.Log)):
		reply(&wire.FindResponse{Status: statusUnknown})
		return
	}
	if !s.run(func() { reply(s.find(req)) }) {
		reply(&wire.FindResponse{Status: statusShutdown})
	}
}

func (s *Store) find(req *wire.FindRequest) *wire.FindResponse {
	id := logs.LogID(req.Log)
	s.mu.Lock()
	l := s.peek(id)
	trim, end := l.trim, l.released
	s.mu.Unlock()
	var low, high logs.LSN
	var err error
	if req.Approximate && req.Key == nil {
		low, high, err = s.findPartition(id, req.TimestampMs, trim, end)
	} else {
		low, high, err = s.bisect(id, trim, end, later(req))
	}
	if err != nil {
		s.o.Logger.Error("logs/store: find", "log", id, "error", err)
		return &wire.FindResponse{Status: statusFailed}
	}
	return &wire.FindResponse{Low: uint64(low), High: uint64(high)}
}

// later says of a record whether it is at or behind what is looked for; known is
// false if it does not tell.
func later(req *wire.FindRequest) func(h *header) (at, known bool) {
	if req.Key == nil {
		return func(h *header) (bool, bool) { return h.timestamp >= req.TimestampMs, true }
	}
	return func(h *header) (bool, bool) { return bytes.Compare(h.findKey, req.Key) >= 0, h.findKey != nil }
}

// bisect halves the LSNs in (low, end] until no copy is between low and high.
func (s *Store) bisect(id logs.LogID, low, end logs.LSN, later func(*header) (bool, bool)) (logs.LSN, logs.LSN, error) {
	high := logs.LSNMax
	from, to := low+1, end // unknown are those within
	for from <= to {
		mid := from + (to-from)/2
		h, ok, err := s.firstTelling(id, mid, to, later)
		if err != nil {
			return 0, 0, err
		}
		if !ok {
			if mid == from {
				break
			}
			to = mid - 1
			continue
		}
		if at, _ := later(&h); !at {
			low, from = h.lsn, h.lsn+1
			continue
		}
		high = h.lsn
		if mid == from {
			break
		}
		to = mid - 1
	}
	return low, high, nil
}

// firstTelling is the first record of a stretch that can be compared.
func (s *Store) firstTelling(id logs.LogID, from, to logs.LSN, later func(*header) (bool, bool)) (header, bool, error) {
	v, err := s.view(id, from, to)
	if err != nil {
		return header{}, false, err
	}
	defer v.close()
	for v.next() {
		h, _, err := v.merged()
		if err != nil && !errors.Is(err, errHollow) {
			continue // damaged
		}
		if _, known := later(&h); known {
			return h, true, nil
		}
	}
	return header{}, false, v.err
}

// findPartition answers by what partitions span, reading no copy: early by as
// much as a partition lasts.
func (s *Store) findPartition(id logs.LogID, ms int64, low, end logs.LSN) (logs.LSN, logs.LSN, error) {
	high := logs.LSNMax
	err := s.spans(id, func(_ uint64, x extent) {
		if x.maxMs < ms {
			low = max(low, min(x.last, end))
		}
		if x.minMs >= ms && x.first <= end {
			high = min(high, x.first)
		}
	})
	return low, max(high, low+1), err
}

// spans visits what each partition has of a log.
func (s *Store) spans(id logs.LogID, fn func(partition uint64, x extent)) error {
	s.settled()
	s.shelf.mu.Lock()
	open := map[uint64]extent{}
	for _, p := range s.shelf.all {
		if x := p.extents[id]; x != nil {
			open[p.id] = *x
		}
	}
	s.shelf.mu.Unlock()
	err := s.eachExtent(id, func(p uint64, x extent) {
		if _, seen := open[p]; !seen && s.shelf.find(p) != nil {
			fn(p, x)
		}
	})
	for _, p := range slices.Sorted(maps.Keys(open)) {
		fn(p, open[p])
	}
	return err
}

// DataSize estimates how many bytes of a log are here between two times: of a
// partition that is partly in it, the part.
func (s *Store) DataSize(req *wire.DataSizeRequest, reply func(*wire.DataSizeResponse)) {
	switch {
	case !s.addressed(req.Shard):
		reply(&wire.DataSizeResponse{Status: statusMisplaced})
		return
	case !logs.LogID(req.Log).Valid() || req.FromMs > req.ToMs:
		reply(&wire.DataSizeResponse{Status: statusInvalid})
		return
	case s.isUnknown(logs.LogID(req.Log)):
		reply(&wire.DataSizeResponse{Status: statusUnknown})
		return
	}
	ok := s.run(func() {
		id := logs.LogID(req.Log)
		s.mu.Lock()
		trim := s.peek(id).trim
		s.mu.Unlock()
		sum := 0.0
		err := s.spans(id, func(_ uint64, x extent) {
			if x.last > trim {
				sum += float64(x.bytes) * x.share(req.FromMs, req.ToMs)
			}
		})
		if err != nil {
			reply(&wire.DataSizeResponse{Status: statusFailed})
			return
		}
		reply(&wire.DataSizeResponse{Bytes: uint64(math.Round(sum))})
	})
	if !ok {
		reply(&wire.DataSizeResponse{Status: statusShutdown})
	}
}

// share is how much of the extent's time is in [from, to].
func (x *extent) share(from, to int64) float64 {
	a, b := max(from, x.minMs), min(to, x.maxMs)
	switch {
	case a > b:
		return 0
	case x.maxMs == x.minMs:
		return 1
	}
	return float64(b-a) / float64(x.maxMs-x.minMs)
}
