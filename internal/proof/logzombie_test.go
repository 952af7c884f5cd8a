package proof

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// zombieStop is how long the sequencer's node sleeps: longer than it takes to be
// held for dead.
const zombieStop = 5 * time.Second

// A pipeline appends many records of one session at a time, each with its number.
type pipeline struct {
	t     testing.TB
	log   *client.Log
	name  string
	mu    sync.Mutex
	lsns  map[int]client.LSN
	next  int
	ended bool
	wg    sync.WaitGroup
}

func (p *pipeline) payload(n int) string { return fmt.Sprintf("%s.%d", p.name, n) }

// begin appends the next record, and another when it is answered.
func (p *pipeline) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		p.wg.Done()
		return
	}
	n := p.next
	p.next++
	p.log.AppendAsync([]byte(p.payload(n)), func(lsn client.LSN, err error) {
		if err != nil {
			p.t.Errorf("append %s: %v", p.payload(n), err)
		}
		p.mu.Lock()
		p.lsns[n] = lsn
		p.mu.Unlock()
		time.AfterFunc(5*time.Millisecond, p.begin)
	})
}

func startPipeline(t testing.TB, l *client.Log, name string, width int) *pipeline {
	p := &pipeline{t: t, log: l, name: name, lsns: map[int]client.LSN{}}
	p.wg.Add(width)
	for range width {
		p.begin()
	}
	return p
}

// answered is how many appends were.
func (p *pipeline) answered() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lsns)
}

func (p *pipeline) stop() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.wg.Wait()
}

// inOrder demands that the session's records follow each other as they were begun,
// from one epoch to the next.
func (p *pipeline) inOrder() {
	p.t.Helper()
	epochs := 1
	for n := 1; n < p.next; n++ {
		a, b := p.lsns[n-1], p.lsns[n]
		if a >= b {
			p.t.Errorf("%s is at %s, and %s, begun after it, at %s", p.payload(n-1), a, p.payload(n), b)
		}
		if a.Epoch() < b.Epoch() {
			epochs++
		}
	}
	if p.t.Logf("%s: %d appends in %d epochs", p.name, p.next, epochs); epochs == 1 {
		p.t.Errorf("%s has seen no failover", p.name)
	}
}

// A direct append goes to a node whatever the cluster thinks of it.
type direct struct {
	payload string
	resp    *wire.AppendResponse
	err     error
}

// sendDirect appends to one node, with no client library to look after it, and says
// it may keep the append to itself. Every other one belongs to a session.
func sendDirect(p *process, pool *rpc.Pool, log client.LogID, prefix string, n int, wg *sync.WaitGroup) []*direct {
	session := rand.Uint64()
	out := make([]*direct, n)
	for i := range out {
		d := &direct{payload: fmt.Sprintf("%s.%d", prefix, i), resp: new(wire.AppendResponse)}
		out[i] = d
		req := &wire.AppendRequest{Log: uint64(log), Payload: []byte(d.payload), Checksum: logs.Checksum([]byte(d.payload)), Count: 1, Flags: logs.AppendNoRedirect}
		if i%2 == 0 {
			req.Producer, req.Sequence, req.FirstRunning = session, uint64(i/2+1), 1
		}
		wg.Add(1)
		pool.To(p.ClientAddr()).Start(time.Now().Add(30*time.Second), rpc.MethodAppend, req, d.resp, func(err error) {
			d.err = err
			wg.Done()
		})
	}
	return out
}

// checkDirect compares what was answered with what the log holds.
func checkDirect(t testing.TB, all []*direct, at map[string]client.LSN) {
	t.Helper()
	told := map[string]int{}
	for _, d := range all {
		lsn, there := at[d.payload]
		switch {
		case d.err != nil:
			told["lost: "+d.err.Error()]++
			continue
		case d.resp.Status == wire.LogStatus_LOG_STATUS_OK && lsn != client.LSN(d.resp.Lsn):
			t.Errorf("%s was acknowledged as %s, and is at %s", d.payload, client.LSN(d.resp.Lsn), lsn)
		case d.resp.Status != wire.LogStatus_LOG_STATUS_OK && d.resp.StoredAs == 0 && there:
			t.Errorf("%s was refused (%v), and is at %s", d.payload, d.resp, lsn)
		case d.resp.StoredAs != 0 && there && lsn != client.LSN(d.resp.StoredAs):
			t.Errorf("%s may be at %s, it was said, and is at %s", d.payload, client.LSN(d.resp.StoredAs), lsn)
		}
		name := strings.TrimPrefix(d.resp.Status.String(), "LOG_STATUS_")
		if d.resp.StoredAs != 0 {
			name += " perhaps stored"
		}
		told[name]++
	}
	t.Logf("answers of the node that slept: %v", told)
}

// TestZombieSequencer stops the node that numbers a log, with appends in flight and
// more on their way to it, until another has taken the log over, and lets it go on.
// Nothing that it acknowledges then may be lost or come twice, nothing that it
// refuses may be there, and no LSN has two contents.
func TestZombieSequencer(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{})
	cl := connect(t, c)
	l := makeLog(t, cl, "/zombie")
	if _, err := l.Append(within(t, 30*time.Second), []byte("first")); err != nil {
		t.Fatal(err)
	}
	zombie := c.nodes[c.sequencerOf(cl, l)]
	pool := rpc.NewPool(rpc.TCP{}, rpc.PoolOptions{Role: rpc.RoleClient, SilenceMax: time.Minute}) // it waits for one that sleeps
	defer pool.Close()
	epoch := tailOf(t, l).Epoch()

	steady := startPipeline(t, openLog(t, connect(t, c), "/zombie"), "steady", 16)
	var wg sync.WaitGroup
	warm := sendDirect(zombie, pool, l.ID(), "warm", 100, &wg)
	wg.Wait() // there is a connection
	if !eventually(30*time.Second, func() bool { return steady.answered() > 16 }) {
		t.Fatal("the pipeline does not begin")
	}
	inFlight := sendDirect(zombie, pool, l.ID(), "inflight", 300, &wg)
	<-time.After(5 * time.Millisecond)
	zombie.Signal(syscall.SIGSTOP)
	stopped := time.Now()
	whileAsleep := sendDirect(zombie, pool, l.ID(), "asleep", 300, &wg)

	var successor client.LSN
	ctx := within(t, 40*time.Second)
	for n := 0; successor.Epoch() <= epoch && ctx.Err() == nil; n++ {
		op, cancel := context.WithTimeout(ctx, 30*time.Second)
		lsn, err := l.Append(op, []byte(fmt.Sprint("probe.", n)))
		cancel()
		if err != nil {
			t.Fatalf("nobody took the log over: %v", err)
		}
		successor = lsn
	}
	t.Logf("%s was acknowledged %v after the stop", successor, time.Since(stopped).Round(time.Millisecond))
	<-time.After(time.Until(stopped.Add(zombieStop)))
	zombie.Signal(syscall.SIGCONT)
	awake := sendDirect(zombie, pool, l.ID(), "awake", 300, &wg)
	wg.Wait()
	<-time.After(time.Second) // the pipeline meets whoever reigns now
	steady.stop()

	until, err := l.Append(within(t, 30*time.Second), []byte("last"))
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]client.LSN{}
	readRange(t, l, oldest, until, 60*time.Second, func(e client.Entry) {
		if e.IsGap() {
			return
		}
		p := string(e.Record.Payload)
		if other, twice := at[p]; twice {
			t.Errorf("%s is at %s and at %s", p, other, e.Record.LSN)
		}
		at[p] = e.Record.LSN
	})
	for n, lsn := range steady.lsns {
		if at[steady.payload(n)] != lsn {
			t.Errorf("%s was acknowledged as %s, and is at %s", steady.payload(n), lsn, at[steady.payload(n)])
		}
	}
	steady.inOrder()
	checkDirect(t, warm, at)
	checkDirect(t, inFlight, at)
	checkDirect(t, whileAsleep, at)
	checkDirect(t, awake, at)
	for _, d := range whileAsleep {
		if lsn := client.LSN(d.resp.Lsn); d.err == nil && lsn != 0 && lsn.Epoch() <= epoch {
			t.Errorf("%s was acknowledged as %s by a node that had been succeeded by %s", d.payload, lsn, successor)
		}
	}
	c.checkReplication(cl, l)
}
