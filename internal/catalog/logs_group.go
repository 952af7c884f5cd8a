package catalog

import "iter"

// IDRange is the ids [First, Last].
type IDRange struct{ First, Last uint64 }

// Ranges yields the ids of a group's logs, in the order of their numbers.
func (g *LogGroup) Ranges() iter.Seq[IDRange] {
	return func(yield func(IDRange) bool) {
		if !yield(IDRange{g.FirstLog, g.LastLog}) {
			return
		}
		for _, r := range g.More {
			if !yield(IDRange{r.GetFirst(), r.GetLast()}) {
				return
			}
		}
	}
}

// Logs is how many logs the group has.
func (g *LogGroup) Logs() (n uint64) {
	for r := range g.Ranges() {
		n += r.Last - r.First + 1
	}
	return n
}

// Log is the id of the group's log of a number; the number is below Logs.
func (g *LogGroup) Log(number uint64) uint64 {
	for r := range g.Ranges() {
		if count := r.Last - r.First + 1; number < count {
			return r.First + number
		} else {
			number -= count
		}
	}
	panic("BUG: a log's number beyond its group")
}

// resized is the group with as many logs: it loses those of the highest numbers,
// or gains ids from next on. It gives the next id that is free after it.
func (g *LogGroup) resized(logs, next uint64) (*LogGroup, uint64) {
	out := g.CloneVT()
	out.More = nil
	left, first := logs, true
	add := func(r IDRange) {
		switch {
		case first:
			out.FirstLog, out.LastLog, first = r.First, r.Last, false
		case len(out.More) == 0 && out.LastLog+1 == r.First:
			out.LastLog = r.Last
		case len(out.More) > 0 && out.More[len(out.More)-1].Last+1 == r.First:
			out.More[len(out.More)-1].Last = r.Last
		default:
			out.More = append(out.More, &LogRange{First: r.First, Last: r.Last})
		}
		left -= r.Last - r.First + 1
	}
	for r := range g.Ranges() {
		if left == 0 {
			break
		}
		add(IDRange{r.First, min(r.Last, r.First+left-1)})
	}
	if left > 0 {
		grown := IDRange{next, next + left - 1}
		next = grown.Last + 1
		add(grown)
	}
	return out, next
}
