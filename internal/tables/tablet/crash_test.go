package tablet

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestWhatIsAppliedIsThereAfterACrash (W4): memtables are flushed one by one, and a
// crash keeps the older ones. How far the replica is must not stand in one from before
// the effects that it speaks of.
func TestWhatIsAppliedIsThereAfterACrash(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	value := func(i int) string { return strings.Repeat(string(rune('a'+i)), 200<<10) }
	const writes = 12 // several memtables full
	for i := range writes {
		if resp := r.write(anonymous(set(fmt.Sprint("key", i), value(i)))); resp.Error != nil {
			t.Fatal(resp.Error)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); r.engine.Metrics().Flushes == 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("no memtable was flushed")
		}
	}
	log := r.group.entries()
	r.crash(log)
	if got := r.Applied().Index; got != log[len(log)-1].Index {
		t.Fatalf("applied up to %d of %d", got, log[len(log)-1].Index)
	}
	r.group.elect(2)
	for i := range writes {
		if got := r.value(fmt.Sprint("key", i)); !strings.Contains(got, value(i)) {
			t.Errorf("write %d is gone: %d bytes", i, len(got))
		}
	}
}
