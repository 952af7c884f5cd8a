package logs

import (
	"errors"
	"testing"

	"github.com/braiddb/braid/internal/logs"
)

// TestOrderIsJudged: what is behind an append that began, for the last time, after it is
// found, in one batch too; what was begun again behind others may be anywhere behind them.
func TestOrderIsJudged(t *testing.T) {
	e1, e2 := logs.MakeLSN(1, 1), logs.MakeLSN(2, 1)
	for name, c := range map[string]struct {
		begun   []uint64 // appends, each time that one begins
		at      map[string]logs.LSN
		told    map[logs.LSN][]string
		broken  bool
		crossed bool
	}{
		"in order":              {begun: []uint64{1, 2}, at: map[string]logs.LSN{"1": e1, "2": e2}, crossed: true},
		"out of order":          {begun: []uint64{1, 2}, at: map[string]logs.LSN{"1": e2, "2": e1}, broken: true},
		"behind two":            {begun: []uint64{1, 2, 3}, at: map[string]logs.LSN{"1": e2, "2": e2 + 1, "3": e1}, broken: true},
		"begun again":           {begun: []uint64{1, 2, 1}, at: map[string]logs.LSN{"1": e2, "2": e1}},
		"begun again, in front": {begun: []uint64{1, 2, 1, 3}, at: map[string]logs.LSN{"1": e2 + 1, "2": e1, "3": e2}, broken: true},
		"given up between":      {begun: []uint64{1, 2, 3}, at: map[string]logs.LSN{"1": e1, "3": e1 + 1}},
		"in a batch":            {begun: []uint64{1, 2}, at: map[string]logs.LSN{"1": e1, "2": e1}, told: map[logs.LSN][]string{e1: {"1", "2"}}},
		"in a batch, reversed":  {begun: []uint64{1, 2}, at: map[string]logs.LSN{"1": e1, "2": e1}, told: map[logs.LSN][]string{e1: {"2", "1"}}, broken: true},
	} {
		p := &producer{}
		for _, n := range c.begun {
			p.sends(n, string('0'+rune(n)))
		}
		crossed, err := (&truth{told: c.told}).inOrder(p, c.at)
		if errors.Is(err, errOrder) != c.broken || !c.broken && crossed != c.crossed {
			t.Errorf("%s: %v, crossed %v", name, err, crossed)
		}
	}
}
