package simfs

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// TestASyncCoversWhatWasWrittenBeforeIt writes while a slow sync is under way:
// only what was there when it began is durable after it.
func TestASyncCoversWhatWasWrittenBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := false
		y := New(Options{Latency: func(op Op) time.Duration {
			if slow && op.Kind == OpSync {
				return time.Second
			}
			return 0
		}})
		f := put(t, y, "a", bytes.Repeat([]byte("o"), 3*SectorBytes))
		_, err := f.WriteAt([]byte("first"), 0)
		must(t, err)
		slow = true
		began, done := time.Now(), make(chan error)
		go func() { done <- f.Sync() }()
		synctest.Wait()
		_, err = f.WriteAt([]byte("late!"), 0) // the same sector again
		must(t, err)
		_, err = f.WriteAt([]byte("later"), 2*SectorBytes)
		must(t, err)
		must(t, <-done)
		if d := time.Since(began); d != time.Second {
			t.Errorf("the sync took %v", d)
		}
		if got := content(t, y, "a"); got[:5] != "late!" || got[2*SectorBytes:][:5] != "later" {
			t.Errorf("what is read is %.5q, %.5q", got, got[2*SectorBytes:])
		}
		got := content(t, y.Copy().Crash(Crash{}), "a")
		if got[:5] != "first" || got[2*SectorBytes:][:5] != "ooooo" {
			t.Errorf("after the crash %.5q, %.5q", got, got[2*SectorBytes:])
		}
		slow = false
		must(t, f.Sync())
		if got := content(t, y.Crash(Crash{}), "a"); got[:5] != "late!" || got[2*SectorBytes:][:5] != "later" {
			t.Errorf("after the next sync and a crash %.5q, %.5q", got, got[2*SectorBytes:])
		}
	})
}

// TestACrashDuringASync loses what the sync would have made durable.
func TestACrashDuringASync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := false
		y := New(Options{Latency: func(Op) time.Duration {
			if slow {
				return time.Second
			}
			return 0
		}})
		f := put(t, y, "a", []byte("old"))
		_, err := f.WriteAt([]byte("new"), 0)
		must(t, err)
		slow = true
		done := make(chan error)
		go func() { done <- f.Sync() }()
		synctest.Wait()
		next := y.Crash(Crash{})
		if err := <-done; err != ErrCrashed {
			t.Errorf("the sync said %v", err)
		}
		if got := content(t, next, "a"); got != "old" {
			t.Errorf("after the crash %q", got)
		}
	})
}

// TestOthersGoOnWhileTheDiskIsSlow does not hold the file system while it waits.
func TestOthersGoOnWhileTheDiskIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := New(Options{Latency: func(op Op) time.Duration {
			if op.Path == "slow" {
				return time.Hour
			}
			return 0
		}})
		f, err := y.Create("slow", plain)
		must(t, err)
		done := make(chan error)
		go func() { _, err := f.Write([]byte("x")); done <- err }()
		synctest.Wait()
		began := time.Now()
		put(t, y, "fast", []byte("x"))
		if d := time.Since(began); d != 0 {
			t.Errorf("another file took %v", d)
		}
		must(t, <-done)
	})
}

// TestALostWriteLeavesAStaleSector shows until the crash what the disk never got.
func TestALostWriteLeavesAStaleSector(t *testing.T) {
	lose := false
	y := New(Options{Fault: func(op Op) Fault { return Fault{Lost: lose && op.Kind == OpWrite} }})
	f := put(t, y, "a", []byte("old"))
	lose = true
	_, err := f.WriteAt([]byte("new"), 0)
	must(t, err)
	must(t, f.Sync())
	if got := content(t, y, "a"); got != "new" {
		t.Errorf("before the crash %q", got)
	}
	if got := content(t, y.Crash(Crash{Sectors: 100}), "a"); got != "old" {
		t.Errorf("after it %q", got)
	}
}

// TestOneSeedOneOutcome does the same twice, across chunks, and once with another
// seed.
func TestOneSeedOneOutcome(t *testing.T) {
	run := func(seed uint64) (string, []string) {
		y := New(Options{Seed: seed})
		f := put(t, y, "big", bytes.Repeat([]byte("o"), 3*chunkBytes))
		for i := range 40 {
			_, err := f.WriteAt(bytes.Repeat([]byte{byte('a' + i%26)}, 700), int64(i)*4999)
			must(t, err)
		}
		for i := range 10 {
			_, err := y.Create(fmt.Sprint("n", i), plain)
			must(t, err)
		}
		next := y.Crash(Crash{Sectors: 40, Tear: 40, Names: 50})
		names, err := next.List("")
		must(t, err)
		return content(t, next, "big"), names
	}
	a, names := run(1)
	b, again := run(1)
	if a != b || !reflect.DeepEqual(names, again) {
		t.Errorf("one seed, two outcomes: %v and %v", names, again)
	}
	if c, _ := run(2); c == a {
		t.Error("another seed has the same outcome")
	}
}

// TestZerosNeedNoMemory fills a large file with zeros, as the journal does, and
// finds data and zeros where they are after a crash.
func TestZerosNeedNoMemory(t *testing.T) {
	y := New(Options{})
	f := put(t, y, "a", make([]byte, 64<<20))
	_, err := f.WriteAt([]byte("x"), 33<<20)
	must(t, err)
	must(t, f.Sync())
	n, _ := y.find("a")
	held := 0
	for _, c := range n.chunks {
		held += len(c.data) + len(c.disk)
	}
	if held != chunkBytes {
		t.Errorf("%d bytes are held for one byte that is not zero", held)
	}
	got := content(t, y.Crash(Crash{}), "a")
	if len(got) != 64<<20 || got[33<<20] != 'x' || got[33<<20+1] != 0 {
		t.Errorf("%d bytes, %q", len(got), got[33<<20:][:2])
	}
}
