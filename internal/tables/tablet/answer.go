package tablet

import (
	"errors"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/tables/docdb"
	"github.com/braiddb/braid/internal/wire"
)

// The checks that writes and reads share, and the one place where errors of
// other rooms become codes of the wire.

func failure(code wire.Code, message string) *wire.WriteResponse {
	return &wire.WriteResponse{Error: &wire.Error{Code: code, Message: message}}
}

// groupError says to a client what a Raft group answered.
func groupError(err error) *wire.Error {
	var notLeader *multiraft.NotLeaderError
	if errors.As(err, &notLeader) {
		return &wire.Error{Code: wire.Code_CODE_NOT_LEADER, Message: "another replica leads the tablet", LeaderNode: uint64(notLeader.Node)}
	}
	for _, known := range groupCodes {
		if errors.Is(err, known.err) {
			return &wire.Error{Code: known.code, Message: known.err.Error()}
		}
	}
	return &wire.Error{Code: wire.Code_CODE_INTERNAL, Message: err.Error()}
}

var groupCodes = []struct {
	err  error
	code wire.Code
}{
	{multiraft.ErrNotReady, wire.Code_CODE_NOT_READY},
	{multiraft.ErrOverloaded, wire.Code_CODE_OVERLOADED},
	{multiraft.ErrExpired, wire.Code_CODE_TIMEOUT},
	{multiraft.ErrUnknownOutcome, wire.Code_CODE_UNKNOWN_OUTCOME},
	{multiraft.ErrDiskFull, wire.Code_CODE_OVERLOADED}, // want of disk is refused before: the journal waits for the LSM
	{multiraft.ErrClockOutlier, wire.Code_CODE_CLOCK_SKEW},
	{multiraft.ErrStopped, wire.Code_CODE_TABLET_NOT_FOUND},
	{multiraft.ErrTooLarge, wire.Code_CODE_TOO_LARGE},
}

// readError says to a client why documents could not be read.
func readError(err error) *wire.Error {
	code := wire.Code_CODE_INTERNAL
	switch {
	case errors.Is(err, docdb.ErrCorrupt):
		code = wire.Code_CODE_CORRUPT
	case errors.Is(err, docdb.ErrSnapshotTooOld):
		code = wire.Code_CODE_SNAPSHOT_TOO_OLD
	}
	return &wire.Error{Code: code, Message: err.Error()}
}

// merge takes in the hybrid time that came with a request.
func (t *Tablet) merge(ht uint64) *wire.Error {
	if ht == 0 {
		return nil
	}
	if err := t.deps.Clock.Update(hlc.Timestamp(ht)); err != nil {
		return &wire.Error{Code: wire.Code_CODE_CLOCK_SKEW, Message: err.Error()}
	}
	return nil
}

// checkSchema compares a request's schema version with the tablet's. Version 0
// is for requests that do not depend on a schema: checkOps lets it pass for
// documents only.
func (t *Tablet) checkSchema(table, version uint32) *wire.Error {
	if catalog.TableID(table) != t.table {
		return &wire.Error{Code: wire.Code_CODE_INVALID, Message: "the tablet belongs to another table"}
	}
	if have := t.schema.Load().Schema.Version; version != 0 && version != have {
		return schemaMismatch
	}
	return nil
}

var schemaMismatch = &wire.Error{Code: wire.Code_CODE_SCHEMA_MISMATCH, Message: "the request was made for another version of the table's schema"}

// checkOps looks whether every operation's documents lie in this tablet.
func (t *Tablet) checkOps(ops []*wire.Op, schemaVersion uint32) *wire.Error {
	if len(ops) == 0 {
		return &wire.Error{Code: wire.Code_CODE_INVALID, Message: "a request without operations"}
	}
	for _, op := range ops {
		if schemaVersion == 0 && rowOp(wire.OpCode(op.Code)) {
			return schemaMismatch
		}
		set := docdb.Locks(op)
		for _, l := range set.All() {
			if !l.Whole && !t.owns(l.Hash) {
				return &wire.Error{Code: wire.Code_CODE_TABLET_NOT_FOUND, Message: "a key of the request is not in this tablet"}
			}
		}
	}
	return nil
}

func rowOp(code wire.OpCode) bool {
	switch code {
	case wire.OpRowPut, wire.OpRowUpdate, wire.OpRowDelete, wire.OpRowGet, wire.OpRowScan:
		return true
	}
	return false
}

func (t *Tablet) owns(hash uint64) bool {
	return hash >= t.span.Start && (t.span.End == 0 || hash < t.span.End)
}

// requestBytes is about what a request occupies; counting every field as its
// encoding does would cost as much as encoding it.
func requestBytes(req *wire.WriteRequest) int64 {
	const opBytes, argBytes = 128, 24
	var n int64
	for _, op := range req.Ops {
		n += opBytes + int64(len(op.Key)) + 8*int64(len(op.Ints)+len(op.Floats))
		for _, a := range op.Args {
			n += argBytes + int64(len(a))
		}
		for _, cells := range [2][]*wire.Cell{op.Cells, op.Conditions} {
			for _, c := range cells {
				n += argBytes + int64(len(c.Value))
			}
		}
	}
	return n
}

// recall answers a retry with what the original came to. A long outcome is read
// back from the record that is on disk beside its effects.
func (t *Tablet) recall(k requestKey, found remembered) *wire.WriteResponse {
	data := found.outcome
	if data == nil {
		pointFromDisk.Reach()
		var e *wire.Error
		if data, e = t.outcomeOnDisk(k, found.index); e != nil {
			return &wire.WriteResponse{Error: e}
		}
	}
	o, err := decodeOutcome(data)
	if err != nil {
		return failure(wire.Code_CODE_CORRUPT, err.Error())
	}
	resp := o.response()
	resp.HybridTime = uint64(found.time)
	resp.Copies = t.majority()
	return resp
}

func (t *Tablet) outcomeOnDisk(k requestKey, index uint64) ([]byte, *wire.Error) {
	record, ok, err := t.deps.Engine.GroupState(t.id, requestsKey(index))
	if err != nil {
		return nil, readError(err)
	}
	if ok {
		_, list, err := decodeRequests(record)
		if err != nil {
			return nil, &wire.Error{Code: wire.Code_CODE_CORRUPT, Message: err.Error()}
		}
		for _, q := range list {
			if q.key == k {
				return q.outcome, nil
			}
		}
	}
	// Its client has declared it answered since it was looked up.
	return nil, &wire.Error{Code: wire.Code_CODE_REQUEST_EXPIRED, Message: "the request was declared answered meanwhile"}
}

// majority is how many replicas surely hold what is applied here: all that is
// known of a write that was proposed some other time.
func (t *Tablet) majority() uint32 {
	var voters uint32
	for _, r := range t.group.Load().Status().Conf {
		if r.Role == catalog.Role_ROLE_VOTER {
			voters++
		}
	}
	return voters/2 + 1
}
