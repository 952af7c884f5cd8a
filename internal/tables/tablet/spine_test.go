package tablet

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/braiddb/braid/internal/wire"
)

// TestSpine plays the conversations of testdata/spine: what is asked of a tablet
// and what it answers, with its locks and what waits in the log between.
func TestSpine(t *testing.T) {
	datadriven.Walk(t, "testdata/spine", func(t *testing.T, path string) {
		p := &play{r: newReplica(t, newWorld(), Options{}), asked: map[string]*pending{}}
		p.r.group.batch = 1
		datadriven.RunTest(t, path, p.say)
	})
}

type play struct {
	r     *replica
	asked map[string]*pending
}

func (p *play) say(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "write":
		var name string
		var id, first, client uint64
		var patience int
		d.ScanArgs(t, "name", &name)
		d.MaybeScanArgs(t, "client", &client)
		d.MaybeScanArgs(t, "id", &id)
		first = id
		d.MaybeScanArgs(t, "first", &first)
		d.MaybeScanArgs(t, "seconds", &patience)
		req := anonymous(parseOps(t, d.Input)...)
		if client != 0 {
			req = named(byte(client), id, first, req.Ops...)
		}
		p.asked[name] = p.r.begin(req, time.Duration(patience)*time.Second)
	case "read":
		var out []string
		for _, key := range strings.Fields(d.Input) {
			out = append(out, key+": "+p.r.value(key))
		}
		return strings.Join(out, "\n") + "\n"
	case "pause":
		p.r.group.pause()
	case "commit":
		p.r.group.resume()
	case "depose":
		p.r.group.depose()
	case "elect":
		p.r.group.resume()
		p.r.group.elect(p.r.group.term + 1)
	case "restart":
		p.r.restart()
	case "pass":
		var seconds int
		d.ScanArgs(t, "seconds", &seconds)
		p.r.world.pass(time.Duration(seconds) * time.Second)
	default:
		t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	}
	return p.look()
}

// look prints what there is to see, and forgets what is answered.
func (p *play) look() string {
	var names []string
	for name := range p.asked {
		names = append(names, name)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		answer := p.asked[name].String()
		if answer != "-" {
			delete(p.asked, name)
		}
		fmt.Fprintf(&b, "%s: %s\n", name, strings.Replace(answer, "-", "waits", 1))
	}
	if s := p.r.Status(); s.LockedPaths > 0 {
		fmt.Fprintf(&b, "[%d paths locked, %d parked, %d in the log]\n", s.LockedPaths, s.ParkedWrites, p.r.group.waiting())
	}
	if b.Len() == 0 {
		return "ok\n"
	}
	return b.String()
}

func parseOps(t *testing.T, input string) (ops []*wire.Op) {
	for _, line := range strings.Split(strings.TrimSpace(input), "\n") {
		f := strings.Fields(line)
		number := func(i int) int64 {
			n, err := strconv.ParseInt(f[i], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		switch f[0] {
		case "set":
			ops = append(ops, set(f[1], f[2]))
		case "setnx":
			ops = append(ops, setNX(f[1], f[2]))
		case "incr":
			ops = append(ops, incr(f[1], number(2)))
		case "get":
			ops = append(ops, get(f[1]))
		case "del":
			ops = append(ops, op(wire.OpDelete, f[1]))
		case "check":
			ops = append(ops, check(f[1], number(2)))
		case "truncate":
			ops = append(ops, op(wire.OpTruncate, ""))
		default:
			t.Fatalf("unknown operation %q", line)
		}
	}
	return ops
}
