package sequencer

import "sync/atomic"

// Metrics counts what a host did since it started. Every field may be read at
// any time.
type Metrics struct {
	Sequencers       atomic.Int64  // sequencers held by this node now
	Activations      atomic.Uint64 // epochs taken from the epoch store
	Outraced         atomic.Uint64 // activations that another node won
	Preempted        atomic.Uint64 // reigns ended by a newer epoch's seal
	Regressed        atomic.Uint64 // times an epoch store was found older than the cluster
	Recovered        atomic.Uint64 // reigns whose earlier epochs are clean
	RecoveriesFailed atomic.Uint64 // recoveries that are tried again
	MetadataWritten  atomic.Uint64 // records written to metadata logs
	Records          atomic.Uint64 // records given an LSN
	Payloads         atomic.Uint64 // payloads in those records
	PayloadBytes     atomic.Uint64 // bytes of those payloads
	Stored           atomic.Uint64 // records acknowledged
	TimedOut         atomic.Uint64 // records whose clients were told that the outcome is open
	Refused          atomic.Uint64 // appends refused without an LSN
	Redirected       atomic.Uint64 // appends sent to another node
	SeqNoBufs        atomic.Uint64 // of the refused, those for want of window or memory
	Buffered         atomic.Uint64 // appends that waited for an epoch or a copyset
	Held             atomic.Uint64 // appends that waited for recovery or a look-up of their producer
	Duplicates       atomic.Uint64 // appends that were known already
	OutOfOrder       atomic.Uint64 // appends refused because one before them was not taken
	Uninformed       atomic.Uint64 // first attempts sent back because their clients had not seen the epoch
	Lookups          atomic.Uint64 // look-ups of producers on storage nodes
	BatchesMade      atomic.Uint64 // records made of several appends
	Stores           atomic.Uint64 // copies asked for
	Waves            atomic.Uint64 // waves after the first
	Amends           atomic.Uint64 // of the copies asked for, those without a payload
	Graylisted       atomic.Uint64 // times a shard was graylisted: it was silent
	GraylistCleared  atomic.Uint64 // shards let back because no copyset was left
	Blacklisted      atomic.Uint64 // times a shard was blacklisted: it refused
	Probes           atomic.Uint64 // shards asked whether they live
	Releases         atomic.Uint64 // releases sent
	Corrupt          atomic.Uint64 // payloads found damaged in this node's memory
	Turns            atomic.Uint64 // turns of all loops
}
