package store

import (
	"errors"
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

const (
	rowsMost    = 10000
	rowsDefault = 1000
)

// LogState tells what is held to be true of logs, ascending by id.
func (s *Store) LogState(req *wire.LogStateRequest, reply func(*wire.LogStateResponse)) {
	if !s.addressed(req.Shard) {
		reply(&wire.LogStateResponse{Status: statusMisplaced})
		return
	}
	if !s.run(func() { reply(s.logState(req)) }) {
		reply(&wire.LogStateResponse{Status: statusShutdown})
	}
}

func (s *Store) logState(req *wire.LogStateRequest) *wire.LogStateResponse {
	limit := limitOf(req.Limit)
	s.mu.Lock()
	ids := make([]logs.LogID, 0, len(s.logs))
	if len(req.Logs) > 0 {
		for _, id := range req.Logs {
			if s.logs[logs.LogID(id)] != nil && id > req.After {
				ids = append(ids, logs.LogID(id))
			}
		}
	} else {
		for id := range s.logs {
			if uint64(id) > req.After {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	out := &wire.LogStateResponse{More: len(ids) > limit}
	for _, id := range ids[:min(limit, len(ids))] {
		l := s.logs[id]
		doubt := s.suspected(l)
		if doubt.empty() {
			doubt = stretch{}
		}
		out.States = append(out.States, &wire.LogState{DoubtFrom: uint64(doubt.from), DoubtTo: uint64(doubt.to),
			Log: uint64(id), LastReleased: uint64(l.deliverable()), TrimPoint: uint64(l.trim),
			Seal: uint32(l.hard.epoch), SoftSeal: uint32(l.soft.epoch), LastCleanEpoch: uint32(l.lce), Last: uint64(l.last),
			TrimTimestampMs: l.trimMs, LogRemovedMs: uint64(l.removedMs)})
	}
	s.mu.Unlock()
	for _, st := range out.States {
		err := s.spans(logs.LogID(st.Log), func(_ uint64, x extent) {
			if uint64(x.last) > st.TrimPoint {
				st.Bytes += x.bytes
			}
		})
		if err != nil {
			return &wire.LogStateResponse{Status: statusFailed}
		}
	}
	return out
}

func limitOf(n uint32) int {
	if n == 0 {
		return rowsDefault
	}
	return min(int(n), rowsMost)
}

// Records lists every version of every copy of a stretch, released or not. The
// payload of each is read and verified, and sent if asked for.
func (s *Store) Records(req *wire.RecordsRequest, reply func(*wire.RecordsResponse)) {
	switch {
	case !s.addressed(req.Shard):
		reply(&wire.RecordsResponse{Status: statusMisplaced})
		return
	case !logs.LogID(req.Log).DataLog().Valid() || req.From > req.To:
		reply(&wire.RecordsResponse{Status: statusInvalid})
		return
	case s.isUnknown(logs.LogID(req.Log)):
		reply(&wire.RecordsResponse{Status: statusUnknown})
		return
	}
	if !s.run(func() { reply(s.records(req)) }) {
		reply(&wire.RecordsResponse{Status: statusShutdown})
	}
}

func (s *Store) records(req *wire.RecordsRequest) *wire.RecordsResponse {
	id := logs.LogID(req.Log)
	s.mu.Lock()
	l := s.peek(id)
	out := &wire.RecordsResponse{TrimPoint: uint64(l.trim), LastReleased: uint64(l.deliverable()),
		Doubt: s.suspected(l).meets(logs.LSN(req.From), logs.LSN(req.To))}
	s.mu.Unlock()
	v, err := s.view(id, logs.LSN(req.From), logs.LSN(req.To))
	if err != nil {
		return &wire.RecordsResponse{Status: statusFailed}
	}
	defer v.close()
	limit, budget := limitOf(req.Limit), bytesMaxMost/4
	for v.next() {
		lsn := uint64(v.versions[0].lsn)
		if len(out.Records) >= limit || budget <= 0 {
			out.Next = lsn
			break
		}
		damaged := false
		for i := range v.versions {
			b := &v.versions[i]
			if b.damage != nil {
				damaged = true
				continue
			}
			r := b.head.record(id)
			if b.head.hasPayload() {
				p, err := v.payload(b)
				damaged = damaged || errors.Is(err, ErrCorrupt)
				if req.Payloads && err == nil {
					r.Payload = p
					budget -= len(p)
				}
			}
			out.Records = append(out.Records, r)
			out.PayloadBytes = append(out.PayloadBytes, b.head.payloadBytes)
			budget -= 100
		}
		if damaged {
			out.Damaged = append(out.Damaged, lsn)
		}
	}
	if v.err != nil {
		s.o.Logger.Error("logs/store: records", "log", id, "error", v.err)
		return &wire.RecordsResponse{Status: statusFailed}
	}
	return out
}

// PartitionRow is a row of the partitions table.
type PartitionRow struct {
	ID             uint64
	StartMs, EndMs int64 // EndMs 0: not closed
	Bytes          int64 // of copies, about
	Open           bool  // its LSM is open
	Writable       bool  // new copies go there
}

// Partitions lists the partitions, oldest first.
func (s *Store) Partitions() []PartitionRow {
	s.mu.Lock()
	open := s.open
	s.mu.Unlock()
	var out []PartitionRow
	for _, p := range s.shelf.list() {
		p.mu.Lock()
		loaded := p.lsm != nil
		p.mu.Unlock()
		s.shelf.mu.Lock()
		out = append(out, PartitionRow{ID: p.id, StartMs: p.startMs, EndMs: p.endMs, Bytes: p.bytes, Open: loaded, Writable: p == open})
		s.shelf.mu.Unlock()
	}
	return out
}

// DirectoryRow is a row of the logsdb_directory table: what a partition has of a log.
type DirectoryRow struct {
	Partition    uint64
	First, Last  logs.LSN
	MinMs, MaxMs int64 // of its timestamps
	Bytes        uint64
	Copies       uint64
}

// Directory lists the partitions that have any of a log, oldest first.
func (s *Store) Directory(log logs.LogID) (out []DirectoryRow, err error) {
	err = s.spans(log, func(p uint64, x extent) {
		out = append(out, DirectoryRow{Partition: p, First: x.first, Last: x.last, MinMs: x.minMs, MaxMs: x.maxMs, Bytes: x.bytes, Copies: x.copies})
	})
	return out, err
}

// StreamRow is a row of the readers table.
type StreamRow struct {
	ID                uint64
	Log               logs.LogID
	From, Next, Until logs.LSN
	LastReleased      logs.LSN // up to which it may be served
	WindowHigh        logs.LSN
	FilterVersion     uint64
	Waiting           bool
	FilteredOutShards int
}

// Streams lists the read streams, ascending by id.
func (s *Store) Streams() []StreamRow {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []StreamRow
	for _, r := range s.streams {
		out = append(out, StreamRow{ID: r.id, Log: r.log.id, From: r.from, Next: r.next, LastReleased: r.log.deliverable(), Until: r.terms.until, WindowHigh: r.terms.windowHigh,
			FilterVersion: r.terms.version, Waiting: r.reply != nil, FilteredOutShards: len(r.terms.filteredOut)})
	}
	slices.SortFunc(out, func(a, b StreamRow) int { return int(int64(a.ID - b.ID)) })
	return out
}

// Metrics is what the store did since it was opened.
type Metrics struct {
	Stores         int64 // copies acknowledged
	StoredBytes    int64 // of those copies, with headers
	Refused        int64 // stores and reads refused
	Dropped        int64 // stores refused because the queue was full
	NoSpace        int64 // stores refused for want of space
	Damaged        int64 // copies found damaged
	Repaired       int64 // copies that were lost here, taken from other shards
	LogsInDoubt    int64 // logs of which copies may be lost here
	Delivered      int64 // records delivered to readers
	DeliveredBytes int64 // of those records
	CacheReads     int64 // reads served by the record cache
	LSMReads       int64 // reads that went to partitions
	BytesRead      int64 // from files of partitions
	BytesFlushed   int64 // written to disk by flushes of partitions and marks
	BytesCompacted int64 // written to disk by rewriting them
	Partitions     int64 // that there are
	Rotations      int64 // partitions begun
	Drops          int64 // partitions dropped
	Logs           int64 // of which something is known
	ReadStreams    int64 // that there are
	QueueBytes     int64 // of stores under way
	RecentBytes    int64 // in the record cache
	Suspect        bool  // what was acknowledged may be lost
}

// Metrics reads the counters.
func (s *Store) Metrics() Metrics {
	c := &s.count
	m := Metrics{Stores: c.stores.Load(), StoredBytes: c.storedBytes.Load(), Refused: c.refused.Load(), Dropped: c.dropped.Load(),
		NoSpace: c.noSpace.Load(), Damaged: c.damaged.Load(), Repaired: c.repaired.Load(), Delivered: c.delivered.Load(), DeliveredBytes: c.deliveredBytes.Load(),
		CacheReads: c.cacheReads.Load(), LSMReads: c.lsmReads.Load(), BytesFlushed: c.flushed.Load(), BytesCompacted: c.compacted.Load(),
		BytesRead: s.BytesRead(), Rotations: c.rotations.Load(), Drops: c.drops.Load()}
	add := func(l *lsm) {
		flushed, compacted := l.writtenBytes()
		m.BytesFlushed += flushed
		m.BytesCompacted += compacted
	}
	add(s.marks)
	for _, p := range s.shelf.list() {
		m.Partitions++
		p.mu.Lock()
		if p.lsm != nil {
			add(p.lsm)
		}
		p.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.Logs, m.ReadStreams, m.QueueBytes, m.RecentBytes = int64(len(s.logs)), int64(len(s.streams)), s.inFlight, s.recent.bytes
	m.LogsInDoubt = int64(s.openDoubts)
	m.Suspect = s.doubt.number > s.doubt.trusted
	return m
}
