package world

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// registerInput is one operation on one register.
type registerInput struct {
	key   string
	write bool
	cas   bool
	value string // write: what is written
	old   string // cas: what must be there
}

// registerOutput is what came back; what is unknown may or may not have happened.
type registerOutput struct {
	value   string // what was there; of a write and of a cas that was applied: nothing
	done    bool   // cas: applied
	unknown bool
}

// registers is a workload of reads, writes and compare-and-sets over Redis, with
// retries off, and the history that it made.
type registers struct {
	w   *World
	mu  sync.Mutex
	ops []porcupine.Operation
}

const registerKeys = 5

// work runs operations against one node until the load ends.
func (r *registers) work(m *machine, id int) {
	rng := rand.New(rand.NewPCG(r.w.seed, uint64(1000+id)))
	c := r.w.redis(m)
	defer c.close()
	seen := map[string]string{}
	for n := 0; r.w.loading(); n++ {
		in := registerInput{key: fmt.Sprint("r", rng.IntN(registerKeys))}
		switch rng.IntN(4) {
		case 0:
			in.write, in.value = true, fmt.Sprintf("%d.%d", id, n)
		case 1:
			in.cas, in.old, in.value = true, seen[in.key], fmt.Sprintf("%d.%d", id, n)
		}
		call := time.Since(r.w.begin)
		out, err := r.one(c, in)
		if err == nil && !in.write && !in.cas {
			seen[in.key] = out.value
		}
		r.w.trace.Add("register %d %+v: %+v %v", id, in, out, err)
		out.unknown = err != nil
		if !errors.Is(err, errNoEffect) {
			r.add(porcupine.Operation{ClientId: id, Input: in, Call: int64(call), Output: out, Return: int64(time.Since(r.w.begin))})
		}
		r.w.rest(rng, err)
	}
}

func (r *registers) add(op porcupine.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
}

// errNoEffect says that an operation surely did nothing.
var errNoEffect = errors.New("surely without effect")

// sure wraps an error of a command that surely did nothing.
func sure(err error) error {
	var said refusal
	var unsent errNotSent
	switch {
	case errors.As(err, &unsent),
		errors.As(err, &said) && (strings.HasPrefix(string(said), "TRYAGAIN") || strings.HasPrefix(string(said), "CLUSTERDOWN") ||
			strings.HasPrefix(string(said), "MISCONF")):
		return fmt.Errorf("%w: %w", errNoEffect, err)
	}
	return err
}

func (r *registers) one(c *redis, in registerInput) (out registerOutput, err error) {
	switch {
	case in.write:
		_, err = c.do("SET", in.key, in.value)
		return out, sure(err)
	case in.cas:
		return r.cas(c, in)
	}
	v, err := c.do("GET", in.key)
	if err == null {
		return out, nil
	}
	out.value, _ = v.(string)
	return out, sure(err)
}

// cas is compare-and-set as every Redis client can do it.
func (r *registers) cas(c *redis, in registerInput) (out registerOutput, err error) {
	if _, err := c.do("WATCH", in.key); err != nil {
		return out, fmt.Errorf("%w: %w", errNoEffect, err)
	}
	v, err := c.do("GET", in.key)
	if err != nil && err != null {
		c.close() // and with it the watch
		return out, fmt.Errorf("%w: %w", errNoEffect, err)
	}
	if got, _ := v.(string); got != in.old {
		if _, err := c.do("UNWATCH"); err != nil {
			c.close()
		}
		return registerOutput{value: got}, nil
	}
	for _, args := range [][]string{{"MULTI"}, {"SET", in.key, in.value}} {
		if _, err := c.do(args...); err != nil {
			c.close()
			return out, fmt.Errorf("%w: %w", errNoEffect, err)
		}
	}
	_, err = c.do("EXEC")
	if err == null { // somebody wrote meanwhile: says nothing about the value
		return out, fmt.Errorf("%w: %w", errNoEffect, err)
	}
	out.done = err == nil
	return out, sure(err)
}

// check finds out whether the history is one of linearizable registers.
func (r *registers) check() {
	end := int64(time.Since(r.w.begin) + time.Hour)
	seen := r.observed()
	var history []porcupine.Operation
	for _, op := range r.ops {
		if op.Output.(registerOutput).unknown {
			// What nobody saw may as well have happened after everything. A search
			// that had to place each of them would not end.
			if in := op.Input.(registerInput); !seen[in.value] {
				continue
			}
			op.Return = end
		} else {
			r.w.known++
		}
		history = append(history, op)
	}
	if !porcupine.CheckOperations(registerModel, history) {
		r.w.wrong("the registers are not linearizable (%d operations)", len(history))
	}
}

// observed are the values that somebody was told of. Each is written once at most.
func (r *registers) observed() map[string]bool {
	seen := map[string]bool{}
	for _, op := range r.ops {
		in, out := op.Input.(registerInput), op.Output.(registerOutput)
		switch {
		case in.cas && out.done:
			seen[in.old] = true
		case !out.unknown && !in.write:
			seen[out.value] = true
		}
	}
	delete(seen, "")
	return seen
}

// registerModel is a register with compare-and-set, per key; "" is absent.
var registerModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		out := make([][]porcupine.Operation, registerKeys)
		for _, op := range history {
			k := int(op.Input.(registerInput).key[1] - '0')
			out[k] = append(out[k], op)
		}
		return out
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(string), input.(registerInput), output.(registerOutput)
		switch {
		case in.write:
			return true, in.value
		case in.cas && (out.done || out.unknown && s == in.old):
			// One with an unknown outcome that did nothing happened at the end of time.
			return s == in.old, in.value
		case out.unknown:
			return true, s
		}
		return out.value == s, s
	},
}
