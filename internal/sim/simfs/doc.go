// Package simfs is a file system in memory that fails the way disks and kernels
// do, for tests that must know what a program has really made durable. It
// implements Pebble's vfs.FS.
//
//	             Write                Sync                 Crash
//	program ──────────▶ what is read ──────▶ what is durable ──────▶ the next life
//	                    (page cache)         (512-byte sectors,      keeps what is durable and,
//	                                          names in directories)  by the dice, of the rest
//	                                                                 some, none or halves
//
// What it models:
//
//	F1. A write is durable when Sync or SyncData of its file has returned nil.
//	    Until then each of its sectors is kept, dropped or torn on its own.
//	F2. A name (create, rename, remove, link) is durable when its directory has
//	    been synced. Syncing the file is not enough. A rename happens or does not,
//	    and no change survives without an earlier one of the same name or file.
//	F3. A Sync that fails leaves its sectors clean though some of them never
//	    reached the disk: reading shows them, a later Sync succeeds, a crash
//	    takes them away.
//	F4. Kill ends a process and not the machine: everything is still read, and
//	    what was not durable still is not.
//	F5. Beneath all that the disk may flip bits (Flip), write to the wrong place
//	    (Fault.To) or nowhere (Fault.Lost: stale sectors), fail to read or write (Fault.Err), or be full (SetCapacity).
//	F6. All dice are keyed by the seed, the path and the count of operations on
//	    that path, never drawn in the order of goroutines, and lists are sorted:
//	    one seed and one order of operations per path give one outcome.
//	F7. Time passes where Options.Latency says so, and never under a lock of the
//	    file system; what is written during a sync is not covered by it.
package simfs
