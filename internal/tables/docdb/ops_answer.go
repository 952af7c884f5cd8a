package docdb

import (
	"github.com/braiddb/braid/internal/wire"
)

// Bounds of what one operation makes or answers.
const (
	// stringBytesLimit is Redis's proto-max-bulk-len.
	stringBytesLimit = 512 << 20
	// valueBytesMax bounds one value, and a dump: what a request can carry.
	valueBytesMax = 64 << 20
	// answerBytesMax bounds an answer, counting answerItemBytes for each item.
	answerBytesMax  = 64 << 20
	answerItemBytes = 24
)

// opError refuses an operation: it becomes the operation's result, and the
// operation has had no effect. Every other error fails the whole request.
type opError struct{ result *wire.Result }

func (e *opError) Error() string { return "docdb: " + e.result.Message }

// refusal makes an opError. text is word for word what Redis answers, where
// Redis has such an error.
func refusal(code wire.Code, text string) *opError {
	return &opError{&wire.Result{Kind: wire.Kind_KIND_ERROR, Code: code, Message: text}}
}

var (
	errWrongType      = refusal(wire.Code_CODE_WRONG_TYPE, "WRONGTYPE Operation against a key holding the wrong kind of value")
	errNotInteger     = refusal(wire.Code_CODE_NOT_AN_INTEGER, "ERR value is not an integer or out of range")
	errHashNotInteger = refusal(wire.Code_CODE_NOT_AN_INTEGER, "ERR hash value is not an integer")
	errIncrOverflow   = refusal(wire.Code_CODE_OVERFLOW, "ERR increment or decrement would overflow")
	errNotFloat       = refusal(wire.Code_CODE_NOT_A_FLOAT, "ERR value is not a valid float")
	errHashNotFloat   = refusal(wire.Code_CODE_NOT_A_FLOAT, "ERR hash value is not a float")
	errFloatInfinite  = refusal(wire.Code_CODE_OVERFLOW, "ERR increment would produce NaN or Infinity")
	errFloatArgument  = refusal(wire.Code_CODE_NOT_A_FLOAT, "ERR value is NaN or Infinity")
	errScoreNaN       = refusal(wire.Code_CODE_NOT_A_FLOAT, "ERR resulting score is not a number (NaN)")
	errScoreRange     = refusal(wire.Code_CODE_NOT_A_FLOAT, "ERR min or max is not a float")
	errLexRange       = refusal(wire.Code_CODE_SYNTAX, "ERR min or max not valid string range item")
	errStringTooLong  = refusal(wire.Code_CODE_TOO_LARGE, "ERR string exceeds maximum allowed size (proto-max-bulk-len)")
	errValueTooLarge  = refusal(wire.Code_CODE_TOO_LARGE, "ERR value exceeds the maximum of 64 MiB")
	errAnswerTooLarge = refusal(wire.Code_CODE_TOO_LARGE, "ERR answer exceeds the maximum of 64 MiB: read it in parts")
	errOffsetRange    = refusal(wire.Code_CODE_OUT_OF_RANGE, "ERR offset is out of range")
	errBitOffset      = refusal(wire.Code_CODE_OUT_OF_RANGE, "ERR bit offset is not an integer or out of range")
	errBitValue       = refusal(wire.Code_CODE_OUT_OF_RANGE, "ERR bit is not an integer or out of range")
	errNotPositive    = refusal(wire.Code_CODE_OUT_OF_RANGE, "ERR value is out of range, must be positive")
	errIndexRange     = refusal(wire.Code_CODE_OUT_OF_RANGE, "ERR index out of range")
	errValueRange     = refusal(wire.Code_CODE_OUT_OF_RANGE, "ERR value is out of range")
	errNoSuchKey      = refusal(wire.Code_CODE_NO_SUCH_KEY, "ERR no such key")
	errBusyKey        = refusal(wire.Code_CODE_ALREADY_EXISTS, "BUSYKEY Target key name already exists.")
	errDumpChecksum   = refusal(wire.Code_CODE_INVALID, "ERR DUMP payload version or checksum are wrong")
	errDumpFormat     = refusal(wire.Code_CODE_INVALID, "ERR Bad data format")
	errZAddNXXX       = refusal(wire.Code_CODE_SYNTAX, "ERR XX and NX options at the same time are not compatible")
	errZAddGTLTNX     = refusal(wire.Code_CODE_SYNTAX, "ERR GT, LT, and/or NX options at the same time are not compatible")
	errZAddIncrPairs  = refusal(wire.Code_CODE_SYNTAX, "ERR INCR option supports a single increment-element pair")
	errExpireNX       = refusal(wire.Code_CODE_SYNTAX, "ERR NX and XX, GT or LT options at the same time are not compatible")
	errExpireGTLT     = refusal(wire.Code_CODE_SYNTAX, "ERR GT and LT options at the same time are not compatible")
	errPosRank        = refusal(wire.Code_CODE_OUT_OF_RANGE, "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list")
	errPosCount       = refusal(wire.Code_CODE_OUT_OF_RANGE, "ERR COUNT can't be negative")
	errPosMaxLen      = refusal(wire.Code_CODE_OUT_OF_RANGE, "ERR MAXLEN can't be negative")
	errCheckFailed    = refusal(wire.Code_CODE_CONDITION_FAILED, "the document has changed")
	errSyntax         = refusal(wire.Code_CODE_SYNTAX, "ERR syntax error")
)

// Answers that are always the same are shared: results are immutable.
var (
	resultOK         = &wire.Result{Kind: wire.Kind_KIND_OK}
	resultNil        = &wire.Result{Kind: wire.Kind_KIND_NIL}
	resultEmptyArray = &wire.Result{Kind: wire.Kind_KIND_ARRAY}
	resultInts       = func() (r [64]*wire.Result) {
		for i := range r {
			r[i] = &wire.Result{Kind: wire.Kind_KIND_INT, Int: int64(i)}
		}
		return r
	}()
)

func intResult(n int64) *wire.Result {
	if n >= 0 && n < int64(len(resultInts)) {
		return resultInts[n]
	}
	return &wire.Result{Kind: wire.Kind_KIND_INT, Int: n}
}

func boolInt(b bool) *wire.Result {
	if b {
		return resultInts[1]
	}
	return resultInts[0]
}

// bytesResult answers b, which must not change afterwards.
func bytesResult(b []byte) *wire.Result {
	return &wire.Result{Kind: wire.Kind_KIND_BYTES, Bytes: b}
}

func doubleResult(f float64) *wire.Result {
	return &wire.Result{Kind: wire.Kind_KIND_DOUBLE, Double: f}
}

// answer collects an array. Its items come out of slabs, so that a long one costs
// few allocations.
type answer struct {
	items []*wire.Result
	slab  []wire.Result
	size  int
}

// item adds an item to be filled.
func (a *answer) item() *wire.Result {
	if len(a.slab) == 0 {
		a.slab = make([]wire.Result, min(max(4, len(a.items)), 512))
	}
	r := &a.slab[0]
	a.slab = a.slab[1:]
	a.items = append(a.items, r)
	a.size += answerItemBytes
	return r
}

// bytes adds b, which must not change afterwards.
func (a *answer) bytes(b []byte) {
	r := a.item()
	r.Kind, r.Bytes = wire.Kind_KIND_BYTES, b
	a.size += len(b)
}

func (a *answer) int(n int64) {
	r := a.item()
	r.Kind, r.Int = wire.Kind_KIND_INT, n
}

func (a *answer) double(f float64) {
	r := a.item()
	r.Kind, r.Double = wire.Kind_KIND_DOUBLE, f
}

// share adds a result that stands elsewhere too.
func (a *answer) share(r *wire.Result) {
	a.items = append(a.items, r)
	a.size += answerItemBytes + len(r.Bytes)
}

func (a *answer) null() { a.share(resultNil) }

// full reports that the answer is too large and collecting may stop.
func (a *answer) full() bool { return a.size > answerBytesMax }

func (a *answer) result() (*wire.Result, error) {
	if a.full() {
		return nil, errAnswerTooLarge
	}
	if len(a.items) == 0 {
		return resultEmptyArray, nil
	}
	return &wire.Result{Kind: wire.Kind_KIND_ARRAY, Items: a.items}, nil
}
