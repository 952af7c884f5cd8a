package proof

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// BenchmarkLogFailover kills the node that numbers a log, again and again, and
// measures the longest time without an acknowledged append:
//
//	go test -run '^$' -bench LogFailover -benchtime 50x -timeout 30m ./internal/proof
func BenchmarkLogFailover(b *testing.B) {
	c := startCluster(b, 3, clusterOptions{})
	cl := connect(b, c)
	l := makeLog(b, cl, "/failover")
	var last atomic.Int64 // when an append was acknowledged last
	var gap atomic.Int64  // the longest since it was looked at
	begin := time.Now()
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := l.Append(ctx, []byte("x")); err != nil {
					continue
				}
				now := int64(time.Since(begin))
				if d := now - last.Swap(now); d > gap.Load() {
					gap.Store(d)
				}
				pause(ctx, time.Millisecond)
			}
		})
	}
	var gaps []string
	var longest, sum time.Duration
	for b.Loop() {
		at := c.sequencerOf(cl, l)
		gap.Store(0)
		c.nodes[at].Kill()
		killed := int64(time.Since(begin))
		if !eventually(30*time.Second, func() bool { return last.Load() > killed+int64(50*time.Millisecond) }) {
			b.Fatal("no append was acknowledged within 30 s of the kill")
		}
		d := time.Duration(gap.Load())
		longest, sum = max(longest, d), sum+d
		gaps = append(gaps, fmt.Sprintf("%.2f", d.Seconds()))
		c.nodes[at].start()
		c.waitReady()
	}
	stop()
	wg.Wait()
	slices.Sort(gaps)
	b.Logf("seconds without an acknowledged append: %s", strings.Join(gaps, " "))
	b.ReportMetric(longest.Seconds(), "longest-gap-s")
	b.ReportMetric(sum.Seconds()/float64(b.N), "mean-gap-s")
	b.ReportMetric(0, "ns/op")
}

// live is what the process holds after a collection, in bytes.
func (p *process) live() int {
	p.t.Helper()
	get := func(path string) []byte {
		resp, err := http.Get("http://" + p.WebAddr() + path)
		if err != nil {
			p.t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			p.t.Fatal(err)
		}
		return body
	}
	get("/debug/pprof/heap?gc=1")
	_, rest, _ := strings.Cut(string(get("/metrics")), "\ngo_memstats_heap_alloc_bytes ")
	line, _, _ := strings.Cut(rest, "\n")
	bytes, err := strconv.ParseFloat(line, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return int(bytes)
}

// touchLogs makes n logs of one group, appends to each once, and says how long it
// took and what a log holds of the nodes' memory right then.
func touchLogs(t testing.TB, c *cluster, cl *client.Client, n int) (took time.Duration, bytesEach float64) {
	t.Helper()
	ctx := within(t, 20*time.Minute)
	if _, err := cl.CreateLogs(ctx, "/many", n); err != nil {
		t.Fatal(err)
	}
	before := 0
	for _, p := range c.nodes {
		before += p.memory()
	}
	begin := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 128 {
		wg.Go(func() {
			for !t.Failed() {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return
				}
				l, err := cl.Log(ctx, fmt.Sprintf("/many#%d", i))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := l.Append(ctx, []byte("first")); err != nil {
					t.Errorf("log %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	took = time.Since(begin)
	after := 0
	for _, p := range c.nodes {
		after += p.memory()
	}
	return took, float64(after-before) / float64(n)
}

// BenchmarkManyLogs provisions logs and appends to each, and then leaves them alone:
//
//	go test -run '^$' -bench ManyLogs/100000 -benchtime 1x -timeout 30m ./internal/proof
func BenchmarkManyLogs(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				c := startCluster(b, 3, clusterOptions{})
				cl := connect(b, c)
				before := 0
				for _, p := range c.nodes {
					before += p.live()
				}
				took, each := touchLogs(b, c, cl, n)
				pause(b.Context(), 15*time.Second)
				idle := -before
				for _, p := range c.nodes {
					idle += p.live()
				}
				b.ReportMetric(float64(idle)/float64(n*len(c.nodes)), "idle-B/log/node")
				b.ReportMetric(took.Seconds(), "s")
				b.ReportMetric(float64(n)/took.Seconds(), "activations/s")
				b.ReportMetric(each, "B/log")
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}

// TestManyLogs has 2,000 logs made and appended to: each has its own sequencer, one
// of three nodes, and its own epoch; what they hold of memory is bounded.
func TestManyLogs(t *testing.T) {
	t.Parallel()
	const n = 2000
	c := startCluster(t, 3, clusterOptions{})
	cl := connect(t, c)
	took, each := touchLogs(t, c, cl, n)
	t.Logf("%d logs in %.1f s: %.0f activations/s, %.0f bytes of memory each on all nodes together", n, took.Seconds(), n/took.Seconds(), each)
	r := rows(t, cl, "SELECT count(DISTINCT log_id), count(DISTINCT node_id) FROM sequencers WHERE state = 'ACTIVE'")
	if r[0][0] != int64(n) || r[0][1] != int64(3) {
		t.Errorf("%v logs have sequencers, on %v nodes", r[0][0], r[0][1])
	}
	if each > 64<<10 {
		t.Errorf("a log holds %.0f bytes", each)
	}
	for _, i := range []int{0, n / 2, n - 1} {
		l := openLog(t, cl, fmt.Sprintf("/many#%d", i))
		if got := readRange(t, l, oldest, tailOf(t, l), 20*time.Second, nil); got.records != 1 {
			t.Errorf("log %d has %d records", i, got.records)
		}
		c.checkReplication(cl, l)
	}
}
