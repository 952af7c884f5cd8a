package proof

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
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

// shortPause is how long a node may sleep, under load, without being held for dead by
// anybody: a little less than the three seconds that are promised.
const shortPause = 2900 * time.Millisecond

// TestNobodyDiesOfAShortPause stops the node that numbers a log, and another one that
// stores it, under load, for just less than what kills: nobody takes the log over. Then
// the node is cut off from the others. It says so to whoever asks, and appends go on
// elsewhere.
func TestNobodyDiesOfAShortPause(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{links: true})
	cl := connect(t, c)
	l := makeLog(t, cl, "/pauses/log")
	h := newAppendHistory(t)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() { h.appendOn(ctx, l, w) })
	}
	defer wg.Wait()
	defer stop()
	if !eventually(20*time.Second, func() bool { return h.acknowledged() > 100 }) {
		t.Fatal("nothing is appended")
	}
	at := c.sequencerOf(cl, l)
	for _, i := range []int{at, (at + 1) % 3} {
		first := h.highest().Epoch()
		id := c.nodeID(cl, i)
		said := c.watch(fmt.Sprintf("SELECT node_id, state FROM gossip WHERE target_node_id = %d AND node_id <> %d", id, id), c.nodes[(i+1)%3], c.nodes[(i+2)%3])
		slept, short := c.nodes[i].sleep(shortPause)
		states := said()
		if !eventually(20*time.Second, func() bool { return c.allAlive(cl) }) {
			t.Fatalf("after a pause of %v of node %d: %v", slept, i+1, c.gossip(cl))
		}
		before := h.acknowledged()
		if !eventually(20*time.Second, func() bool { return h.acknowledged() > before+50 }) {
			t.Fatalf("after a pause of %v of node %d nothing is appended", slept, i+1)
		}
		t.Logf("node %d slept for %v; %d acknowledged", i+1, slept.Round(time.Millisecond), h.acknowledged())
		asked := len(states)
		states = slices.DeleteFunc(states, func(r []any) bool { return r[1] == "ALIVE" })
		if asked == 0 || short && len(states) > 0 {
			t.Errorf("node %d slept for %v; of %d answers these do not say that it lives: %v", i+1, slept, asked, states)
		}
		if now := h.highest().Epoch(); short && now != first {
			t.Errorf("node %d slept for %v, and the log went on from epoch %d to %d", i+1, slept, first, now)
		}
	}
	c.isolated(cl, l, h)
	stop()
	wg.Wait()
	h.check(l)
	c.checkReplication(cl, l)
}

// sleep stops a process for a time, and says for how long it did, and whether that
// was less than what kills: on a machine with much to do a signal may be late.
func (p *process) sleep(d time.Duration) (slept time.Duration, short bool) {
	begin := time.Now()
	p.Signal(syscall.SIGSTOP)
	<-time.After(d)
	p.Signal(syscall.SIGCONT)
	slept = time.Since(begin)
	return slept, slept < 3*time.Second
}

// watch asks nodes again and again, and does not wait for an answer before it asks once
// more, for one of them may be asleep. stop asks for a second more, and gives all rows.
func (c *cluster) watch(statement string, nodes ...*process) (stop func() [][]any) {
	c.t.Helper()
	var mu sync.Mutex
	var all [][]any
	var asking sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for _, p := range nodes {
		cl, err := client.Open([]string{p.ClientAddr()}, client.Options{})
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { cl.Close() })
		asking.Go(func() {
			for ctx.Err() == nil {
				asking.Go(func() {
					op, done := context.WithTimeout(context.Background(), 900*time.Millisecond)
					defer done()
					if r, err := cl.Query(op, statement); err == nil {
						mu.Lock()
						defer mu.Unlock()
						all = append(all, r.Rows...)
					}
				})
				pause(ctx, 100*time.Millisecond)
			}
		})
	}
	return func() [][]any {
		pause(ctx, time.Second)
		cancel()
		asking.Wait()
		return all
	}
}

// gossip is what each node that answers believes of each.
func (c *cluster) gossip(cl *client.Client) [][]any {
	return rows(c.t, cl, "SELECT node_id, target_node_id, state, isolated FROM gossip ORDER BY node_id, target_node_id")
}

func (c *cluster) allAlive(cl *client.Client) bool {
	all := c.gossip(cl)
	for _, r := range all {
		if r[2] != "ALIVE" || r[3] != "" {
			return false
		}
	}
	return len(all) >= len(c.nodes)*(len(c.nodes)-1)
}

// isolated cuts the node that numbers a log off from all others, until they have
// taken the log over, and looks at what it answers meanwhile.
func (c *cluster) isolated(cl *client.Client, l *client.Log, h *appendHistory) {
	t := c.t
	t.Helper()
	at := c.sequencerOf(cl, l)
	alone, id, first := c.nodes[at], c.nodeID(cl, at), h.highest().Epoch()
	c.links.Isolate(at + 1)
	begin := time.Now()
	did := func(what string) { t.Logf("%s after %v", what, time.Since(begin).Round(time.Millisecond)) }
	ask := func() (wire.LogStatus, string) {
		pool := rpc.NewPool(rpc.TCP{}, rpc.PoolOptions{Role: rpc.RoleClient})
		defer pool.Close()
		payload := []byte("to the one that is alone")
		req := &wire.AppendRequest{Log: uint64(l.ID()), Payload: payload, Checksum: logs.Checksum(payload), Count: 1, Flags: logs.AppendNoRedirect}
		resp := new(wire.AppendResponse)
		if err := pool.To(alone.ClientAddr()).Call(within(t, 2*time.Second), rpc.MethodAppend, req, resp); err != nil {
			return 0, err.Error()
		}
		return resp.Status, resp.Message
	}
	var status wire.LogStatus
	var text string
	if !eventually(30*time.Second, func() bool { status, text = ask(); return status == wire.LogStatus_LOG_STATUS_ISOLATED }) {
		t.Errorf("a node that is cut off answers an append with %s: %s", status, text)
	}
	did("isolated")
	if !strings.Contains(text, "cannot see a majority") {
		t.Errorf("it says no more than %q", text)
	}
	// Its own console has nobody else to turn to, not for the catalog either.
	code, body := request(t, http.MethodPost, "http://"+alone.WebAddr()+"/v1/records/pauses/log?timeout=2s", "by HTTP")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, `"outcome_known":true,"retriable":true`) {
		t.Errorf("by HTTP it answers %d: %s", code, body)
	}
	// What it says of itself in a table, and others of it.
	sh := shell{t, alone.ClientAddr()}
	told := func() string {
		out, _ := sh.command("query", fmt.Sprintf("SELECT DISTINCT isolated FROM gossip WHERE node_id = %d", id), "--format", "json").CombinedOutput()
		return string(out)
	}
	if !eventually(20*time.Second, func() bool { return strings.Contains(told(), `"isolated": "node"`) }) {
		t.Errorf("in the table gossip it says %q", told())
	}
	if !eventually(20*time.Second, func() bool {
		r := rows(t, cl, "SELECT count(*) FROM gossip WHERE target_node_id = %d AND node_id <> %d AND state = 'DEAD' AND isolated = ''", id, id)
		return r[0][0] == int64(2)
	}) {
		t.Errorf("others do not hold it for dead: %v", c.gossip(cl))
	}
	if !eventually(30*time.Second, func() bool { return h.highest().Epoch() > first }) {
		t.Errorf("nobody else took the log over")
	}
	did("succeeded")
	c.links.Heal()
	if !eventually(30*time.Second, func() bool { return c.allAlive(cl) }) {
		t.Errorf("with the links whole again: %v", c.gossip(cl))
	}
	did("healed")
}

// request sends a body to the console port of a node, and gives what is answered.
func request(t testing.TB, method, url, body string) (code int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, 30*time.Second), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
