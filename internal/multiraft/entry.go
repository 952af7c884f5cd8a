package multiraft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
)

// The bytes of this file face disk and wire; docs/formats/raft-entry.md
// describes them.

const (
	entryVersion  = 1
	recordVersion = 1
	stateVersion  = 2
	confVersion   = 1

	entryFixed = 1 + 1 + 2 + 8 // version, kind, flags, hybrid time

	// flagTxn says that a transaction id of 16 bytes precedes the hybrid time.
	flagTxn = 1 << 0
	// flagsKnown are those that this version understands. An entry with others
	// is refused: applying it wrongly would make replicas differ.
	flagsKnown = flagTxn

	confReplicasMax = 1 << 10
)

// ErrBadEntry marks bytes that are no entry, configuration or state of ours.
var ErrBadEntry = errors.New("malformed raft record")

// appendEntryHead starts the bytes of an entry of n writes.
func appendEntryHead(b []byte, kind EntryKind, ht hlc.Timestamp, n int) []byte {
	b = append(b, entryVersion, byte(kind), 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(ht))
	return binary.AppendUvarint(b, uint64(n))
}

// appendEntryWrite adds one write to an entry.
func appendEntryWrite(b []byte, id ProposalID, data []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(id))
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}

// entryWriteSize bounds what appendEntryWrite adds.
func entryWriteSize(data []byte) int { return 8 + binary.MaxVarintLen32 + len(data) }

// entryHead reads kind, hybrid time and where the writes begin.
func entryHead(b []byte) (kind EntryKind, flags uint16, ht hlc.Timestamp, rest []byte, err error) {
	if len(b) < entryFixed {
		return 0, 0, 0, nil, fmt.Errorf("%w: entry of %d bytes", ErrBadEntry, len(b))
	}
	if b[0] != entryVersion {
		return 0, 0, 0, nil, fmt.Errorf("%w: entry version %d", ErrBadEntry, b[0])
	}
	kind, flags = EntryKind(b[1]), binary.LittleEndian.Uint16(b[2:])
	if flags&^flagsKnown != 0 {
		return 0, 0, 0, nil, fmt.Errorf("%w: entry flags %#x", ErrBadEntry, flags)
	}
	rest = b[4:]
	if flags&flagTxn != 0 {
		if len(rest) < 16+8 {
			return 0, 0, 0, nil, fmt.Errorf("%w: entry cut in its transaction id", ErrBadEntry)
		}
		rest = rest[16:]
	}
	return kind, flags, hlc.Timestamp(binary.LittleEndian.Uint64(rest)), rest[8:], nil
}

// decodeEntry reads the bytes of a raft entry into e; the writes' data aliases
// them, and scratch is used for the list of writes.
func decodeEntry(re *pb.Entry, e *Entry, scratch []EntryWrite) ([]EntryWrite, error) {
	*e = Entry{Index: re.GetIndex(), Term: re.GetTerm()}
	data := re.GetData()
	if re.GetType() != pb.EntryNormal {
		cc, err := decodeConfChange(re)
		if err != nil {
			return scratch, err
		}
		data = cc.GetContext()
	}
	if len(data) == 0 {
		return scratch, nil // a leader's first entry
	}
	kind, flags, ht, rest, err := entryHead(data)
	if err != nil {
		return scratch, err
	}
	e.Kind, e.Flags, e.HybridTime = kind, flags, ht
	n, used := binary.Uvarint(rest)
	if used <= 0 || n > uint64(len(rest)) {
		return scratch, fmt.Errorf("%w: count of writes", ErrBadEntry)
	}
	rest = rest[used:]
	first := len(scratch)
	for range n {
		id, data, left, err := decodeWrite(rest)
		if err != nil {
			return scratch, err
		}
		scratch = append(scratch, EntryWrite{Proposal: id, Data: data})
		rest = left
	}
	if len(rest) != 0 {
		return scratch, fmt.Errorf("%w: %d bytes after the last write", ErrBadEntry, len(rest))
	}
	e.Writes = scratch[first:len(scratch):len(scratch)]
	if kind == KindConf {
		if len(e.Writes) != 1 {
			return scratch, fmt.Errorf("%w: configuration with %d parts", ErrBadEntry, len(e.Writes))
		}
		e.Conf = e.Writes[0].Data
	}
	return scratch, nil
}

func decodeWrite(b []byte) (ProposalID, []byte, []byte, error) {
	if len(b) < 9 {
		return 0, nil, nil, fmt.Errorf("%w: write cut short", ErrBadEntry)
	}
	id := ProposalID(binary.LittleEndian.Uint64(b))
	n, used := binary.Uvarint(b[8:])
	b = b[8:]
	if used <= 0 || n > uint64(len(b)-used) {
		return 0, nil, nil, fmt.Errorf("%w: length of a write", ErrBadEntry)
	}
	b = b[used:]
	return id, b[:n:n], b[n:], nil
}

// entryTime is the hybrid time of an entry, 0 for a noop, and the id of its
// first write.
func entryTime(re *pb.Entry) (hlc.Timestamp, ProposalID, error) {
	data := re.GetData()
	if re.GetType() != pb.EntryNormal {
		cc, err := decodeConfChange(re)
		if err != nil {
			return 0, 0, err
		}
		data = cc.GetContext()
	}
	if len(data) == 0 {
		return 0, 0, nil
	}
	_, _, ht, rest, err := entryHead(data)
	if err != nil {
		return 0, 0, err
	}
	n, used := binary.Uvarint(rest)
	if used <= 0 || n == 0 || len(rest) < used+8 {
		return ht, 0, nil
	}
	return ht, ProposalID(binary.LittleEndian.Uint64(rest[used:])), nil
}

// EncodeConf writes a configuration.
func EncodeConf(conf []*catalog.Replica) []byte {
	b := append(make([]byte, 0, 2+len(conf)*12), confVersion)
	b = binary.AppendUvarint(b, uint64(len(conf)))
	for _, r := range conf {
		b = binary.AppendUvarint(b, r.GetId())
		b = binary.AppendUvarint(b, r.GetNode())
		b = append(b, byte(r.GetRole()))
	}
	return b
}

// DecodeConf reads what EncodeConf wrote.
func DecodeConf(b []byte) ([]*catalog.Replica, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if b[0] != confVersion {
		return nil, fmt.Errorf("%w: configuration version %d", ErrBadEntry, b[0])
	}
	b = b[1:]
	n, b, err := takeUvarint(b)
	if err != nil || n > confReplicasMax || n > uint64(len(b)) {
		return nil, fmt.Errorf("%w: count of replicas", ErrBadEntry)
	}
	conf := make([]*catalog.Replica, 0, n)
	for range n {
		var id, node uint64
		if id, b, err = takeUvarint(b); err != nil {
			return nil, err
		}
		if node, b, err = takeUvarint(b); err != nil {
			return nil, err
		}
		if len(b) == 0 {
			return nil, fmt.Errorf("%w: configuration cut short", ErrBadEntry)
		}
		role := catalog.Role(b[0])
		if id == 0 || (role != catalog.Role_ROLE_VOTER && role != catalog.Role_ROLE_LEARNER) ||
			slices.ContainsFunc(conf, func(r *catalog.Replica) bool { return r.GetId() == id }) {
			return nil, fmt.Errorf("%w: replica %d of role %d", ErrBadEntry, id, role)
		}
		b = b[1:]
		conf = append(conf, &catalog.Replica{Id: id, Node: node, Role: role})
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes after the configuration", ErrBadEntry, len(b))
	}
	return conf, nil
}

// state is what must survive beside the entries.
type state struct {
	term, vote       uint64
	commit           uint64 // known to be committed when this was written; entries say more
	commitTerm       uint64 // of the entry at commit: the log that is read back may lack it (M11)
	startIndex       uint64 // the log begins after this entry
	startTerm        uint64
	conf             []byte // the configuration at startIndex
	snapshotRestored bool   // startIndex came with a snapshot, so the state machine must be there
}

func encodeState(b []byte, s *state) []byte {
	flags := byte(0)
	if s.snapshotRestored {
		flags = 1
	}
	b = append(b, stateVersion, flags)
	b = binary.AppendUvarint(b, s.term)
	b = binary.AppendUvarint(b, s.vote)
	b = binary.AppendUvarint(b, s.commit)
	b = binary.AppendUvarint(b, s.commitTerm)
	b = binary.AppendUvarint(b, s.startIndex)
	b = binary.AppendUvarint(b, s.startTerm)
	b = binary.AppendUvarint(b, uint64(len(s.conf)))
	return append(b, s.conf...)
}

func decodeState(b []byte) (state, error) {
	var s state
	if len(b) < 2 || b[0] < 1 || b[0] > stateVersion || b[1] > 1 {
		return s, fmt.Errorf("%w: state version", ErrBadEntry)
	}
	fields := make([]*uint64, 0, 7)
	fields = append(fields, &s.term, &s.vote, &s.commit)
	if b[0] > 1 {
		fields = append(fields, &s.commitTerm)
	}
	s.snapshotRestored = b[1] == 1
	b = b[2:]
	var n uint64
	var err error
	for _, f := range append(fields, &s.startIndex, &s.startTerm, &n) {
		if *f, b, err = takeUvarint(b); err != nil {
			return s, err
		}
	}
	if n != uint64(len(b)) {
		return s, fmt.Errorf("%w: state's configuration", ErrBadEntry)
	}
	s.conf = slices.Clone(b)
	return s, nil
}

// appendRecord writes a raft entry as a journal record's payload, with what is
// known to be committed: that costs eight bytes here, a record of its own
// elsewhere.
func appendRecord(b []byte, e *pb.Entry, commit uint64) []byte {
	b = append(b, recordVersion, byte(e.GetType()))
	b = binary.LittleEndian.AppendUint64(b, e.GetTerm())
	b = binary.LittleEndian.AppendUint64(b, commit)
	return append(b, e.GetData()...)
}

const recordFixed = 1 + 1 + 8 + 8

// decodeRecord reads a journal record back into a raft entry.
func decodeRecord(pos uint64, b []byte) (e *pb.Entry, commit uint64, err error) {
	if len(b) < recordFixed || b[0] != recordVersion || b[1] > byte(pb.EntryConfChangeV2) {
		return nil, 0, fmt.Errorf("%w: journal record at %d", ErrBadEntry, pos)
	}
	e = newEntry(pb.EntryType(b[1]), binary.LittleEndian.Uint64(b[2:]), pos)
	if len(b) > recordFixed {
		e.Data = slices.Clone(b[recordFixed:])
	}
	if _, _, err := entryTime(e); err != nil {
		return nil, 0, err
	}
	return e, binary.LittleEndian.Uint64(b[10:]), nil
}

// newEntry makes a raft entry with one allocation for its scalars.
func newEntry(t pb.EntryType, term, index uint64) *pb.Entry {
	v := &struct {
		e           pb.Entry
		t           pb.EntryType
		term, index uint64
	}{t: t, term: term, index: index}
	v.e.Type, v.e.Term, v.e.Index = &v.t, &v.term, &v.index
	return &v.e
}

func takeUvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, fmt.Errorf("%w: number", ErrBadEntry)
	}
	return v, b[n:], nil
}
