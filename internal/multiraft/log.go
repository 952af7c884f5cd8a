package multiraft

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// memLog is a group's log above the point where it was cut, as raft reads it:
// synchronously, so all of it is in memory. It holds what was handed to the
// journal, durable or not; raft itself keeps apart what is not yet stable.
type memLog struct {
	base     uint64 // index of the entry before the first; its term is known
	baseTerm uint64
	ents     []*pb.Entry
	bytes    int64

	hard *pb.HardState
	conf *pb.ConfState // at applied; raft asks for it once, at start

	// snapshot answers raft's wish for a snapshot without touching the disk.
	snapshot func() (*pb.Snapshot, error)
}

var _ raft.Storage = (*memLog)(nil)

func (l *memLog) last() uint64 { return l.base + uint64(len(l.ents)) }

func (l *memLog) lastTerm() uint64 {
	if n := len(l.ents); n > 0 {
		return l.ents[n-1].GetTerm()
	}
	return l.baseTerm
}

// append takes entries that follow or overwrite the log's end. It reports
// whether entries were overwritten.
func (l *memLog) append(ents []*pb.Entry) (truncated bool) {
	first := ents[0].GetIndex()
	if first <= l.base || first > l.last()+1 {
		panic(fmt.Sprintf("multiraft: append at %d to a log of (%d, %d]", first, l.base, l.last()))
	}
	if first <= l.last() {
		truncated = true
		for _, e := range l.ents[first-l.base-1:] {
			l.bytes -= entryBytes(e)
		}
		l.ents = append([]*pb.Entry(nil), l.ents[:first-l.base-1]...)
	}
	l.ents = append(l.ents, ents...)
	for _, e := range ents {
		l.bytes += entryBytes(e)
	}
	return truncated
}

// cut forgets entries up to index.
func (l *memLog) cut(index uint64) {
	if index <= l.base {
		return
	}
	if index > l.last() {
		panic(fmt.Sprintf("multiraft: cut at %d of a log of (%d, %d]", index, l.base, l.last()))
	}
	n := index - l.base
	l.baseTerm = l.ents[n-1].GetTerm()
	for _, e := range l.ents[:n] {
		l.bytes -= entryBytes(e)
	}
	l.base = index
	if rest := l.ents[n:]; len(rest) == 0 {
		l.ents = nil
	} else {
		l.ents = append(make([]*pb.Entry, 0, len(rest)), rest...)
	}
}

// reset begins the log anew after a snapshot.
func (l *memLog) reset(index, term uint64) {
	l.base, l.baseTerm, l.ents, l.bytes = index, term, nil, 0
}

// entryBytes is what an entry is counted with: its data and its struct.
func entryBytes(e *pb.Entry) int64 { return int64(len(e.GetData())) + 112 }

// InitialState implements raft.Storage.
func (l *memLog) InitialState() (*pb.HardState, *pb.ConfState, error) { return l.hard, l.conf, nil }

// Entries implements raft.Storage.
func (l *memLog) Entries(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	if lo <= l.base {
		return nil, raft.ErrCompacted
	}
	if hi > l.last()+1 {
		return nil, raft.ErrUnavailable
	}
	ents := l.ents[lo-l.base-1 : hi-l.base-1]
	size := uint64(0)
	for i, e := range ents {
		size += uint64(proto.Size(e))
		if i > 0 && size > maxSize {
			ents = ents[:i]
			break
		}
	}
	return ents[:len(ents):len(ents)], nil
}

// Term implements raft.Storage.
func (l *memLog) Term(i uint64) (uint64, error) {
	switch {
	case i < l.base:
		return 0, raft.ErrCompacted
	case i == l.base:
		return l.baseTerm, nil
	case i > l.last():
		return 0, raft.ErrUnavailable
	}
	return l.ents[i-l.base-1].GetTerm(), nil
}

// LastIndex implements raft.Storage.
func (l *memLog) LastIndex() (uint64, error) { return l.last(), nil }

// FirstIndex implements raft.Storage.
func (l *memLog) FirstIndex() (uint64, error) { return l.base + 1, nil }

// Snapshot implements raft.Storage.
func (l *memLog) Snapshot() (*pb.Snapshot, error) { return l.snapshot() }
