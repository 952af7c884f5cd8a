// Package rest serves Braid's logs over HTTP to programs in any language: append,
// read, trim, find, and the administration of logs, with JSON and binary payloads
// (docs/http.md). It is mounted under /v1/ on the console port.
//
//	request ── admit ── route ── parameters ── body ──▶ Cluster (client.Client)
//	             │        │          │          │             │
//	            429      404        400      413, 429         ▼
//	                     405                          answer, or stream:
//	                                              Reader ──▶ batch ──▶ flush ──▶ …
//
// A route (routes.go) is a row: a resource, a method, the parameters it has, and
// what carries it out; a parameter that is not in the row is refused. Whatever went
// wrong becomes one JSON object, in one place (errors.go).
//
// A read takes one of three shapes. Bounded: up to the tail as it was when the
// request came. Waiting (wait=5s): what is there, and if nothing is, what comes
// first. Following (follow=true): for ever, as a stream. In all of them every LSN
// between the request's position and the answer's next lies in exactly one entry, a
// record or a typed gap, so a client that sends next as its next from misses nothing
// and sees nothing twice.
//
// Invariants:
//
//	I1. No memory is taken by a number that a client sent: a body's buffer grows with
//	    the bytes that have come, and never beyond what the log takes; all bodies
//	    together stay within Options.BodyBytes.
//	I2. The payload that is stored is what was sent, byte for byte. Text that is not
//	    UTF-8, or escapes half a character, is refused, not mended.
//	I3. A request is refused whole, before anything is appended, where it can be seen
//	    from the request that a record of it would be refused.
//	I4. outcome_known false is said exactly where the client library says it, and
//	    where the waiting ended before an append did.
//	I5. Requests at once are bounded, and what is held for a reader: one that takes
//	    nothing for Options.WriteTimeout loses its connection.
//	I6. Whatever a request waits for ends with it.
//	I7. next is the position behind the last entry that was written, also within a
//	    record of several payloads.
//
// A page in a browser that comes from elsewhere can not make it change anything:
// such requests are refused by their Origin.
package rest
