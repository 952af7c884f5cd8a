package multiraft

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
)

func sampleEntry(ht hlc.Timestamp, datas ...string) *pb.Entry {
	b := appendEntryHead(nil, KindWrites, ht, len(datas))
	for i, d := range datas {
		b = appendEntryWrite(b, ProposalID(100+i), []byte(d))
	}
	e := newEntry(pb.EntryNormal, 3, 9)
	e.Data = b
	return e
}

func sampleConf() []*catalog.Replica {
	return []*catalog.Replica{
		{Id: 11, Node: 1, Role: catalog.Role_ROLE_VOTER},
		{Id: 1 << 60, Node: 1 << 50, Role: catalog.Role_ROLE_LEARNER},
	}
}

func TestEntryRoundTrip(t *testing.T) {
	for _, datas := range [][]string{{"a"}, {"", "b", string(make([]byte, 1<<17))}} {
		re := sampleEntry(77, datas...)
		var e Entry
		if _, err := decodeEntry(re, &e, nil); err != nil {
			t.Fatal(err)
		}
		if e.Kind != KindWrites || e.HybridTime != 77 || e.Index != 9 || e.Term != 3 || len(e.Writes) != len(datas) {
			t.Fatalf("%+v", e)
		}
		for i, w := range e.Writes {
			if w.Proposal != ProposalID(100+i) || string(w.Data) != datas[i] {
				t.Fatalf("write %d: %d, %d bytes", i, w.Proposal, len(w.Data))
			}
		}
		back, commit, err := decodeRecord(9, appendRecord(nil, re, 5))
		if err != nil || commit != 5 || !proto.Equal(back, re) {
			t.Fatalf("%v, %d, %v", back, commit, err)
		}
		if at, first, err := entryTime(re); at != 77 || first != 100 || err != nil {
			t.Fatalf("%v, %d, %v", at, first, err)
		}
	}
}

func TestEntryWithTransactionIsPassedOver(t *testing.T) {
	b := sampleEntry(77, "a").Data
	b[2] = flagTxn
	b = slices.Insert(b, 4, make([]byte, 16)...)
	e := newEntry(pb.EntryNormal, 1, 1)
	e.Data = b
	var d Entry
	if _, err := decodeEntry(e, &d, nil); err != nil || d.HybridTime != 77 || string(d.Writes[0].Data) != "a" {
		t.Fatalf("%+v, %v", d, err)
	}
	b[3] = 1 // a flag of the future
	if _, err := decodeEntry(e, &d, nil); !errors.Is(err, ErrBadEntry) {
		t.Fatalf("an unknown flag: %v", err)
	}
}

func TestConfAndStateRoundTrip(t *testing.T) {
	conf, err := DecodeConf(EncodeConf(sampleConf()))
	if err != nil || len(conf) != 2 || !proto.Equal(conf[1], sampleConf()[1]) {
		t.Fatalf("%v, %v", conf, err)
	}
	if _, err := DecodeConf(EncodeConf(append(sampleConf(), sampleConf()[0]))); !errors.Is(err, ErrBadEntry) {
		t.Fatalf("a replica twice: %v", err)
	}
	s := state{term: 9, vote: 1 << 40, commit: 3, startIndex: 7, startTerm: 2, conf: []byte("conf"), snapshotRestored: true}
	got, err := decodeState(encodeState(nil, &s))
	if err != nil || got.term != 9 || got.vote != 1<<40 || got.commit != 3 || got.startIndex != 7 || got.startTerm != 2 || !got.snapshotRestored || string(got.conf) != "conf" {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestSnapshotMessageRoundTrip(t *testing.T) {
	meta := AppliedState{Index: 8, Term: 2, HybridTime: 99, Conf: EncodeConf(sampleConf())}
	raw, err := snapshotMessage(&snapshotTask{g: &group{replica: 11}, to: 12, term: 4}, &meta)
	if err != nil {
		t.Fatal(err)
	}
	m, got, err := decodeSnapshot(raw)
	if err != nil || got.Index != 8 || got.Term != 2 || got.HybridTime != 99 || !bytes.Equal(got.Conf, meta.Conf) || m.GetTo() != 12 || m.GetTerm() != 4 {
		t.Fatalf("%+v, %v, %v", got, m, err)
	}
}

// FuzzDecode: no bytes from disk or wire make a decoder panic, take memory out
// of proportion, or read something else than what it would write.
func FuzzDecode(f *testing.F) {
	f.Add(sampleEntry(7, "a", "bb").Data)
	f.Add(appendRecord(nil, sampleEntry(7, "a"), 3))
	f.Add(EncodeConf(sampleConf()))
	f.Add(encodeState(nil, &state{term: 1, conf: EncodeConf(sampleConf())}))
	f.Add(appendEntryWrite(appendEntryHead(nil, KindConf, 5, 1), 1, EncodeConf(sampleConf())))
	raw, err := snapshotMessage(&snapshotTask{g: &group{replica: 11}, to: 12, term: 4}, &AppliedState{Index: 8, Term: 2, Conf: EncodeConf(sampleConf())})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		e := newEntry(pb.EntryNormal, 1, 1)
		e.Data = b
		var d Entry
		if _, err := decodeEntry(e, &d, nil); err == nil && len(b) > 0 {
			if at, _, err := entryTime(e); err != nil || at != d.HybridTime {
				t.Fatalf("two readings of one time: %v and %v, %v", at, d.HybridTime, err)
			}
			n := 0
			for _, w := range d.Writes {
				n += len(w.Data) + 9
			}
			if n > len(b) {
				t.Fatalf("%d bytes of writes in %d", n, len(b))
			}
		}
		e.Type = pb.EntryConfChangeV2.Enum()
		if _, err := decodeEntry(e, &d, nil); err == nil && d.Kind == KindConf {
			_, _ = DecodeConf(d.Conf)
		}
		if conf, err := DecodeConf(b); err == nil && len(b) > 0 {
			again, err := DecodeConf(EncodeConf(conf))
			if err != nil || len(again) != len(conf) {
				t.Fatalf("%v, %v", again, err)
			}
		}
		if s, err := decodeState(b); err == nil {
			if again, err := decodeState(encodeState(nil, &s)); err != nil || again.term != s.term || again.startIndex != s.startIndex {
				t.Fatalf("%+v, %v", again, err)
			}
		}
		if re, commit, err := decodeRecord(4, b); err == nil && re.GetType() == pb.EntryNormal {
			if !bytes.Equal(appendRecord(nil, re, commit), b) {
				t.Fatal("a record reads as another one")
			}
		}
		_, _, _ = decodeSnapshot(b)
	})
}

func TestFileSpool(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("spool", 0o755); err != nil {
		t.Fatal(err)
	}
	left, err := fs.Create("spool/snapshot-9", "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	open, err := DirSpools(fs, "spool")
	if err != nil {
		t.Fatal(err)
	}
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 100_000)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	for b := want; len(b) > 0; b = b[10_000:] {
		if _, err := s.Write(bytes.Clone(b[:10_000])); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // a restore that failed is tried again from the beginning
		r, err := s.Reader()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if names, err := fs.List("spool"); err != nil || len(names) != 0 {
		t.Fatalf("left behind: %v, %v", names, err)
	}
}
