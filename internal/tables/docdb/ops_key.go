package docdb

import (
	"bytes"

	"github.com/braiddb/braid/internal/wire"
)

// Operations on documents of any kind.

// kindNames are Redis's names of types, and ours of what Redis has not.
var kindNames = [...]string{
	RootNone:    "none",
	RootString:  "string",
	RootHash:    "hash",
	RootSet:     "set",
	RootZSet:    "zset",
	RootList:    "list",
	RootTSeries: "tseries",
	RootRow:     "row",
}

func (k RootKind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

func (x *Exec) opDelete(op *wire.Op) (*wire.Result, error) {
	d := x.doc(op)
	_, ok, err := x.live(d)
	if err != nil || !ok {
		return resultInts[0], err
	}
	d.Delete()
	return resultInts[1], nil
}

func (x *Exec) opExists(op *wire.Op) (*wire.Result, error) {
	_, ok, err := x.live(x.doc(op))
	return boolInt(ok), err
}

func (x *Exec) opType(op *wire.Op) (*wire.Result, error) {
	root, _, err := x.live(x.doc(op))
	return bytesResult([]byte(root.Kind.String())), err
}

// opExpireAt follows EXPIREAT: for GT and LT no expiry counts as infinitely
// late, and a time that has passed deletes.
func (x *Exec) opExpireAt(op *wire.Op) (*wire.Result, error) {
	at, flags := op.Ints[0], op.Flags
	later, earlier := flags&wire.FlagGT != 0, flags&wire.FlagLT != 0
	if flags&wire.FlagNX != 0 && flags&(wire.FlagXX|wire.FlagGT|wire.FlagLT) != 0 {
		return nil, errExpireNX
	}
	if later && earlier {
		return nil, errExpireGTLT
	}
	d := x.doc(op)
	root, ok, err := x.live(d)
	if err != nil || !ok {
		return resultInts[0], err
	}
	has := root.ExpireAtMs != 0
	switch {
	case flags&wire.FlagNX != 0 && has,
		flags&wire.FlagXX != 0 && !has,
		later && (!has || at <= root.ExpireAtMs),
		earlier && has && at >= root.ExpireAtMs:
		return resultInts[0], nil
	}
	if at <= x.nowMs {
		d.Delete()
		return resultInts[1], nil
	}
	root.ExpireAtMs = at
	d.PutRoot(root)
	return resultInts[1], nil
}

func (x *Exec) opPersist(op *wire.Op) (*wire.Result, error) {
	d := x.doc(op)
	root, ok, err := x.live(d)
	if err != nil || !ok || root.ExpireAtMs == 0 {
		return resultInts[0], err
	}
	root.ExpireAtMs = 0
	d.PutRoot(root)
	return resultInts[1], nil
}

func (x *Exec) opExpireTime(op *wire.Op) (*wire.Result, error) {
	root, ok, err := x.live(x.doc(op))
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return intResult(-2), nil
	case root.ExpireAtMs == 0:
		return intResult(-1), nil
	}
	return intResult(root.ExpireAtMs), nil
}

// opVersion answers the hybrid time of the document's last write. What the
// batch at hand wrote has none yet: -1.
func (x *Exec) opVersion(op *wire.Op) (*wire.Result, error) {
	version, err := x.version(op)
	return intResult(version), err
}

func (x *Exec) version(op *wire.Op) (int64, error) {
	root, ok, err := x.live(x.doc(op))
	if !ok {
		return 0, err
	}
	return int64(root.Version), nil
}

func (x *Exec) opCheck(op *wire.Op) (*wire.Result, error) {
	version, err := x.version(op)
	if err != nil {
		return nil, err
	}
	if version != op.Ints[0] {
		return nil, errCheckFailed
	}
	return resultOK, nil
}

func (x *Exec) opTruncate(*wire.Op) (*wire.Result, error) {
	span := x.Span()
	x.Truncate(span.Start, span.End)
	return resultOK, nil
}

// destination is the document that a rename or copy makes, and whether it is the
// source itself.
func (x *Exec) destination(op *wire.Op) (d *Doc, same bool, err error) {
	hash, key := uint64(op.Ints[0]), op.Args[0]
	if len(key) > keyBytesMax {
		return nil, false, errKeyTooLarge
	}
	if span := x.Span(); !span.contains(hash) {
		return nil, false, errOtherTablet
	}
	return x.Doc(hash, key), bytes.Equal(key, op.Key), nil
}

var errOtherTablet = refusal(wire.Code_CODE_INVALID, "CROSSSLOT Keys in request don't hash to the same slot")

func (x *Exec) opRename(op *wire.Op) (*wire.Result, error) {
	dst, same, err := x.destination(op)
	if err != nil {
		return nil, err
	}
	src := x.doc(op)
	_, ok, err := x.live(src)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, errNoSuchKey
	case same:
		return boolInt(op.Flags&wire.FlagNX == 0), nil
	}
	if _, taken, err := x.live(dst); err != nil || taken && op.Flags&wire.FlagNX != 0 {
		return resultInts[0], err
	}
	if err := replace(src, dst); err != nil {
		return nil, err
	}
	src.Delete()
	return resultInts[1], nil
}

func (x *Exec) opCopy(op *wire.Op) (*wire.Result, error) {
	dst, same, err := x.destination(op)
	if err != nil {
		return nil, err
	}
	src := x.doc(op)
	if _, ok, err := x.live(src); err != nil || !ok {
		return resultInts[0], err
	}
	_, taken, err := x.live(dst)
	if err != nil || taken && (same || op.Flags&wire.FlagReplace == 0) {
		return resultInts[0], err
	}
	if err := replace(src, dst); err != nil {
		return nil, err
	}
	return resultInts[1], nil
}

// replace makes dst what src is.
func replace(src, dst *Doc) error {
	dst.Delete() // what the batch wrote into dst before must not live on in it
	_, err := src.CopyTo(dst)
	return err
}

// Bounds of one step of a scan.
const (
	scanCountDefault  = 10
	scanCountMax      = 1 << 16
	scanCountOnlyMax  = 1 << 17
	scanBytesMax      = 4 << 20
	objectIntsetMax   = 512 // redis.conf: set-max-intset-entries
	objectHashMax     = 512 // hash-max-listpack-entries
	objectZSetMax     = 128 // zset-max-listpack-entries
	objectBytesMax    = 64  // *-max-listpack-value
	objectEmbeddedMax = 44
)

// scanCount is how many documents or children a step looks at.
func scanCount(hint, most int64) int64 {
	if hint <= 0 {
		return scanCountDefault
	}
	return min(hint, most)
}

// opScanKeys looks at documents in hash order, from op.Hash on. A step ends
// between two hashes, never within one, so that the next hash is a cursor: it
// neither skips nor repeats whatever is written meanwhile.
func (x *Exec) opScanKeys(op *wire.Op) (*wire.Result, error) {
	pattern, kind := op.Args[0], op.Args[1]
	countOnly := op.Flags&wire.FlagCountOnly != 0
	most := int64(scanCountMax)
	if countOnly {
		most = scanCountOnlyMax
	}
	most = scanCount(op.Ints[0], most)
	all := matchAll(pattern)
	var a answer
	next := a.item()
	next.Kind = wire.Kind_KIND_INT
	var looked, found int64
	var last uint64
	err := x.scanDocs(op.Hash, nil, 0, func(hash uint64, key []byte, r *Root) bool {
		if r.Kind == RootNone || expired(r.ExpireAtMs, x.nowMs) {
			return true
		}
		if hash != last && (looked >= most || a.size > scanBytesMax) {
			next.Int = int64(hash)
			return false
		}
		last = hash
		looked++
		if r.Kind == RootTSeries && seriesOver(*r, x.nowMs) ||
			len(kind) > 0 && string(kind) != r.Kind.String() ||
			!all && !matchGlob(pattern, key) {
			return true
		}
		found++
		if !countOnly {
			a.bytes(key)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	if countOnly {
		a.int(found)
	}
	return a.result()
}

// opObject names the encoding that Redis 7 would give a document like this one.
// Ours have one each; clients and tests ask. It reads no more children than the
// compact encodings have at most.
func (x *Exec) opObject(op *wire.Op) (*wire.Result, error) {
	d := x.doc(op)
	root, ok, err := x.live(d)
	if err != nil || !ok {
		return resultNil, err
	}
	name := root.Kind.String()
	switch root.Kind {
	case RootString:
		name = stringEncoding(root.Value)
	case RootList:
		name = "quicklist"
	case RootHash:
		name, err = childEncoding(d, root, objectHashMax, "listpack", "hashtable", shortField)
	case RootZSet:
		name, err = childEncoding(d, root, objectZSetMax, "listpack", "skiplist", shortMember)
	case RootSet:
		name, err = childEncoding(d, root, objectIntsetMax, "intset", "hashtable", integerChild)
	}
	return bytesResult([]byte(name)), err
}

func stringEncoding(value []byte) string {
	if _, ok := parseInt(value); ok {
		return "int"
	}
	if len(value) <= objectEmbeddedMax {
		return "embstr"
	}
	return "raw"
}

func childEncoding(d *Doc, root Root, most int64, compact, large string, fits func(sub, value []byte) bool) (string, error) {
	if root.Count > most {
		return large, nil
	}
	var from, to []byte
	if root.Kind == RootZSet {
		from, to = zsetMembers, familyEnd(zsetMembers)
	}
	name := compact
	err := d.ScanSub(from, to, false, func(sub, value []byte) bool {
		if !fits(sub, value) {
			name = large
		}
		return name == compact
	})
	return name, err
}

func shortField(sub, value []byte) bool {
	return len(sub) <= hashedPrefix+objectBytesMax && len(value) <= objectBytesMax
}

func shortMember(sub, _ []byte) bool { return len(sub) <= 1+hashedPrefix+objectBytesMax }

func integerChild(sub, _ []byte) bool {
	_, ok := parseInt(sub[min(len(sub), hashedPrefix):])
	return ok
}
