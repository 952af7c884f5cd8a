package simfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const plain = vfs.WriteCategoryUnspecified

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openDir(t testing.TB, y *FS, name string) vfs.File {
	t.Helper()
	f, err := y.OpenDir(name)
	must(t, err)
	return f
}

// put writes a whole new file and syncs it and its directory.
func put(t testing.TB, y *FS, name string, data []byte) vfs.File {
	t.Helper()
	f, err := y.Create(name, plain)
	must(t, err)
	must(t, f.Close())
	f, err = y.OpenReadWrite(name, plain)
	must(t, err)
	_, err = f.WriteAt(data, 0)
	must(t, err)
	must(t, f.Sync())
	must(t, openDir(t, y, y.PathDir(name)).Sync())
	return f
}

func content(t testing.TB, y *FS, name string) string {
	t.Helper()
	b, err := y.Read(name)
	must(t, err)
	return string(b)
}

func TestOnlySyncedDataIsSure(t *testing.T) {
	old, fresh := bytes.Repeat([]byte("o"), 8*SectorBytes), bytes.Repeat([]byte("n"), 8*SectorBytes)
	outcomes := map[string]int{}
	for seed := range uint64(200) {
		y := New(Options{Seed: seed})
		f := put(t, y, "a", old)
		if _, err := f.WriteAt(fresh, 0); err != nil {
			t.Fatal(err)
		}
		got := content(t, y.Crash(Crash{Sectors: 50, Tear: 50}), "a")
		for i := 0; i < len(got); i += SectorBytes {
			s := got[i : i+SectorBytes]
			n := len(s) - len(bytes.TrimLeft([]byte(s), "n"))
			switch {
			case s == string(old[:SectorBytes]):
				outcomes["dropped"]++
			case n == SectorBytes:
				outcomes["kept"]++
			case s[n:] == string(old[n:SectorBytes]):
				outcomes["torn"]++
			default:
				t.Fatalf("sector %q", s)
			}
		}
	}
	for _, o := range []string{"dropped", "kept", "torn"} {
		if outcomes[o] < 200 {
			t.Errorf("%d sectors were %s: %v", outcomes[o], o, outcomes)
		}
	}
}

func TestSyncedDataSurvives(t *testing.T) {
	y := New(Options{})
	f := put(t, y, "a", []byte("one"))
	_, err := f.WriteAt([]byte("two, and longer"), 0)
	must(t, err)
	must(t, f.SyncData())
	if got := content(t, y.Crash(Crash{}), "a"); got != "two, and longer" {
		t.Errorf("%q", got)
	}
}

func TestNamesAreDurableWithTheirDirectory(t *testing.T) {
	y := New(Options{})
	put(t, y, "a", []byte("A"))
	must(t, y.Rename("a", "b"))
	f, err := y.Create("c", plain)
	must(t, err)
	must(t, f.Sync())
	after := y.Copy().Crash(Crash{})
	if names, _ := after.List(""); !reflect.DeepEqual(names, []string{"a"}) {
		t.Errorf("unsynced names survived: %v", names)
	}
	must(t, openDir(t, y, "").Sync())
	after = y.Crash(Crash{})
	if names, _ := after.List("/"); !reflect.DeepEqual(names, []string{"b", "c"}) {
		t.Errorf("synced names: %v", names)
	}
	if _, err := after.Open("a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old name: %v", err)
	}
}

func TestARenameHappensOrNot(t *testing.T) {
	for dice := range uint64(64) {
		y := New(Options{Seed: dice})
		put(t, y, "a", []byte("A"))
		must(t, y.Rename("a", "b"))
		names, _ := y.Crash(Crash{Names: 50, Dice: dice}).List("")
		if len(names) != 1 {
			t.Fatalf("dice %d: %v", dice, names)
		}
	}
}

func TestASecondRenameNeedsTheFirst(t *testing.T) {
	for dice := range uint64(64) {
		y := New(Options{Seed: dice})
		put(t, y, "a", []byte("A"))
		must(t, y.Rename("a", "b"))
		must(t, y.Rename("b", "c"))
		names, _ := y.Crash(Crash{Names: 50, Dice: dice}).List("")
		if len(names) != 1 {
			t.Fatalf("dice %d: one file has the names %v", dice, names)
		}
	}
}

func TestAFailedSyncLosesWhatItCallsClean(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		fail := false
		y := New(Options{Seed: seed, Fault: func(op Op) Fault {
			if fail && op.Kind == OpSync {
				fail = false
				return Fault{Err: ErrIO}
			}
			return Fault{}
		}})
		f := put(t, y, "a", []byte("old"))
		_, err := f.WriteAt([]byte("new"), 0)
		must(t, err)
		fail = true
		if err := f.Sync(); !errors.Is(err, ErrIO) {
			t.Fatalf("failing sync: %v", err)
		}
		must(t, f.Sync()) // the kernel forgot
		if got := content(t, y, "a"); got != "new" {
			t.Fatalf("the page cache reads %q", got)
		}
		if content(t, y.Crash(Crash{Sectors: 100}), "a") == "old" {
			lost++
		}
	}
	if lost < 10 || lost > 40 {
		t.Errorf("%d of 50 were lost", lost)
	}
}

func TestKillLosesNothingAndSyncsNothing(t *testing.T) {
	y := New(Options{})
	f := put(t, y, "a", []byte("old"))
	_, err := f.WriteAt([]byte("new"), 0)
	must(t, err)
	next := y.Kill()
	if _, err := f.WriteAt([]byte("new"), 0); !errors.Is(err, ErrCrashed) {
		t.Errorf("a dead process wrote: %v", err)
	}
	if got := content(t, next, "a"); got != "new" {
		t.Errorf("after the kill %q is read", got)
	}
	if got := content(t, next.Crash(Crash{}), "a"); got != "old" {
		t.Errorf("after the power loss %q", got)
	}
}

func TestDiskFullWritesWhatFits(t *testing.T) {
	y := New(Options{Capacity: 1000})
	f, err := y.Create("a", plain)
	must(t, err)
	n, err := f.Write(make([]byte, 1500))
	if n != 1000 || !errors.Is(err, ErrNoSpace) || !vfs.IsNoSpaceError(err) {
		t.Errorf("%d, %v", n, err)
	}
	if u, _ := y.GetDiskUsage(""); u.AvailBytes != 0 {
		t.Errorf("%+v", u)
	}
	must(t, y.Remove("a"))
	if u, _ := y.GetDiskUsage(""); u.AvailBytes != 1000 {
		t.Errorf("after removing: %+v", u)
	}
}

func TestAMisdirectedWriteIsMissingHereAndHarmsThere(t *testing.T) {
	divert := false
	y := New(Options{Fault: func(op Op) Fault {
		if divert && op.Kind == OpWrite {
			return Fault{To: &Place{Path: "b", Offset: 2}}
		}
		return Fault{}
	}})
	a := put(t, y, "a", []byte("aaaaaa"))
	put(t, y, "b", []byte("bbbbbb"))
	divert = true
	_, err := a.WriteAt([]byte("XX"), 0)
	must(t, err)
	must(t, a.Sync())
	y = y.Crash(Crash{Sectors: 100})
	if content(t, y, "a") != "aaaaaa" || content(t, y, "b") != "bbXXbb" {
		t.Errorf("a %q, b %q", content(t, y, "a"), content(t, y, "b"))
	}
}

// pebbleRun works a while on a database, with one sync in three, and crashes.
// It gives what was acknowledged and what the next life reads.
func pebbleRun(t *testing.T, seed uint64) (acknowledged, submitted int, read []bool) {
	y := New(Options{Seed: seed})
	must(t, y.MkdirAll("db", 0o755))
	must(t, openDir(t, y, "").Sync())
	o := func(y *FS) *pebble.Options {
		return &pebble.Options{FS: y, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 64 << 10, Logger: quiet{}}
	}
	db, err := pebble.Open("db", o(y))
	must(t, err)
	const writes = 300
	value := bytes.Repeat([]byte("v"), 500)
	for submitted < writes {
		w := pebble.NoSync
		if Mix(seed, "sync", uint64(submitted))%3 == 0 {
			w = pebble.Sync
		}
		must(t, db.Set(fmt.Appendf(nil, "k%05d", submitted), value, w))
		submitted++
		if w == pebble.Sync {
			acknowledged = submitted
		}
	}
	after := y.Crash(Crash{Sectors: 30, Tear: 20, Names: 50})
	db.Close()
	db, err = pebble.Open("db", o(after))
	must(t, err)
	defer db.Close()
	for i := range writes {
		_, c, err := db.Get(fmt.Appendf(nil, "k%05d", i))
		read = append(read, err == nil)
		if err == nil {
			c.Close()
		}
	}
	return acknowledged, submitted, read
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(f string, a ...any) {
	if s := fmt.Sprintf(f, a...); !bytes.Contains([]byte(s), []byte("crashed")) {
		panic(s)
	}
}

func TestPebbleRunsOnItAndKeepsWhatItSynced(t *testing.T) {
	for seed := range uint64(20) {
		acknowledged, _, read := pebbleRun(t, seed)
		for i := range acknowledged {
			if !read[i] {
				t.Fatalf("seed %d: key %d of %d acknowledged is gone", seed, i, acknowledged)
			}
		}
	}
}
