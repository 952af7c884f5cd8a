package tables

import (
	"fmt"

	"github.com/braiddb/braid/internal/sim/check"
	"github.com/braiddb/braid/internal/wire"
)

// history is what the clients saw, as far as it is not kept by its document.
type history struct {
	c      *cluster
	values int64 // the last value written
	lists  []*check.ListTxn
}

// Documents of a tablet with what was done to them.
type documents struct {
	registers []register
	counters  []counter
	sets      []set
	lists     []list
	accounts  []*key
	probe     *key
	reads     []*check.BankRead
}

type register struct {
	*key
	ops []*check.RegisterOp
}

type counter struct {
	*key
	ops []*check.CounterOp
	end check.CounterOp
}

type set struct {
	*key
	ops []*check.SetOp
}

type list struct {
	*key
	number int
}

func (h *history) init(c *cluster) {
	h.c = c
	n := int(max(1, c.w.Opt.Knob("keys")))
	lists := 0
	for _, v := range c.views {
		for _, k := range keysOf(v, "register", n) {
			v.registers = append(v.registers, register{key: k})
		}
		v.probe = keysOf(v, "probe", 1)[0]
		if v.ofRows {
			continue
		}
		for _, k := range keysOf(v, "counter", n) {
			v.counters = append(v.counters, counter{key: k})
		}
		for _, k := range keysOf(v, "set", n) {
			v.sets = append(v.sets, set{key: k})
		}
		for _, k := range keysOf(v, "list", n) {
			v.lists = append(v.lists, list{key: k, number: lists})
			lists++
		}
		v.accounts = keysOf(v, "account", n+2)
	}
}

// readAll reads what is there in the end, as a client would.
func (c *cluster) readAll() {
	t := c.threads[0]
	done := func() { c.finals-- }
	for _, v := range c.views {
		for i := range v.counters {
			x := &v.counters[i]
			c.finals++
			t.cl.read(v, &x.end.Op, 0, []*wire.Op{x.op(wire.OpGet)}, func(r *wire.ReadResponse) {
				if x.end.Outcome == check.OK {
					x.end.Value = t.parse(r.Results[0])
				}
				done()
			})
		}
		for i := range v.sets {
			op := &check.SetOp{Op: check.Op{Client: -1}}
			v.sets[i].ops = append(v.sets[i].ops, op)
			c.finals++
			t.readSet(&v.sets[i], op, done)
		}
		for i := range v.registers {
			c.finals++
			t.look(&v.registers[i], -1, func(*check.RegisterOp, *wire.ReadResponse) { done() })
		}
		if v.ofRows {
			continue
		}
		txn := &check.ListTxn{Op: check.Op{Client: -1}}
		c.hist.lists = append(c.hist.lists, txn)
		c.finals += 2
		t.readLists(v, txn, done)
		t.readBank(v, done)
	}
}

func (h *history) check() error {
	for _, v := range h.c.views {
		for i := range v.registers {
			decided, err := check.Register(v.registers[i].ops)
			if err != nil {
				return fmt.Errorf("register %s: %w", v.registers[i].name, err)
			}
			if !decided {
				h.c.w.Sometimes("check: a register was not decided")
			}
		}
		for i := range v.counters {
			x := &v.counters[i]
			if err := check.Counter(x.ops); err != nil {
				return fmt.Errorf("counter %s: %w", x.name, err)
			}
			if x.end.Outcome != check.OK && v.helpless() {
				continue
			}
			if x.end.Outcome != check.OK {
				return fmt.Errorf("counter %s cannot be read in the end", x.name)
			}
			if err := check.CounterEnd(x.ops, x.end.Value); err != nil {
				return fmt.Errorf("counter %s: %w", x.name, err)
			}
		}
		for i := range v.sets {
			if err := check.Set(v.sets[i].ops); err != nil {
				return fmt.Errorf("set %s: %w", v.sets[i].name, err)
			}
		}
		if err := check.Bank(v.reads, 0); err != nil {
			return fmt.Errorf("bank of group %d: %w", v.id, err)
		}
	}
	if err := check.Lists(h.lists); err != nil {
		return fmt.Errorf("lists: %w", err)
	}
	return nil
}
