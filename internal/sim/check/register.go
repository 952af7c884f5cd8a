package check

import (
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// RegisterKind is an operation on a register.
type RegisterKind uint8

const (
	Read   RegisterKind = iota // -> Out
	Write                      // Arg
	Swap                       // Arg, -> Out: what was there
	Create                     // Arg if nothing is there, -> Done
	Cas                        // Arg if Old is there, -> Done
	Delete                     // -> Done: something was there
)

func (k RegisterKind) String() string {
	return [...]string{"read", "write", "swap", "create", "cas", "delete"}[k]
}

// RegisterOp is one operation on a register. Values are above 0; 0 is "nothing
// there".
type RegisterOp struct {
	Op
	Kind     RegisterKind
	Arg, Old int64
	Out      int64
	Done     bool
}

func (o *RegisterOp) String() string {
	return fmt.Sprintf("client %d %s(%d,%d) -> %d %v outcome %d [%s, %s]", o.Client, o.Kind, o.Arg, o.Old, o.Out, o.Done, o.Outcome, o.Call, o.Return)
}

// step is what a register does: whether an answer is possible in a state, and
// the state after.
func (o *RegisterOp) step(state int64) (bool, int64) {
	sure := o.Outcome == OK
	switch o.Kind {
	case Read:
		return !sure || o.Out == state, state
	case Write:
		return true, o.Arg
	case Swap:
		return !sure || o.Out == state, o.Arg
	case Create:
		if state == 0 {
			return !sure || o.Done, o.Arg
		}
		return !sure || !o.Done, state
	case Cas:
		if state == o.Old {
			return !sure || o.Done, o.Arg
		}
		return !sure || !o.Done, state
	default: // Delete
		return !sure || o.Done == (state != 0), 0
	}
}

var register = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, _ any) (bool, any) {
		ok, next := input.(*RegisterOp).step(state.(int64))
		return ok, next
	},
	Equal: func(a, b any) bool { return a.(int64) == b.(int64) },
}

// patience bounds the search for an order of one register's operations.
const patience = 20 * time.Second

// Register checks that the operations on one register have an order that fits
// their answers and the times at which they were under way. decided is false
// where the search took too long.
func Register(ops []*RegisterOp) (decided bool, err error) {
	var history []porcupine.Operation
	for _, o := range ops {
		if o.Outcome == None || o.Outcome == Unknown && o.Kind == Read {
			continue
		}
		history = append(history, porcupine.Operation{ClientId: len(history), Input: o, Call: int64(o.Call), Return: int64(o.end())})
	}
	switch porcupine.CheckOperationsTimeout(register, history, patience) {
	case porcupine.Ok:
		return true, nil
	case porcupine.Unknown:
		return false, nil
	}
	return true, fmt.Errorf("not linearizable: %s", shortest(history))
}

// shortest describes the smallest failing prefix of a history, by calls.
func shortest(history []porcupine.Operation) string {
	sort.SliceStable(history, func(i, j int) bool { return history[i].Return < history[j].Return })
	n := sort.Search(len(history), func(n int) bool {
		return porcupine.CheckOperationsTimeout(register, cutOff(history, n+1), patience) == porcupine.Illegal
	})
	from, out := max(0, n-8), ""
	for _, o := range history[from:min(n+1, len(history))] {
		out += "\n  " + o.Input.(*RegisterOp).String()
	}
	return fmt.Sprintf("the last of these %d answers of %d fits no order:%s", n+1-from, len(history), out)
}

// cutOff is the history as it was when the n-th answer had come: what had no
// answer yet was under way.
func cutOff(history []porcupine.Operation, n int) []porcupine.Operation {
	n = min(n, len(history))
	end := history[n-1].Return
	out := append([]porcupine.Operation(nil), history[:n]...)
	for _, o := range history[n:] {
		if o.Call >= end {
			continue
		}
		open := *o.Input.(*RegisterOp)
		open.Outcome = Unknown
		o.Input, o.Return = &open, math.MaxInt64
		out = append(out, o)
	}
	return out
}
