package docdb

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// Typed operations. wire/ops.go is their specification; here is the table that
// finds the function for a code, and what is the same for all of them:
//
//	O1. An operation that answers an error has had no effect.
//	O2. Every write of a document writes its root, so its version changes. A
//	    write that changes nothing writes nothing.
//	O3. A collection without children is no document: the last removal deletes.
//	O4. An operation costs what it touches or answers, never the whole document;
//	    where that takes an argument, it stands at the operation.
//	O5. A read that fails (damage, I/O) fails the request with an error; it is
//	    never an empty answer.
//	O6. Results may be shared between answers and are immutable.
//
// An operation reads no clock and rolls no dice: time is the Exec's, seeds are
// in the Op. The effects that it leaves in the batch are what gets replicated.

// opFunc is one operation. An *opError becomes the operation's result, any other
// error fails the request.
type opFunc func(x *Exec, op *wire.Op) (*wire.Result, error)

// opSpec says how to run an operation and what it must be given at least.
type opSpec struct {
	run                opFunc
	args, ints, floats int
}

// readBase is where codes of reads begin.
const readBase = 1000

// keyBytesMax bounds keys of documents and what becomes part of a key in them:
// fields and members.
const keyBytesMax = 1 << 20

var (
	errMalformed   = refusal(wire.Code_CODE_INVALID, "ERR malformed operation")
	errUnknownOp   = refusal(wire.Code_CODE_INVALID, "ERR unknown operation")
	errNotARead    = refusal(wire.Code_CODE_INVALID, "ERR a write was sent as a read")
	errOtherTable  = refusal(wire.Code_CODE_INVALID, "ERR the table holds something else than the operation works on")
	errKeyTooLarge = refusal(wire.Code_CODE_TOO_LARGE, "ERR key, field or member exceeds the maximum of 1 MiB")
)

var writeOps = [...]opSpec{
	wire.OpDelete:   {run: (*Exec).opDelete},
	wire.OpExpireAt: {run: (*Exec).opExpireAt, ints: 1},
	wire.OpPersist:  {run: (*Exec).opPersist},
	wire.OpRestore:  {run: (*Exec).opRestore, args: 1, ints: 1},
	wire.OpCheck:    {run: (*Exec).opCheck, ints: 1},
	wire.OpRename:   {run: (*Exec).opRename, args: 1, ints: 1},
	wire.OpTruncate: {run: (*Exec).opTruncate},
	wire.OpCopy:     {run: (*Exec).opCopy, args: 1, ints: 1},

	wire.OpSet:         {run: (*Exec).opSet, args: 1},
	wire.OpGetDel:      {run: (*Exec).opGetDel},
	wire.OpGetEx:       {run: (*Exec).opGetEx},
	wire.OpSetRange:    {run: (*Exec).opSetRange, args: 1, ints: 1},
	wire.OpAppend:      {run: (*Exec).opAppend, args: 1},
	wire.OpIncrBy:      {run: (*Exec).opIncrBy, ints: 1},
	wire.OpIncrByFloat: {run: (*Exec).opIncrByFloat, args: 1},
	wire.OpSetBit:      {run: (*Exec).opSetBit, ints: 2},

	wire.OpHSet:         {run: (*Exec).opHSet, args: 2},
	wire.OpHDel:         {run: (*Exec).opHDel, args: 1},
	wire.OpHIncrBy:      {run: (*Exec).opHIncrBy, args: 1, ints: 1},
	wire.OpHIncrByFloat: {run: (*Exec).opHIncrByFloat, args: 2},

	wire.OpSAdd: {run: (*Exec).opSAdd, args: 1},
	wire.OpSRem: {run: (*Exec).opSRem, args: 1},
	wire.OpSPop: {run: (*Exec).opSPop, ints: 2},

	wire.OpZAdd:      {run: (*Exec).opZAdd, args: 1, floats: 1},
	wire.OpZRem:      {run: (*Exec).opZRem, args: 1},
	wire.OpZRemRange: {run: (*Exec).opZRemRange},
	wire.OpZPop:      {run: (*Exec).opZPop, ints: 1},

	wire.OpPush:    {run: (*Exec).opPush, args: 1},
	wire.OpPop:     {run: (*Exec).opPop, ints: 1},
	wire.OpLTrim:   {run: (*Exec).opLTrim, ints: 2},
	wire.OpLRem:    {run: (*Exec).opLRem, args: 1, ints: 1},
	wire.OpLSet:    {run: (*Exec).opLSet, args: 1, ints: 1},
	wire.OpLInsert: {run: (*Exec).opLInsert, args: 2},

	wire.OpTSAdd: {run: (*Exec).opTSAdd, args: 1, ints: 2},
	wire.OpTSRem: {run: (*Exec).opTSRem, ints: 1},

	wire.OpRowPut:    {run: (*Exec).opRowPut},
	wire.OpRowUpdate: {run: (*Exec).opRowUpdate},
	wire.OpRowDelete: {run: (*Exec).opRowDelete},
}

var readOps = [...]opSpec{
	wire.OpExists - readBase:     {run: (*Exec).opExists},
	wire.OpType - readBase:       {run: (*Exec).opType},
	wire.OpExpireTime - readBase: {run: (*Exec).opExpireTime},
	wire.OpDump - readBase:       {run: (*Exec).opDump},
	wire.OpVersion - readBase:    {run: (*Exec).opVersion},
	wire.OpScanKeys - readBase:   {run: (*Exec).opScanKeys, ints: 1, args: 2},
	wire.OpObject - readBase:     {run: (*Exec).opObject},

	wire.OpGet - readBase:      {run: (*Exec).opGet},
	wire.OpGetRange - readBase: {run: (*Exec).opGetRange, ints: 2},
	wire.OpStrLen - readBase:   {run: (*Exec).opStrLen},
	wire.OpGetBit - readBase:   {run: (*Exec).opGetBit, ints: 1},

	wire.OpHGet - readBase:    {run: (*Exec).opHGet, args: 1},
	wire.OpHMGet - readBase:   {run: (*Exec).opHMGet, args: 1},
	wire.OpHGetAll - readBase: {run: (*Exec).opHGetAll},
	wire.OpHKeys - readBase:   {run: (*Exec).opHKeys},
	wire.OpHVals - readBase:   {run: (*Exec).opHVals},
	wire.OpHLen - readBase:    {run: (*Exec).opHLen},
	wire.OpHExists - readBase: {run: (*Exec).opHExists, args: 1},
	wire.OpHStrLen - readBase: {run: (*Exec).opHStrLen, args: 1},
	wire.OpHScan - readBase:   {run: (*Exec).opHScan, args: 1, ints: 2},
	wire.OpHRandom - readBase: {run: (*Exec).opHRandom, ints: 2},

	wire.OpSMembers - readBase:  {run: (*Exec).opSMembers},
	wire.OpSIsMember - readBase: {run: (*Exec).opSIsMember, args: 1},
	wire.OpSCard - readBase:     {run: (*Exec).opSCard},
	wire.OpSScan - readBase:     {run: (*Exec).opSScan, args: 1, ints: 2},
	wire.OpSRandom - readBase:   {run: (*Exec).opSRandom, ints: 2},

	wire.OpZScore - readBase: {run: (*Exec).opZScore, args: 1},
	wire.OpZCard - readBase:  {run: (*Exec).opZCard},
	wire.OpZRank - readBase:  {run: (*Exec).opZRank, args: 1},
	wire.OpZCount - readBase: {run: (*Exec).opZCount},
	wire.OpZRange - readBase: {run: (*Exec).opZRange},
	wire.OpZScan - readBase:  {run: (*Exec).opZScan, args: 1, ints: 2},

	wire.OpLLen - readBase:   {run: (*Exec).opLLen},
	wire.OpLRange - readBase: {run: (*Exec).opLRange, ints: 2},
	wire.OpLIndex - readBase: {run: (*Exec).opLIndex, ints: 1},
	wire.OpLPos - readBase:   {run: (*Exec).opLPos, args: 1, ints: 3},

	wire.OpTSGet - readBase:   {run: (*Exec).opTSGet, ints: 1},
	wire.OpTSRange - readBase: {run: (*Exec).opTSRange, ints: 3},
	wire.OpTSCard - readBase:  {run: (*Exec).opTSCard},
	wire.OpTSLastN - readBase: {run: (*Exec).opTSLastN, ints: 1},

	wire.OpRowGet - readBase:  {run: (*Exec).opRowGet},
	wire.OpRowScan - readBase: {run: (*Exec).opRowScan},
}

// specOf finds an operation.
func specOf(code uint32) (opSpec, bool) {
	table, at := writeOps[:], code
	if !wire.OpCode(code).Write() {
		table, at = readOps[:], code-readBase
	}
	if uint64(at) >= uint64(len(table)) || table[at].run == nil {
		return opSpec{}, false
	}
	return table[at], true
}

// Write executes an operation of a write request, be it a write or a read. Its
// effects are in the batch afterwards. A non-nil error (damage, I/O) fails the
// whole request and voids the batch; what is wrong with the operation itself is
// a Result of KIND_ERROR, without effect, and the request goes on: except
// CODE_CONDITION_FAILED, which voids the whole batch.
func (x *Exec) Write(op *wire.Op) (*wire.Result, error) {
	spec, ok := specOf(op.Code)
	if !ok {
		return errUnknownOp.result, nil
	}
	if err := admit(op, spec); err != nil {
		return err.result, nil
	}
	if x.schema != nil && !fits(x.schema, wire.OpCode(op.Code)) {
		return errOtherTable.result, nil
	}
	r, err := spec.run(x, op)
	if err == nil {
		return r, nil
	}
	if refused, ok := err.(*opError); ok {
		return refused.result, nil
	}
	return nil, err
}

// Read executes an operation of a read request.
func (x *Exec) Read(op *wire.Op) (*wire.Result, error) {
	if wire.OpCode(op.Code).Write() {
		return errNotARead.result, nil
	}
	return x.Write(op)
}

// admit checks what an operation was given before it runs.
func admit(op *wire.Op, spec opSpec) *opError {
	if len(op.Args) < spec.args || len(op.Ints) < spec.ints || len(op.Floats) < spec.floats {
		return errMalformed
	}
	if len(op.Key) > keyBytesMax {
		return errKeyTooLarge
	}
	for _, a := range op.Args {
		if len(a) > valueBytesMax {
			return errValueTooLarge
		}
	}
	return nil
}

// fits reports whether an operation is one for the documents, or the rows, that
// a table holds: a string in the place of a row would be damage to it.
func fits(schema *catalog.Schema, code wire.OpCode) bool {
	columns := schema.Columns
	rows := len(columns) > 0 && columns[len(columns)-1].Type != catalog.Type_TYPE_DOCUMENT
	switch code {
	case wire.OpRowPut, wire.OpRowUpdate, wire.OpRowDelete, wire.OpRowGet, wire.OpRowScan:
		return rows
	case wire.OpTruncate, wire.OpCheck, wire.OpVersion, wire.OpScanKeys:
		return true
	}
	return !rows
}

// Lock is one place that a request locks, strongly: a document, or the whole
// tablet. Its prefixes are locked weakly by whoever keeps the locks.
type Lock struct {
	Whole  bool // the tablet; Hash and Key mean nothing
	Hash   uint64
	Key    []byte
	Reads  bool
	Writes bool
}

// LockSet is the locks of one operation: two at most, and no memory of its own.
type LockSet struct {
	locks [2]Lock
	n     int
}

// All lists the locks.
func (s *LockSet) All() []Lock { return s.locks[:s.n] }

// Locks says what an operation needs locked in a write request.
func Locks(op *wire.Op) LockSet {
	code := wire.OpCode(op.Code)
	s := LockSet{n: 1}
	s.locks[0] = Lock{Hash: op.Hash, Key: op.Key, Reads: NeedsRead(op), Writes: code.Write() && code != wire.OpCheck}
	switch code {
	case wire.OpTruncate, wire.OpScanKeys, wire.OpRowScan:
		s.locks[0] = Lock{Whole: true, Reads: true, Writes: code == wire.OpTruncate}
	case wire.OpRename, wire.OpCopy:
		if code == wire.OpCopy {
			s.locks[0].Writes = false
		}
		if len(op.Args) > 0 && len(op.Ints) > 0 {
			s.locks[1] = Lock{Hash: uint64(op.Ints[0]), Key: op.Args[0], Reads: true, Writes: true}
			s.n = 2
		}
	}
	return s
}

// NeedsRead reports whether an operation looks at what there is. Blind writes do
// not: they take no read lock and exclude no other blind write.
func NeedsRead(op *wire.Op) bool {
	switch wire.OpCode(op.Code) {
	case wire.OpSet:
		return !blindSet(op)
	case wire.OpRowPut:
		return op.Flags&(wire.FlagNX|wire.FlagXX|wire.FlagReturn) != 0 || len(op.Conditions) > 0
	}
	return true
}

// doc is the document that an operation works on.
func (x *Exec) doc(op *wire.Op) *Doc { return x.Doc(op.Hash, op.Key) }

// live finds a document of any kind. A time series of which every entry has
// expired is none.
func (x *Exec) live(d *Doc) (Root, bool, error) {
	root, ok, err := d.Root()
	if ok && root.Kind == RootTSeries && seriesOver(root, x.nowMs) {
		return Root{}, false, nil
	}
	return root, ok, err
}

// open finds the document of an operation on one kind. Where there is none the
// root is zero, ready to begin a new life.
func (x *Exec) open(op *wire.Op, kind RootKind) (*Doc, Root, bool, error) {
	d := x.doc(op)
	root, ok, err := x.live(d)
	if err != nil {
		return nil, Root{}, false, err
	}
	if ok && root.Kind != kind {
		return nil, Root{}, false, errWrongType
	}
	return d, root, ok, nil
}

// putShrunk writes the root of a collection that lost removed children, or
// deletes it with the last of them (O3).
func putShrunk(d *Doc, root Root, removed int64) {
	switch root.Count -= removed; {
	case removed == 0:
	case root.Count <= 0:
		d.Delete()
	default:
		d.PutRoot(root)
	}
}

// damaged says that a document contradicts itself.
func damaged(op *wire.Op, format string, args ...any) error {
	return fmt.Errorf("%w: document %q at %016x: %s", ErrCorrupt, op.Key, op.Hash, fmt.Sprintf(format, args...))
}

// keySpace is room on the stack to build a subkey in.
type keySpace [128]byte

// hashedPrefix is how much of a hashed subkey is the hash.
const hashedPrefix = 8

// hashed is the subkey of a hash's field or a set's member.
func (k *keySpace) hashed(member []byte) []byte { return appendHashed(k[:0], member) }

// number is the subkey of a position or a timestamp.
func (k *keySpace) number(n int64) []byte { return AppendInt64(k[:0], n) }

func appendHashed(dst, member []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, xxhash.Sum64(member))
	return append(dst, member...)
}

// checkMembers refuses fields and members too large to be part of a key; step 2
// looks at every other argument.
func checkMembers(args [][]byte, step int) error {
	for i := 0; i < len(args); i += step {
		if len(args[i]) > keyBytesMax {
			return errKeyTooLarge
		}
	}
	return nil
}

// seen remembers the members of one operation, if there are several.
type seen map[string]struct{}

func newSeen(n int) seen {
	if n < 2 {
		return nil
	}
	return make(seen, n)
}

// first reports whether member was not asked about before.
func (s seen) first(member []byte) bool {
	if s == nil {
		return true
	}
	n := len(s)
	s[string(member)] = struct{}{}
	return len(s) > n
}
