package multiraft

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/wire"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	metaVersion      = 1
	streamsInMax     = 8                // incoming at once
	streamIdleMax    = 30 * time.Second // an incoming stream that stalls longer may be dropped
	chunkSentMax     = 30 * time.Second // a chunk that takes longer ends its stream
	snapshotChunkMax = 8 << 20
)

// stream sends a snapshot: the state machine is asked between two entries, then
// read and sent by a goroutine of its own.
func (l *loop) stream(t *snapshotTask) {
	ctx, cancel := context.WithCancel(l.h.ctx)
	t.cancel = cancel
	l.applier.push(work{run: func() {
		r, err := t.g.h.sm.Snapshot()
		if err != nil {
			cancel()
			l.post(event{kind: evStreamed, stream: t, err: err})
			return
		}
		l.h.spawn(func() {
			s, err := l.h.newSender(t, r)
			if err != nil {
				l.h.streamed(t, r, err)
				return
			}
			l.h.sendSnapshot(ctx, s)
		})
	}})
}

// spawn runs f on a goroutine of its own, or as a task.
func (h *Host) spawn(f func()) {
	if h.d.Tasks != nil {
		h.d.Tasks(f)
		return
	}
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		f()
	}()
}

// sendSnapshot sends what is left of a snapshot, and says how that went: one chunk
// after the other, each in a task of its own where there are no goroutines.
func (h *Host) sendSnapshot(ctx context.Context, s *snapshotSender) {
	for {
		last, err := s.next(ctx)
		if err != nil || last {
			h.streamed(s.t, s.r, err)
			return
		}
		if h.d.Tasks != nil {
			h.d.Tasks(func() { h.sendSnapshot(ctx, s) })
			return
		}
	}
}

// streamed ends a stream.
func (h *Host) streamed(t *snapshotTask, r SnapshotReader, err error) {
	t.cancel()
	if err = errors.Join(err, r.Close()); err != nil {
		h.d.Logger.Warn("a snapshot did not arrive", "group", uint64(t.g.id), "to", uint64(t.to), "error", err)
	}
	t.g.h.loop.post(event{kind: evStreamed, stream: t, err: err})
}

// snapshotSender streams a snapshot in checksummed chunks, one at a time: the
// receiver's pace is the sender's. The last one carries the raft message.
type snapshotSender struct {
	h   *Host
	t   *snapshotTask
	r   SnapshotReader
	raw []byte
	buf []byte
	seq uint64
}

func (h *Host) newSender(t *snapshotTask, r SnapshotReader) (*snapshotSender, error) {
	meta := r.State()
	if meta.Index == 0 {
		// Nothing is applied yet, and maybe nothing will be before the receiver, one of the
		// first replicas that came late, is a part of the majority: it gets the beginning.
		meta.Index, meta.Term = bootIndex, bootTerm
	}
	if len(meta.Conf) == 0 {
		meta.Conf = t.conf
	}
	raw, err := snapshotMessage(t, &meta)
	return &snapshotSender{h: h, t: t, r: r, raw: raw, buf: make([]byte, h.cfg.SnapshotChunk)}, err
}

// next sends one chunk and says whether it was the last.
func (s *snapshotSender) next(ctx context.Context) (last bool, err error) {
	n, err := io.ReadFull(s.r, s.buf)
	last = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if err != nil && !last {
		return false, err
	}
	c := &wire.SnapshotChunk{Group: uint64(s.t.g.id), FromReplica: uint64(s.t.g.replica), ToReplica: uint64(s.t.to),
		Snapshot: s.t.id, Sequence: s.seq, Data: s.buf[:n:n], Checksum: crc32.Checksum(s.buf[:n], castagnoli), Last: last}
	if last {
		c.Raft = s.raw
	}
	s.seq++
	return last, s.h.sendChunk(ctx, s.t.node, c)
}

var errChunkStuck = errors.New("the peer did not take a snapshot's chunk in time")

// sendChunk sends one chunk. A peer that swallows it without a word must not
// hold the stream, and the log behind it, for ever.
func (h *Host) sendChunk(ctx context.Context, to catalog.NodeID, c *wire.SnapshotChunk) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := h.d.Timer.AfterFunc(chunkSentMax, func() { cancel(errChunkStuck) })
	defer stop()
	err := h.d.Transport.SendSnapshotChunk(ctx, to, c)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	return err
}

func snapshotMessage(t *snapshotTask, meta *AppliedState) ([]byte, error) {
	conf, err := DecodeConf(meta.Conf)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&pb.Message{Type: pb.MsgSnap.Enum(), From: new(uint64(t.g.replica)), To: new(uint64(t.to)), Term: new(t.term),
		Snapshot: &pb.Snapshot{Data: encodeMeta(meta),
			Metadata: &pb.SnapshotMetadata{Index: new(meta.Index), Term: new(meta.Term), ConfState: confState(conf)}}})
}

// encodeMeta is what a snapshot says beside raft's own metadata.
func encodeMeta(m *AppliedState) []byte {
	b := append(make([]byte, 0, 9+len(m.Conf)), metaVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.HybridTime))
	return append(b, m.Conf...)
}

// decodeSnapshot reads a snapshot's raft message.
func decodeSnapshot(raw []byte) (*pb.Message, AppliedState, error) {
	m := &pb.Message{}
	if err := proto.Unmarshal(raw, m); err != nil {
		return nil, AppliedState{}, fmt.Errorf("%w: %w", ErrBadEntry, err)
	}
	s := m.GetSnapshot()
	if m.GetType() != pb.MsgSnap || s.GetMetadata().GetIndex() == 0 || s.GetMetadata().GetTerm() == 0 || m.GetTerm() == 0 {
		return nil, AppliedState{}, fmt.Errorf("%w: not a snapshot", ErrBadEntry)
	}
	if len(s.GetData()) < 9 || s.GetData()[0] != metaVersion {
		return nil, AppliedState{}, fmt.Errorf("%w: snapshot version", ErrBadEntry)
	}
	meta := AppliedState{Index: s.GetMetadata().GetIndex(), Term: s.GetMetadata().GetTerm(),
		HybridTime: hlc.Timestamp(binary.LittleEndian.Uint64(s.GetData()[1:])), Conf: bytes.Clone(s.GetData()[9:])}
	conf, err := DecodeConf(meta.Conf)
	if err != nil {
		return nil, AppliedState{}, err
	}
	if err := confState(conf).Equivalent(pb.EnsureConfState(s.GetMetadata().GetConfState())); err != nil {
		return nil, AppliedState{}, fmt.Errorf("%w: snapshot names two configurations", ErrBadEntry)
	}
	return m, meta, nil
}

// spools are the snapshots that are coming in.
type spools struct {
	mu      sync.Mutex
	streams map[spoolKey]*inStream
	closed  bool
}

type spoolKey struct {
	group    catalog.GroupID
	snapshot uint64
}

type inStream struct {
	mu    sync.Mutex
	spool Spool
	next  uint64
	at    time.Duration
	dead  bool
}

// HandleSnapshotChunk takes one chunk. It may write a file, so it must not be
// called where waiting is forbidden.
func (h *Host) HandleSnapshotChunk(c *wire.SnapshotChunk) *wire.SnapshotAck {
	if err := h.takeChunk(c); err != nil {
		return &wire.SnapshotAck{Error: &wire.Error{Code: wire.Code_CODE_NOT_READY, Message: err.Error()}}
	}
	return &wire.SnapshotAck{}
}

func (h *Host) takeChunk(c *wire.SnapshotChunk) error {
	g := h.Group(catalog.GroupID(c.Group))
	if g == nil || uint64(g.g.replica) != c.ToReplica {
		return fmt.Errorf("group %d has no replica %d here", c.Group, c.ToReplica)
	}
	if len(c.Data) > snapshotChunkMax || crc32.Checksum(c.Data, castagnoli) != c.Checksum {
		return fmt.Errorf("chunk %d of snapshot %x is damaged", c.Sequence, c.Snapshot)
	}
	key := spoolKey{group: catalog.GroupID(c.Group), snapshot: c.Snapshot}
	s, err := h.spools.stream(h, key, c.Sequence == 0)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || c.Sequence != s.next {
		return fmt.Errorf("chunk %d of snapshot %x where %d was due", c.Sequence, c.Snapshot, s.next)
	}
	s.next++
	s.at = h.d.Mono()
	if _, err := s.spool.Write(c.Data); err != nil {
		h.spools.drop(key, s)
		return err
	}
	if !c.Last {
		return nil
	}
	h.spools.forget(key)
	s.dead = true
	m, meta, err := decodeSnapshot(c.Raft)
	if err == nil && (m.GetTo() != c.ToReplica || m.GetFrom() != c.FromReplica) {
		err = fmt.Errorf("%w: snapshot for another replica", ErrBadEntry)
	}
	if err != nil {
		return errors.Join(err, s.spool.Close())
	}
	in := &inSnapshot{group: key.group, msg: m, meta: meta, spool: s.spool}
	conf, _ := DecodeConf(meta.Conf)
	if r := findReplica(conf, catalog.ReplicaID(c.FromReplica)); r != nil {
		in.from = catalog.NodeID(r.GetNode())
	}
	g.loop.post(event{kind: evSnapshot, snapshot: in})
	return nil
}

// stream finds an incoming snapshot, or begins it with its first chunk.
func (s *spools) stream(h *Host, key spoolKey, first bool) (*inStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrStopped
	}
	if x := s.streams[key]; x != nil {
		return x, nil
	}
	if !first {
		return nil, fmt.Errorf("snapshot %x did not begin here", key.snapshot)
	}
	now := h.d.Mono()
	for k, x := range s.streams {
		if x.mu.TryLock() {
			if k.group == key.group || now-x.at > streamIdleMax {
				x.dead = true
				_ = x.spool.Close() // nothing of it was used
				delete(s.streams, k)
			}
			x.mu.Unlock()
		}
	}
	if len(s.streams) >= streamsInMax {
		return nil, ErrOverloaded
	}
	spool, err := h.newSpool()
	if err != nil {
		return nil, err
	}
	x := &inStream{spool: spool, at: now}
	s.streams[key] = x
	return x, nil
}

func (s *spools) forget(key spoolKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, key)
}

// drop ends a stream that cannot go on. The caller holds the stream's lock.
func (s *spools) drop(key spoolKey, x *inStream) {
	s.forget(key)
	x.dead = true
	_ = x.spool.Close() // its contents are of no use
}

func (s *spools) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for k, x := range s.streams {
		x.mu.Lock()
		x.dead = true
		_ = x.spool.Close() // its contents are of no use
		x.mu.Unlock()
		delete(s.streams, k)
	}
}

func (h *Host) newSpool() (Spool, error) {
	if h.d.Spool != nil {
		return h.d.Spool()
	}
	return &memSpool{max: h.cfg.SnapshotMemory}, nil
}

// memSpool holds a small snapshot in memory.
type memSpool struct {
	buf bytes.Buffer
	max int
}

func (m *memSpool) Write(b []byte) (int, error) {
	if m.buf.Len()+len(b) > m.max {
		return 0, fmt.Errorf("%w: snapshot above %d bytes", ErrOverloaded, m.max)
	}
	return m.buf.Write(b)
}

func (m *memSpool) Reader() (io.Reader, error) { return bytes.NewReader(m.buf.Bytes()), nil }
func (m *memSpool) Close() error               { m.buf = bytes.Buffer{}; return nil }

// restore replaces a state machine by a snapshot, after what was to be applied
// before. It has a goroutine of its own: other groups go on meanwhile, this one
// gets no entries until raft hears of the snapshot.
func (l *loop) restore(t *restoreTask) {
	l.applier.push(work{run: func() {
		l.applier.beginRestore(t.g)
		l.h.spawn(func() { l.tryRestore(t) })
	}})
}

// tryRestore keeps trying: raft has already given up what the snapshot replaces.
// It stops where the replica is to be removed: the state machine is destroyed
// behind it, never beside it.
func (l *loop) tryRestore(t *restoreTask) {
	for {
		if l.restoreOnce(t) {
			return
		}
		if l.h.d.Tasks != nil {
			l.h.d.Timer.AfterFunc(restoreAgain, func() { l.tryRestore(t) })
			return
		}
		again := make(chan struct{})
		stop := l.h.d.Timer.AfterFunc(restoreAgain, func() { close(again) })
		select {
		case <-again:
		case <-l.applier.restoreOver(t.g):
			stop()
		case <-l.h.ctx.Done():
			stop()
			l.applier.endRestore(t.g)
			return
		}
	}
}

// fill brings the state machine to where the snapshot is. At the group's beginning it
// has nothing, and there it is: the replica is blank.
func (t *restoreTask) fill() error {
	if t.meta.Index == bootIndex {
		return nil
	}
	r, err := t.spool.Reader()
	if err != nil {
		return err
	}
	return t.g.h.sm.Restore(t.meta, r)
}

// restoreAgain is how long a restore that failed waits.
const restoreAgain = time.Second

// restoreOnce tries once and says whether that was the end of it: the snapshot
// is in, or the replica goes; then the core lets the spool go.
func (l *loop) restoreOnce(t *restoreTask) bool {
	select {
	case <-l.applier.restoreOver(t.g):
		l.post(event{kind: evRestored, restore: t})
		l.applier.endRestore(t.g)
		return true
	default:
	}
	if err := t.fill(); err != nil {
		l.h.d.Logger.Error("a snapshot cannot be restored", "group", uint64(t.g.id), "error", err)
		return false
	}
	l.post(event{kind: evRestored, restore: t})
	l.applier.endRestore(t.g)
	return true
}
