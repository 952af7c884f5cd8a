package proof

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// What a node says of its log shard's doubt.
const (
	saysDoubt  = "copies or seals may be lost"
	saysSure   = "nothing that was acknowledged is in doubt any more"
	saysGiveUp = "may have lost are given up"
)

// said says whether a process has logged something since its log had a length.
func (p *process) said(since int64, words string) bool {
	b, _ := os.ReadFile(p.Log)
	return int64(len(b)) > since && strings.Contains(string(b[since:]), words)
}

func (p *process) logLength() int64 {
	i, err := os.Stat(p.Log)
	if err != nil {
		p.t.Fatal(err)
	}
	return i.Size()
}

// spoilTail takes the last groups of a stopped node's journal away and leaves in
// their place what may be torn or may be lost. It gives where the node's log ends.
func spoilTail(t *testing.T, p *process, groups int) int64 {
	t.Helper()
	if err := p.TearTail(groups); err != nil {
		t.Fatal(err)
	}
	return p.logLength()
}

// A doubtProof is a log on a cluster of three, and what was appended to it.
type doubtProof struct {
	t  *testing.T
	c  *cluster
	cl *client.Client
	l  *client.Log
	h  *appendHistory
	at time.Time
}

func newDoubtProof(t *testing.T) *doubtProof {
	d := &doubtProof{t: t, c: startCluster(t, 3, clusterOptions{flags: []string{"--lease", "1s", "--election-delay", "200ms"}}), h: newAppendHistory(t), at: time.Now()}
	d.cl = connect(t, d.c)
	d.l = makeLog(t, d.cl, "/doubt", client.LogStickyCopysets(false))
	d.did("made")
	return d
}

// did says how long a part took.
func (d *doubtProof) did(what string) {
	d.t.Logf("%s: %v", what, time.Since(d.at).Round(time.Millisecond))
	d.at = time.Now()
}

func (d *doubtProof) write(name string, n int) {
	d.t.Helper()
	for i := range n {
		payload := fmt.Sprintf("%s.%d", name, i)
		lsn, err := d.l.Append(within(d.t, 20*time.Second), []byte(payload))
		d.h.outcome(payload, lsn, err)
		if err != nil {
			d.t.Fatalf("append %s: %v", payload, err)
		}
	}
	d.did("wrote " + name)
}

// provision makes another log, and appends to it.
func (d *doubtProof) provision(path string) {
	d.t.Helper()
	l := makeLog(d.t, d.cl, path)
	if _, err := l.Append(within(d.t, 20*time.Second), []byte(path)); err != nil {
		d.t.Fatalf("append to %s: %v", path, err)
	}
	d.did("provisioned " + path)
}

// ends waits for the end of a node's doubt, and says whether copies were given up.
func (d *doubtProof) ends(p *process, since int64) (weak bool) {
	d.t.Helper()
	if !eventually(20*time.Second, func() bool { return p.said(since, saysSure) }) {
		d.t.Fatalf("the doubt of node %d does not end:\n%s", p.Index, p.Tail())
	}
	if !p.said(since, saysDoubt) {
		d.t.Fatalf("node %d was never in doubt:\n%s", p.Index, p.Tail())
	}
	d.did(fmt.Sprintf("node %d is sure", p.Index))
	return p.said(since, saysGiveUp)
}

// doubted says whether a node's shard may have lost copies of the log.
func (d *doubtProof) doubted(p *process) bool {
	pool := rpc.NewPool(rpc.TCP{}, rpc.PoolOptions{Role: rpc.RoleClient})
	defer pool.Close()
	req, resp := &wire.LogStateRequest{Logs: []uint64{uint64(d.l.ID())}}, new(wire.LogStateResponse)
	if err := pool.To(p.ClientAddr()).Call(within(d.t, 2*time.Second), rpc.MethodLogState, req, resp); err != nil || len(resp.States) != 1 {
		return true
	}
	return resp.States[0].DoubtFrom != 0
}

// TestLogDoubtEnds: a node loses the end of its journal, with copies that it had
// acknowledged. The log is appended to, recovered and read meanwhile, and others are
// made. Afterwards the copies are back: with another of their holders down everything
// can be read.
func TestLogDoubtEnds(t *testing.T) {
	t.Parallel()
	d := newDoubtProof(t)
	d.write("before", 100)
	reading := d.l.NewReader(client.ReaderOptions{From: oldest})
	defer reading.Close()
	p := d.c.nodes[(d.c.sequencerOf(d.cl, d.l)+1)%3]
	p.Kill()
	since := spoilTail(t, p, 60)
	p.start()
	d.write("meanwhile", 20)
	d.provision("/meanwhile")
	q := d.c.nodes[d.c.sequencerOf(d.cl, d.l)]
	if err := q.Terminate(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	d.did("ended the reign")
	q.start()
	d.write("recovering", 10)
	if !eventually(20*time.Second, func() bool { return p.said(since, saysDoubt) && !d.doubted(p) }) {
		t.Fatalf("the doubt of node %d does not end:\n%s", p.Index, p.Tail())
	}
	d.did("sure of the log")
	if p.said(since, saysGiveUp) {
		t.Errorf("node %d gave copies up, though the others were in order:\n%s", p.Index, p.Tail())
	}
	d.c.waitReady()
	d.write("after", 10)
	d.c.checkReplication(d.cl, d.l)
	d.did("checked the replication")
	for n := 0; n < 140; { // one that began before goes on
		e, err := reading.Next(within(t, 10*time.Second))
		if err != nil {
			t.Fatalf("a reader that began before the doubt, after %d records: %v\n%+v", n, err, reading.State())
		}
		if !e.IsGap() {
			n++
		}
	}
	tail := tailOf(t, d.l)
	down := d.c.nodes[d.c.sequencerOf(d.cl, d.l)]
	down.Kill()
	if r := readRange(t, d.l, oldest, tail, 10*time.Second, nil); r.records != 140 {
		t.Errorf("%d records are read with node %d down, not 140", r.records, down.Index)
	}
	d.did("read with a node down")
	d.write("recovered", 10)
	d.h.check(d.l)
}

// TestLogDoubtOfTwoEnds ends all nodes at once, and leaves two of three journals with
// an end that may be torn or may be lost: nobody is left who could say for certain that
// nothing is missing, so the doubt ends with a warning. Nobody appends or reads until it
// has: no reign ends but those that the shards have ended.
func TestLogDoubtOfTwoEnds(t *testing.T) {
	t.Parallel()
	d := newDoubtProof(t)
	d.write("before", 50)
	for _, p := range d.c.nodes {
		p.Kill()
	}
	suspect := d.c.nodes[:2]
	var since []int64
	for _, p := range suspect {
		since = append(since, spoilTail(t, p, 0))
	}
	for _, p := range d.c.nodes {
		p.start()
	}
	d.c.waitReady()
	weak := false
	for i, p := range suspect {
		weak = d.ends(p, since[i]) || weak
	}
	if !weak {
		t.Error("two of three may have lost copies, and nobody was warned")
	}
	d.write("afterwards", 20)
	d.provision("/afterwards")
	d.write("after", 10)
	d.h.check(d.l)
	d.c.checkReplication(d.cl, d.l)
	d.did("checked the replication")
}
