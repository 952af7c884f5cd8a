package docdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// check runs an operation and compares its answer.
func (s *shelf) check(op *wire.Op, want string) {
	s.t.Helper()
	if got := s.say(op); got != want {
		s.t.Errorf("operation %d on %q answers %s, want %s", op.Code, op.Key, got, want)
	}
}

var key = []byte("key")

// every operation, in ascending order.
func everyOp() (codes []wire.OpCode) {
	for i := range writeOps {
		if writeOps[i].run != nil {
			codes = append(codes, wire.OpCode(i))
		}
	}
	for i := range readOps {
		if readOps[i].run != nil {
			codes = append(codes, wire.OpCode(i+readBase))
		}
	}
	return codes
}

// TestMalformed: an operation without arguments, or with too few, is refused; it
// neither panics nor writes. Unknown codes are refused.
func TestMalformed(t *testing.T) {
	s := newShelf(t)
	kinds := []*wire.Op{
		client.Set([]byte("string"), []byte("v"), client.SetOptions{}),
		client.HSet([]byte("hash"), []byte("f"), []byte("v")),
		client.SAdd([]byte("set"), []byte("m")),
		client.ZAdd([]byte("zset"), []float64{1}, [][]byte{[]byte("m")}, client.ZAddOptions{}),
		client.RPush([]byte("list"), []byte("v")),
		client.TSAdd([]byte("tseries"), 0, []int64{1}, [][]byte{[]byte("v")}),
	}
	for _, op := range kinds {
		s.do(op)
	}
	flags := []uint64{0, ^uint64(0), wire.FlagByScore, wire.FlagByLex, wire.FlagLimit, wire.FlagSingle, wire.FlagIncr}
	extremes := []int64{math.MinInt64, -1, 0, 1, math.MaxInt64}
	for _, code := range everyOp() {
		for _, kind := range kinds {
			for _, f := range flags {
				for n := range 5 {
					op := &wire.Op{Code: uint32(code), Hash: kind.Hash, Key: kind.Key, Flags: f}
					for i := range n {
						op.Ints = append(op.Ints, extremes[(i+n)%len(extremes)])
						op.Args = append(op.Args, []byte("a"))
						op.Floats = append(op.Floats, []float64{math.NaN(), math.Inf(1), 0}[i%3])
					}
					s.begin()
					r := s.run(op)
					if n == 0 && r.Kind != wire.Kind_KIND_ERROR && specs(code).args+specs(code).ints > 0 {
						t.Errorf("operation %d without arguments answers %s", code, ours(r))
					}
					s.view.Close() // nothing of this is applied
					s.view = nil
				}
			}
		}
	}
	for _, code := range []uint32{0, 9, 999, 1000, 1199, 1 << 31, math.MaxUint32} {
		if r := s.do(&wire.Op{Code: code}); r.Code != wire.Code_CODE_INVALID {
			t.Errorf("unknown operation %d answers %s", code, ours(r))
		}
	}
	s.begin()
	if r, err := s.x.Read(client.Delete(key)); err != nil || r.Code != wire.Code_CODE_INVALID {
		t.Errorf("a write sent as a read answers %v, %v", r, err)
	}
	s.commit()
}

func specs(code wire.OpCode) opSpec {
	spec, _ := specOf(uint32(code))
	return spec
}

// TestWrongType: every operation refuses a document of another kind, with
// Redis's words, and misses where there is none.
func TestWrongType(t *testing.T) {
	s := newShelf(t)
	s.do(client.HSet([]byte("hash"), []byte("f"), []byte("v")))
	s.do(client.Set([]byte("string"), []byte("v"), client.SetOptions{}))
	const want = "-WRONGTYPE Operation against a key holding the wrong kind of value"
	for _, op := range []*wire.Op{
		client.Get([]byte("hash")), client.Append([]byte("hash"), nil), client.SetBit([]byte("hash"), 1, 1),
		client.Set([]byte("hash"), nil, client.SetOptions{Get: true}), client.LLen([]byte("hash")),
		client.HGet([]byte("string"), key), client.HLen([]byte("string")), client.SCard([]byte("string")),
		client.ZCard([]byte("string")), client.ZAdd([]byte("string"), []float64{1}, [][]byte{key}, client.ZAddOptions{XX: true}),
		client.TSCard([]byte("string")), client.SPop([]byte("string"), 1, 1), client.TSAdd([]byte("hash"), 0, []int64{1}, [][]byte{nil}),
		client.HScan([]byte("string"), 0, client.ScanOptions{}), client.HRandom([]byte("string"), client.RandomOptions{Count: 1}),
		client.ZCount([]byte("string"), client.ByScore(1, 2, false, false)), client.LPos([]byte("string"), key, 1, -1, 0),
	} {
		s.check(op, want)
	}
	s.check(client.Set([]byte("hash"), []byte("v"), client.SetOptions{}), `"OK"`) // SET replaces whatever is there
	s.check(client.Get([]byte("hash")), `"v"`)
}

// TestTables: documents do not get into tables of rows, nor rows among documents.
func TestTables(t *testing.T) {
	s := newShelf(t)
	documents := &catalog.Schema{Columns: []*catalog.Column{{Id: 1, Type: catalog.Type_TYPE_BYTES}, {Id: 2, Type: catalog.Type_TYPE_DOCUMENT}}}
	rows := &catalog.Schema{Columns: []*catalog.Column{{Id: 1, Type: catalog.Type_TYPE_BYTES}, {Id: 2, Type: catalog.Type_TYPE_BYTES}}}
	for _, c := range []struct {
		schema *catalog.Schema
		op     *wire.Op
		fits   bool
	}{
		{documents, client.Set(key, nil, client.SetOptions{}), true},
		{rows, client.Set(key, nil, client.SetOptions{}), false},
		{rows, client.Delete(key), false},
		{rows, client.Truncate(0), true},
		{documents, client.RowGet(0, key), false},
		{rows, client.RowGet(0, key), true},
	} {
		s.begin()
		s.x.SetSchema(c.schema)
		r := s.run(c.op)
		if fits := r.Code != wire.Code_CODE_INVALID; fits != c.fits {
			t.Errorf("operation %d: %s", c.op.Code, ours(r))
		}
		s.commit()
	}
}

// TestLimits: keys, members, values and answers have bounds, checked before
// memory is taken.
func TestLimits(t *testing.T) {
	s := newShelf(t)
	large := make([]byte, keyBytesMax+1)
	const tooLargeKey = "-ERR key, field or member exceeds the maximum of 1 MiB"
	s.check(client.Set(large, nil, client.SetOptions{}), tooLargeKey)
	s.check(client.SAdd(key, large), tooLargeKey)
	s.check(client.HSet(key, large, nil), tooLargeKey)
	s.check(client.HIncrBy(key, large, 1), tooLargeKey)
	s.check(client.HIncrByFloat(key, large, []byte("1")), tooLargeKey)
	s.check(client.ZAdd(key, []float64{1}, [][]byte{large}, client.ZAddOptions{}), tooLargeKey)
	s.check(client.Rename(key, large, false), tooLargeKey)
	s.check(client.HSet(key, []byte("f"), large), "1") // a value may be larger
	s.check(client.HGet(key, large), "nil")
	s.check(client.Set(key, make([]byte, valueBytesMax+1), client.SetOptions{}), "-ERR value exceeds the maximum of 64 MiB")
	s.check(client.Delete(key), "1")
	s.check(client.SetRange(key, 100<<20, []byte("x")), "-ERR value exceeds the maximum of 64 MiB")
	s.check(client.SetBit(key, 1<<31, 1), "-ERR value exceeds the maximum of 64 MiB")
	s.check(client.SetRange(key, 1<<40, []byte("x")), "-ERR string exceeds maximum allowed size (proto-max-bulk-len)")
	s.check(client.Exists(key), "0")
	s.do(client.SAdd(key, []byte("m"), []byte("n")))
	s.check(client.SRandom(key, client.RandomOptions{Count: -1 << 40}), "-ERR answer exceeds the maximum of 64 MiB: read it in parts")
}

// TestExpiry: what has expired is not there for any operation, and begins anew
// without what it was.
func TestExpiry(t *testing.T) {
	s := newShelf(t)
	s.do(client.HSet(key, []byte("old"), []byte("v")))
	s.check(client.ExpireAt(key, shelfNow+1000, client.ExpireOptions{}), "1")
	s.check(client.ExpireTime(key), fmt.Sprint(shelfNow+1000))
	s.nowMs += 999
	s.check(client.HGet(key, []byte("old")), `"v"`)
	s.nowMs++
	s.check(client.HGet(key, []byte("old")), "nil")
	s.check(client.Exists(key), "0")
	s.check(client.ExpireTime(key), "-2")
	s.check(client.Persist(key), "0")
	s.check(client.Version(key), "0")
	s.check(client.Rename(key, []byte("other"), false), "-ERR no such key")
	s.check(client.Copy(key, []byte("other"), false), "0")
	s.check(client.ScanKeys(0, client.ScanOptions{}), "[0]")
	s.check(client.SAdd(key, []byte("m")), "1") // another kind: the old one is gone
	s.check(client.SMembers(key), `["m"]`)
	s.check(client.ExpireTime(key), "-1")
	s.check(client.Delete(key), "1")
	s.check(client.HSet(key, []byte("new"), []byte("w")), "1")
	s.check(client.HGetAll(key), `["new" "w"]`)
	s.check(client.Set(key, []byte("v"), client.SetOptions{ExpireAtMs: longAgo}), `"OK"`)
	s.check(client.Exists(key), "0")
}

// TestVersion: a version changes with every write of the document and with
// nothing else; a check that fails says so.
func TestVersion(t *testing.T) {
	s := newShelf(t)
	s.check(client.Version(key), "0")
	s.check(client.Check(key, 0), `"OK"`)
	seen := map[int64]string{0: "missing"}
	for _, op := range []*wire.Op{
		client.HSet(key, []byte("f"), []byte("v")),
		client.HSet(key, []byte("f"), []byte("v")),
		client.HIncrBy(key, []byte("n"), 1),
		client.HDel(key, []byte("n")),
		client.ExpireAt(key, farAhead, client.ExpireOptions{}),
		client.Persist(key),
		client.Set(key, nil, client.SetOptions{}),
		client.Append(key, []byte("x")),
	} {
		s.do(op)
		v := s.do(client.Version(key)).Int
		if before, again := seen[v]; again {
			t.Errorf("after operation %d the version is as after %s", op.Code, before)
		}
		seen[v] = fmt.Sprint("operation ", op.Code)
		if s.do(client.ExpireTime(key)).Int > 0 {
			continue // of the following, some would change it
		}
		for _, still := range []*wire.Op{
			client.Get(key), client.Persist(key), client.SAdd([]byte("other"), []byte("m")),
			client.Set(key, nil, client.SetOptions{NX: true}), client.ExpireAt(key, farAhead, client.ExpireOptions{XX: true}),
			client.GetEx(key, client.GetExOptions{Persist: true}), client.HDel(key, []byte("none")), client.Check(key, v),
		} {
			s.do(still)
			if now := s.do(client.Version(key)).Int; now != v {
				t.Errorf("operation %d changed the version", still.Code)
			}
		}
		if r := s.do(client.Check(key, v+1)); r.Code != wire.Code_CODE_CONDITION_FAILED {
			t.Errorf("a check of another version answers %s", ours(r))
		}
	}
	s.begin()
	s.run(client.Append(key, []byte("y")))
	if got := ours(s.run(client.Version(key))).String(); got != "-1" {
		t.Errorf("the version that the batch at hand made is %s", got)
	}
	s.commit()
}

// TestBatch: later operations of a batch see earlier ones, lives end and begin
// within it, and nothing of an ended life comes back.
func TestBatch(t *testing.T) {
	for name, c := range map[string]struct {
		ops  []*wire.Op
		want string // HGETALL, LRANGE, SMEMBERS or ZRANGE in the batch and after it
		read *wire.Op
	}{
		"delete and anew": {[]*wire.Op{client.HSet(key, []byte("a"), []byte("1")), client.Delete(key), client.HSet(key, []byte("b"), []byte("2"))},
			`["b" "2"]`, client.HGetAll(key)},
		"another kind": {[]*wire.Op{client.HSet(key, []byte("a"), []byte("1")), client.Set(key, nil, client.SetOptions{}), client.Delete(key), client.SAdd(key, []byte("m"))},
			`["m"]`, client.SMembers(key)},
		"emptied list": {[]*wire.Op{client.RPush(key, []byte("a"), []byte("b")), client.LPop(key, 5), client.RPush(key, []byte("c"))},
			`["c"]`, client.LRange(key, 0, -1)},
		"trimmed list": {[]*wire.Op{client.RPush(key, blobs(strings.Split("abcdefghij", ""))...), client.LTrim(key, 4, 5), client.LPush(key, []byte("x"))},
			`["x" "e" "f"]`, client.LRange(key, 0, -1)},
		"rename over": {[]*wire.Op{client.HSet(key, []byte("a"), []byte("1")), client.HSet([]byte("src"), []byte("b"), []byte("2")), client.Rename([]byte("src"), key, false)},
			`["b" "2"]`, client.HGetAll(key)},
		"rename over another kind": {[]*wire.Op{client.RPush(key, []byte("1")), client.HSet([]byte("src"), []byte("b"), []byte("2")), client.Rename([]byte("src"), key, false)},
			`["b" "2"]`, client.HGetAll(key)},
		"scores move": {[]*wire.Op{client.ZAdd(key, []float64{1, 2, 3}, blobs([]string{"a", "b", "a"}), client.ZAddOptions{}), client.ZAdd(key, []float64{2}, blobs([]string{"a"}), client.ZAddOptions{Incr: true})},
			`["b" 2 "a" 5]`, client.ZRange(key, client.ByRank(0, -1))},
		"truncated": {[]*wire.Op{client.SAdd(key, []byte("a")), client.Truncate(0), client.SAdd(key, []byte("b"))},
			`["b"]`, client.SMembers(key)},
		"restored over": {[]*wire.Op{client.HSet(key, []byte("a"), []byte("1")), client.Restore(key, dumpOf(RootHash, "b", "2"), 0, true)},
			`["b" "2"]`, client.HGetAll(key)},
	} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", before), func(t *testing.T) {
				s := newShelf(t)
				if before { // there is something from earlier
					s.do(client.HSet(key, []byte("earlier"), []byte("v")))
					s.do(client.HSet([]byte("src"), []byte("earlier"), []byte("v")))
					s.do(client.Delete(key))
					s.do(client.Delete([]byte("src")))
				}
				s.begin()
				for _, op := range c.ops {
					if r := s.run(op); r.Kind == wire.Kind_KIND_ERROR {
						t.Fatalf("operation %d: %s", op.Code, r.Message)
					}
				}
				if got := ours(s.run(c.read)).String(); got != c.want {
					t.Errorf("in the batch %s, want %s", got, c.want)
				}
				s.commit()
				s.check(c.read, c.want)
			})
		}
	}
}

func TestTruncate(t *testing.T) {
	s := newShelf(t)
	for i := range 100 {
		s.do(client.RPush(fmt.Append(nil, "k", i), []byte("v")))
	}
	s.check(client.CountKeys(0, client.ScanOptions{Count: 1000}), "[0 100]")
	s.check(client.Truncate(0), `"OK"`)
	s.check(client.CountKeys(0, client.ScanOptions{Count: 1000}), "[0 0]")
	s.check(client.LLen([]byte("k1")), "0")
	s.check(client.RPush([]byte("k1"), []byte("w")), "1")
	s.check(client.LRange([]byte("k1"), 0, -1), `["w"]`)
}

// TestLocks: which operations exclude each other.
func TestLocks(t *testing.T) {
	type lock = Lock
	hash := client.DocumentHash(key)
	dest := []byte("dest")
	for name, c := range map[string]struct {
		op   *wire.Op
		want []lock
	}{
		"blind set":       {client.Set(key, nil, client.SetOptions{ExpireAtMs: 1}), []lock{{Hash: hash, Key: key, Writes: true}}},
		"conditional set": {client.Set(key, nil, client.SetOptions{NX: true}), []lock{{Hash: hash, Key: key, Reads: true, Writes: true}}},
		"increment":       {client.IncrBy(key, 1), []lock{{Hash: hash, Key: key, Reads: true, Writes: true}}},
		"get":             {client.Get(key), []lock{{Hash: hash, Key: key, Reads: true}}},
		"check":           {client.Check(key, 1), []lock{{Hash: hash, Key: key, Reads: true}}},
		"rename": {client.Rename(key, dest, false), []lock{{Hash: hash, Key: key, Reads: true, Writes: true},
			{Hash: client.DocumentHash(dest), Key: dest, Reads: true, Writes: true}}},
		"copy": {client.Copy(key, dest, false), []lock{{Hash: hash, Key: key, Reads: true},
			{Hash: client.DocumentHash(dest), Key: dest, Reads: true, Writes: true}}},
		"truncate":  {client.Truncate(5), []lock{{Whole: true, Reads: true, Writes: true}}},
		"scan":      {client.ScanKeys(5, client.ScanOptions{}), []lock{{Whole: true, Reads: true}}},
		"blind row": {client.RowPut(hash, key, nil, client.RowOptions{}), []lock{{Hash: hash, Key: key, Writes: true}}},
		"row":       {client.RowPut(hash, key, nil, client.RowOptions{XX: true}), []lock{{Hash: hash, Key: key, Reads: true, Writes: true}}},
	} {
		set := Locks(c.op)
		if got, want := fmt.Sprintf("%+v", set.All()), fmt.Sprintf("%+v", c.want); got != want {
			t.Errorf("%s locks %s, want %s", name, got, want)
		}
		if blind := !set.All()[0].Reads; blind == NeedsRead(c.op) {
			t.Errorf("%s: locks and NeedsRead differ", name)
		}
	}
	set := client.Set(key, nil, client.SetOptions{})
	reads := 0
	if n := testing.AllocsPerRun(100, func() {
		l := Locks(set)
		for _, lock := range l.All() {
			if lock.Reads {
				reads++
			}
		}
	}); n != 0 || reads != 0 {
		t.Errorf("Locks of a blind set: %v allocations, %d reads", n, reads)
	}
}

// TestOtherTablet: a rename must not leave the tablet.
func TestOtherTablet(t *testing.T) {
	s := newShelf(t)
	s.do(client.Set(key, nil, client.SetOptions{}))
	hash := client.DocumentHash(key)
	v, err := s.e.View(Span{Table: catalog.RedisTableID, Start: hash, End: hash + 1}, s.ht, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var b WriteBatch
	x := NewExec(v, &b, catalog.RedisTableID, shelfNow)
	r, err := x.Write(client.Rename(key, []byte("elsewhere"), false))
	if err != nil || r.Code != wire.Code_CODE_INVALID || !b.Empty() {
		t.Errorf("a rename out of the tablet answers %v, %v", r, err)
	}
}

// TestDamage: what contradicts itself fails the request; it never answers less
// than there is.
func TestDamage(t *testing.T) {
	var k keySpace
	for name, c := range map[string]struct {
		damage func(d *Doc)
		op     *wire.Op
	}{
		"list with a gap": {func(d *Doc) {
			d.PutRoot(Root{Kind: RootList, Count: 3, Tail: 3})
			d.PutSub(k.number(0), nil)
			d.PutSub(k.number(2), nil)
		}, client.LRange(key, 0, -1)},
		"list without its end": {func(d *Doc) {
			d.PutRoot(Root{Kind: RootList, Count: 3, Tail: 3})
			d.PutSub(k.number(0), nil)
		}, client.LRange(key, 0, -1)},
		"list without the one": {func(d *Doc) { d.PutRoot(Root{Kind: RootList, Count: 1, Tail: 1}) }, client.LIndex(key, 0)},
		"popped from nothing":  {func(d *Doc) { d.PutRoot(Root{Kind: RootList, Count: 1, Tail: 1}) }, client.LPopOne(key)},
		"hash with less":       {func(d *Doc) { d.PutRoot(Root{Kind: RootHash, Count: 1}) }, client.HGetAll(key)},
		"set with less":        {func(d *Doc) { d.PutRoot(Root{Kind: RootSet, Count: 1}) }, client.SPop(key, 1, 1)},
		"large set with none":  {func(d *Doc) { d.PutRoot(Root{Kind: RootSet, Count: 1000}) }, client.SPop(key, 1, 1)},
		"short subkey": {func(d *Doc) {
			d.PutRoot(Root{Kind: RootSet, Count: 1})
			d.PutSub([]byte{1}, nil)
		}, client.SScan(key, 0, client.ScanOptions{})},
		"zset without order": {func(d *Doc) { d.PutRoot(Root{Kind: RootZSet, Count: 2}) }, client.ZRange(key, client.ByRank(0, 0))},
		"zset lex":           {func(d *Doc) { d.PutRoot(Root{Kind: RootZSet, Count: 2}) }, client.ZCount(key, client.ByLex([]byte("[a"), []byte("+")))},
		"zset score": {func(d *Doc) {
			d.PutRoot(Root{Kind: RootZSet, Count: 1})
			d.PutSub(k.zmember(key), []byte("short"))
		}, client.ZScore(key, key)},
		"zset order": {func(d *Doc) {
			d.PutRoot(Root{Kind: RootZSet, Count: 1})
			d.PutSub([]byte{zsetScore, 1, 2}, nil)
		}, client.ZPop(key, 1, false)},
		"series entry": {func(d *Doc) {
			d.PutRoot(Root{Kind: RootTSeries, Count: 1, Head: 1})
			d.PutSub(k.entry(1), nil)
		}, client.TSGet(key, 1)},
		"dump of less": {func(d *Doc) { d.PutRoot(Root{Kind: RootHash, Count: 1}) }, client.Dump(key)},
	} {
		s := newShelf(t)
		s.begin()
		c.damage(s.x.doc(c.op))
		s.commit()
		s.begin()
		if r, err := s.x.Write(c.op); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: answers %v, error %v, want ErrCorrupt", name, r, err)
		}
		s.view.Close()
		s.view = nil
	}
}

// TestScanKeys: every document is met once, in steps of any size, while others
// come and go.
func TestScanKeys(t *testing.T) {
	s := newShelf(t)
	const n = 500
	for i := range n {
		s.do(client.Set(fmt.Append(nil, "stay", i), []byte("v"), client.SetOptions{}))
	}
	s.do(client.SAdd([]byte("theset"), []byte("m")))
	for _, step := range []int64{1, 7, 0, 1 << 40} {
		met := map[string]int{}
		rounds := 0
		for cursor := uint64(0); ; rounds++ {
			r := s.do(client.ScanKeys(cursor, client.ScanOptions{Count: step}))
			for _, item := range r.Items[1:] {
				met[string(item.Bytes)]++
			}
			if cursor = uint64(r.Items[0].Int); cursor == 0 {
				break
			}
			s.do(client.Set(fmt.Append(nil, "come", step, "-", rounds), nil, client.SetOptions{}))
			s.do(client.Delete(fmt.Append(nil, "come", step, "-", rounds-3)))
		}
		for i := range n {
			if k := fmt.Sprint("stay", i); met[k] != 1 {
				t.Fatalf("in steps of %d %s was met %d times", step, k, met[k])
			}
		}
		if step == 1<<40 && rounds != 0 {
			t.Errorf("one large step took %d more", rounds)
		}
	}
	s.check(client.ScanKeys(0, client.ScanOptions{Count: 1 << 20, Type: []byte("set")}), `[0 "theset"]`)
	s.check(client.ScanKeys(0, client.ScanOptions{Count: 1 << 20, Match: []byte("the?et")}), `[0 "theset"]`)
	s.check(client.ScanKeys(0, client.ScanOptions{Count: 1 << 20, Type: []byte("nothing")}), `[0]`)
}

// TestScanHashed: HSCAN, SSCAN and ZSCAN meet every member once whatever changes
// meanwhile, and members of one hash together.
func TestScanHashed(t *testing.T) {
	s := newShelf(t)
	const n = 300
	var pairs, members [][]byte
	var at []float64
	for i := range n {
		m := fmt.Append(nil, "m", i)
		pairs = append(pairs, m, []byte("v"))
		members = append(members, m)
		at = append(at, float64(i))
	}
	s.do(client.HSet([]byte("h"), pairs...))
	s.do(client.SAdd([]byte("s"), members...))
	s.do(client.ZAdd([]byte("z"), at, members, client.ZAddOptions{}))
	for name, c := range map[string]struct {
		scan  func(uint64, client.ScanOptions) *wire.Op
		add   func(m []byte) *wire.Op
		width int
	}{
		"hash": {func(c uint64, o client.ScanOptions) *wire.Op { return client.HScan([]byte("h"), c, o) },
			func(m []byte) *wire.Op { return client.HSet([]byte("h"), m, nil) }, 2},
		"set": {func(c uint64, o client.ScanOptions) *wire.Op { return client.SScan([]byte("s"), c, o) },
			func(m []byte) *wire.Op { return client.SAdd([]byte("s"), m) }, 1},
		"zset": {func(c uint64, o client.ScanOptions) *wire.Op { return client.ZScan([]byte("z"), c, o) },
			func(m []byte) *wire.Op {
				return client.ZAdd([]byte("z"), []float64{-1}, [][]byte{m}, client.ZAddOptions{})
			}, 2},
	} {
		met := map[string]int{}
		for cursor, round := uint64(0), 0; ; round++ {
			r := s.do(c.scan(cursor, client.ScanOptions{Count: 7}))
			for i := 1; i < len(r.Items); i += c.width {
				met[string(r.Items[i].Bytes)]++
			}
			if cursor = uint64(r.Items[0].Int); cursor == 0 {
				break
			}
			s.do(c.add(fmt.Append(nil, "more", round)))
		}
		for _, m := range members {
			if met[string(m)] != 1 {
				t.Errorf("%s: %s was met %d times", name, m, met[string(m)])
			}
		}
		if r := s.do(c.scan(0, client.ScanOptions{Count: 10000, Match: []byte("m29?")})); len(r.Items) != 1+10*c.width {
			t.Errorf("%s: a pattern found %s", name, ours(r))
		}
		s.check(c.scan(math.MaxUint64, client.ScanOptions{}), "[0]")
	}
}

// TestScanEqualHashes: a step does not end among members of one hash.
func TestScanEqualHashes(t *testing.T) {
	s := newShelf(t)
	s.begin()
	d := s.x.Doc(client.DocumentHash(key), key)
	d.PutRoot(Root{Kind: RootSet, Count: 9})
	for i := range 9 {
		sub := binary.BigEndian.AppendUint64(nil, []uint64{0, 5, math.MaxUint64}[i/3])
		d.PutSub(fmt.Append(sub, "m", i), nil)
	}
	s.commit()
	s.check(client.SScan(key, 0, client.ScanOptions{Count: 1}), `[5 "m0" "m1" "m2"]`)
	s.check(client.SScan(key, 5, client.ScanOptions{Count: 2}), `[-1 "m3" "m4" "m5"]`)
	s.check(client.SScan(key, math.MaxUint64, client.ScanOptions{Count: 1}), `[0 "m6" "m7" "m8"]`)
}

// TestTouched: writes of large documents write what they touch (O4).
func TestTouched(t *testing.T) {
	s := newShelf(t)
	const n = 2000
	var members [][]byte
	var at []float64
	for i := range n {
		members = append(members, fmt.Append(nil, "m", i))
		at = append(at, float64(i))
	}
	s.do(client.SAdd([]byte("set"), members...))
	s.do(client.ZAdd([]byte("zset"), at, members, client.ZAddOptions{}))
	s.do(client.RPush([]byte("list"), members...))
	for name, c := range map[string]struct {
		op   *wire.Op
		most uint32
	}{
		"delete a set":         {client.Delete([]byte("set")), 1},
		"expire a set":         {client.ExpireAt([]byte("set"), farAhead, client.ExpireOptions{}), 1},
		"add a member":         {client.SAdd([]byte("set"), []byte("new")), 2},
		"pop a member":         {client.SPopOne([]byte("set"), 1), 2},
		"pop all members":      {client.SPop([]byte("set"), n, 1), n + 1},
		"move a score":         {client.ZAdd([]byte("zset"), []float64{-1}, members[5:6], client.ZAddOptions{}), 5},
		"remove all ranks":     {client.ZRemRange([]byte("zset"), client.ByRank(0, -1)), 1},
		"push":                 {client.LPush([]byte("list"), []byte("x")), 2},
		"pop":                  {client.RPopOne([]byte("list")), 2},
		"pop the whole":        {client.LPop([]byte("list"), n), 1},
		"set":                  {client.LSet([]byte("list"), -1, []byte("x")), 2},
		"insert near the head": {client.LInsert([]byte("list"), true, members[10], []byte("x")), 12},
		"insert near the tail": {client.LInsert([]byte("list"), false, members[n-10], []byte("x")), 12},
		"remove near the head": {client.LRem([]byte("list"), 0, members[10]), 14},
		"remove near the tail": {client.LRem([]byte("list"), 0, members[n-10]), 14},
		"trim to little":       {client.LTrim([]byte("list"), 100, 109), 12},
		"trim a little":        {client.LTrim([]byte("list"), 5, -6), 13},
	} {
		s.begin()
		s.run(c.op)
		if got := s.batch.WriteIDs(); got > c.most {
			t.Errorf("%s has %d effects, want at most %d", name, got, c.most)
		}
		s.view.Close()
		s.view = nil
	}
}

// TestAllocations: the two hottest operations take little memory.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		return // the detector allocates, and Pebble's own checks do
	}
	s := newShelf(t)
	set, get := client.Set(key, make([]byte, 128), client.SetOptions{}), client.Get(key)
	s.do(set)
	s.begin()
	defer func() { s.view.Close(); s.view = nil }()
	if n := testing.AllocsPerRun(200, func() {
		s.batch.Reset()
		s.x.Reset(nil, &s.batch, catalog.RedisTableID, shelfNow)
		s.run(set)
	}); n > 0 {
		t.Errorf("a blind set takes %v allocations", n)
	}
	if n := testing.AllocsPerRun(200, func() {
		s.x.Reset(s.view, nil, catalog.RedisTableID, shelfNow)
		s.x.Read(get)
	}); n > 2 { // the value and the result
		t.Errorf("a get takes %v allocations", n)
	}
}

func BenchmarkSet(b *testing.B) {
	s := newShelf(b)
	op := client.Set(key, make([]byte, 128), client.SetOptions{})
	b.ReportAllocs()
	for b.Loop() {
		s.batch.Reset()
		if s.x == nil {
			s.x = NewExec(nil, &s.batch, catalog.RedisTableID, shelfNow)
		}
		s.x.Reset(nil, &s.batch, catalog.RedisTableID, shelfNow)
		s.run(op)
	}
}

func BenchmarkGet(b *testing.B) {
	s := newShelf(b)
	for i := range 10000 {
		s.do(client.Set(fmt.Append(nil, "k", i), make([]byte, 128), client.SetOptions{}))
	}
	s.begin()
	defer func() { s.view.Close(); s.view = nil }()
	op := client.Get([]byte("k77"))
	b.ReportAllocs()
	for b.Loop() {
		s.x.Reset(s.view, nil, catalog.RedisTableID, shelfNow)
		if r, err := s.x.Read(op); err != nil || len(r.Bytes) != 128 {
			b.Fatal(r, err)
		}
	}
}

// TestConstructors: there is a constructor for every operation, and what it
// makes is well formed.
func TestConstructors(t *testing.T) {
	b, list := []byte("a"), [][]byte{[]byte("a"), []byte("b")}
	random := client.RandomOptions{Count: 1}
	span := client.ByScore(0, 1, true, true)
	made := map[wire.OpCode]bool{}
	for _, op := range []*wire.Op{
		client.Delete(key), client.ExpireAt(key, farAhead, client.ExpireOptions{}), client.Persist(key),
		client.Restore(key, dumpOf(RootSet, "a"), 0, true), client.Check(key, 0), client.Rename(key, b, true), client.Truncate(1),
		client.Copy(key, b, true), client.Set(key, b, client.SetOptions{}), client.GetDel(key), client.GetEx(key, client.GetExOptions{}),
		client.SetRange(key, 1, b), client.Append(key, b), client.IncrBy(key, 1), client.IncrByFloat(key, []byte("1")), client.SetBit(key, 1, 1),
		client.HSet(key, list...), client.HSetNX(key, b, b), client.HDel(key, b), client.HIncrBy(key, b, 1), client.HIncrByFloat(key, b, []byte("1")),
		client.SAdd(key, b), client.SRem(key, b), client.SPop(key, 1, 1), client.SPopOne(key, 1),
		client.ZAdd(key, []float64{1, 2}, list, client.ZAddOptions{}), client.ZRem(key, b), client.ZRemRange(key, span), client.ZPop(key, 1, true),
		client.LPush(key, b), client.RPush(key, b), client.LPushX(key, b), client.RPushX(key, b), client.LPop(key, 1), client.RPop(key, 1),
		client.LPopOne(key), client.RPopOne(key), client.LTrim(key, 0, 1), client.LRem(key, 0, b), client.LSet(key, 0, b), client.LInsert(key, true, b, b),
		client.TSAdd(key, 0, []int64{1, 2}, list), client.TSRem(key, 1),
		client.RowPut(1, key, nil, client.RowOptions{}), client.RowUpdate(1, key, nil, client.RowOptions{}), client.RowDelete(1, key, client.RowOptions{}),
		client.Exists(key), client.Type(key), client.ExpireTime(key), client.Dump(key), client.Version(key), client.Object(key),
		client.ScanKeys(0, client.ScanOptions{}), client.CountKeys(0, client.ScanOptions{}),
		client.Get(key), client.GetRange(key, 0, 1), client.StrLen(key), client.GetBit(key, 1),
		client.HGet(key, b), client.HMGet(key, b), client.HGetAll(key), client.HKeys(key), client.HVals(key), client.HLen(key), client.HExists(key, b),
		client.HStrLen(key, b), client.HScan(key, 0, client.ScanOptions{}), client.HRandom(key, random),
		client.SMembers(key), client.SIsMember(key, b), client.SMIsMember(key, b), client.SCard(key), client.SScan(key, 0, client.ScanOptions{}), client.SRandom(key, random),
		client.ZScore(key, b), client.ZMScore(key, b), client.ZCard(key), client.ZRank(key, b, true), client.ZRange(key, client.ByRank(0, 1)),
		client.ZRange(key, client.ByLex([]byte("-"), []byte("+"))), client.ZCount(key, span), client.ZScan(key, 0, client.ScanOptions{}),
		client.LLen(key), client.LRange(key, 0, 1), client.LIndex(key, 0), client.LPos(key, b, 1, -1, 0),
		client.TSGet(key, 1), client.TSRange(key, client.TSSpan{High: 1}), client.TSCard(key), client.TSLastN(key, 1),
		client.RowGet(1, key), client.RowScan(1, nil, nil, 1, nil, nil),
	} {
		made[wire.OpCode(op.Code)] = true
		if r := newShelf(t).do(op); r.Code == wire.Code_CODE_INVALID {
			t.Errorf("operation %d as the client makes it answers %s", op.Code, ours(r))
		}
	}
	for _, code := range everyOp() {
		if !made[code] {
			t.Errorf("operation %d has no constructor", code)
		}
	}
	if n := testing.AllocsPerRun(100, func() { client.Set(key, b, client.SetOptions{ExpireAtMs: 1}) }); n > 1 {
		t.Errorf("making a set takes %v allocations", n)
	}
}
