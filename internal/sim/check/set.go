package check

import (
	"fmt"
	"slices"
)

// SetOp adds a member that nobody else adds, or reads all.
type SetOp struct {
	Op
	Add     int64   // 0: a read
	Members []int64 // of a read, ascending
}

// Set checks that a read holds every member whose addition was acknowledged
// before it began, and none that nobody tried to add before it ended.
func Set(ops []*SetOp) error {
	var adds, reads []*SetOp
	tried := make(map[int64]*SetOp)
	for _, o := range ops {
		switch {
		case o.Add != 0:
			adds = append(adds, o)
			tried[o.Add] = o
		case o.Outcome == OK:
			reads = append(reads, o)
		}
	}
	for _, r := range reads {
		for _, m := range r.Members {
			switch a := tried[m]; {
			case a == nil:
				return fmt.Errorf("the set holds %d at %s, which nobody added", m, r.Return)
			case a.Outcome == None:
				return fmt.Errorf("the set holds %d at %s, whose addition was refused", m, r.Return)
			case a.Call > r.Return:
				return fmt.Errorf("the set holds %d at %s, before it was added at %s", m, r.Return, a.Call)
			}
		}
		for _, a := range adds {
			if a.before(&r.Op) {
				if _, ok := slices.BinarySearch(r.Members, a.Add); !ok {
					return fmt.Errorf("the set lacks %d at [%s, %s], acknowledged at %s", a.Add, r.Call, r.Return, a.Return)
				}
			}
		}
	}
	return nil
}
