package client

import "github.com/braiddb/braid/internal/wire"

// Constructors of the operations on hashes, sets, sorted sets, lists, time
// series and rows; ops.go has the rest. Slices given are kept, not copied.

// HSet sets fields of a hash: field, value, field, value ...
func HSet(key []byte, pairs ...[]byte) *Op { return &keyArgs(wire.OpHSet, key, pairs).op }

// HSetNX sets a field of a hash that does not have it.
func HSetNX(key, field, value []byte) *Op {
	return &docOp(wire.OpHSet, key).withArgs(field, value).flag(true, FlagNX).op
}

// HDel removes fields of a hash.
func HDel(key []byte, fields ...[]byte) *Op { return &keyArgs(wire.OpHDel, key, fields).op }

// HIncrBy adds to the integer in a field.
func HIncrBy(key, field []byte, by int64) *Op {
	return &docOp(wire.OpHIncrBy, key).withArgs(field).withInts(by).op
}

// HIncrByFloat adds decimal text to the number in a field.
func HIncrByFloat(key, field, by []byte) *Op {
	return &docOp(wire.OpHIncrByFloat, key).withArgs(field, by).op
}

// HGet reads a field.
func HGet(key, field []byte) *Op { return &docOp(wire.OpHGet, key).withArgs(field).op }

// HMGet reads fields.
func HMGet(key []byte, fields ...[]byte) *Op { return &keyArgs(wire.OpHMGet, key, fields).op }

// HGetAll reads all fields and values.
func HGetAll(key []byte) *Op { return &docOp(wire.OpHGetAll, key).op }

// HKeys reads all fields.
func HKeys(key []byte) *Op { return &docOp(wire.OpHKeys, key).op }

// HVals reads all values.
func HVals(key []byte) *Op { return &docOp(wire.OpHVals, key).op }

// HLen counts the fields.
func HLen(key []byte) *Op { return &docOp(wire.OpHLen, key).op }

// HExists tells whether there is a field.
func HExists(key, field []byte) *Op { return &docOp(wire.OpHExists, key).withArgs(field).op }

// HStrLen is the length of a field's value.
func HStrLen(key, field []byte) *Op { return &docOp(wire.OpHStrLen, key).withArgs(field).op }

// scanOp is a scan inside one document. A cursor is the next hash to visit: it
// stays exact however the document changes meanwhile.
func scanOp(code OpCode, key []byte, cursor uint64, o ScanOptions) *Op {
	return &docOp(code, key).withInts(int64(cursor), o.Count).withArgs(o.Match).op
}

// HScan visits fields of a hash from a cursor on; 0 begins.
func HScan(key []byte, cursor uint64, o ScanOptions) *Op {
	return scanOp(wire.OpHScan, key, cursor, o)
}

// RandomOptions are the options of HRandom and SRandom.
type RandomOptions struct {
	Count      int64 // negative: that many, with repeats
	WithValues bool  // HRandom: values after the fields
	Single     bool  // answer one, not an array; Count is not read
	Seed       int64 // of the dice
}

func randomOp(code OpCode, key []byte, o RandomOptions) *Op {
	return &docOp(code, key).withInts(o.Count, o.Seed).
		flag(o.WithValues, FlagWithValues).flag(o.Single, FlagSingle).op
}

// HRandom reads random fields of a hash.
func HRandom(key []byte, o RandomOptions) *Op { return randomOp(wire.OpHRandom, key, o) }

// SAdd adds members to a set.
func SAdd(key []byte, members ...[]byte) *Op { return &keyArgs(wire.OpSAdd, key, members).op }

// SRem removes members of a set.
func SRem(key []byte, members ...[]byte) *Op { return &keyArgs(wire.OpSRem, key, members).op }

// SPop removes count random members of a set and answers them.
func SPop(key []byte, count, seed int64) *Op {
	return &docOp(wire.OpSPop, key).withInts(count, seed).op
}

// SPopOne removes one random member of a set and answers it, or nil.
func SPopOne(key []byte, seed int64) *Op {
	return &docOp(wire.OpSPop, key).withInts(1, seed).flag(true, FlagSingle).op
}

// SMembers reads a set.
func SMembers(key []byte) *Op { return &docOp(wire.OpSMembers, key).op }

// SIsMember tells of one member whether it is in a set.
func SIsMember(key, member []byte) *Op {
	return &docOp(wire.OpSIsMember, key).withArgs(member).flag(true, FlagSingle).op
}

// SMIsMember tells of each member whether it is in a set.
func SMIsMember(key []byte, members ...[]byte) *Op {
	return &keyArgs(wire.OpSIsMember, key, members).op
}

// SCard counts the members of a set.
func SCard(key []byte) *Op { return &docOp(wire.OpSCard, key).op }

// SScan visits members of a set from a cursor on; 0 begins.
func SScan(key []byte, cursor uint64, o ScanOptions) *Op {
	return scanOp(wire.OpSScan, key, cursor, o)
}

// SRandom reads random members of a set.
func SRandom(key []byte, o RandomOptions) *Op { return randomOp(wire.OpSRandom, key, o) }

// ZAddOptions are the options of ZAdd.
type ZAddOptions struct {
	NX, XX bool // only new members, only old ones
	GT, LT bool // only if the new score is greater, less; new members are added
	CH     bool // count changed members, not only added ones
	Incr   bool // add to the score of one member and answer the new one
}

// ZAdd sets scores of members of a sorted set, one score each.
func ZAdd(key []byte, scores []float64, members [][]byte, o ZAddOptions) *Op {
	s := keyArgs(wire.OpZAdd, key, members)
	s.op.Floats = scores
	return &s.flag(o.NX, FlagNX).flag(o.XX, FlagXX).flag(o.GT, FlagGT).flag(o.LT, FlagLT).
		flag(o.CH, FlagCH).flag(o.Incr, FlagIncr).op
}

// ZRem removes members of a sorted set.
func ZRem(key []byte, members ...[]byte) *Op { return &keyArgs(wire.OpZRem, key, members).op }

// ZPop removes the count least members, or greatest, and answers them with
// their scores.
func ZPop(key []byte, count int64, greatest bool) *Op {
	return &docOp(wire.OpZPop, key).withInts(count).flag(greatest, FlagReverse).op
}

// ZScore reads the score of one member.
func ZScore(key, member []byte) *Op {
	return &docOp(wire.OpZScore, key).withArgs(member).flag(true, FlagSingle).op
}

// ZMScore reads the scores of members.
func ZMScore(key []byte, members ...[]byte) *Op { return &keyArgs(wire.OpZScore, key, members).op }

// ZCard counts the members of a sorted set.
func ZCard(key []byte) *Op { return &docOp(wire.OpZCard, key).op }

// ZRank reads the rank and score of a member, from the top if reverse.
func ZRank(key, member []byte, reverse bool) *Op {
	return &docOp(wire.OpZRank, key).withArgs(member).flag(reverse, FlagReverse).op
}

// ZSpan is a part of a sorted set; ByRank, ByScore and ByLex make one.
type ZSpan struct {
	flags        uint64
	start, stop  int64
	min, max     float64
	lexLo, lexHi []byte

	Reverse       bool  // from the top; ByRank counts from there, min and max stay min and max
	Limit         bool  // Offset and Count apply (not to ByRank)
	Offset, Count int64 // skip that many, answer that many (negative: all)
}

// ByRank is the span of ranks start to stop, both included; negative ones count
// from the end.
func ByRank(start, stop int64) ZSpan { return ZSpan{start: start, stop: stop} }

// ByScore is the span of scores min to max, each included unless open.
func ByScore(min, max float64, minOpen, maxOpen bool) ZSpan {
	s := ZSpan{flags: FlagByScore, min: min, max: max}
	if minOpen {
		s.flags |= FlagMinOpen
	}
	if maxOpen {
		s.flags |= FlagMaxOpen
	}
	return s
}

// ByLex is the span of members min to max as Redis writes them: "[a", "(a", "-", "+".
func ByLex(min, max []byte) ZSpan { return ZSpan{flags: FlagByLex, lexLo: min, lexHi: max} }

func spanOp(code OpCode, key []byte, z ZSpan) *Op {
	s := docOp(code, key)
	s.op.Flags = z.flags
	s.flag(z.Reverse, FlagReverse).flag(z.Limit, FlagLimit)
	s.op.Ints = []int64{z.start, z.stop, z.Offset, z.Count}
	switch {
	case z.flags&FlagByScore != 0:
		s.op.Floats = []float64{z.min, z.max}
	case z.flags&FlagByLex != 0:
		s.withArgs(z.lexLo, z.lexHi)
	}
	return &s.op
}

// ZRange reads a span of a sorted set, members with their scores.
func ZRange(key []byte, span ZSpan) *Op { return spanOp(wire.OpZRange, key, span) }

// ZCount counts a span by score or lex.
func ZCount(key []byte, span ZSpan) *Op { return spanOp(wire.OpZCount, key, span) }

// ZRemRange removes a span of a sorted set.
func ZRemRange(key []byte, span ZSpan) *Op { return spanOp(wire.OpZRemRange, key, span) }

// ZScan visits members of a sorted set from a cursor on; 0 begins.
func ZScan(key []byte, cursor uint64, o ScanOptions) *Op {
	return scanOp(wire.OpZScan, key, cursor, o)
}

// LPush pushes values at the head of a list, one after the other.
func LPush(key []byte, values ...[]byte) *Op {
	return &keyArgs(wire.OpPush, key, values).flag(true, FlagLeft).op
}

// RPush pushes values at the tail of a list, one after the other.
func RPush(key []byte, values ...[]byte) *Op { return &keyArgs(wire.OpPush, key, values).op }

// LPushX is LPush to a list that exists.
func LPushX(key []byte, values ...[]byte) *Op {
	return &keyArgs(wire.OpPush, key, values).flag(true, FlagLeft|FlagXX).op
}

// RPushX is RPush to a list that exists.
func RPushX(key []byte, values ...[]byte) *Op {
	return &keyArgs(wire.OpPush, key, values).flag(true, FlagXX).op
}

// LPop removes up to count values from the head and answers an array.
func LPop(key []byte, count int64) *Op {
	return &docOp(wire.OpPop, key).withInts(count).flag(true, FlagLeft).op
}

// RPop removes up to count values from the tail and answers an array.
func RPop(key []byte, count int64) *Op { return &docOp(wire.OpPop, key).withInts(count).op }

// LPopOne removes the value at the head and answers it, or nil.
func LPopOne(key []byte) *Op {
	return &docOp(wire.OpPop, key).withInts(1).flag(true, FlagLeft|FlagSingle).op
}

// RPopOne removes the value at the tail and answers it, or nil.
func RPopOne(key []byte) *Op {
	return &docOp(wire.OpPop, key).withInts(1).flag(true, FlagSingle).op
}

// LTrim keeps only the values from start to stop.
func LTrim(key []byte, start, stop int64) *Op {
	return &docOp(wire.OpLTrim, key).withInts(start, stop).op
}

// LRem removes values equal to value: count from the head, -count from the
// tail, 0 all.
func LRem(key []byte, count int64, value []byte) *Op {
	return &docOp(wire.OpLRem, key).withInts(count).withArgs(value).op
}

// LSet replaces one value.
func LSet(key []byte, index int64, value []byte) *Op {
	return &docOp(wire.OpLSet, key).withInts(index).withArgs(value).op
}

// LInsert inserts value before or after the first value equal to pivot.
func LInsert(key []byte, before bool, pivot, value []byte) *Op {
	return &docOp(wire.OpLInsert, key).withArgs(pivot, value).flag(before, FlagBefore).op
}

// LLen is the length of a list.
func LLen(key []byte) *Op { return &docOp(wire.OpLLen, key).op }

// LRange reads the values from start to stop.
func LRange(key []byte, start, stop int64) *Op {
	return &docOp(wire.OpLRange, key).withInts(start, stop).op
}

// LIndex reads one value.
func LIndex(key []byte, index int64) *Op { return &docOp(wire.OpLIndex, key).withInts(index).op }

// LPos finds value in a list: from the rank'th match on (negative: from the
// tail), count positions (0 all, -1 answer one, not an array), comparing at most
// maxLen values (0 all).
func LPos(key, value []byte, rank, count, maxLen int64) *Op {
	return &docOp(wire.OpLPos, key).withArgs(value).withInts(rank, count, maxLen).op
}

// TSAdd sets entries of a time series, one value for each timestamp. All expire
// at expireAtMs; 0 is never.
func TSAdd(key []byte, expireAtMs int64, timestamps []int64, values [][]byte) *Op {
	s := keyArgs(wire.OpTSAdd, key, values)
	s.op.Ints = append(append(make([]int64, 0, len(timestamps)+1), timestamps...), expireAtMs)
	return &s.op
}

// TSRem removes entries of a time series.
func TSRem(key []byte, timestamps ...int64) *Op {
	return &docOp(wire.OpTSRem, key).withInts(timestamps...).op
}

// TSGet reads one entry.
func TSGet(key []byte, timestamp int64) *Op {
	return &docOp(wire.OpTSGet, key).withInts(timestamp).op
}

// TSSpan is a range of timestamps.
type TSSpan struct {
	Low, High         int64
	LowOpen, HighOpen bool
	Reverse           bool  // newest first
	Limit             int64 // 0 is none
}

// TSRange reads the entries of a span, each timestamp with its value.
func TSRange(key []byte, t TSSpan) *Op {
	return &docOp(wire.OpTSRange, key).withInts(t.Low, t.High, t.Limit).
		flag(t.LowOpen, FlagMinOpen).flag(t.HighOpen, FlagMaxOpen).flag(t.Reverse, FlagReverse).op
}

// TSCard counts the entries.
func TSCard(key []byte) *Op { return &docOp(wire.OpTSCard, key).op }

// TSLastN reads the n newest entries, oldest of them first.
func TSLastN(key []byte, n int64) *Op { return &docOp(wire.OpTSLastN, key).withInts(n).op }

// RowOptions are conditions under which a row is written, and its lifetime.
type RowOptions struct {
	NX         bool    // only if there is no row
	XX         bool    // only if there is one
	Return     bool    // answer the row as it was
	TTLMs      int64   // 0 is the table's default
	Conditions []*Cell // all must hold
}

func rowOp(code OpCode, hash uint64, key []byte, cells []*Cell, o RowOptions) *Op {
	op := &Op{Code: uint32(code), Hash: hash, Key: key, Cells: cells, Conditions: o.Conditions}
	if o.TTLMs != 0 {
		op.Ints = []int64{o.TTLMs}
	}
	if o.NX {
		op.Flags |= FlagNX
	}
	if o.XX {
		op.Flags |= FlagXX
	}
	if o.Return {
		op.Flags |= FlagReturn
	}
	return op
}

// RowPut writes a whole row. A row's key and hash are those of its table's
// schema, so they are given, not computed.
func RowPut(hash uint64, key []byte, cells []*Cell, o RowOptions) *Op {
	return rowOp(wire.OpRowPut, hash, key, cells, o)
}

// RowUpdate writes the columns named and leaves the others.
func RowUpdate(hash uint64, key []byte, cells []*Cell, o RowOptions) *Op {
	return rowOp(wire.OpRowUpdate, hash, key, cells, o)
}

// RowDelete deletes a row.
func RowDelete(hash uint64, key []byte, o RowOptions) *Op {
	return rowOp(wire.OpRowDelete, hash, key, nil, o)
}

// RowGet reads the columns named, or all.
func RowGet(hash uint64, key []byte, columns ...*Cell) *Op {
	return rowOp(wire.OpRowGet, hash, key, columns, RowOptions{})
}

// RowScan reads rows of one tablet from key on (empty: from hash on) to end
// (exclusive; empty: the tablet's end) that meet all conditions.
func RowScan(hash uint64, key, end []byte, limit int64, columns, conditions []*Cell) *Op {
	op := rowOp(wire.OpRowScan, hash, key, columns, RowOptions{Conditions: conditions})
	op.Args = [][]byte{end}
	op.Ints = []int64{limit}
	return op
}
