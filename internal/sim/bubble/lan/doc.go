// Package lan is a network in memory for whole nodes: hosts that listen and dial,
// connections that behave as TCP does, on the time of the bubble that it runs in.
//
//	host a                                              host b
//	Dial ──────────── there and back ─────────────────▶ Accept
//	Write ─▶ window ─▶ link a→b: delay, cut, clogged ─▶ Read
//	Read  ◀─ link b→a: delay, cut, clogged ◀─ window ◀─ Write
//
// Each direction of each pair of hosts is a link of its own, so that a partition
// may be symmetric, one-way or a ring.
//
// Invariants:
//
//	L1. What is read is what was written, in its order, without gap or repetition:
//	    a connection loses its end, never its middle.
//	L2. Nothing passes a link that is cut. What was written waits at it, as it does
//	    in a sender's kernel, and passes once it heals, unless the connection was
//	    reset meanwhile.
//	L3. A host that lost its power says nothing: its peers find out when they send
//	    something and it is up again, or never.
//	L4. Chance comes from the seed, keyed by link and count; a list of connections
//	    is in the order of their making.
package lan
