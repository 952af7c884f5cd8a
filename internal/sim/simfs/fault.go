package simfs

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// Errors of the disk. They wrap what the kernel would say.
var (
	ErrIO      error = syscall.EIO
	ErrNoSpace error = syscall.ENOSPC
	// ErrCrashed answers every operation after the crash: the process that makes
	// them is no more.
	ErrCrashed = errors.New("simfs: the machine has crashed")
)

// OpKind is what an operation does.
type OpKind uint8

// The operations that a Fault hook sees.
const (
	OpCreate OpKind = iota
	OpOpen
	OpRemove
	OpRename
	OpLink
	OpMkdir
	OpList
	OpRead
	OpWrite
	OpSync
	OpSyncDir
)

var opNames = [...]string{"create", "open", "remove", "rename", "link", "mkdir", "list", "read", "write", "sync", "syncdir"}

func (k OpKind) String() string { return opNames[k] }

// Op is an operation about to happen.
type Op struct {
	Kind   OpKind
	Path   string
	Offset int64
	Bytes  int
	N      uint64 // operations on this file system before it
	OfPath uint64 // operations on this path before it
	Dice   uint64 // keyed by seed, Path and OfPath
}

// Fault is what happens to an operation. The zero value lets it be.
type Fault struct {
	Err   error  // returned instead; a failing sync loses sectors (F3)
	To    *Place // a write lands there, though it seems to be where it should
	Lost  bool   // a write never reaches the disk: what was there before is, once the cache is gone
	Crash bool   // the machine stops: before the operation, or
	After bool   // after it took effect and before it returned
}

// Place is where a misdirected write lands.
type Place struct {
	Path   string
	Offset int64
}

// Mix is the file system's one source of chance: a number that depends on its
// arguments only.
func Mix(seed uint64, path string, numbers ...uint64) uint64 {
	h := mix(seed + 0x9e3779b97f4a7c15)
	for i := range len(path) {
		h = mix(h ^ uint64(path[i]))
	}
	for _, n := range numbers {
		h = mix(h ^ n*0xd6e8feb86659fd93)
	}
	return h
}

func mix(x uint64) uint64 {
	x = (x ^ x>>32) * 0xbea225f9eb34556d
	x = (x ^ x>>29) * 0xbea225f9eb34556d
	return x ^ x>>32
}

func (y *FS) op(kind OpKind, path string, off int64, bytes int) Op {
	op := Op{Kind: kind, Path: path, Offset: off, Bytes: bytes, N: y.ops, OfPath: y.opsOf[path]}
	op.Dice = Mix(y.o.Seed, path, op.OfPath)
	return op
}

// wait lets the time of an operation pass. The file system is not locked.
func (y *FS) wait(kind OpKind, path string, off int64, bytes int) {
	if y.o.Latency == nil {
		return
	}
	y.mu.Lock()
	op := y.op(kind, path, off, bytes)
	y.mu.Unlock()
	if d := y.o.Latency(op); d > 0 {
		time.Sleep(d)
	}
}

// step counts an operation and asks the hook about it. It gives what the
// operation shall return if it is not to happen, and whether it is to crash the
// machine when it has.
func (y *FS) step(kind OpKind, path string, off int64, bytes int) (f Fault, err error) {
	if y.down {
		return f, ErrCrashed
	}
	if kind == OpRead || kind == OpOpen || kind == OpList {
		if y.o.Reads == nil {
			return f, nil
		}
	}
	op := y.op(kind, path, off, bytes)
	y.ops++
	y.opsOf[path]++
	hook := y.o.Fault
	if kind == OpRead || kind == OpOpen || kind == OpList {
		hook = y.o.Reads
	}
	if hook != nil {
		f = hook(op)
	}
	if f.Crash && !f.After {
		y.down = true
		return f, ErrCrashed
	}
	if f.Err != nil && kind != OpSync {
		return f, &os.PathError{Op: kind.String(), Path: path, Err: f.Err}
	}
	return f, nil
}

// done ends an operation that took effect.
func (y *FS) done(f Fault) error {
	if f.Crash {
		y.down = true
		return ErrCrashed
	}
	return nil
}
