// Package redis serves Braid's document table to stock Redis clients: RESP2 and
// RESP3, pipelining, transactions on one slot, and the cluster commands by which
// a cluster-aware client finds the leader of a key's tablet.
//
//	read(2) ── parser ──▶ command, command, command            one goroutine
//	                        │ build: typed operations           per connection
//	                        ▼
//	                  client.Table.StartReply ····▶ tablets' leaders
//	                        │ done (any goroutine)
//	                        ▼
//	           settle: wait for all, render in order ──▶ outbox ── write(2)
//
// A connection is one goroutine. It reads what the socket holds, starts every
// command in it, waits for all of them, renders the replies in order and writes
// them with one system call; then it reads again. A command waits for those
// before it in the pipeline if it shares a key with one of them or is not a
// command of a single key; the others are on their way together. Only a reply
// that the client is slow to take costs a second goroutine (see outbox).
//
// A command (see command) is a row of the table in table.go. It either builds
// operations, which the leader executes and of which a reply is rendered, or it
// runs here. Only what builds operations can be part of a transaction's batch.
// Every command family has a file that opens with its contract.
//
// Invariants:
//
//	I1. Replies leave in the order in which the commands came.
//	I2. Bytes that a running operation refers to do not change: the connection
//	    reads on, into the buffer that holds them, only after settle; and where an
//	    operation failed or was slow, somebody may still hold it, so buffer and
//	    call are left to the garbage collector instead of being used again.
//	I3. No allocation is sized by a number that a client sent before the bytes it
//	    announces have come.
//	I4. Every limit is answered with an error; nothing a client does grows memory
//	    beyond Options.
//	I5. TRYAGAIN is only ever said of a command that surely had no effect; where
//	    that is not known the answer is UNKNOWNOUTCOME.
//	I6. WAIT and INFO claim only what is known.
//
// What is not here: pub/sub, blocking commands, streams, scripts. They are
// unknown commands.
package redis
