package proof

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// storm is what became of operations that were begun without waiting for any.
type storm struct {
	under, good, refused, odd atomic.Int64
	example                   atomic.Pointer[string]
}

// ended counts an operation. Whatever is not carried out says so by its type.
func (s *storm) ended(err error) {
	defer s.under.Add(-1)
	switch {
	case err == nil:
		s.good.Add(1)
	case errors.Is(err, client.ErrOverloaded), errors.Is(err, client.ErrTimeout), errors.Is(err, client.ErrUnknownOutcome), errors.Is(err, client.ErrUnavailable):
		s.refused.Add(1)
	default:
		s.odd.Add(1)
		text := err.Error()
		s.example.CompareAndSwap(nil, &text)
	}
}

// TestOverloadIsRefusedAndForgotten begins far more puts and appends at once than
// three small nodes can carry out in the time that they are given: what is not
// carried out is refused by a typed error, what was acknowledged is there, memory
// stays bounded, and afterwards an ordinary request succeeds.
func TestOverloadIsRefusedAndForgotten(t *testing.T) {
	const memory = 256 << 20
	c := startCluster(t, 3, clusterOptions{})
	ctx := within(t, 60*time.Second)
	cl, err := client.Connect(ctx, c.clientAddrs(), client.Options{AppendTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := cl.CreateLogs(ctx, "/storm", 1, client.LogParents(), client.LogReplication(&client.Replication{Node: 2})); err != nil {
		t.Fatal(err)
	}
	l, err := cl.Log(ctx, "/storm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(ctx, []byte("first")); err != nil {
		t.Fatal(err)
	}
	const keys, rounds = 500, 60
	var acked [keys]atomic.Int64 // the greatest number that was acknowledged of a key
	var puts, appends storm
	value := strings.Repeat("v", 512)
	for round := range int64(rounds) {
		for k := range keys {
			puts.under.Add(1)
			op := client.RPush(fmt.Appendf(nil, "storm%d", k), []byte(strconv.FormatInt(round, 10)+value))
			cl.Redis().Start(op, time.Now().Add(time.Second), func(_ *client.Result, err error) {
				if err == nil {
					acked[k].Add(1)
				}
				puts.ended(err)
			})
		}
		for range keys {
			appends.under.Add(1)
			l.AppendAsync([]byte(value), func(_ client.LSN, err error) { appends.ended(err) })
		}
	}
	if !eventually(20*time.Second, func() bool { return puts.under.Load() == 0 && appends.under.Load() == 0 }) {
		t.Fatalf("%d puts and %d appends have no end", puts.under.Load(), appends.under.Load())
	}
	for name, s := range map[string]*storm{"puts": &puts, "appends": &appends} {
		if s.odd.Load() > 0 {
			t.Errorf("%d %s ended neither well nor refused: %s", s.odd.Load(), name, *s.example.Load())
		}
		t.Logf("%s: %d good, %d refused", name, s.good.Load(), s.refused.Load())
	}
	if puts.refused.Load()+appends.refused.Load() == 0 {
		t.Error("nothing was refused: this was no storm")
	}
	for _, p := range c.nodes {
		// The allowance is for the program itself and what its runtime has yet to give back.
		if n := p.resident(); n > memory+memory/2 {
			t.Errorf("node %d has %d MiB resident, --memory is %d MiB", p.Index, n>>20, memory>>20)
		}
	}
	afterTheStorm(t, ctx, cl, l)
	for k := range keys {
		var r *client.Result
		if !eventually(10*time.Second, func() bool {
			r, err = cl.Redis().Do(ctx, client.LLen(fmt.Appendf(nil, "storm%d", k)))
			return err == nil
		}) {
			t.Fatal(err)
		}
		if r.Int < acked[k].Load() {
			t.Errorf("key %d has %d values, %d were acknowledged", k, r.Int, acked[k].Load())
		}
	}
	found := readRange(t, l, oldest, tailOf(t, l), 20*time.Second, nil)
	if int64(found.records) < appends.good.Load() {
		t.Errorf("the log holds %d records, %d were acknowledged", found.records, appends.good.Load())
	}
}

// afterTheStorm demands that an ordinary request succeeds.
func afterTheStorm(t *testing.T, ctx context.Context, cl *client.Client, l *client.Log) {
	t.Helper()
	var last error
	if !eventually(10*time.Second, func() bool {
		_, last = cl.Redis().Do(ctx, client.Set([]byte("after"), []byte("v"), client.SetOptions{}))
		return last == nil
	}) {
		t.Errorf("a put after the storm: %v", last)
	}
	if !eventually(10*time.Second, func() bool {
		_, last = l.Append(ctx, []byte("after"))
		return last == nil
	}) {
		t.Errorf("an append after the storm: %v", last)
	}
}

// resident is how much memory the process has.
func (p *process) resident() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return n << 10
		}
	}
	p.t.Fatal("no VmRSS")
	return 0
}
