package docdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
)

// Three tablets of one table, one after the other, and what replicas of them have.
var (
	firstHeld  = Held{Span{Table: 1, End: 100}, 4}
	secondHeld = Held{Span{Table: 1, Start: 100, End: 200}, 5}
	otherHeld  = Held{Span{Table: 2}, 3} // beside what files of the others span
)

// fill writes documents of the first two tablets and their groups' states, a flush each
// time, so that every file is of both, and none is compacted yet.
func fill(t *testing.T, e *Engine, files int) {
	t.Helper()
	for i := range files {
		put(t, e, hlc.Timestamp(5+i)<<20, func(x *Exec) {
			for hash := uint64(0); hash < 200; hash += 10 {
				x.Doc(hash, fmt.Appendf(nil, "k%d", i)).PutRoot(Root{Kind: RootString, Value: bytes.Repeat([]byte("v"), 200)})
			}
		})
		a := e.NewBatch()
		for _, h := range []Held{firstHeld, secondHeld} {
			if err := a.PutGroupState(h.Group, []byte("applied"), fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(a.Commit(), e.Flush()); err != nil {
			t.Fatal(err)
		}
	}
}

// spoil flips a bit in the middle of the store's first file, in a block of documents.
func spoil(t *testing.T, fs vfs.FS) {
	t.Helper()
	names, err := fs.List("data/docdb/db")
	if err != nil {
		t.Fatal(err)
	}
	first := ""
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") && (first == "" || name < first) {
			first = name
		}
	}
	f, err := fs.OpenReadWrite("data/docdb/db/"+first, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	at := info.Size() / 3
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 4
	_, err2 := f.WriteAt(b[:], at)
	if err := errors.Join(err, err2, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// counted counts what is logged, and stops a test that would go on for ever.
type counted struct {
	slog.Handler
	failures *atomic.Int64
}

func (c counted) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "background work failed") {
		if c.failures.Add(1) > 1000 {
			panic("a compaction of a damaged file is begun again and again")
		}
	}
	return nil
}

func (c counted) Enabled(context.Context, slog.Level) bool { return true }

// TestADamagedFileIsNotCompactedForEver lets a compaction come upon a flipped bit. It is
// begun anew rarely; what was found is known, and where it is.
func TestADamagedFileIsNotCompactedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		e := mustOpen(t, fs, EngineOptions{blockBytes: 512})
		fill(t, e, 3)
		if err := e.Abandon(); err != nil {
			t.Fatal(err)
		}
		spoil(t, fs)
		var failures atomic.Int64
		o := EngineOptions{
			blockBytes: 512, Logger: slog.New(counted{slog.DiscardHandler, &failures}),
			Fatal: func(err error) { t.Errorf("the node would have ended: %v", err) },
		}
		e = mustOpen(t, fs, o)
		if !e.Sound() {
			t.Fatal("damage is known before anybody has read it")
		}
		fill(t, e, 3) // now a compaction is due
		<-time.After(time.Minute)
		if n := failures.Load(); n == 0 || n > 15 {
			t.Errorf("compactions failed %d times within a minute", n)
		}
		if !e.Damaged(firstHeld) || !e.Damaged(secondHeld) || e.Damaged(otherHeld) {
			t.Errorf("damaged: %v, %v, and of a table that has nothing there %v", e.Damaged(firstHeld), e.Damaged(secondHeld), e.Damaged(otherHeld))
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestDamageIsNotedUntilItIsMended goes the way of a node: damage is known over lives,
// the replicas there go one after the other, and with the last of them the file.
func TestDamageIsNotedUntilItIsMended(t *testing.T) {
	fs := vfs.NewMem()
	e := mustOpen(t, fs, EngineOptions{blockBytes: 512})
	fill(t, e, 2)
	if err := e.Abandon(); err != nil {
		t.Fatal(err)
	}
	spoil(t, fs)
	e = mustOpen(t, fs, EngineOptions{blockBytes: 512})
	if _, err := e.Hash(Span{Table: 1}, hlc.Max-1, nil); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("R1: all of it was read: %v", err)
	}
	fill(t, e, 1)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = mustOpen(t, fs, EngineOptions{blockBytes: 512})
	defer func() { e.Close() }()
	if !e.Damaged(firstHeld) || !e.Damaged(secondHeld) {
		t.Fatal("R2: damage is forgotten with its life")
	}
	other := e.NewBatch()
	if err := errors.Join(other.PutGroupState(otherHeld.Group, []byte("applied"), []byte("7")), other.Commit()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.Drop(firstHeld.Span, firstHeld.Group), e.Mend([]Held{secondHeld, otherHeld})); err != nil {
		t.Fatal(err)
	}
	if !e.Damaged(secondHeld) || !e.Damaged(firstHeld) {
		t.Fatal("R3: a file is gone of which a replica has something")
	}
	if p, ok, err := e.GroupState(secondHeld.Group, []byte("applied")); !ok || err != nil || string(p) != "0" {
		t.Fatalf("R3: the state of a replica that is here: %q, %v, %v", p, ok, err)
	}
	if err := errors.Join(e.Drop(secondHeld.Span, secondHeld.Group), e.Mend([]Held{otherHeld})); err != nil {
		t.Fatal(err)
	}
	if !e.Sound() {
		t.Fatal("it is not mended")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = mustOpen(t, fs, EngineOptions{blockBytes: 512})
	if !e.Sound() {
		t.Error("what was mended is noted still")
	}
	empty, err := e.Hash(Span{Table: 3}, hlc.Max-1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.Hash(Span{Table: 1}, hlc.Max-1, nil); err != nil || got != empty {
		t.Errorf("something of the table is left, or does not read: %v", err)
	}
	if p, ok, err := e.GroupState(otherHeld.Group, []byte("applied")); !ok || err != nil || string(p) != "7" {
		t.Errorf("the state of a replica beside it: %q, %v, %v", p, ok, err)
	}
	fill(t, e, 4)
	if err := e.db.Compact(t.Context(), everything.lower, everything.upper, false); err != nil {
		t.Errorf("what came later does not compact: %v", err)
	}
}

// TestACutThroughDamageIsNoted drops a replica whose files nobody has read. Pebble cuts
// the file that it shares with another where it cannot read, and takes that for its end:
// what the other had may be gone with it.
func TestACutThroughDamageIsNoted(t *testing.T) {
	for cut := uint64(0); cut < 200; cut += 10 {
		fs := vfs.NewMem()
		e := mustOpen(t, fs, EngineOptions{blockBytes: 512})
		fill(t, e, 1)
		before, err := e.Hash(Span{Table: 1, Start: cut + 10}, hlc.Max-1, nil)
		if err := errors.Join(err, e.Abandon()); err != nil {
			t.Fatal(err)
		}
		spoil(t, fs)
		e = mustOpen(t, fs, EngineOptions{blockBytes: 512})
		if err := e.Drop(Span{Table: 1, End: cut + 10}, firstHeld.Group); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		rest := Span{Table: 1, Start: cut + 10}
		after, err := e.Hash(rest, hlc.Max-1, nil)
		if (err != nil || after != before) && !e.Damaged(Held{rest, secondHeld.Group}) {
			t.Errorf("cut at %d: what is beside it is not what it was, and nobody is told (%v)", cut, err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestANoteOfDamageThatDoesNotReadIsOfEverything flips each byte of one.
func TestANoteOfDamageThatDoesNotReadIsOfEverything(t *testing.T) {
	ranges := append(firstHeld.ranges(), otherHeld.ranges()...)
	text := appendDamage(nil, ranges)
	if got, err := parseDamage(text); err != nil || fmt.Sprint(got) != fmt.Sprint(ranges) {
		t.Fatalf("%v, %v", got, err)
	}
	for i := range text {
		bad := bytes.Clone(text)
		bad[i] ^= 1
		if got, err := parseDamage(bad); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("with another byte %d: %v, %v", i, got, err)
		}
	}
	for _, h := range []Held{firstHeld, secondHeld, otherHeld, {Group: catalog.MasterGroup}} {
		if !h.overlaps(everything) {
			t.Errorf("%v is not part of everything", h)
		}
	}
}

func FuzzDamage(f *testing.F) {
	f.Add(appendDamage(nil, firstHeld.ranges()))
	f.Add([]byte(damagePrefix))
	f.Fuzz(func(t *testing.T, text []byte) {
		if ranges, err := parseDamage(text); err == nil {
			if again, err := parseDamage(appendDamage(nil, ranges)); err != nil || len(again) != len(ranges) {
				t.Errorf("%v, %v", again, err)
			}
		}
	})
}
