package journal

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/braiddb/braid/internal/sim/simfs"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestASegmentIsReadyBeforeItHasItsName crashes at every operation of readying a
// segment, new or used before, and looks at what has the new name then.
func TestASegmentIsReadyBeforeItHasItsName(t *testing.T) {
	const size = 16 << 10
	named := 0
	for _, reuse := range []*segment{nil, {gen: 1, size: size}} {
		for at := range 12 {
			for dice := range uint64(20) {
				fs := simfs.New(simfs.Options{Seed: dice})
				s := shelf{fs: fs, dir: "journal", id: testIdentity(1), failed: new(atomic.Bool), stats: new(counters)}
				must(t, fs.MkdirAll("journal", 0o755))
				must(t, s.syncParent())
				used, err := fs.Create(fileOf(1), vfs.WriteCategoryUnspecified)
				must(t, err)
				_, err = used.Write(bytes.Repeat([]byte("used"), size/4))
				must(t, err)
				must(t, used.Sync())
				must(t, s.syncDir())
				left := at
				fs.SetFault(func(simfs.Op) simfs.Fault {
					left--
					return simfs.Fault{Crash: left < 0}
				})
				_, err = s.prepare(2, size, reuse)
				if err != nil && !errors.Is(err, simfs.ErrCrashed) {
					t.Fatal(err)
				}
				fs = fs.Crash(simfs.Crash{Sectors: 50, Tear: 50, Names: 50, Dice: dice})
				data, missing := fs.Read(fileOf(2))
				if missing != nil {
					if err == nil {
						t.Fatalf("crash at %d: prepared, and gone", at)
					}
					continue
				}
				named++
				h, ok := decodeSegmentHeader(data)
				if !ok || h.generation != 2 || len(data) != size || nonZero(data, sector) {
					t.Fatalf("reuse %v, crash at %d: named and not ready: %+v %v, %d bytes", reuse != nil, at, h, ok, len(data))
				}
			}
		}
	}
	if named < 100 {
		t.Errorf("only %d cases had the name", named)
	}
}
