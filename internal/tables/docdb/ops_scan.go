package docdb

import (
	"encoding/binary"
	"math"
	"math/rand/v2"

	"github.com/braiddb/braid/internal/wire"
)

// Scans and draws over children that are ordered by the hash of a member: those
// of hashes and sets, and the member family of sorted sets.

// hashedFrom is the first subkey of a family with a member's hash >= h.
func hashedFrom(family []byte, h uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, len(family)+hashedPrefix), family...), h)
}

// familyEnd is the first subkey after a family's, empty where it is the last.
func familyEnd(family []byte) []byte {
	if len(family) == 0 {
		return nil
	}
	end := append([]byte(nil), family...)
	end[len(end)-1]++
	return end
}

// scanHashed answers one step of HSCAN, SSCAN or ZSCAN. The cursor is the next
// hash to visit. Members of one hash are answered together, so the cursor is
// exact; there is hardly ever more than one.
func (x *Exec) scanHashed(op *wire.Op, kind RootKind, family []byte, emit func(a *answer, member, value []byte) error) (*wire.Result, error) {
	d, _, ok, err := x.open(op, kind)
	if err != nil {
		return nil, err
	}
	pattern := op.Args[0]
	all := matchAll(pattern)
	most := scanCount(op.Ints[1], scanCountMax)
	var a answer
	next := a.item()
	next.Kind = wire.Kind_KIND_INT
	if !ok {
		return a.result()
	}
	var looked int64
	var last uint64
	var bad error
	scanErr := d.ScanSub(hashedFrom(family, uint64(op.Ints[0])), familyEnd(family), false, func(sub, value []byte) bool {
		if len(sub) < len(family)+hashedPrefix {
			bad = damaged(op, "subkey %x", sub)
			return false
		}
		sub = sub[len(family):]
		hash := binary.BigEndian.Uint64(sub)
		if hash != last && (looked >= most || a.size > scanBytesMax) {
			next.Int = int64(hash)
			return false
		}
		last = hash
		looked++
		if member := sub[hashedPrefix:]; all || matchGlob(pattern, member) {
			bad = emit(&a, member, value)
		}
		return bad == nil
	})
	if bad != nil {
		return nil, bad
	}
	if scanErr != nil {
		return nil, scanErr
	}
	return a.result()
}

// random answers HRANDFIELD or SRANDMEMBER.
func (x *Exec) random(op *wire.Op, kind RootKind, values bool) (*wire.Result, error) {
	count, single := op.Ints[0], op.Flags&wire.FlagSingle != 0
	if count < -(math.MaxInt64 / 2) {
		return nil, errValueRange
	}
	d, root, ok, err := x.open(op, kind)
	if err != nil {
		return nil, err
	}
	if !ok {
		if single {
			return resultNil, nil
		}
		return resultEmptyArray, nil
	}
	p := picker{op: op, d: d, count: root.Count, dice: dice(op.Ints[1])}
	if single {
		picked, err := p.distinct(1)
		if err != nil {
			return nil, err
		}
		return bytesResult(picked[0].sub[hashedPrefix:]), nil
	}
	var a answer
	add := func(c *child) bool {
		c.answer(&a, values)
		return !a.full()
	}
	if count < 0 {
		err = p.repeated(-count, add)
	} else {
		var picked []child
		picked, err = p.distinct(count)
		for i := range picked {
			if !add(&picked[i]) {
				break
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return a.result()
}

// dice are rolled from the seed in an operation, so that executing it is
// deterministic.
func dice(seed int64) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 0x62726169642d3031)) }

// child is a field with its value, or a member. One that is drawn many times is
// one result.
type child struct {
	sub, value []byte
	made       [2]*wire.Result
}

// answer adds the child to an answer.
func (c *child) answer(a *answer, value bool) {
	if c.made[0] == nil {
		c.made[0] = bytesResult(c.sub[hashedPrefix:])
		c.made[1] = bytesResult(c.value)
	}
	a.share(c.made[0])
	if value {
		a.share(c.made[1])
	}
}

// A picker draws children of a hashed document, every one as likely as every
// other, without reading the whole: it throws a window of hashes that holds
// windowMean children on average, keeps the throw with probability (children in
// it) / windowMost, and takes one of them. The chance of a child is then that of
// being hit by the window, times 1/windowMost: the same for all, however uneven
// the gaps between hashes are. (The first child at or after a random hash would
// be drawn in proportion to the gap before it.) A window holds more than
// windowMost children once in 10^10 throws, unless somebody chose members for
// their hashes, who harms only himself.
type picker struct {
	op    *wire.Op
	d     *Doc
	count int64
	dice  *rand.Rand
}

const (
	windowMean = 16
	windowMost = 48
	throwsMax  = 100 // (2/3)^100: never by chance
	wholeUpTo  = 64  // children that are read all rather than drawn from
	drawCost   = 16  // reading the whole is cheaper from count/drawCost draws on
)

// whole reads all children.
func (p *picker) whole() ([]child, error) {
	all, err := p.between(nil, nil, make([]child, 0, min(p.count, 1<<16)), math.MaxInt)
	if err == nil && int64(len(all)) != p.count {
		err = damaged(p.op, "count %d, children %d", p.count, len(all))
	}
	return all, err
}

// between appends the children with from <= sub < to, until there are most.
func (p *picker) between(from, to []byte, found []child, most int) ([]child, error) {
	var bad error
	err := p.d.ScanSub(from, to, false, func(sub, value []byte) bool {
		if len(sub) < hashedPrefix {
			bad = damaged(p.op, "subkey %x", sub)
			return false
		}
		found = append(found, child{sub: sub, value: value})
		return len(found) < most
	})
	if bad != nil {
		err = bad
	}
	return found, err
}

// one draws a child of many.
func (p *picker) one() (child, error) {
	width := math.MaxUint64 / uint64(p.count) * windowMean
	var space [windowMost]child
	for range throwsMax {
		start := p.dice.Uint64()
		end := start + width
		var in []child
		var err error
		if end > start {
			in, err = p.between(hashedFrom(nil, start), hashedFrom(nil, end), space[:0], windowMost)
		} else { // over the end of the hash space and on from its beginning
			in, err = p.between(hashedFrom(nil, start), nil, space[:0], windowMost)
			if err == nil && len(in) < windowMost && end > 0 {
				in, err = p.between(nil, hashedFrom(nil, end), in, windowMost)
			}
		}
		if err != nil {
			return child{}, err
		}
		if n := p.dice.IntN(windowMost); n < len(in) {
			return in[n], nil
		}
	}
	// Hashes as uneven as this were chosen: any child will do.
	first, err := p.between(hashedFrom(nil, p.dice.Uint64()), nil, nil, 1)
	if err == nil && len(first) == 0 {
		first, err = p.between(nil, nil, nil, 1)
	}
	if err == nil && len(first) == 0 {
		err = damaged(p.op, "count %d, no child", p.count)
	}
	if err != nil {
		return child{}, err
	}
	return first[0], nil
}

// distinct draws up to n different children, in random order.
func (p *picker) distinct(n int64) ([]child, error) {
	n = min(n, p.count)
	if p.count <= wholeUpTo || n > p.count/drawCost {
		all, err := p.whole()
		if err != nil {
			return nil, err
		}
		for i := range n {
			j := i + p.dice.Int64N(p.count-i)
			all[i], all[j] = all[j], all[i]
		}
		return all[:n], nil
	}
	picked := make([]child, 0, n)
	known := make(map[string]struct{}, n)
	for tries := int64(0); int64(len(picked)) < n; tries++ {
		c, err := p.one()
		if err != nil {
			return nil, err
		}
		if _, again := known[string(c.sub)]; !again {
			known[string(c.sub)] = struct{}{}
			picked = append(picked, c)
		} else if tries > 4*n+throwsMax {
			return p.sweep(picked, known, n) // chosen hashes again
		}
	}
	return picked, nil
}

// sweep fills picked up with whatever comes first.
func (p *picker) sweep(picked []child, known map[string]struct{}, n int64) ([]child, error) {
	all, err := p.whole()
	for _, c := range all {
		if _, again := known[string(c.sub)]; !again && int64(len(picked)) < n {
			picked = append(picked, c)
		}
	}
	return picked, err
}

// repeated draws n children, each from all of them.
func (p *picker) repeated(n int64, add func(*child) bool) error {
	if p.count <= wholeUpTo || n > p.count/drawCost {
		all, err := p.whole()
		if err != nil {
			return err
		}
		for ; n > 0 && add(&all[p.dice.IntN(len(all))]); n-- {
		}
		return nil
	}
	for ; n > 0; n-- {
		c, err := p.one()
		if err != nil {
			return err
		}
		if !add(&c) {
			break
		}
	}
	return nil
}
