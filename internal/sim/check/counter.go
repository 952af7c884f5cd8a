package check

import (
	"fmt"
	"sort"
)

// CounterOp adds one to a counter, or reads it; Value is the answer.
type CounterOp struct {
	Op
	Add   bool
	Value int64
}

// Counter checks that every acknowledged increment counts once, none twice, and
// that what was seen later is not less.
func Counter(ops []*CounterOp) error {
	seen := make(map[int64]*CounterOp)
	var sure, maybe int64
	var answered []*CounterOp
	for _, o := range ops {
		switch {
		case o.Outcome == OK && o.Add:
			if was := seen[o.Value]; was != nil {
				return fmt.Errorf("the counter became %d for client %d at [%s, %s] and for client %d at [%s, %s]",
					o.Value, was.Client, was.Call, was.Return, o.Client, o.Call, o.Return)
			}
			seen[o.Value] = o
			sure++
		case o.Outcome == Unknown && o.Add:
			maybe++
		}
		if o.Outcome == OK {
			answered = append(answered, o)
		}
	}
	// The highest value that was over before an operation began is its floor.
	byEnd := append([]*CounterOp(nil), answered...)
	sort.SliceStable(byEnd, func(i, j int) bool { return byEnd[i].Return < byEnd[j].Return })
	sort.SliceStable(answered, func(i, j int) bool { return answered[i].Call < answered[j].Call })
	var floor *CounterOp
	next := 0
	for _, o := range answered {
		for next < len(byEnd) && byEnd[next].Return < o.Call {
			if floor == nil || byEnd[next].Value > floor.Value {
				floor = byEnd[next]
			}
			next++
		}
		if floor != nil && (o.Value < floor.Value || o.Add && o.Value == floor.Value) {
			return fmt.Errorf("the counter was %d for client %d at %s, after it had been %d for client %d at %s",
				o.Value, o.Client, o.Call, floor.Value, floor.Client, floor.Return)
		}
		if o.Value > sure+maybe {
			return fmt.Errorf("the counter is %d for client %d at %s, %d increments were acknowledged and %d may have happened",
				o.Value, o.Client, o.Return, sure, maybe)
		}
	}
	return nil
}

// CounterEnd checks what is read of a counter when nothing is under way any more.
func CounterEnd(ops []*CounterOp, end int64) error {
	var sure, maybe int64
	for _, o := range ops {
		if o.Add && o.Outcome == OK {
			sure++
		}
		if o.Add && o.Outcome == Unknown {
			maybe++
		}
	}
	if end < sure || end > sure+maybe {
		return fmt.Errorf("the counter ends at %d, %d increments were acknowledged and %d may have happened", end, sure, maybe)
	}
	return nil
}
