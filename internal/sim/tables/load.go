package tables

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/sim/check"
	"github.com/braiddb/braid/internal/wire"
)

func timestamp(t uint64) hlc.Timestamp { return hlc.Timestamp(t) }

// thread is one line of a client: it thinks, does one thing, waits for its end.
type thread struct {
	cl   *client
	id   int
	busy bool
}

// loads are the workloads; a seed draws the weight of each, often none.
var loads = []string{"register", "counter", "set", "list", "bank", "repeat"}

func (t *thread) do(load string, v *view) {
	t.busy = true
	if v.ofRows {
		load = "register"
	}
	switch load {
	case "register":
		t.register(v)
	case "counter":
		t.counter(v)
	case "set":
		t.set(v)
	case "list":
		t.list(v)
	case "bank":
		t.bank(v)
	case "repeat":
		t.repeat(v)
	}
}

// work thinks for a while and then does something.
func (t *thread) work() {
	c := t.cl.c
	if c.stage >= stageStop {
		return
	}
	think := c.ms("thinkMs")
	if c.w.Calm() && c.ops < opsMin {
		think = min(think, 30*time.Millisecond)
	}
	c.w.After(c.w.Between(0, 2*think), "think", func() {
		if c.stage >= stageStop {
			return
		}
		total := int64(0)
		for _, l := range loads {
			total += c.w.Opt.Knob("w." + l)
		}
		at := c.w.Dice().Int64N(max(total, 1))
		v := c.views[c.w.Dice().IntN(len(c.views))]
		for _, l := range loads {
			if at -= c.w.Opt.Knob("w." + l); at < 0 {
				t.do(l, v)
				return
			}
		}
	})
}

// rest ends what the thread was doing.
func (t *thread) rest() {
	t.busy = false
	t.work()
}

// key is the n-th document of a kind in a tablet.
type key struct {
	v    *view
	name []byte
	hash uint64
}

// keysOf finds names whose hashes lie in the tablet.
func keysOf(v *view, kind string, n int) []*key {
	var out []*key
	for i := 0; len(out) < n; i++ {
		name := []byte(fmt.Sprintf("%s%d", kind, i))
		h := catalog.KeyHash(catalog.Hash_HASH_CRC16, name)
		if h >= v.tablet.HashStart && (v.tablet.HashEnd == 0 || h < v.tablet.HashEnd) {
			out = append(out, &key{v: v, name: name, hash: h})
		}
	}
	return out
}

func (k *key) op(code wire.OpCode, args ...[]byte) *wire.Op {
	return &wire.Op{Code: uint32(code), Key: k.name, Hash: k.hash, Args: args}
}

func (k *key) ints(code wire.OpCode, ints ...int64) *wire.Op {
	return &wire.Op{Code: uint32(code), Key: k.name, Hash: k.hash, Ints: ints}
}

func (k *key) set(value int64, flags uint64) *wire.Op {
	op := k.op(wire.OpSet, number(value))
	op.Ints, op.Flags = []int64{0}, flags
	return op
}

// number is a value. Some are long, so that outcomes which hold one are.
func number(v int64) []byte {
	b := strconv.AppendInt(nil, v, 10)
	if v%5 == 0 {
		b = append(b, padding...)
	}
	return b
}

var padding = []byte(" " + strings.Repeat("x", 90))

// parse reads a value back: 0 where there is none.
func (t *thread) parse(r *wire.Result) int64 {
	if r.Kind == wire.Kind_KIND_NIL {
		return 0
	}
	digits, rest, _ := strings.Cut(string(r.Bytes), " ")
	v, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || rest != "" && rest != string(padding[1:]) {
		t.cl.c.w.Fail("a value that nobody wrote: %q (%v)", r.Bytes, r)
	}
	return v
}

func (t *thread) parseAll(r *wire.Result) []int64 {
	out := make([]int64, 0, len(r.Items))
	for _, it := range r.Items {
		out = append(out, t.parse(it))
	}
	return out
}

// unique is a value that nobody else writes.
func (c *cluster) unique() int64 {
	c.hist.values++
	return c.hist.values
}

// register reads, writes, swaps, creates, deletes, and compares and sets.
func (t *thread) register(v *view) {
	c := t.cl.c
	x := &v.registers[c.w.Dice().IntN(len(v.registers))]
	op := &check.RegisterOp{Op: check.Op{Client: t.id}}
	kind := check.RegisterKind([]check.RegisterKind{check.Read, check.Read, check.Read, check.Write, check.Write, check.Swap,
		check.Create, check.Cas, check.Cas, check.Delete}[c.w.Dice().IntN(10)])
	if v.ofRows && kind != check.Read {
		t.row(x)
		return
	}
	switch kind {
	case check.Cas:
		t.compareAndSet(v, x)
		return
	case check.Read:
		t.look(x, t.id, func(*check.RegisterOp, *wire.ReadResponse) { t.rest() })
		return
	}
	op.Kind = kind
	x.ops = append(x.ops, op)
	op.Arg = c.unique()
	var do *wire.Op
	switch kind {
	case check.Write:
		do = x.set(op.Arg, 0)
	case check.Swap:
		do = x.set(op.Arg, wire.FlagGet)
	case check.Create:
		do = x.set(op.Arg, wire.FlagNX)
	default:
		do = x.op(wire.OpDelete)
	}
	t.cl.write(v, &op.Op, []*wire.Op{do}, func(r *wire.WriteResponse) {
		if op.Outcome == check.OK {
			switch res := r.Results[0]; kind {
			case check.Swap:
				op.Out = t.parse(res)
			case check.Create:
				op.Done = res.Kind == wire.Kind_KIND_OK
			case check.Delete:
				op.Done = res.Int == 1
			}
		}
		t.rest()
	})
}

// look reads a register: its value, and its version where there is one.
func (t *thread) look(x *register, client int, then func(*check.RegisterOp, *wire.ReadResponse)) {
	op := &check.RegisterOp{Op: check.Op{Client: client}, Kind: check.Read}
	x.ops = append(x.ops, op)
	ops := []*wire.Op{x.op(wire.OpGet), x.op(wire.OpVersion)}
	if x.v.ofRows {
		ops = []*wire.Op{x.op(wire.OpRowGet)}
	}
	t.cl.read(x.v, &op.Op, 0, ops, func(r *wire.ReadResponse) {
		switch {
		case op.Outcome != check.OK:
		case x.v.ofRows:
			op.Out = t.parseRow(r.Results[0])
		default:
			op.Out = t.parse(r.Results[0])
		}
		then(op, r)
	})
}

// compareAndSet reads value and version, and sets the value if the version is
// still the same. Values are unique, so that is as good as comparing them.
func (t *thread) compareAndSet(v *view, x *register) {
	c := t.cl.c
	t.look(x, t.id, func(look *check.RegisterOp, r *wire.ReadResponse) {
		if look.Outcome != check.OK {
			t.rest()
			return
		}
		op := &check.RegisterOp{Op: check.Op{Client: t.id}, Kind: check.Cas, Old: look.Out, Arg: c.unique()}
		if op.Old == 0 {
			// Two absences have one version, whatever was there between: an ordinary create.
			op.Kind = check.Create
		}
		x.ops = append(x.ops, op)
		t.cl.write(v, &op.Op, []*wire.Op{x.ints(wire.OpCheck, r.Results[1].Int), x.set(op.Arg, 0)}, func(r *wire.WriteResponse) {
			if op.Outcome == check.OK {
				op.Done = r.Error == nil
				c.w.Sometimes(map[bool]string{true: "cas: done", false: "cas: lost"}[op.Done])
			}
			t.rest()
		})
	})
}

// counter adds one, or looks.
func (t *thread) counter(v *view) {
	c := t.cl.c
	x := &v.counters[c.w.Dice().IntN(len(v.counters))]
	op := &check.CounterOp{Op: check.Op{Client: t.id}, Add: c.w.Dice().IntN(4) != 0}
	x.ops = append(x.ops, op)
	if !op.Add {
		t.cl.read(v, &op.Op, 0, []*wire.Op{x.op(wire.OpGet)}, func(r *wire.ReadResponse) {
			if op.Outcome == check.OK {
				op.Value = t.parse(r.Results[0])
			}
			t.rest()
		})
		return
	}
	t.cl.write(v, &op.Op, []*wire.Op{x.ints(wire.OpIncrBy, 1)}, func(r *wire.WriteResponse) {
		if op.Outcome == check.OK {
			op.Value = r.Results[0].Int
		}
		t.rest()
	})
}

// set adds a member, or reads all.
func (t *thread) set(v *view) {
	c := t.cl.c
	x := &v.sets[c.w.Dice().IntN(len(v.sets))]
	op := &check.SetOp{Op: check.Op{Client: t.id}}
	x.ops = append(x.ops, op)
	if c.w.Dice().IntN(5) == 0 {
		t.readSet(x, op, t.rest)
		return
	}
	op.Add = c.unique()
	t.cl.write(v, &op.Op, []*wire.Op{x.op(wire.OpSAdd, number(op.Add))}, func(r *wire.WriteResponse) {
		if op.Outcome == check.OK && r.Results[0].Int != 1 {
			c.w.Fail("a member that nobody else adds was there already: %d", op.Add)
		}
		t.rest()
	})
}

func (t *thread) readSet(x *set, op *check.SetOp, then func()) {
	t.cl.read(x.v, &op.Op, 0, []*wire.Op{x.op(wire.OpSMembers)}, func(r *wire.ReadResponse) {
		if op.Outcome == check.OK {
			op.Members = t.parseAll(r.Results[0])
			slices.Sort(op.Members)
		}
		then()
	})
}

// list appends to one or two lists of a tablet at once, or reads all of them.
func (t *thread) list(v *view) {
	c := t.cl.c
	txn := &check.ListTxn{Op: check.Op{Client: t.id}}
	c.hist.lists = append(c.hist.lists, txn)
	if c.w.Dice().IntN(3) == 0 {
		t.readLists(v, txn, t.rest)
		return
	}
	var ops []*wire.Op
	for _, i := range c.w.Dice().Perm(len(v.lists))[:min(len(v.lists), 1+c.w.Dice().IntN(2))] {
		a := check.ListAppend{List: v.lists[i].number, Value: c.unique()}
		txn.Appends = append(txn.Appends, a)
		ops = append(ops, v.lists[i].op(wire.OpPush, number(a.Value)))
	}
	t.cl.write(v, &txn.Op, ops, func(r *wire.WriteResponse) {
		if txn.Outcome == check.OK {
			for i := range txn.Appends {
				txn.Appends[i].Length = r.Results[i].Int
			}
		}
		t.rest()
	})
}

func (t *thread) readLists(v *view, txn *check.ListTxn, then func()) {
	var ops []*wire.Op
	for i := range v.lists {
		ops = append(ops, v.lists[i].ints(wire.OpLRange, 0, -1))
	}
	t.cl.read(v, &txn.Op, 0, ops, func(r *wire.ReadResponse) {
		if txn.Outcome == check.OK {
			for i := range v.lists {
				txn.Reads = append(txn.Reads, check.ListRead{List: v.lists[i].number, Values: t.parseAll(r.Results[i])})
			}
		}
		then()
	})
}

// bank moves money between two accounts of a tablet, or reads all of them.
func (t *thread) bank(v *view) {
	c := t.cl.c
	if c.w.Dice().IntN(3) == 0 {
		t.readBank(v, t.rest)
		return
	}
	a := c.w.Dice().IntN(len(v.accounts))
	b := (a + 1 + c.w.Dice().IntN(len(v.accounts)-1)) % len(v.accounts)
	sum := int64(1 + c.w.Dice().IntN(9))
	t.cl.write(v, &check.Op{}, []*wire.Op{v.accounts[a].ints(wire.OpIncrBy, -sum), v.accounts[b].ints(wire.OpIncrBy, sum)},
		func(*wire.WriteResponse) { t.rest() })
}

func (t *thread) readBank(v *view, then func()) {
	read := &check.BankRead{Op: check.Op{Client: t.id}}
	v.reads = append(v.reads, read)
	t.cl.read(v, &read.Op, 0, t.all(v), func(r *wire.ReadResponse) {
		if read.Outcome == check.OK {
			for _, res := range r.Results {
				read.Accounts = append(read.Accounts, t.parse(res))
			}
		}
		then()
	})
}

func (t *thread) all(v *view) []*wire.Op {
	var ops []*wire.Op
	for _, k := range v.accounts {
		ops = append(ops, k.op(wire.OpGet))
	}
	return ops
}

// repeat reads all accounts and counters of a tablet now, and later once more at
// the same time: from whichever replica, it must be the same.
func (t *thread) repeat(v *view) {
	c := t.cl.c
	ops := t.all(v)
	for i := range v.counters {
		ops = append(ops, v.counters[i].op(wire.OpGet))
	}
	first, second := &check.Op{}, &check.Op{}
	t.cl.read(v, first, 0, ops, func(r *wire.ReadResponse) {
		t.rest()
		if first.Outcome != check.OK {
			return
		}
		c.repeats++
		c.w.After(c.w.Between(0, 5*time.Second), "repeat", func() {
			t.cl.read(v, second, r.ReadTime, ops, func(again *wire.ReadResponse) {
				c.repeats--
				if second.Outcome == check.OK && !sameResults(r.Results, again.Results) {
					c.w.Fail("group %d: two reads at %s differ: %v at %s, %v at %s", v.id, timestamp(r.ReadTime), r.Results, first.Return, again.Results, second.Return)
				}
			})
		})
	})
}

func sameResults(a, b []*wire.Result) bool {
	for i := range a {
		if i >= len(b) || a[i].Kind != b[i].Kind || a[i].Int != b[i].Int || !bytes.Equal(a[i].Bytes, b[i].Bytes) {
			return false
		}
	}
	return len(a) == len(b)
}
