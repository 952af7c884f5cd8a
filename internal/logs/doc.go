// Package logs is the vocabulary of the log wing: sequence numbers, shards,
// statuses, what is in a record, and the one format of batches. It is a leaf.
//
//	LSN   = epoch (32 bits) | ESN (32 bits)        printed e5n8
//	shard = node (56 bits)  | storage directory (8 bits)
//
//	data log 17 ───────── its metadata log 17 | 1<<63
//
// A record occupies one LSN and holds count payloads; (LSN, batch offset) names
// one of them.
//
// Invariants:
//
//	L1. LSNs of a log are given out in ascending order; ESN 0 and the highest ESN
//	    are never records.
//	L2. A decoder allocates nothing for bytes that are not there, and a batch that
//	    was not made whole is refused whole.
package logs
