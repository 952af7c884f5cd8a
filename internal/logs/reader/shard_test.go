package reader

import (
	"math/rand/v2"
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// fakeShard is a storage shard in memory, as far as readers see one.
type fakeShard struct {
	id       logs.ShardID
	copies   []fakeCopy // ascending
	released LSN
	trim     LSN
	up       bool
	clips    bool // its gaps go no further than the window
	streams  map[uint64]*fakeStream
	last     uint64
	read     int // bytes of payload sent
}

type fakeCopy struct {
	record  *wire.LogRecord
	damaged bool // on disk: the shard sees it
	torn    bool // on the way: the reader sees it
}

type fakeStream struct {
	req      *wire.ReadStartRequest
	next     LSN
	gathered *wire.ReadNextResponse // was made for the version before the rewind
}

func (s *fakeShard) add(r *wire.LogRecord, damaged bool) {
	s.copies = append(s.copies, fakeCopy{record: r, damaged: damaged})
}

// crash forgets the streams.
func (s *fakeShard) crash() { s.up, s.streams = false, map[uint64]*fakeStream{} }

func (s *fakeShard) start(req *wire.ReadStartRequest, rng *rand.Rand) *wire.ReadStartResponse {
	id := req.Stream
	if id != 0 {
		old := s.streams[id]
		if old == nil {
			return &wire.ReadStartResponse{Status: wire.LogStatus_LOG_STATUS_NO_STREAM}
		}
		// What a worker read before the rewind may be what the next answer is made of.
		var gathered *wire.ReadNextResponse
		if rng.IntN(2) == 0 {
			gathered = s.gather(old, &wire.ReadNextRequest{WindowHigh: old.req.WindowHigh, BytesMax: 1 << 20})
		}
		s.streams[id] = &fakeStream{req: req, next: LSN(req.From), gathered: gathered}
	} else {
		s.last++
		id = s.last
		s.streams[id] = &fakeStream{req: req, next: LSN(req.From)}
	}
	return &wire.ReadStartResponse{Stream: id, FilterVersion: req.FilterVersion, LastReleased: uint64(s.released)}
}

// readNext answers at once; an answer without deliveries is one that waits.
func (s *fakeShard) readNext(req *wire.ReadNextRequest) *wire.ReadNextResponse {
	st := s.streams[req.Stream]
	if st == nil {
		return &wire.ReadNextResponse{Status: wire.LogStatus_LOG_STATUS_NO_STREAM}
	}
	if g := st.gathered; g != nil {
		st.gathered = nil
		return g
	}
	return s.gather(st, req)
}

func (s *fakeShard) gather(st *fakeStream, req *wire.ReadNextRequest) *wire.ReadNextResponse {
	resp := &wire.ReadNextResponse{FilterVersion: st.req.FilterVersion, LastReleased: uint64(s.released)}
	end := min(s.released, LSN(st.req.Until))
	high := LSN(req.WindowHigh)
	gapFrom := st.next
	gap := func(kind uint32, to LSN) {
		if gapFrom <= to {
			resp.Deliveries = append(resp.Deliveries, &wire.Delivery{Gap: kind, GapFrom: uint64(gapFrom), GapTo: uint64(to)})
			gapFrom = to + 1
		}
	}
	gap(logs.ServerGapTrim, min(s.trim, end))
	bytes := 0
	i, _ := slices.BinarySearchFunc(s.copies, gapFrom, func(c fakeCopy, l LSN) int {
		return int(min(max(int64(c.record.Lsn)-int64(l), -1), 1))
	})
	for ; ; i++ {
		if i == len(s.copies) || LSN(s.copies[i].record.Lsn) > end {
			to := end
			if s.clips {
				to = min(to, high)
			}
			gap(logs.ServerGapNoRecords, to)
			break
		}
		c := s.copies[i]
		lsn := LSN(c.record.Lsn)
		if lsn > high {
			to := lsn - 1
			if s.clips {
				to = min(to, high)
			}
			gap(logs.ServerGapNoRecords, to)
			break
		}
		if bytes > 0 && bytes+len(c.record.Payload) > int(req.BytesMax) {
			break
		}
		if !s.sends(st, c.record) {
			continue
		}
		gap(logs.ServerGapNoRecords, lsn-1)
		switch {
		case c.damaged:
			gap(logs.ServerGapChecksum, lsn)
			continue
		case !passes(st.req, c.record):
			gap(logs.ServerGapFilteredOut, lsn)
			continue
		}
		r := c.record
		if c.torn {
			r = &wire.LogRecord{Log: r.Log, Lsn: r.Lsn, Flags: r.Flags, Count: r.Count, Checksum: r.Checksum, Payload: append([]byte("torn"), r.Payload...)}
		}
		resp.Deliveries = append(resp.Deliveries, &wire.Delivery{Record: r, CountBase: uint64(lsn.Epoch()) * 1000, CountKnown: true})
		bytes += len(r.Payload)
		gapFrom = lsn + 1
	}
	s.read += bytes
	st.next = gapFrom
	return resp
}

// sends says whether the shard is the one to send a record.
func (s *fakeShard) sends(st *fakeStream, r *wire.LogRecord) bool {
	if st.req.Flags&logs.ReadSingleCopy == 0 {
		return true
	}
	for _, member := range r.Copyset {
		if member == uint64(s.id) {
			return true
		}
		if !slices.Contains(st.req.FilteredOut, member) {
			return false
		}
	}
	return false
}

func passes(req *wire.ReadStartRequest, r *wire.LogRecord) bool {
	pseudo := r.Flags&(logs.FlagHole|logs.FlagBridge) != 0
	return req.Filter == logs.FilterNone || pseudo || string(req.FilterKey1) == string(r.FilterKey)
}
