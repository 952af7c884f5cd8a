package node

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/rpc"
)

// Deps is a node's world: its clocks, dice, disk and network, and what a fatal
// fault does. RealDeps gives the machine's; a simulation gives its own.
type Deps struct {
	// Micros is the physical clock, microseconds since the Unix epoch; it may jump.
	Micros func() int64
	// Mono is monotonic time since some fixed point.
	Mono func() time.Duration
	// AfterFunc calls f once d has passed; stop reports whether it kept f from being called.
	AfterFunc func(d time.Duration, f func()) (stop func() bool)
	Rand      *rand.Rand
	FS        vfs.FS
	Network   rpc.Network
	Logger    *slog.Logger
	// JournalSegment is the size of the journal's segments, which Config.JournalBytes
	// counts as if they were of the standard size [16 MiB]. A simulation takes small
	// ones: else none is let go of in the time that it has.
	JournalSegment int64
	// Fatal is called once when the node must end: a failed fsync, a broken
	// invariant of the disk. Nothing of this incarnation writes, sends or answers
	// after it; it may end the process.
	Fatal func(error)
}

// Now is the physical clock as a time.
func (d Deps) Now() time.Time { return time.UnixMicro(d.Micros()) }

// RealDeps is the machine that the process runs on.
func RealDeps(logger *slog.Logger, fatal func(error)) Deps {
	start := time.Now()
	var seed [16]byte
	if _, err := crand.Read(seed[:]); err != nil {
		panic("FATAL: the machine gives no randomness: " + err.Error())
	}
	return Deps{
		Micros:    func() int64 { return time.Now().UnixMicro() },
		Mono:      func() time.Duration { return time.Since(start) },
		AfterFunc: func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop },
		Rand:      rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:8]), binary.LittleEndian.Uint64(seed[8:]))),
		FS:        vfs.Default,
		Network:   realNetwork{},
		Logger:    logger,
		Fatal:     fatal,
	}
}

// realNetwork is TCP. Connections leave from the address that the node listens
// on (see bound), so that the other end sees which node it speaks to.
type realNetwork struct{ from string }

// Listen listens on TCP.
func (n realNetwork) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// Dial connects over TCP.
func (n realNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{}
	if ip := net.ParseIP(n.from); ip != nil && !ip.IsUnspecified() {
		d.LocalAddr = &net.TCPAddr{IP: ip}
	}
	return d.DialContext(ctx, "tcp", addr)
}

// bound makes connections of a real network leave from a node's own address.
func bound(n rpc.Network, from string) rpc.Network {
	if real, ok := n.(realNetwork); ok {
		real.from = from
		return real
	}
	return n
}
