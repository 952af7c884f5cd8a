// Package rpc carries messages between nodes, and between clients and nodes,
// over a few TCP connections per pair: framed by length and checksum, requests
// multiplexed, whatever waits on a connection written with one system call.
//
//	caller ── Client.Call ─┐                              ┌─ handler (reading goroutine)
//	caller ── Client.Go ───┤ outbox ══ one write ══▶ read ┼─ handler
//	caller ── Client.Send ─┘                              └─ handler
//	                         read ◀══ one write ══ outbox ◀── Request.Reply, any goroutine
//
// A Pool has one Client per address, a Client one connection per Lane, so that
// a beat never waits behind a snapshot, nor a seal behind the work of users. A Server serves one listener and one
// Role: what its table of handlers does not hold can not be reached through it.
// docs/formats/rpc.md has the bytes.
//
// Who writes. A frame is appended to its connection's outbox. While frames of
// one read batch are handled nothing is written; what they produced leaves in
// one write at the batch's end. Otherwise a caller that is about to wait, or
// whose frame comes after a quiet moment and a write of one frame, writes what is
// there itself, without blocking; everything else is left to the connection's
// writer goroutine, which lets those that are ready to run add their frames
// first. So under load frames leave together, and a lone one at once. Measured
// on two cores, 100-byte messages: see the benchmarks.
//
// Invariants:
//
//	R1. ErrUnreachable, ErrOverloaded and ErrExpired are returned only for messages
//	    of which no byte was given to the kernel, or which the peer says it refused.
//	    A call that ends with ErrLost, ErrDeadline or its context's error may have
//	    been carried out; one that ends with ErrResponseTooLarge was.
//	R2. Frames of one connection are written in the order in which they were
//	    added, and handlers run in the order in which frames arrive.
//	R3. Nothing is allocated for bytes that are not there: lengths are bounded,
//	    protected by a checksum of their own, and large payloads are read as they come.
//	R4. A payload's memory belongs to the message decoded from it, which may alias
//	    it; it is never reused.
//	R5. Send and Go never block: what a bounded queue can not take is refused.
//	R6. A done function is called exactly once.
//	R7. Close returns when no goroutine of the pool or server is left.
//	R8. A message is delivered at most once: what was given to the kernel is not
//	    sent again on another connection. Who needs it to arrive asks again.
//
// TLS. A Network makes listeners and connections; one that wraps another with
// TLS is all that encryption needs, since nothing here looks below net.Conn
// (writing without blocking is used where a connection offers its descriptor).
package rpc
