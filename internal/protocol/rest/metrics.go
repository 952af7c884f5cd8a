package rest

import "sync/atomic"

// Metrics of a server. All but Readers and BodyBytes only grow.
type Metrics struct {
	// Requests that came.
	Requests atomic.Uint64
	// Errors answered.
	Errors atomic.Uint64
	// Refused because too many requests, or too much of them, were there already.
	Refused atomic.Uint64
	// Gone is how many clients went away before their answer.
	Gone atomic.Uint64
	// SlowReaders lost their connection because they took nothing.
	SlowReaders atomic.Uint64
	// RecordsIn and PayloadBytesIn were appended.
	RecordsIn, PayloadBytesIn atomic.Uint64
	// RecordsOut, PayloadBytesOut and GapsOut were read.
	RecordsOut, PayloadBytesOut, GapsOut atomic.Uint64
	// Readers is how many requests read at this moment.
	Readers atomic.Int64
	// BodyBytes is the memory of bodies at this moment.
	BodyBytes atomic.Int64
}
