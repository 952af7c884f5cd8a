package redis

import (
	"slices"
	"sort"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
)

// How operations of one command are cut into requests. The operations of one
// request are atomic; those of a command over several requests are not.
const (
	requestOpsMax   = 256
	requestBytesMax = 1 << 20
	requestsMax     = 64 // on their way together
)

// part is one request of an exchange: some operations of one tablet.
type part struct {
	at      []int // where the operations stand among all
	ops     []*client.Op
	bytes   int
	results []*client.Result
	copies  uint32
	err     error
}

// exchange carries out any number of operations and waits for them. Those that
// fail get a result of kind error. Nothing else may be under way. copies is the
// fewest durable copies of those that wrote, 0 if none is known to have.
func (c *conn) exchange(ops []*client.Op) (results []*client.Result, copies uint32) {
	results = make([]*client.Result, len(ops))
	waves := c.split(ops)
	for len(waves) > 0 {
		wave := waves[0]
		waves = waves[1:]
		for len(wave) > 0 {
			now := wave[:min(len(wave), requestsMax)]
			wave = wave[len(now):]
			c.send(now)
			for _, p := range now {
				if p.err == client.ErrCrossTablet && len(p.ops) > 1 {
					waves = append(singles(p), waves...) // a tablet was split meanwhile
					continue
				}
				c.collect(p, results)
				if p.copies > 0 && (copies == 0 || p.copies < copies) {
					copies = p.copies
				}
			}
		}
	}
	return results, copies
}

// send starts parts and waits for all.
func (c *conn) send(parts []*part) {
	began := c.s.opts.Clock()
	c.left.Add(int32(len(parts)))
	for _, p := range parts {
		c.s.table.StartReply(p.ops, c.s.deadline(began), func(r client.Reply, err error) {
			p.results, p.copies, p.err = r.Results, r.Copies, err
			c.one()
		})
	}
	c.wait()
	if c.s.opts.Clock().Sub(began) > slowAfter {
		c.tainted = true
	}
}

// collect puts what a part was answered where it belongs.
func (c *conn) collect(p *part, results []*client.Result) {
	if p.err == nil && len(p.results) != len(p.ops) {
		p.err = &client.Error{Code: client.CodeInternal, Message: "an answer of another length than the question"}
	}
	if p.err != nil {
		c.tainted = true
		failed := failure(p.err)
		for _, i := range p.at {
			results[i] = failed
		}
		return
	}
	for j, i := range p.at {
		results[i] = p.results[j]
	}
}

// singles makes a wave of every operation of p.
func singles(p *part) [][]*part {
	all := make([][]*part, len(p.ops))
	for i := range p.ops {
		all[i] = []*part{{at: p.at[i : i+1], ops: p.ops[i : i+1]}}
	}
	return all
}

// split groups operations by tablet, in order, into waves. Parts of one wave are
// of different tablets, so two operations on one key are never on their way
// together: the last of MSET a 1 a 2 wins.
func (c *conn) split(ops []*client.Op) (waves [][]*part) {
	starts := c.tabletStarts()
	type filling struct {
		part *part
		wave int
	}
	open := map[int]filling{}
	for i, op := range ops {
		tablet := sort.Search(len(starts), func(j int) bool { return starts[j] > op.Hash })
		f, size := open[tablet], opBytes(op)
		if f.part != nil && (len(f.part.ops) == requestOpsMax || f.part.bytes+size > requestBytesMax) {
			f = filling{wave: f.wave + 1}
		}
		if f.part == nil {
			f.part = &part{}
			if f.wave == len(waves) {
				waves = append(waves, nil)
			}
			waves[f.wave] = append(waves[f.wave], f.part)
			open[tablet] = f
		}
		p := f.part
		p.at = append(p.at, i)
		p.ops = append(p.ops, op)
		p.bytes += size
	}
	return waves
}

// tabletStarts gives where tablets begin. When that is not known every operation
// is taken to be of one tablet; a part that is not is sent again as singles.
func (c *conn) tabletStarts() []uint64 {
	tablets, err := c.s.table.Tablets(c.s.ctx)
	if err != nil {
		return nil
	}
	starts := make([]uint64, len(tablets))
	for i, t := range tablets {
		starts[i] = t.HashStart
	}
	return starts
}

func opBytes(op *client.Op) int {
	n := len(op.Key)
	for _, a := range op.Args {
		n += len(a)
	}
	return n
}

// oneSlot reports whether all keys lie in one slot.
func oneSlot(keys [][]byte) bool {
	return len(keys) < 2 || !slices.ContainsFunc(keys[1:], func(k []byte) bool {
		return catalog.RedisSlot(k) != catalog.RedisSlot(keys[0])
	})
}

// batch carries out operations of one tablet atomically. failed is the result of
// the whole if nothing was carried out.
func (c *conn) batch(k *call, ops []*client.Op) (results []*client.Result, failed *client.Result) {
	p := &part{ops: ops}
	c.send([]*part{p})
	switch {
	case p.err != nil:
		c.tainted = true
		return nil, failure(p.err)
	case len(p.results) != len(ops):
		return nil, broken("an answer of another length than the question")
	}
	if p.copies > 0 && (k.copies == 0 || p.copies < k.copies) {
		k.copies = p.copies
	}
	return p.results, nil
}

// one operation, waited for.
func (c *conn) single(k *call, op *client.Op) *client.Result {
	results, failed := c.batch(k, []*client.Op{op})
	if failed != nil {
		return failed
	}
	return results[0]
}
