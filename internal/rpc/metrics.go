package rpc

import "sync/atomic"

// Metrics of a pool or a server. All only grow, but Connections.
type Metrics struct {
	// FramesSent is how many frames were given to the kernel.
	FramesSent atomic.Uint64
	// FramesReceived is how many frames were read.
	FramesReceived atomic.Uint64
	// BytesSent is how many bytes were given to the kernel.
	BytesSent atomic.Uint64
	// BytesReceived is how many bytes were read.
	BytesReceived atomic.Uint64
	// Writes is how many system calls wrote them.
	Writes atomic.Uint64
	// Reads is how many system calls read them.
	Reads atomic.Uint64
	// Encodes is how many messages were encoded. A local call encodes none.
	Encodes atomic.Uint64
	// Decodes is how many messages were decoded. A local call decodes none.
	Decodes atomic.Uint64
	// Dropped is how many one-way messages were not sent: the peer was unreachable or its queue full.
	Dropped atomic.Uint64
	// Overloaded is how many calls a full queue refused.
	Overloaded atomic.Uint64
	// Dials is how many connections were attempted.
	Dials atomic.Uint64
	// DialFailures is how many of those failed, handshake included.
	DialFailures atomic.Uint64
	// Connections is how many are open now.
	Connections atomic.Int64
	// Refusals is how many handshakes were refused here.
	Refusals atomic.Uint64
	// BadFrames is how many connections ended because of bytes that are not frames.
	BadFrames atomic.Uint64
	// Expired is how many requests were dropped because their deadlines had passed when they were taken up.
	Expired atomic.Uint64
	// Lagging is how many requests were refused because they had waited too long to be read.
	Lagging atomic.Uint64
	// Crowded is how many requests were refused because those under way take as much memory as they may.
	Crowded atomic.Uint64
	// RequestBytes is how much the requests under way take now.
	RequestBytes atomic.Int64
	// Canceled is how many requests were cancelled by their callers.
	Canceled atomic.Uint64
}
