// Package client is the Go API of Braid's tables and logs. Of a table it finds the tablet that owns
// a key, speaks to the tablet's leader, and repeats a request, under the same
// request id, until it is answered: every write takes effect at most once, and
// exactly once when it is answered.
//
//	Table.Start ── routes.find(hash) ── Transport.StartWrite ── leader
//	    │              ▲                        │
//	    │              └── refresh (one at a time, by Transport.Locations)
//	    └── not leader, lost, unreachable: next node, back off, same request id
//
// A Client is made by Connect, over the network, or by New, over any Transport:
// a node gives its front ends one that calls straight in where it leads.
//
// Of a log (Client.Log) it finds the sequencer: by weighted consistent hashing in a
// view of the cluster that it keeps, by redirects where that is old. Appends begun
// one after another are sent in that order, and sent again in that order, under
// the same sequences, when something goes wrong; logQueue has the picture and the
// invariants (A1..).
//
//	Log.Append ── logQueue ── logRouter: view, redirects ── LogTransport ── sequencer
//	    ▲            ▲  │
//	    │            │  └── refused, lost: back to the first that is not answered
//	BufferedWriter ──┘
//
// Invariants of requests to tables:
//
//	I1. A request keeps its id through all of its attempts, and the id is given
//	    to nothing else, so a tablet that remembers it answers the original result.
//	I2. first_running, sent with every write, is at or below the id of each
//	    request to that tablet that is still under way, and never goes back.
//	I3. A request object is not changed once it was handed to the transport.
//	I4. done is called exactly once, whatever happens.
//	I5. Requests started by one goroutine for one key reach the tablet in that
//	    order as long as no attempt fails.
//	I6. A write whose effect is uncertain ends with ErrUnknownOutcome, never
//	    with an error that says it had none.
package client
