package client

import (
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// The vocabulary of operations. An Op is one typed operation on one document,
// executed by the tablet's leader under its locks; wire/ops.go is the
// specification of what each takes and answers, the constructors below are how
// to make one. A front end needs no import of wire.
//
// Ops and Results are immutable once handed over: a local call shares them with
// the tablet, and a Result may be shared between answers.
type (
	OpCode = wire.OpCode
	Kind   = wire.Kind
	Cell   = wire.Cell
)

// Kinds of a Result.
const (
	KindNil    = wire.Kind_KIND_NIL
	KindOK     = wire.Kind_KIND_OK
	KindInt    = wire.Kind_KIND_INT
	KindBytes  = wire.Kind_KIND_BYTES
	KindDouble = wire.Kind_KIND_DOUBLE
	KindArray  = wire.Kind_KIND_ARRAY
	KindError  = wire.Kind_KIND_ERROR
	KindRow    = wire.Kind_KIND_ROW
	KindBool   = wire.Kind_KIND_BOOL
)

// Codes of errors, of a request or of one Result.
const (
	CodeOK              = wire.Code_CODE_OK
	CodeNotLeader       = wire.Code_CODE_NOT_LEADER
	CodeNotReady        = wire.Code_CODE_NOT_READY
	CodeTabletNotFound  = wire.Code_CODE_TABLET_NOT_FOUND
	CodeSchemaMismatch  = wire.Code_CODE_SCHEMA_MISMATCH
	CodeTimeout         = wire.Code_CODE_TIMEOUT
	CodeUnknownOutcome  = wire.Code_CODE_UNKNOWN_OUTCOME
	CodeRequestExpired  = wire.Code_CODE_REQUEST_EXPIRED
	CodeOverloaded      = wire.Code_CODE_OVERLOADED
	CodeDiskFull        = wire.Code_CODE_DISK_FULL
	CodeClockSkew       = wire.Code_CODE_CLOCK_SKEW
	CodeSnapshotTooOld  = wire.Code_CODE_SNAPSHOT_TOO_OLD
	CodeCorrupt         = wire.Code_CODE_CORRUPT
	CodeTooLarge        = wire.Code_CODE_TOO_LARGE
	CodeInvalid         = wire.Code_CODE_INVALID
	CodeCanceled        = wire.Code_CODE_CANCELED
	CodeConditionFailed = wire.Code_CODE_CONDITION_FAILED
	CodeWrongType       = wire.Code_CODE_WRONG_TYPE
	CodeNotAnInteger    = wire.Code_CODE_NOT_AN_INTEGER
	CodeNotAFloat       = wire.Code_CODE_NOT_A_FLOAT
	CodeOverflow        = wire.Code_CODE_OVERFLOW
	CodeNoSuchKey       = wire.Code_CODE_NO_SUCH_KEY
	CodeOutOfRange      = wire.Code_CODE_OUT_OF_RANGE
	CodeSyntax          = wire.Code_CODE_SYNTAX
	CodeAlreadyExists   = wire.Code_CODE_ALREADY_EXISTS
	CodeNotFound        = wire.Code_CODE_NOT_FOUND
	CodeUnavailable     = wire.Code_CODE_UNAVAILABLE
	CodeInternal        = wire.Code_CODE_INTERNAL
)

// Flags of an Op, for whoever reads one; the constructors set them.
const (
	FlagNX         = wire.FlagNX
	FlagXX         = wire.FlagXX
	FlagGT         = wire.FlagGT
	FlagLT         = wire.FlagLT
	FlagGet        = wire.FlagGet
	FlagKeepTTL    = wire.FlagKeepTTL
	FlagPersist    = wire.FlagPersist
	FlagReplace    = wire.FlagReplace
	FlagCH         = wire.FlagCH
	FlagIncr       = wire.FlagIncr
	FlagLeft       = wire.FlagLeft
	FlagBefore     = wire.FlagBefore
	FlagReverse    = wire.FlagReverse
	FlagByScore    = wire.FlagByScore
	FlagByLex      = wire.FlagByLex
	FlagMinOpen    = wire.FlagMinOpen
	FlagMaxOpen    = wire.FlagMaxOpen
	FlagLimit      = wire.FlagLimit
	FlagWithValues = wire.FlagWithValues
	FlagSingle     = wire.FlagSingle
	FlagCountOnly  = wire.FlagCountOnly
	FlagReturn     = wire.FlagReturn
)

// DocumentHash is where a document's key lies in the hash space of a table of
// documents (Redis Cluster's slots, hashtags included).
func DocumentHash(key []byte) uint64 { return catalog.KeyHash(catalog.Hash_HASH_CRC16, key) }

// opSpace is an Op with room for the few arguments that most operations have,
// so that making one allocates once.
type opSpace struct {
	op   Op
	args [2][]byte
	ints [3]int64
}

func docOp(code OpCode, key []byte) *opSpace {
	s := &opSpace{}
	s.op.Code = uint32(code)
	s.op.Hash = DocumentHash(key)
	s.op.Key = key
	return s
}

func (s *opSpace) withArgs(a ...[]byte) *opSpace {
	s.op.Args = append(s.args[:0], a...)
	return s
}

func (s *opSpace) withInts(i ...int64) *opSpace {
	s.op.Ints = append(s.ints[:0], i...)
	return s
}

// flag sets f if on.
func (s *opSpace) flag(on bool, f uint64) *opSpace {
	if on {
		s.op.Flags |= f
	}
	return s
}

// keyArgs is an operation that takes any number of arguments; it keeps args.
func keyArgs(code OpCode, key []byte, args [][]byte) *opSpace {
	s := docOp(code, key)
	s.op.Args = args
	return s
}

// Delete removes a document.
func Delete(key []byte) *Op { return &docOp(wire.OpDelete, key).op }

// ExpireOptions say when ExpireAt applies.
type ExpireOptions struct {
	NX bool // only if it has no expiry
	XX bool // only if it has one
	GT bool // only if the new one is later (none is latest)
	LT bool // only if the new one is earlier
}

// ExpireAt sets a document's expiry, in milliseconds since the Unix epoch.
func ExpireAt(key []byte, atMs int64, o ExpireOptions) *Op {
	return &docOp(wire.OpExpireAt, key).withInts(atMs).
		flag(o.NX, FlagNX).flag(o.XX, FlagXX).flag(o.GT, FlagGT).flag(o.LT, FlagLT).op
}

// Persist removes a document's expiry.
func Persist(key []byte) *Op { return &docOp(wire.OpPersist, key).op }

// Restore makes a document from what Dump answered. expireAtMs 0 is none.
func Restore(key, payload []byte, expireAtMs int64, replace bool) *Op {
	return &docOp(wire.OpRestore, key).withArgs(payload).withInts(expireAtMs).flag(replace, FlagReplace).op
}

// Check makes the batch it stands in fail with CodeConditionFailed unless the
// document still has the version that Version answered (0: is missing).
func Check(key []byte, version int64) *Op {
	return &docOp(wire.OpCheck, key).withInts(version).op
}

// Rename moves a document to another key of the same tablet; onlyNew refuses to
// replace what is there.
func Rename(key, dest []byte, onlyNew bool) *Op {
	return &docOp(wire.OpRename, key).withArgs(dest).withInts(int64(DocumentHash(dest))).flag(onlyNew, FlagNX).op
}

// Copy copies a document to another key of the same tablet.
func Copy(key, dest []byte, replace bool) *Op {
	return &docOp(wire.OpCopy, key).withArgs(dest).withInts(int64(DocumentHash(dest))).flag(replace, FlagReplace).op
}

// Truncate deletes every document of the tablet that owns hash.
func Truncate(hash uint64) *Op { return &Op{Code: uint32(wire.OpTruncate), Hash: hash} }

// Exists tells whether there is a document.
func Exists(key []byte) *Op { return &docOp(wire.OpExists, key).op }

// Type names the type of a document.
func Type(key []byte) *Op { return &docOp(wire.OpType, key).op }

// ExpireTime is when a document expires: -1 never, -2 no document.
func ExpireTime(key []byte) *Op { return &docOp(wire.OpExpireTime, key).op }

// Dump serialises a document for Restore.
func Dump(key []byte) *Op { return &docOp(wire.OpDump, key).op }

// Version answers a number that stays the same as long as the document does.
func Version(key []byte) *Op { return &docOp(wire.OpVersion, key).op }

// Object names the encoding that Redis would give the document.
func Object(key []byte) *Op { return &docOp(wire.OpObject, key).op }

// ScanOptions narrow a scan.
type ScanOptions struct {
	Count int64  // how many to look at, a hint; 0 is 10
	Match []byte // glob; empty matches all
	Type  []byte // ScanKeys: only documents of this type; empty is all
}

// ScanKeys visits the documents of the tablet that owns hash, from hash on.
func ScanKeys(hash uint64, o ScanOptions) *Op {
	return &Op{Code: uint32(wire.OpScanKeys), Hash: hash, Args: [][]byte{o.Match, o.Type}, Ints: []int64{o.Count}}
}

// CountKeys counts documents as ScanKeys lists them, o.Count at a time.
func CountKeys(hash uint64, o ScanOptions) *Op {
	op := ScanKeys(hash, o)
	op.Flags = FlagCountOnly
	return op
}

// SetOptions are the options of Set. The zero value sets unconditionally and
// removes any expiry.
type SetOptions struct {
	NX         bool  // only if there is no document
	XX         bool  // only if there is one
	Get        bool  // answer the old value
	KeepTTL    bool  // keep the old expiry
	ExpireAtMs int64 // 0 is none
}

// Set makes the document a string.
func Set(key, value []byte, o SetOptions) *Op {
	s := docOp(wire.OpSet, key)
	s.args[0] = value
	s.op.Args = s.args[:1]
	if o.ExpireAtMs != 0 {
		s.ints[0] = o.ExpireAtMs
		s.op.Ints = s.ints[:1]
	}
	return &s.flag(o.NX, FlagNX).flag(o.XX, FlagXX).flag(o.Get, FlagGet).flag(o.KeepTTL, FlagKeepTTL).op
}

// Get reads a string.
func Get(key []byte) *Op { return &docOp(wire.OpGet, key).op }

// GetDel reads a string and deletes it.
func GetDel(key []byte) *Op { return &docOp(wire.OpGetDel, key).op }

// GetExOptions say what GetEx does to the expiry. The zero value leaves it.
type GetExOptions struct {
	ExpireAtMs int64 // 0 is unchanged
	Persist    bool
}

// GetEx reads a string and changes its expiry.
func GetEx(key []byte, o GetExOptions) *Op {
	s := docOp(wire.OpGetEx, key).flag(o.Persist, FlagPersist)
	if o.ExpireAtMs != 0 {
		s.withInts(o.ExpireAtMs)
	}
	return &s.op
}

// SetRange overwrites a string from offset on, padding with zeros.
func SetRange(key []byte, offset int64, value []byte) *Op {
	return &docOp(wire.OpSetRange, key).withInts(offset).withArgs(value).op
}

// Append appends to a string.
func Append(key, value []byte) *Op { return &docOp(wire.OpAppend, key).withArgs(value).op }

// IncrBy adds to the integer that a string holds.
func IncrBy(key []byte, by int64) *Op { return &docOp(wire.OpIncrBy, key).withInts(by).op }

// IncrByFloat adds decimal text to the number that a string holds.
func IncrByFloat(key, by []byte) *Op { return &docOp(wire.OpIncrByFloat, key).withArgs(by).op }

// SetBit sets one bit of a string.
func SetBit(key []byte, offset, bit int64) *Op {
	return &docOp(wire.OpSetBit, key).withInts(offset, bit).op
}

// GetRange reads part of a string; negative positions count from its end.
func GetRange(key []byte, start, end int64) *Op {
	return &docOp(wire.OpGetRange, key).withInts(start, end).op
}

// StrLen is the length of a string.
func StrLen(key []byte) *Op { return &docOp(wire.OpStrLen, key).op }

// GetBit reads one bit of a string.
func GetBit(key []byte, offset int64) *Op { return &docOp(wire.OpGetBit, key).withInts(offset).op }
