package docdb

import (
	"encoding/binary"
	"math"

	"github.com/braiddb/braid/internal/wire"
)

// A time series has one child per timestamp, and an index of those that expire:
//
//	'd' | ^timestamp, ordered                     ->  uvarint expiry (0: never) | value
//	'x' | expiry, ordered | ^timestamp, ordered   ->  nothing
//
// Newest first, because what is asked of a time series is mostly its newest part
// (the last n, the last hour): that is a walk forward from the first child, which
// on an LSM tree costs less than one backward.
//
// An entry's child has the entry's expiry, so it vanishes by itself; its index
// child stays until a write of the series removes it. The root counts both:
//
//	Count  entries that have not expired, and expired ones still in the index
//	Head   entries that never expire
//	Tail   the latest expiry in the index, 0 if there is none
//
// So TSCARD is Count less the expired part of the index, and a series is over
// when Head is 0 and Tail has passed: no child is looked at for that.
const (
	seriesData   = 'd'
	seriesExpiry = 'x'
)

var (
	seriesDataEnd   = []byte{seriesData + 1}
	seriesExpiries  = []byte{seriesExpiry}
	seriesExpiryEnd = []byte{seriesExpiry + 1}
)

// purgeMin is how many expired index children a write removes beyond what it
// adds, so that they cannot outgrow the series.
const purgeMin = 32

// seriesOver reports whether every entry has expired.
func seriesOver(root Root, nowMs int64) bool { return root.Head <= 0 && root.Tail <= nowMs }

func (k *keySpace) entry(ts int64) []byte { return AppendInt64(append(k[:0], seriesData), ^ts) }

func (k *keySpace) entryExpiry(atMs, ts int64) []byte {
	return AppendInt64(AppendInt64(append(k[:0], seriesExpiry), atMs), ^ts)
}

// series is a time series while it is written.
type series struct {
	op    *wire.Op
	d     *Doc
	root  Root
	nowMs int64
	late  bool // the latest expiry may have gone from the index
	wrote bool
}

// openSeries opens a time series for writing.
func (x *Exec) openSeries(op *wire.Op) (*series, bool, error) {
	d, root, ok, err := x.open(op, RootTSeries)
	return &series{op: op, d: d, root: root, nowMs: x.nowMs}, ok, err
}

// begin makes a new life of the series.
func (s *series) begin() (err error) {
	s.d.PutRoot(Root{Kind: RootTSeries, Head: 1}) // never seen: finish writes it again
	s.root, _, err = s.d.Root()
	s.root.Head = 0
	return err
}

// remove takes an entry out that has not expired, and reports whether there was
// one.
func (s *series) remove(ts int64) (bool, error) {
	var sub keySpace
	value, ok, err := s.d.Sub(sub.entry(ts))
	if err != nil || !ok {
		return false, err
	}
	atMs, _, err := decodeEntry(s.op, value)
	if err != nil {
		return false, err
	}
	s.wrote = true
	s.d.DeleteSub(sub.entry(ts))
	s.root.Count--
	if atMs == 0 {
		s.root.Head--
		return true, nil
	}
	s.d.DeleteSub(sub.entryExpiry(atMs, ts))
	s.late = s.late || atMs >= s.root.Tail
	return true, nil
}

// put writes an entry that is not there.
func (s *series) put(ts, atMs int64, value []byte) {
	var sub keySpace
	s.wrote = true
	record := append(binary.AppendUvarint(make([]byte, 0, len(value)+10), uint64(atMs)), value...)
	s.d.PutSubTTL(sub.entry(ts), record, atMs)
	s.root.Count++
	if atMs == 0 {
		s.root.Head++
		return
	}
	s.d.PutSub(sub.entryExpiry(atMs, ts), nil)
	s.root.Tail = max(s.root.Tail, atMs)
}

// finish purges a part of the index and writes the root, or deletes the series
// if nothing of it is left.
func (s *series) finish(purge int) error {
	if !s.wrote {
		return nil
	}
	var gone [][]byte
	var now keySpace
	err := s.d.ScanSub(seriesExpiries, AppendInt64(append(now[:0], seriesExpiry), s.nowMs+1), false, func(sub, _ []byte) bool {
		gone = append(gone, sub)
		return len(gone) < purge
	})
	if err != nil {
		return err
	}
	for _, sub := range gone {
		s.d.DeleteSub(sub)
		s.root.Count--
	}
	if s.late {
		s.root.Tail = 0
		var bad error
		err := s.d.ScanSub(seriesExpiries, seriesExpiryEnd, true, func(sub, _ []byte) bool {
			if s.root.Tail, _, bad = DecodeInt64(sub[1:]); bad != nil {
				bad = damaged(s.op, "subkey %x", sub)
			}
			return false
		})
		if bad != nil || err != nil {
			return firstError(bad, err)
		}
	}
	if seriesOver(s.root, s.nowMs) {
		s.d.Delete()
		return nil
	}
	s.root.Kind = RootTSeries
	s.d.PutRoot(s.root)
	return nil
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// decodeEntry takes the value of a data child apart.
func decodeEntry(op *wire.Op, record []byte) (atMs int64, value []byte, err error) {
	at, n := binary.Uvarint(record)
	if n <= 0 || at > math.MaxInt64 {
		return 0, nil, damaged(op, "entry %x", record[:min(len(record), 10)])
	}
	return int64(at), record[n:], nil
}

// opTSAdd writes entries. One that has expired already is none: writing it
// removes what was there.
func (x *Exec) opTSAdd(op *wire.Op) (*wire.Result, error) {
	n := len(op.Args)
	if len(op.Ints) != n+1 || op.Ints[n] < 0 {
		return nil, errMalformed
	}
	atMs := op.Ints[n]
	past := expired(atMs, x.nowMs)
	s, ok, err := x.openSeries(op)
	if err != nil {
		return nil, err
	}
	if !ok {
		if past {
			return resultOK, nil
		}
		if err := s.begin(); err != nil {
			return nil, err
		}
	}
	for i, value := range op.Args {
		if _, err := s.remove(op.Ints[i]); err != nil {
			return nil, err
		}
		if !past {
			s.put(op.Ints[i], atMs, value)
		}
	}
	return resultOK, s.finish(purgeMin + 2*n)
}

func (x *Exec) opTSRem(op *wire.Op) (*wire.Result, error) {
	s, ok, err := x.openSeries(op)
	if err != nil || !ok {
		return resultInts[0], err
	}
	var removed int64
	for _, ts := range op.Ints {
		had, err := s.remove(ts)
		if err != nil {
			return nil, err
		}
		if had {
			removed++
		}
	}
	return intResult(removed), s.finish(purgeMin)
}

func (x *Exec) opTSGet(op *wire.Op) (*wire.Result, error) {
	var sub keySpace
	d, _, ok, err := x.open(op, RootTSeries)
	if err != nil || !ok {
		return resultNil, err
	}
	record, ok, err := d.Sub(sub.entry(op.Ints[0]))
	if err != nil || !ok {
		return resultNil, err
	}
	_, value, err := decodeEntry(op, record)
	return bytesResult(value), err
}

func (x *Exec) opTSRange(op *wire.Op) (*wire.Result, error) {
	low, high, limit := op.Ints[0], op.Ints[1], op.Ints[2]
	if limit < 0 {
		return nil, errNotPositive
	}
	if op.Flags&wire.FlagMinOpen != 0 {
		if low == math.MaxInt64 {
			return resultEmptyArray, nil
		}
		low++
	}
	if op.Flags&wire.FlagMaxOpen != 0 {
		if high == math.MinInt64 {
			return resultEmptyArray, nil
		}
		high--
	}
	if low > high {
		return resultEmptyArray, nil
	}
	return x.readSeries(op, low, high, op.Flags&wire.FlagReverse != 0, limit, false)
}

func (x *Exec) opTSLastN(op *wire.Op) (*wire.Result, error) {
	n := op.Ints[0]
	if n < 0 {
		return nil, errNotPositive
	}
	if n == 0 {
		return resultEmptyArray, nil
	}
	return x.readSeries(op, math.MinInt64, math.MaxInt64, true, n, true)
}

// readSeries answers the entries with low <= timestamp <= high, newest first or
// oldest first, limit at most (0: all); turn puts the answer the other way round.
func (x *Exec) readSeries(op *wire.Op, low, high int64, newestFirst bool, limit int64, turn bool) (*wire.Result, error) {
	d, _, ok, err := x.open(op, RootTSeries)
	if err != nil || !ok {
		return resultEmptyArray, err
	}
	var from, to keySpace
	var a answer
	var bad error
	err = d.ScanSub(from.entry(high), append(to.entry(low), 0), !newestFirst, func(sub, record []byte) bool {
		ts, rest, err := DecodeInt64(sub[1:])
		if err != nil || len(rest) != 0 {
			bad = damaged(op, "subkey %x", sub)
			return false
		}
		var value []byte
		if _, value, bad = decodeEntry(op, record); bad != nil {
			return false
		}
		a.int(^ts)
		a.bytes(value)
		return !a.full() && (limit == 0 || int64(len(a.items)) < 2*limit)
	})
	if bad != nil || err != nil {
		return nil, firstError(bad, err)
	}
	if turn {
		for i, j := 0, len(a.items)-2; i < j; i, j = i+2, j-2 {
			a.items[i], a.items[j] = a.items[j], a.items[i]
			a.items[i+1], a.items[j+1] = a.items[j+1], a.items[i+1]
		}
	}
	return a.result()
}

// opTSCard counts without looking at entries: only at the expired ones that no
// write has purged yet.
func (x *Exec) opTSCard(op *wire.Op) (*wire.Result, error) {
	d, root, ok, err := x.open(op, RootTSeries)
	if err != nil || !ok {
		return resultInts[0], err
	}
	var now keySpace
	n := root.Count
	err = d.ScanSub(seriesExpiries, AppendInt64(append(now[:0], seriesExpiry), x.nowMs+1), false, func(_, _ []byte) bool {
		n--
		return true
	})
	return intResult(n), err
}
