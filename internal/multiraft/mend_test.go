package multiraft

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/wire"
)

// handTimer collects what was to run later. The test runs it.
type handTimer struct{ due []func() }

func (h *handTimer) AfterFunc(_ time.Duration, f func()) func() bool {
	h.due = append(h.due, f)
	return func() bool { return true }
}

func (h *handTimer) fire() {
	due := h.due
	h.due = nil
	for _, f := range due {
		f()
	}
}

// handJournal takes appends and lets the test say what becomes of them.
type handJournal struct {
	recs    []journal.Record
	done    []func(error)
	onWrite func()
}

func (j *handJournal) Append(recs []journal.Record, done func(error)) {
	j.recs, j.done = append(j.recs, recs...), append(j.done, done)
	if f := j.onWrite; f != nil {
		j.onWrite = nil
		f()
	}
}
func (j *handJournal) SetLowWater(journal.StreamID, uint64) {}
func (j *handJournal) Full() bool                           { return false }

// handHost is a host that was never started: the test is its loops.
func handHost(t *testing.T, cfg Config, d Deps) *Host {
	d.Node, d.Incarnation = 1, 1
	d.Clock = hlc.New(func() int64 { return simEpoch }, cfg.withDefaults().MaxSkew)
	d.Mono = func() time.Duration { return time.Hour }
	d.Rand = rand.New(rand.NewPCG(1, 1))
	if d.Transport == nil {
		d.Transport = &testTransport{net: newTestNet(), self: 1}
	}
	if d.Timer == nil {
		d.Timer = &handTimer{}
	}
	if d.Journal == nil {
		d.Journal = &handJournal{}
	}
	h := New(cfg, d)
	t.Cleanup(h.Close)
	return h
}

// What the loop appends while refused appends are written again must not come
// before any of them, or replay would void what was acknowledged.
func TestRefusedAppendsAreWrittenAgainInOrder(t *testing.T) {
	timer, disk := &handTimer{}, &handJournal{}
	h := handHost(t, Config{Loops: 1}, Deps{Timer: timer, Journal: disk})
	a := &h.loops[0].journal
	entry := func(pos uint64) []journal.Record {
		return []journal.Record{{Stream: 7, Kind: journal.KindEntry, Pos: pos}}
	}
	a.add(1, entry(100))
	disk.done[0](journal.ErrNoSpace)
	a.add(2, entry(101))
	if len(disk.recs) != 1 {
		t.Fatalf("written behind a refused append: %v", disk.recs)
	}
	disk.recs, disk.done = nil, nil
	disk.onWrite = func() { a.add(3, entry(102)) } // the loop is fast
	timer.fire()
	a.add(4, entry(103))
	var got []string
	for _, r := range disk.recs {
		got = append(got, fmt.Sprintf("%d:%d", r.Kind, r.Pos))
	}
	want := []string{fmt.Sprintf("%d:100", journal.KindTruncate)}
	for pos := 100; pos <= 103; pos++ {
		want = append(want, fmt.Sprintf("%d:%d", journal.KindEntry, pos))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("written again as %v, want %v", got, want)
	}
	// Refused once more in the middle: only what is before counts, and all from
	// there on is written a third time.
	for i, done := range slices.Clone(disk.done) {
		if i == 2 {
			done(journal.ErrNoSpace)
		} else {
			done(nil)
		}
	}
	turn := uint64(0)
	for _, e := range h.loops[0].mail.events {
		turn = max(turn, e.turn)
	}
	if turn != 2 {
		t.Fatalf("turn %d counts as durable, want 2", turn)
	}
	disk.recs, disk.done = nil, nil
	timer.fire()
	if len(disk.done) != 2 || disk.recs[0].Kind != journal.KindTruncate || disk.recs[0].Pos != 102 {
		t.Fatalf("third attempt writes %v", disk.recs)
	}
}

// A write above every bound on what waits gets in where nothing else waits, and
// one above EntryBytesMax has an entry of its own; beyond WriteBytesMax none is.
func TestOneLargeWriteIsLetIn(t *testing.T) {
	cfg := testConfig
	cfg.EntryBytesMax, cfg.WriteBytesMax = 1<<10, 3<<20
	cfg.ProposalBytesMax, cfg.ProposalBytesTotal = 1<<10, 2<<10
	nodes, _ := newCluster(t, 3, cfg, 0)
	put(t, nodes, 7, strings.Repeat("x", 2<<20))
	same(t, nodes, 1)
	if r, _ := propose(leaderOf(nodes, 7).host.Group(7), strings.Repeat("x", 3<<20)); !errors.Is(r.Err, ErrTooLarge) {
		t.Fatalf("a write above the bound: %v", r.Err)
	}
}

func TestAWriteMustFitAMessage(t *testing.T) {
	for _, c := range []Config{{MessageBytesMax: 1 << 20, WriteBytesMax: 1 << 20}, {MessageBytesMax: 4 << 20}, {SnapshotChunk: 9 << 20}} {
		c = c.withDefaults()
		if c.check() == nil {
			t.Errorf("accepted: writes of %d, entries of %d, chunks of %d in messages of %d", c.WriteBytesMax, c.EntryBytesMax, c.SnapshotChunk, c.MessageBytesMax)
		}
	}
	c := Config{MessageBytesMax: 65 << 20}.withDefaults()
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	// The largest write as it travels.
	data := appendEntryWrite(appendEntryHead(nil, KindWrites, 1<<62, 1), 1<<63, make([]byte, c.WriteBytesMax))
	raw, err := proto.Marshal(&pb.Message{Type: pb.MsgApp.Enum(), From: new(uint64(1 << 63)), To: new(uint64(1 << 63)), Term: new(uint64(1 << 63)),
		Index: new(uint64(1 << 63)), LogTerm: new(uint64(1 << 63)), Commit: new(uint64(1 << 63)),
		Entries: []*pb.Entry{{Term: new(uint64(1 << 63)), Index: new(uint64(1 << 63)), Data: data}}})
	if err != nil {
		t.Fatal(err)
	}
	x := &core{self: 1 << 63, inc: 1 << 63}
	x.post(1<<63, &wire.Envelope{Group: 1 << 63, FromReplica: 1 << 63, ToReplica: 1 << 63, Incarnation: 1 << 63, HybridTimeLease: 1 << 63,
		RemainingLeaseUs: 1 << 62, Revoked: true, Promise: 1 << 63, Removed: true, Raft: raw})
	x.fx.batches[0].batch.HybridTime = 1 << 63
	if n := x.fx.batches[0].batch.SizeVT(); n > c.MessageBytesMax {
		t.Fatalf("the largest write makes a message of %d bytes, the bound is %d", n, c.MessageBytesMax)
	}
}

// Everything to a node in one message could exceed what the transport carries.
func TestBatchesAreBounded(t *testing.T) {
	x := &core{self: 1}
	for range 40 {
		x.post(2, &wire.Envelope{Group: 1 << 63, FromReplica: 1 << 63, ToReplica: 1 << 63, Incarnation: 1 << 63, HybridTimeLease: 1 << 63,
			RemainingLeaseUs: 1 << 62, Revoked: true, Promise: 1 << 63, Removed: true, Raft: make([]byte, 1<<20)})
		x.post(3, &wire.Envelope{})
	}
	x.post(2, &wire.Envelope{Raft: make([]byte, 64<<20)})
	x.post(2, &wire.Envelope{Raft: []byte("vote")})
	small, large := 0, 0
	for _, b := range x.fx.batches {
		switch n := b.batch.SizeVT(); {
		case b.to == 3:
			small++
		case n > batchBytesMax && len(b.batch.Envelopes) > 1:
			t.Errorf("%d envelopes of %d bytes in one message", len(b.batch.Envelopes), n)
		default:
			large++
		}
	}
	if small != 1 || large < 11 || large > 16 {
		t.Fatalf("%d batches to one node, %d to the other", large, small)
	}
	if last := x.fx.batches[len(x.fx.batches)-1]; len(last.batch.Envelopes) != 1 || string(last.batch.Envelopes[0].Raft) != "vote" {
		t.Fatal("a vote travels with the largest write")
	}
}
