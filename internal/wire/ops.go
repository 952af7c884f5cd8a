package wire

// OpCode says what an Op does. The set is closed and versioned: a code is never
// reused, a node refuses one that it does not know. Below, k is Op.Key, a Op.Args,
// i Op.Ints, f Op.Floats; "->" is the Result. Unless said otherwise a document of
// another type gives KIND_ERROR/CODE_WRONG_TYPE and a missing one is the empty
// value of its type. Times are milliseconds since the Unix epoch; one that has
// passed deletes. Every operation works on one document, atomically.
//
// A KIND_ERROR has had no effect and does not stop the rest of its batch, but for
// CODE_CONDITION_FAILED. Its message is what today's Redis answers, word for word
// and with its first word ("ERR ", "WRONGTYPE ", "BUSYKEY "), wherever Redis has
// such an error. CODE_INVALID is a caller's mistake: arguments missing.
// CODE_TOO_LARGE: keys, fields and members up to 1 MiB, values and answers up to
// 64 MiB.
type OpCode uint32

// Write reports whether the operation may change its document.
func (c OpCode) Write() bool { return c < readCodes }

// Writes. Codes below readCodes change documents.
const (
	// Any document.
	OpDelete   OpCode = 1 // -> int 1 if it existed, else 0
	OpExpireAt OpCode = 2 // i[0] time; flags FlagNX|FlagXX|FlagGT|FlagLT -> int 1 set, 0 not
	OpPersist  OpCode = 3 // -> int 1 if it had an expiry
	OpRestore  OpCode = 4 // a[0] from OpDump, i[0] expiry (0 none), FlagReplace -> ok; CODE_ALREADY_EXISTS
	OpCheck    OpCode = 5 // i[0] version from OpVersion; if it differs the whole batch is CODE_CONDITION_FAILED -> ok. Before what changes the document
	OpRename   OpCode = 6 // a[0] destination key, same tablet, i[0] destination hash (as int64 bits); FlagNX -> int 1, or 0 under FlagNX; CODE_NO_SUCH_KEY
	OpTruncate OpCode = 7 // the whole tablet, k is ignored -> ok
	OpCopy     OpCode = 8 // as OpRename, but the source stays; FlagReplace -> int 1, 0 if it exists

	// Strings.
	OpSet         OpCode = 20 // a[0] value, i[0] expiry (0 none); FlagNX|FlagXX|FlagGet|FlagKeepTTL -> ok, nil if NX/XX failed; FlagGet: old value or nil
	OpGetDel      OpCode = 21 // -> bytes or nil
	OpGetEx       OpCode = 22 // i[0] expiry (absent or 0: unchanged); FlagPersist -> bytes or nil
	OpSetRange    OpCode = 23 // i[0] offset, a[0] -> int length
	OpAppend      OpCode = 24 // a[0] -> int length
	OpIncrBy      OpCode = 25 // i[0] -> int; CODE_NOT_AN_INTEGER, CODE_OVERFLOW
	OpIncrByFloat OpCode = 26 // a[0] decimal text -> bytes (decimal text); CODE_NOT_A_FLOAT
	OpSetBit      OpCode = 27 // i[0] bit offset, i[1] bit -> int old bit

	// Hashes.
	OpHSet         OpCode = 40 // a field, value, ...; FlagNX (one field) -> int fields added
	OpHDel         OpCode = 41 // a fields -> int removed
	OpHIncrBy      OpCode = 42 // a[0] field, i[0] -> int
	OpHIncrByFloat OpCode = 43 // a[0] field, a[1] decimal text -> bytes

	// Sets.
	OpSAdd OpCode = 60 // a members -> int added
	OpSRem OpCode = 61 // a members -> int removed
	OpSPop OpCode = 62 // i[0] count, FlagSingle: answer one instead of an array; i[1] seed -> array of bytes, or bytes or nil. The seed must be random: whoever can guess it can guess what is drawn

	// Sorted sets.
	OpZAdd      OpCode = 80 // a members, f scores; FlagNX|FlagXX|FlagGT|FlagLT|FlagCH|FlagIncr -> int added (or changed); FlagIncr: double or nil
	OpZRem      OpCode = 81 // a members -> int removed
	OpZRemRange OpCode = 82 // range as OpZRange (FlagByScore|FlagByLex, else by rank) -> int removed
	OpZPop      OpCode = 83 // i[0] count, FlagReverse: greatest -> array member, double score, ...

	// Lists.
	OpPush    OpCode = 100 // a values in order; FlagLeft; FlagXX only if it exists -> int length
	OpPop     OpCode = 101 // i[0] count; FlagLeft; FlagSingle -> array or nil; FlagSingle: bytes or nil
	OpLTrim   OpCode = 102 // i[0] start, i[1] stop -> ok
	OpLRem    OpCode = 103 // i[0] count as in Redis, a[0] value -> int removed
	OpLSet    OpCode = 104 // i[0] index, a[0] -> ok; CODE_NO_SUCH_KEY, CODE_OUT_OF_RANGE
	OpLInsert OpCode = 105 // FlagBefore, a[0] pivot, a[1] value -> int length, -1 no pivot, 0 no list

	// Time series: int64 timestamps, one value each.
	OpTSAdd OpCode = 120 // i timestamps, then i[len(a)] expiry of the entries (0 none); a values -> ok
	OpTSRem OpCode = 121 // i timestamps -> int removed

	// Rows: tables with columns. k is docdb's key of the row.
	OpRowPut    OpCode = 140 // cells; FlagNX: must not exist; FlagXX: must exist; conditions; i[0] TTL ms (0 table default). Replaces the row -> bool applied (with FlagReturn: row as it was)
	OpRowUpdate OpCode = 141 // as OpRowPut, but columns that are not named stay
	OpRowDelete OpCode = 142 // conditions -> bool applied
)

// Walks reports whether a read may touch many records, so that it is not carried
// out on a goroutine that others wait for.
func (c OpCode) Walks() bool {
	switch c {
	case OpScanKeys, OpDump, OpHGetAll, OpHKeys, OpHVals, OpHScan, OpHRandom, OpSMembers, OpSScan, OpSRandom,
		OpZRange, OpZRank, OpZCount, OpZScan, OpLRange, OpLPos, OpTSRange, OpTSLastN, OpRowScan:
		return true
	}
	return false
}

const readCodes OpCode = 1000

// Reads.
const (
	OpExists     OpCode = 1001 // -> int 1 or 0
	OpType       OpCode = 1002 // -> bytes "string", "hash", "set", "zset", "list", "tseries", "none"
	OpExpireTime OpCode = 1003 // -> int time of expiry, -1 none, -2 no document
	OpDump       OpCode = 1004 // -> bytes (opaque, versioned, checksummed) or nil
	OpVersion    OpCode = 1005 // -> int; equal versions mean an unchanged document; 0 missing; -1 written by the batch at hand
	OpScanKeys   OpCode = 1006 // documents of the tablet from hash >= Op.Hash in order; i[0] count hint, a[0] glob or empty, a[1] type or empty; FlagCountOnly -> array: int next hash (as int64 bits; 0 = past this tablet's end), then keys (FlagCountOnly: int count). The hint (default 10) counts documents looked at, not found, and is cut at 65,536 (FlagCountOnly: 131,072)
	OpObject     OpCode = 1007 // -> bytes encoding name, nil if missing

	OpGet      OpCode = 1020 // -> bytes or nil
	OpGetRange OpCode = 1021 // i[0] start, i[1] end -> bytes
	OpStrLen   OpCode = 1022 // -> int
	OpGetBit   OpCode = 1023 // i[0] -> int

	OpHGet    OpCode = 1040 // a[0] -> bytes or nil
	OpHMGet   OpCode = 1041 // a fields -> array of bytes or nil
	OpHGetAll OpCode = 1042 // -> array field, value, ...
	OpHKeys   OpCode = 1043 // -> array
	OpHVals   OpCode = 1044 // -> array
	OpHLen    OpCode = 1045 // -> int
	OpHExists OpCode = 1046 // a[0] -> int
	OpHStrLen OpCode = 1047 // a[0] -> int
	OpHScan   OpCode = 1048 // i[0] cursor (uint64 bits), i[1] count hint, a[0] glob or empty -> array: int next cursor (0 end), then field, value, ... The hint is cut as OpScanKeys'
	OpHRandom OpCode = 1049 // i[0] count (negative: with repeats), i[1] seed; FlagWithValues, FlagSingle -> array, or bytes or nil

	OpSMembers  OpCode = 1060 // -> array
	OpSIsMember OpCode = 1061 // a members -> array of int (FlagSingle: int)
	OpSCard     OpCode = 1062 // -> int
	OpSScan     OpCode = 1063 // as OpHScan, members only
	OpSRandom   OpCode = 1064 // as OpHRandom

	OpZScore OpCode = 1080 // a members -> array of double or nil (FlagSingle: one)
	OpZCard  OpCode = 1081 // -> int
	OpZRank  OpCode = 1082 // a[0]; FlagReverse -> array int rank, double score; nil if missing
	OpZCount OpCode = 1083 // range as OpZRange by score or lex -> int
	// OpZRange: by rank i[0] start, i[1] stop; FlagByScore: f[0] min, f[1] max, FlagMinOpen, FlagMaxOpen;
	// FlagByLex: a[0] min, a[1] max as Redis writes them ("[a", "(a", "-", "+"). FlagReverse walks from the top (min and
	// max stay min and max). i[2] offset, i[3] count under FlagLimit. -> array member, double score, ...
	OpZRange OpCode = 1084
	OpZScan  OpCode = 1085 // as OpHScan: member, double score, ...

	OpLLen   OpCode = 1100 // -> int
	OpLRange OpCode = 1101 // i[0] start, i[1] stop -> array
	OpLIndex OpCode = 1102 // i[0] -> bytes or nil
	OpLPos   OpCode = 1103 // a[0]; i[0] rank, i[1] count (-1: not given, answer one), i[2] maxlen -> int or nil, or array of int

	OpTSGet   OpCode = 1120 // i[0] -> bytes or nil
	OpTSRange OpCode = 1121 // i[0] low, i[1] high, FlagMinOpen, FlagMaxOpen, FlagReverse; i[2] limit (0 none) -> array int timestamp, bytes value, ...
	OpTSCard  OpCode = 1122 // -> int
	OpTSLastN OpCode = 1123 // i[0] n -> as OpTSRange, ascending
	OpRowGet  OpCode = 1140 // cells name the columns wanted (none: all) -> row or nil
	OpRowScan OpCode = 1141 // rows of the tablet with key >= k (k empty: from Op.Hash) ; a[0] exclusive end key or empty; i[0] limit; conditions filter -> array of rows, each KIND_ROW with Bytes = its key; a last item KIND_BYTES holds the key to go on from, absent at the end
)

// Flags of an Op.
const (
	FlagNX uint64 = 1 << iota
	FlagXX
	FlagGT
	FlagLT
	FlagGet
	FlagKeepTTL
	FlagPersist
	FlagReplace
	FlagCH
	FlagIncr
	FlagLeft
	FlagBefore
	FlagReverse
	FlagByScore
	FlagByLex
	FlagMinOpen
	FlagMaxOpen
	FlagLimit
	FlagWithValues
	FlagSingle
	FlagCountOnly
	FlagReturn
)

// Retriable reports whether the same request may be sent again, with the same
// request id, in the hope of another answer.
func (c Code) Retriable() bool {
	switch c {
	case Code_CODE_NOT_LEADER, Code_CODE_NOT_READY, Code_CODE_TABLET_NOT_FOUND, Code_CODE_OVERLOADED,
		Code_CODE_UNKNOWN_OUTCOME, Code_CODE_UNAVAILABLE, Code_CODE_CORRUPT, Code_CODE_CLOCK_SKEW, Code_CODE_DISK_FULL:
		return true
	}
	return false
}
