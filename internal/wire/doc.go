// Package wire is every message between nodes and clients, and the closed,
// versioned set of typed operations (ops.go) that a tablet's leader executes.
//
// The .proto files are the specification; the Go code beside them is generated
// by generate.sh and committed. Field numbers, operation codes and error codes
// are for ever. The package has no behaviour but what belongs to a message
// itself: whether an error may be retried, whether an operation writes.
package wire
