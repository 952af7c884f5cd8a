package proof

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
)

// A reignRow is what the node that numbers a log says of it.
type reignRow struct {
	node, epoch, since, window int64
	nodeset                    string
}

// reignOf asks for the reign of a log until one is as wanted.
func reignOf(t testing.TB, cl *client.Client, l *client.Log, what string, wanted func(reignRow) bool) (r reignRow) {
	t.Helper()
	if !eventually(20*time.Second, func() bool {
		got := rows(t, cl, "SELECT node_id, epoch, effective_since, window, nodeset FROM sequencers WHERE log_id = %d AND state = 'ACTIVE' ORDER BY epoch DESC", l.ID())
		if len(got) == 0 {
			return false
		}
		g := got[0]
		r = reignRow{g[0].(int64), g[1].(int64), g[2].(int64), g[3].(int64), fmt.Sprint(g[4])}
		return wanted(r)
	}) {
		t.Fatalf("%s: the reign is still %+v", what, r)
	}
	return r
}

// tailWhile reads a log as it grows, and ends behind the LSN that it is told.
func tailWhile(t testing.TB, l *client.Log) (finish func(until client.LSN) *reading) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	told := make(chan client.LSN, 1)
	over := make(chan *reading, 1)
	go func() {
		r := newReading(oldest)
		rd := l.NewReader(client.ReaderOptions{From: oldest})
		defer rd.Close()
		until := ^client.LSN(0)
		for r.next <= until && r.fault == nil {
			select {
			case until = <-told:
				continue
			default:
			}
			step, done := context.WithTimeout(ctx, 100*time.Millisecond)
			e, err := rd.Next(step)
			done()
			switch {
			case err == nil:
				r.take(e)
			case step.Err() == nil || ctx.Err() != nil:
				r.fault = fmt.Errorf("tailing at %s: %w", r.next, err)
			}
		}
		r.flush()
		over <- r
	}()
	return func(until client.LSN) *reading {
		told <- until
		return <-over
	}
}

// withFlag gives the arguments of a node another value of one flag.
func (p *process) withFlag(name, value string) {
	if i := slices.Index(p.Args, name); i >= 0 {
		p.Args = slices.Concat(p.Args[:i], p.Args[i+2:])
	}
	p.Args = append(slices.Clip(p.Args), name, value)
}

// nodeID is how the cluster knows the process.
func (c *cluster) nodeID(cl *client.Client, at int) (id int64) {
	c.t.Helper()
	if !eventually(20*time.Second, func() bool {
		for node, i := range c.nodeIDs(cl) {
			if i == at {
				id = node
			}
		}
		return id != 0
	}) {
		c.t.Fatalf("the cluster does not know node %d", at+1)
	}
	return id
}

// A nodesetLab is a log of three of three nodes, under load from sixteen writers and
// with a reader at its tail, and a fourth node that has not been started.
type nodesetLab struct {
	*cluster
	t     *testing.T
	cl    *client.Client
	log   *client.Log
	begin time.Time
	seen  []reignRow // each reign that differs from the one before
}

// expect waits for a reign as wanted, and demands that the epoch moved if the
// nodeset did, and, of what does not matter to how the log is stored, that it did not.
func (x *nodesetLab) expect(what string, wanted func(reignRow) bool) reignRow {
	x.t.Helper()
	was := x.seen[len(x.seen)-1]
	r := reignOf(x.t, x.cl, x.log, what, wanted)
	x.t.Logf("%.1f s: %s: epoch %d, nodeset %s since %d, on node %d", time.Since(x.begin).Seconds(), what, r.epoch, r.nodeset, r.since, r.node)
	if moved := r.since != was.since; moved && (r.since <= was.epoch || r.epoch < r.since) {
		x.t.Errorf("%s: nodeset %s holds since epoch %d, in epoch %d; before it was epoch %d", what, r.nodeset, r.since, r.epoch, was.epoch)
	} else if !moved && r.nodeset != was.nodeset {
		x.t.Errorf("%s: the nodeset was %s and is %s, in an epoch stored as before", what, was.nodeset, r.nodeset)
	}
	if r != was {
		x.seen = append(x.seen, r)
	}
	return r
}

// same demands that a change made no new epoch.
func (x *nodesetLab) same(what string, wanted func(reignRow) bool) {
	x.t.Helper()
	was := x.seen[len(x.seen)-1]
	if r := x.expect(what, wanted); r.epoch != was.epoch || r.nodeset != was.nodeset {
		x.t.Errorf("%s: epoch %d with %s became %d with %s, and nothing had changed that matters", what, was.epoch, was.nodeset, r.epoch, r.nodeset)
	}
}

// alter changes attributes of the log.
func (x *nodesetLab) alter(settings ...client.LogSetting) {
	x.t.Helper()
	if err := x.cl.AlterLog(within(x.t, 20*time.Second), x.log.Name(), settings...); err != nil {
		x.t.Fatal(err)
	}
}

// steps changes, one after the other, what a log may be stored on.
func (x *nodesetLab) steps() {
	x.t.Helper()
	size := func(n int) func(reignRow) bool {
		return func(r reignRow) bool { return strings.Count(r.nodeset, "N") == n }
	}
	x.alter(client.LogWindow(777))
	x.same("another window", func(r reignRow) bool { return r.window == 777 })
	x.nodes[3].start()
	x.waitReady()
	fourth := x.nodeID(x.cl, 3)
	shard := fmt.Sprintf("N%d:S0", fourth)
	x.alter(client.LogWindow(778)) // by then the sequencer knows of the node
	x.same("a fourth node that the log does not ask for", func(r reignRow) bool { return r.window == 778 })
	x.alter(client.LogNodesetSize(4))
	x.expect("four of four nodes", size(4))

	// A storage node that does not number the log takes no more copies.
	light := x.storageNode(x.cl, x.sequencerOf(x.cl, x.log), 3)
	gone := fmt.Sprintf("N%d:S0", x.nodeID(x.cl, light))
	x.nodes[light].Kill()
	x.nodes[light].withFlag("--storage-weight", "0")
	x.nodes[light].start()
	x.expect("a node without weight", func(r reignRow) bool { return size(3)(r) && !strings.Contains(r.nodeset, gone) })
	x.waitReady()

	// The node that numbers it gives up doing so: another does, on the same nodes.
	at := x.sequencerOf(x.cl, x.log)
	former := x.nodeID(x.cl, at)
	if err := x.nodes[at].Terminate(20 * time.Second); err != nil {
		x.t.Error(err)
	}
	x.nodes[at].withFlag("--roles", "master,tablet,storage")
	x.nodes[at].start()
	was := x.seen[len(x.seen)-1]
	if r := x.expect("another sequencer", func(r reignRow) bool { return r.node != former }); r.nodeset != was.nodeset {
		x.t.Errorf("a sequencer that goes made the nodeset %s of %s", r.nodeset, was.nodeset)
	}
	x.waitReady()

	x.alter(client.LogNodesetSize(2))
	r := x.expect("two nodes", size(2))
	x.t.Logf("the node that was added, %s, is in the last nodeset: %v", shard, strings.Contains(r.nodeset, shard))
}

// TestLogNodesetChanges changes what a log is stored on while sixteen writers append
// to it and a reader tails it: attributes, a node that is added, the weight of one, the
// roles of another. Each nodeset comes with an epoch of its own, what does not matter
// makes none; nothing is lost, nothing is there twice, each writer's records are in
// its order, and what earlier epochs stored is read from where they stored it.
func TestLogNodesetChanges(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 4, clusterOptions{flags: []string{"--lease", "600ms", "--beat", "100ms", "--max-skew", "200ms", "--election-delay", "100ms"}})
	join := strings.Split(c.nodes[0].Args[joinIndex(c.nodes[0].Args)], ",")[:3]
	for i, p := range c.nodes {
		p.Args[joinIndex(p.Args)] = strings.Join(join, ",")
		if i < 3 {
			p.start()
		}
	}
	all := c.nodes
	c.nodes = all[:3]
	c.waitReady()
	cl := connect(t, c)
	l := makeLog(t, cl, "/set", client.LogNodesetSize(3), client.LogFirstID(logOnThree(t)))
	c.nodes = all
	h := newAppendHistory(t)
	if lsn, err := l.Append(within(t, 30*time.Second), []byte("first")); err != nil {
		t.Fatal(err)
	} else {
		h.outcome("first", lsn, nil)
	}
	x := &nodesetLab{cluster: c, t: t, cl: cl, log: l, begin: time.Now(), seen: []reignRow{reignOf(t, cl, l, "at first", func(reignRow) bool { return true })}}

	finish := tailWhile(t, openLog(t, connect(t, c), "/set"))
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	for i := range 2 {
		lw := openLog(t, connect(t, c), "/set")
		for w := range 8 {
			wg.Go(func() { h.appendOn(ctx, lw, 8*i+w) })
		}
	}
	x.steps()
	stop()
	wg.Wait()
	h.check(l)
	tail := tailOf(t, l)
	tailed := finish(tail)
	if tailed.fault != nil {
		t.Error(tailed.fault)
	}
	if again := readRange(t, l, oldest, tail, 60*time.Second, nil); again.hash() != tailed.hash() {
		t.Errorf("read again, the log differs: %d records, gaps %v; tailed %d, %v", again.records, again.gaps, tailed.records, tailed.gaps)
	}
	c.checkReplication(cl, l)
	x.remembered()
}

// logOnThree is the first log that stays on three nodes when a fourth is there.
func logOnThree(t *testing.T) client.LogID {
	t.Helper()
	v := &logs.Cluster{}
	for id := catalog.NodeID(1); id <= 4; id++ {
		v.Nodes = append(v.Nodes, logs.DescribeNode(&catalog.Node{Id: uint64(id)}, 1, true, false, false))
	}
	for log := client.LogID(1); log < 100; log++ {
		set, err := placement.SelectNodeset(v, &catalog.Replication{Node: 2}, 3, nil, uint64(log))
		if err != nil {
			t.Fatal(err)
		}
		if set[2].Shard.Node() == 3 {
			return log
		}
	}
	t.Fatal("every log wants the fourth node")
	return 0
}

// remembered demands that the metadata log has every nodeset that a reign had.
func (x *nodesetLab) remembered() {
	x.t.Helper()
	epochs, err := x.log.Epochs(within(x.t, 20*time.Second))
	if err != nil {
		x.t.Fatal(err)
	}
	kept := map[int64]string{}
	for _, e := range epochs {
		var words []string
		for _, s := range e.Shards {
			words = append(words, s.String())
		}
		kept[int64(e.Since)] = strings.Join(words, ",")
	}
	for _, r := range x.seen {
		if kept[r.since] != r.nodeset {
			x.t.Errorf("epoch %d was stored on %s since epoch %d; the metadata log has %s there: %v", r.epoch, r.nodeset, r.since, kept[r.since], kept)
		}
	}
}
