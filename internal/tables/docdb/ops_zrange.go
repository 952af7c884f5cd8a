package docdb

import (
	"math"
	"slices"

	"github.com/braiddb/braid/internal/wire"
)

// zrange is a part of a sorted set: by rank, or a span of the score family.
type zrange struct {
	byRank      bool
	start, stop int64 // ranks, as given

	byLex    bool
	min, max float64 // scores
	minOpen  bool
	maxOpen  bool
	low      lexBound
	high     lexBound

	reverse bool  // from the top
	offset  int64 // entries to skip
	count   int64 // entries at most; negative: all
}

// lexBound is one end of a range of members.
type lexBound struct {
	infinite int // -1 before all, 1 after all, 0 at member
	open     bool
	member   []byte
}

// parseLexBound reads "-", "+", "[member" or "(member".
func parseLexBound(text []byte) (lexBound, error) {
	switch {
	case string(text) == "-":
		return lexBound{infinite: -1}, nil
	case string(text) == "+":
		return lexBound{infinite: 1}, nil
	case len(text) > 0 && (text[0] == '[' || text[0] == '('):
		return lexBound{open: text[0] == '(', member: text[1:]}, nil
	}
	return lexBound{}, errLexRange
}

// rangeOf reads the range that an operation names.
func rangeOf(op *wire.Op) (zrange, error) {
	r := zrange{reverse: op.Flags&wire.FlagReverse != 0, count: -1}
	if op.Flags&wire.FlagLimit != 0 {
		if len(op.Ints) < 4 {
			return r, errMalformed
		}
		r.offset, r.count = op.Ints[2], op.Ints[3]
	}
	var err error
	switch {
	case op.Flags&wire.FlagByScore != 0:
		if len(op.Floats) < 2 {
			return r, errMalformed
		}
		r.min, r.max = op.Floats[0], op.Floats[1]
		r.minOpen, r.maxOpen = op.Flags&wire.FlagMinOpen != 0, op.Flags&wire.FlagMaxOpen != 0
		if math.IsNaN(r.min) || math.IsNaN(r.max) {
			return r, errScoreRange
		}
	case op.Flags&wire.FlagByLex != 0:
		if len(op.Args) < 2 {
			return r, errMalformed
		}
		r.byLex = true
		if r.low, err = parseLexBound(op.Args[0]); err != nil {
			return r, err
		}
		if r.high, err = parseLexBound(op.Args[1]); err != nil {
			return r, err
		}
	default:
		if len(op.Ints) < 2 {
			return r, errMalformed
		}
		r.byRank, r.start, r.stop = true, op.Ints[0], op.Ints[1]
	}
	return r, nil
}

// span gives [from, to) of the score family that a range by score or lex covers.
func (r *zrange) span(op *wire.Op, d *Doc) (from, to []byte, err error) {
	if r.byLex {
		return r.lexSpan(op, d)
	}
	return scoreBound(r.min, r.minOpen), scoreBound(r.max, !r.maxOpen), nil
}

// scoreBound is the first subkey with this score, or the first after them all.
func scoreBound(score float64, after bool) []byte {
	sub := AppendFloat64([]byte{zsetScore}, score)
	if after {
		increment(sub)
	}
	return sub
}

// increment adds one to a big endian number. No score encodes as all ones, so it
// never wraps.
func increment(p []byte) {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i]++; p[i] != 0 {
			return
		}
	}
}

// lexSpan: a range by lex means something only where all scores are equal, as
// Redis says too. So it goes from the low member at the least score to the high
// member at the greatest.
func (r *zrange) lexSpan(op *wire.Op, d *Doc) (from, to []byte, err error) {
	if r.low.infinite > 0 || r.high.infinite < 0 {
		return zsetEnd, zsetEnd, nil
	}
	from, to = zsetScores, zsetEnd
	if r.low.infinite == 0 {
		e, err := zedge(op, d, false)
		if err != nil {
			return nil, nil, err
		}
		from = append(scoreBound(e.score, false), r.low.member...)
		if r.low.open {
			from = append(from, 0)
		}
	}
	if r.high.infinite == 0 {
		e, err := zedge(op, d, true)
		if err != nil {
			return nil, nil, err
		}
		to = append(scoreBound(e.score, false), r.high.member...)
		if !r.high.open {
			to = append(to, 0)
		}
	}
	return from, to, nil
}

// zedge is the least entry of a sorted set, or the greatest.
func zedge(op *wire.Op, d *Doc, greatest bool) (zentry, error) {
	entries, err := zwalk(op, d, zsetScores, zsetEnd, greatest, 0, 1, math.MaxInt)
	if err == nil && len(entries) == 0 {
		err = damaged(op, "a sorted set without order")
	}
	if err != nil {
		return zentry{}, err
	}
	return entries[0], nil
}

// entries collects the range in the order of the answer, as long as it takes at
// most bytesMax bytes.
func (r *zrange) entries(op *wire.Op, d *Doc, root Root, bytesMax int) ([]zentry, error) {
	if r.byRank {
		return r.ranked(op, d, root.Count, bytesMax)
	}
	from, to, err := r.span(op, d)
	if err != nil || r.offset < 0 {
		return nil, err
	}
	return zwalk(op, d, from, to, r.reverse, r.offset, r.count, bytesMax)
}

// ranked walks to the first rank from the nearer end: it costs the distance to
// that end and the answer.
func (r *zrange) ranked(op *wire.Op, d *Doc, n int64, bytesMax int) ([]zentry, error) {
	first, last, ok := clampRange(r.start, r.stop, n)
	if !ok {
		return nil, nil
	}
	if r.reverse {
		first, last = n-1-last, n-1-first
	}
	fromTop := n-1-last < first
	skip := first
	if fromTop {
		skip = n - 1 - last
	}
	want := last - first + 1
	entries, err := zwalk(op, d, zsetScores, zsetEnd, fromTop, skip, want, bytesMax)
	if err != nil {
		return nil, err
	}
	if int64(len(entries)) != want {
		return nil, damaged(op, "count %d, but ranks %d to %d are %d", n, first, last, len(entries))
	}
	if fromTop != r.reverse {
		slices.Reverse(entries)
	}
	return entries, nil
}

// clampRange turns Redis's start and stop, negative ones counted from the end,
// into positions of something n long; ok is false where they name nothing.
func clampRange(start, stop, n int64) (first, last int64, ok bool) {
	if start < 0 {
		start = max(0, start+n)
	}
	if stop < 0 {
		stop += n
	}
	stop = min(stop, n-1)
	return start, stop, start <= stop
}

// zwalk collects entries of [from, to): it skips some, then takes at most count
// (negative: all).
func zwalk(op *wire.Op, d *Doc, from, to []byte, reverse bool, skip, count int64, bytesMax int) ([]zentry, error) {
	if count == 0 {
		return nil, nil
	}
	var entries []zentry
	var bad error
	size := 0
	err := d.ScanSub(from, to, reverse, func(sub, _ []byte) bool {
		if skip > 0 {
			skip--
			return true
		}
		var e zentry
		if e, bad = decodeZScore(op, sub); bad != nil {
			return false
		}
		entries = append(entries, e)
		if size += 2*answerItemBytes + len(e.member); size > bytesMax {
			bad = errAnswerTooLarge
			return false
		}
		return int64(len(entries)) != count
	})
	if bad != nil {
		err = bad
	}
	return entries, err
}

func (x *Exec) opZRange(op *wire.Op) (*wire.Result, error) {
	r, err := rangeOf(op)
	if err != nil {
		return nil, err
	}
	d, root, ok, err := x.open(op, RootZSet)
	if err != nil || !ok {
		return resultEmptyArray, err
	}
	entries, err := r.entries(op, d, root, answerBytesMax)
	if err != nil {
		return nil, err
	}
	return zanswer(entries)
}

// opZCount counts the range or what is outside of it, whichever is less: both
// are walked in turns, and the root knows the sum.
func (x *Exec) opZCount(op *wire.Op) (*wire.Result, error) {
	r, err := rangeOf(op)
	if err != nil {
		return nil, err
	}
	if r.byRank {
		return nil, errMalformed
	}
	d, root, ok, err := x.open(op, RootZSet)
	if err != nil || !ok {
		return resultInts[0], err
	}
	from, to, err := r.span(op, d)
	if err != nil || slices.Compare(from, to) >= 0 {
		return resultInts[0], err
	}
	inside := counter{d: d, spans: []subSpan{{from, to}}}
	outside := counter{d: d, spans: []subSpan{{zsetScores, from}, {to, zsetEnd}}}
	n, err := raceCount(&inside, &outside, root.Count)
	return intResult(n), err
}

// opZRank finds the rank by walking from both ends in turns, so it costs the
// distance to the nearer one.
func (x *Exec) opZRank(op *wire.Op) (*wire.Result, error) {
	d, root, ok, err := x.open(op, RootZSet)
	if err != nil || !ok {
		return resultNil, err
	}
	score, has, err := zfind(op, d, op.Args[0])
	if err != nil || !has {
		return resultNil, err
	}
	at := append(scoreBound(score, false), op.Args[0]...)
	after := append(at[:len(at):len(at)], 0)
	below := counter{d: d, spans: []subSpan{{zsetScores, at}}}
	above := counter{d: d, spans: []subSpan{{after, zsetEnd}}}
	rank, err := raceCount(&below, &above, root.Count-1)
	if err != nil {
		return nil, err
	}
	if op.Flags&wire.FlagReverse != 0 {
		rank = root.Count - 1 - rank
	}
	var a answer
	a.int(rank)
	a.double(score)
	return a.result()
}

// subSpan is [from, to) of subkeys.
type subSpan struct{ from, to []byte }

// counter counts children of spans, some at a time.
type counter struct {
	d     *Doc
	spans []subSpan // what is left to count
	n     int64
}

// step counts up to limit more and reports whether all are counted.
func (c *counter) step(limit int64) (done bool, err error) {
	for len(c.spans) > 0 {
		s := &c.spans[0]
		if slices.Compare(s.from, s.to) < 0 {
			err := c.d.ScanSub(s.from, s.to, false, func(sub, _ []byte) bool {
				if limit == 0 {
					s.from = sub
					return false
				}
				limit--
				c.n++
				s.from = nil
				return true
			})
			if err != nil {
				return false, err
			}
			if s.from != nil && limit == 0 {
				return false, nil
			}
		}
		c.spans = c.spans[1:]
	}
	return true, nil
}

// raceCount counts what near counts, knowing that near and far are total
// together, by letting each go on in turns, twice as far every time.
func raceCount(near, far *counter, total int64) (int64, error) {
	for limit := int64(64); ; limit *= 2 {
		done, err := near.step(limit)
		if err != nil || done {
			return near.n, err
		}
		if done, err = far.step(limit); err != nil || done {
			return total - far.n, err
		}
	}
}
