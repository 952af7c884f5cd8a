package check

import (
	"fmt"
	"slices"
	"sort"
)

// ListTxn appends to lists or reads lists, all at once.
type ListTxn struct {
	Op
	Appends []ListAppend
	Reads   []ListRead
}

// ListAppend puts a value, which nobody else appends, at the end of a list;
// Length is the answer.
type ListAppend struct {
	List   int
	Value  int64
	Length int64
}

// ListRead is a whole list.
type ListRead struct {
	List   int
	Values []int64
}

func (t *ListTxn) String() string {
	return fmt.Sprintf("client %d [%s, %s] outcome %d appends %v reads %v", t.Client, t.Call, t.Return, t.Outcome, t.Appends, t.Reads)
}

// Lists checks a history of appends and reads for strict serializability: all
// reads of a list are beginnings of one order, and what depended on what, with
// what was over before what, has no cycle.
func Lists(txns []*ListTxn) error {
	g := listGraph{orders: make(map[int][]int64), by: make(map[int64]*ListTxn)}
	for _, t := range txns {
		for _, a := range t.Appends {
			g.by[a.Value] = t
		}
	}
	if err := g.order(txns); err != nil {
		return err
	}
	if err := g.positions(txns); err != nil {
		return err
	}
	return g.cycle(txns)
}

type listGraph struct {
	lists  []int           // ascending
	orders map[int][]int64 // the longest that was read
	by     map[int64]*ListTxn
	nodes  []*ListTxn
	index  map[*ListTxn]int
	edges  [][]edge
}

type edge struct {
	to  int
	why string
}

// order finds each list's order and reads that do not fit it.
func (g *listGraph) order(txns []*ListTxn) error {
	for _, t := range txns {
		for _, r := range t.Reads {
			if t.Outcome != OK {
				continue
			}
			if _, ok := g.orders[r.List]; !ok {
				g.lists = append(g.lists, r.List)
			}
			if len(r.Values) >= len(g.orders[r.List]) {
				g.orders[r.List] = r.Values
			}
		}
	}
	sort.Ints(g.lists)
	for _, t := range txns {
		for _, r := range t.Reads {
			if o := g.orders[r.List]; t.Outcome == OK && !slices.Equal(r.Values, o[:len(r.Values)]) {
				return fmt.Errorf("list %d was %v for client %d at %s and %v for another: no one order", r.List, r.Values, t.Client, t.Return, o)
			}
		}
	}
	for _, l := range g.lists {
		seen := make(map[int64]bool)
		for _, v := range g.orders[l] {
			switch t := g.by[v]; {
			case t == nil:
				return fmt.Errorf("list %d holds %d, which nobody appended", l, v)
			case t.Outcome == None:
				return fmt.Errorf("list %d holds %d, whose append was refused: %s", l, v, t)
			case seen[v]:
				return fmt.Errorf("list %d holds %d twice", l, v)
			}
			seen[v] = true
		}
	}
	return nil
}

// positions compares the lengths that appends were told with where they stand.
func (g *listGraph) positions(txns []*ListTxn) error {
	for _, t := range txns {
		if t.Outcome != OK {
			continue
		}
		for _, a := range t.Appends {
			o, known := g.orders[a.List]
			if !known {
				continue
			}
			if i := slices.Index(o, a.Value); i >= 0 && int64(i+1) != a.Length {
				return fmt.Errorf("list %d: %d was told to be number %d and is number %d", a.List, a.Value, a.Length, i+1)
			} else if i < 0 && a.Length <= int64(len(o)) {
				return fmt.Errorf("list %d: %d was acknowledged as number %d, which is %d: %s", a.List, a.Value, a.Length, o[a.Length-1], t)
			}
		}
	}
	return nil
}

// cycle builds the graph of dependencies and looks for a way round.
func (g *listGraph) cycle(txns []*ListTxn) error {
	g.index = make(map[*ListTxn]int)
	for _, t := range txns {
		if t.Outcome == None || t.Outcome == Unknown && len(t.Appends) == 0 {
			continue
		}
		g.index[t] = len(g.nodes)
		g.nodes = append(g.nodes, t)
	}
	g.edges = make([][]edge, len(g.nodes))
	for _, l := range g.lists {
		o := g.orders[l]
		for i := 1; i < len(o); i++ {
			g.add(g.by[o[i-1]], g.by[o[i]], "its append came before in the list")
		}
	}
	for _, t := range g.nodes {
		for _, r := range t.Reads {
			o, n := g.orders[r.List], len(r.Values)
			if n > 0 {
				g.add(g.by[o[n-1]], t, "its append was read")
			}
			if n < len(o) {
				g.add(t, g.by[o[n]], "its read missed the append")
			}
		}
	}
	for i, a := range g.nodes {
		for j, b := range g.nodes {
			if i != j && a.before(&b.Op) {
				g.add(a, b, "it was over before the other began")
			}
		}
	}
	return g.findCycle()
}

func (g *listGraph) add(a, b *ListTxn, why string) {
	if i, j := g.index[a], g.index[b]; a != b && g.nodes[i] == a && g.nodes[j] == b {
		g.edges[i] = append(g.edges[i], edge{j, why})
	}
}

// findCycle walks the graph in depth, without recursion, and describes the first
// way back that it meets.
func (g *listGraph) findCycle() error {
	const (
		fresh = iota
		open
		done
	)
	state := make([]uint8, len(g.nodes))
	next := make([]int, len(g.nodes))
	for root := range g.nodes {
		if state[root] != fresh {
			continue
		}
		path := []int{root}
		state[root] = open
		for len(path) > 0 {
			at := path[len(path)-1]
			if next[at] == len(g.edges[at]) {
				state[at] = done
				path = path[:len(path)-1]
				continue
			}
			e := g.edges[at][next[at]]
			next[at]++
			switch state[e.to] {
			case fresh:
				state[e.to] = open
				path = append(path, e.to)
			case open:
				return g.describe(path[slices.Index(path, e.to):])
			}
		}
	}
	return nil
}

func (g *listGraph) describe(path []int) error {
	out := "a cycle of dependencies:"
	for k, i := range path {
		to := path[(k+1)%len(path)]
		why := ""
		for _, e := range g.edges[i] {
			if e.to == to {
				why = e.why
				break
			}
		}
		out += fmt.Sprintf("\n  %s: %s", g.nodes[i], why)
		if k > 8 {
			out += "\n  ..."
			break
		}
	}
	return fmt.Errorf("%s", out)
}
