package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"syscall"
	"time"
)

// tuneCollector trades memory, of which --memory says how much there is, for the
// collector's time: a node's live heap is small, so at Go's default it would be
// collected many times a second under load. Until ctx ends, the collector's limit
// follows what else is resident: with cgo, the LSMs' caches and memtables are not
// in Go's heap.
func tuneCollector(ctx context.Context, memory int64) {
	debug.SetGCPercent(300)
	limit := collectorLimit(memory, 0)
	debug.SetMemoryLimit(limit)
	go func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			outside, err := outsideBytes()
			if err != nil {
				return // nobody tells what is resident here: the first limit stays
			}
			// Each change stops the world for a moment: not for little.
			if next := collectorLimit(memory, outside); next < limit-memory/128 || next > limit+memory/32 {
				limit = next
				debug.SetMemoryLimit(limit)
			}
		}
	}()
}

// programBytes is what is resident of the executable; the collector counts it not.
const programBytes = 32 << 20

// collectorLimit leaves room below memory, which is to bound what is resident: for
// what the collector does not count, at least the program, and a sixteenth for what
// is allocated while a collection goes on. Below a quarter it would only collect.
func collectorLimit(memory, outside int64) int64 {
	return max(memory/4, memory-memory/16-max(outside, programBytes))
}

// outsideBytes is how much is resident that Go's collector does not count. What it
// counts and nobody has touched yet makes this too little, and is not resident either.
func outsideBytes() (int64, error) {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	counted := int64(sample[0].Value.Uint64() - sample[1].Value.Uint64())
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var size, resident int64 // pages
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		return 0, fmt.Errorf("/proc/self/statm: %w", err)
	}
	return resident*int64(os.Getpagesize()) - counted, nil
}

// machineMemory is the physical memory, in bytes.
func machineMemory() int64 {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return 4 << 30
	}
	return int64(info.Totalram) * int64(info.Unit)
}
