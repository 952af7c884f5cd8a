package check

import (
	"strings"
	"testing"
	"time"
)

func TestLog(t *testing.T) {
	op := func(payload string, lsn uint64, outcome Outcome, call, end time.Duration) *LogOp {
		return &LogOp{Op: Op{Client: 1, Call: call, Return: end, Outcome: outcome}, Payload: payload, LSN: lsn}
	}
	ops := []*LogOp{op("a", 5, OK, 1, 2), op("b", 0, Unknown, 3, 4), op("c", 0, None, 5, 6), op("d", 9, OK, 7, 8)}
	for _, c := range []struct {
		name, want string
		read       []LogRecord
		more       *LogOp
	}{
		{name: "without what nobody knows", read: []LogRecord{{5, "a"}, {9, "d"}}},
		{name: "with it", read: []LogRecord{{5, "a"}, {6, "b"}, {9, "d"}}},
		{name: "lost", want: `"a" was acknowledged`, read: []LogRecord{{9, "d"}}},
		{name: "moved", want: `"a" was acknowledged`, read: []LogRecord{{4, "a"}, {9, "d"}}},
		{name: "twice", want: "twice", read: []LogRecord{{5, "a"}, {6, "b"}, {7, "b"}, {9, "d"}}},
		{name: "refused", want: "that it failed", read: []LogRecord{{5, "a"}, {6, "c"}, {9, "d"}}},
		{name: "invented", want: "nobody appended", read: []LogRecord{{5, "a"}, {6, "x"}, {9, "d"}}},
		{name: "back", want: "after 9", read: []LogRecord{{9, "d"}, {5, "a"}}},
		{name: "out of order", want: "and then", read: []LogRecord{{5, "a"}, {8, "e"}, {9, "d"}}, more: op("e", 8, OK, 9, 10)},
	} {
		all := ops
		if c.more != nil {
			all = append(all[:len(all):len(all)], c.more)
		}
		if err := Log(all, c.read); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestSameLog(t *testing.T) {
	a := []LogRecord{{5, "a"}, {9, "d"}}
	if err := SameLog(a, a[:1]); err != nil {
		t.Error(err)
	}
	if SameLog(a, []LogRecord{{5, "a"}, {9, "e"}}) == nil {
		t.Error("two readers were told different things")
	}
}
