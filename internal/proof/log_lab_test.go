package proof

import (
	"context"
	"crypto/sha256"
	bin "encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/checker"
)

// within gives a context for a part of a test.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// makeLog makes a log and opens it.
func makeLog(t testing.TB, cl *client.Client, path string, settings ...client.LogSetting) *client.Log {
	t.Helper()
	ctx := within(t, 30*time.Second)
	if _, err := cl.CreateLogs(ctx, path, 1, append(settings, client.LogParents())...); err != nil {
		t.Fatal(err)
	}
	return openLog(t, cl, path)
}

func openLog(t testing.TB, cl *client.Client, path string) *client.Log {
	t.Helper()
	l, err := cl.Log(within(t, 30*time.Second), path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// rows runs a query until it has an answer; rows of nodes that are down may be missing.
func rows(t testing.TB, cl *client.Client, statement string, args ...any) [][]any {
	t.Helper()
	var out [][]any
	var last error
	if !eventually(20*time.Second, func() bool {
		r, err := cl.Query(within(t, 5*time.Second), fmt.Sprintf(statement, args...))
		if last = err; err == nil {
			out = r.Rows
		}
		return err == nil
	}) {
		t.Fatalf("%s: %v", fmt.Sprintf(statement, args...), last)
	}
	return out
}

// nodeIDs maps the cluster's node ids to positions.
func (c *cluster) nodeIDs(cl *client.Client) map[int64]int {
	c.t.Helper()
	ids := map[int64]int{}
	for _, r := range rows(c.t, cl, "SELECT node_id, address FROM nodes") {
		for i, p := range c.nodes {
			if r[1] == p.NodeAddr() {
				ids[r[0].(int64)] = i
			}
		}
	}
	return ids
}

// sequencerOf gives the position of the node that numbers a log.
func (c *cluster) sequencerOf(cl *client.Client, l *client.Log) (at int) {
	c.t.Helper()
	ids := c.nodeIDs(cl)
	if !eventually(20*time.Second, func() bool {
		r := rows(c.t, cl, "SELECT node_id FROM sequencers WHERE log_id = %d AND state = 'ACTIVE' ORDER BY epoch DESC", l.ID())
		if len(r) == 0 {
			return false
		}
		i, ok := ids[r[0][0].(int64)]
		at = i
		return ok
	}) {
		c.t.Fatalf("log %s has no sequencer", l.Name())
	}
	return at
}

// tailOf asks for the log's tail until there is one.
func tailOf(t testing.TB, l *client.Log) (tail client.LSN) {
	t.Helper()
	var last error
	if !eventually(30*time.Second, func() bool {
		tail, last = l.Tail(within(t, 5*time.Second))
		return last == nil
	}) {
		t.Fatalf("the tail of log %s: %v", l.Name(), last)
	}
	return tail
}

// A reading checks what a reader gives as it comes, and sums it up: entries tile
// the range, offsets never repeat or go back, gaps are benign.
type reading struct {
	next    client.LSN // the next entry begins there, or is one more payload of the record before
	batch   int        // batch offset of the record before
	offset  uint64
	counted bool // offset is known
	sum     hash.Hash
	head    [17]byte

	lines   []tailLine // of records, but the one that may have more payloads
	line    *lineSum   // that one
	records int
	bytes   int64
	gaps    map[string]int
	fault   error
}

func newReading(from client.LSN) *reading {
	return &reading{next: from, sum: sha256.New(), gaps: map[string]int{}, line: newLineSum()}
}

// take checks one entry.
func (r *reading) take(e client.Entry) {
	if r.fault != nil {
		return
	}
	if e.IsGap() || e.Record.LSN >= r.next {
		r.flush()
	}
	if e.IsGap() {
		r.takeGap(e.Gap)
		return
	}
	x := e.Record
	again := x.LSN == r.next-1 && r.batch >= 0 && x.BatchOffset == r.batch+1
	switch {
	case !again && (x.LSN != r.next || x.BatchOffset != 0):
		r.fault = fmt.Errorf("%s.%d came where %s was to follow (batch offset %d before)", x.LSN, x.BatchOffset, r.next, r.batch)
	case x.OffsetKnown && r.counted && x.Offset <= r.offset:
		r.fault = fmt.Errorf("%s.%d has offset %d after %d", x.LSN, x.BatchOffset, x.Offset, r.offset)
	case !x.OffsetKnown:
		r.fault = fmt.Errorf("%s.%d has no offset", x.LSN, x.BatchOffset)
	}
	r.next, r.batch, r.offset, r.counted = x.LSN+1, x.BatchOffset, x.Offset, true
	r.mix('R', uint64(x.LSN), uint64(x.BatchOffset)<<32|uint64(len(x.Payload)))
	r.mix('o', x.Offset, 0)
	r.sum.Write(x.Payload)
	r.line.add(x.Payload)
	r.records++
	r.bytes += int64(len(x.Payload))
}

// flush ends the record that may have more payloads.
func (r *reading) flush() {
	if r.line.count > 0 {
		r.lines = append(r.lines, tailLine{LSN: r.next - 1, Count: r.line.count, Sum: r.line.hash.Sum(nil)})
		r.line = newLineSum()
	}
}

func (r *reading) takeGap(g client.Gap) {
	if g.From != r.next || g.To < g.From {
		r.fault = fmt.Errorf("gap %s came where %s was to follow", g, r.next)
	}
	switch g.Type {
	case client.GapBridge, client.GapHole, client.GapTrim:
	default:
		r.fault = fmt.Errorf("gap %s is not benign", g)
	}
	r.next, r.batch = g.To+1, -1
	r.lines = append(r.lines, tailLine{Gap: g.String()})
	r.mix(byte(g.Type), uint64(g.From), uint64(g.To))
	r.gaps[g.Type.String()]++
}

func (r *reading) mix(kind byte, a, b uint64) {
	r.head[0] = kind
	bin.LittleEndian.PutUint64(r.head[1:], a)
	bin.LittleEndian.PutUint64(r.head[9:], b)
	r.sum.Write(r.head[:])
}

func (r *reading) hash() string { return fmt.Sprintf("%x", r.sum.Sum(nil)) }

// readRange reads [from, until] and gives every entry to see, if any.
func readRange(t testing.TB, l *client.Log, from, until client.LSN, limit time.Duration, see func(client.Entry)) *reading {
	t.Helper()
	r := newReading(from)
	rd := l.NewReader(client.ReaderOptions{From: from, Until: until})
	defer rd.Close()
	ctx := within(t, limit)
	for {
		e, err := rd.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("reading %s [%s, %s] at %s after %d records: %v\n%+v", l.Name(), from, until, r.next, r.records, err, rd.State())
		}
		if r.take(e); r.fault != nil {
			t.Fatalf("reading %s: %v", l.Name(), r.fault)
		}
		if see != nil {
			see(e)
		}
	}
	if r.flush(); r.next != until+1 {
		t.Fatalf("reading %s ended before %s, not after %s", l.Name(), r.next, until)
	}
	return r
}

// oldest is where a log begins.
var oldest = logs.LSNOldest

// checkReplication runs the replication checker over all that was released of a
// log, with every node up, and demands that it finds nothing.
func (c *cluster) checkReplication(cl *client.Client, l *client.Log) {
	c.t.Helper()
	c.waitReady()
	checkReplication(c.t, cl, l)
}

// checkReplication is the same for any cluster whose nodes are all up, but for the
// shards that are lost: what they had nobody can say.
func checkReplication(t testing.TB, cl *client.Client, l *client.Log, lost ...logs.ShardID) {
	t.Helper()
	tail := tailOf(t, l)
	var report *checker.Report
	clean := func() bool {
		return report.Found == (&checker.Report{}).Found && slices.Equal(report.Silent, lost)
	}
	// Releases and what recovery leaves to be purged take their time to come around.
	if !eventually(20*time.Second, func() bool {
		report = replicationReport(t, l, tail)
		return report.Records > 0 && clean()
	}) {
		t.Errorf("replication of log %s up to %s: %d LSNs, %d copies, silent %v", l.Name(), tail, report.Records, report.Copies, report.Silent)
		for i, p := range report.Problems {
			if i < 20 {
				t.Error(p)
			}
		}
		return
	}
	if report.Records == 0 {
		t.Errorf("the replication checker judged nothing of log %s up to %s", l.Name(), tail)
	}
}

// clientAddrs is where clients reach the nodes of a cluster.
func clientAddrs(t testing.TB, cl *client.Client) map[client.NodeID]string {
	t.Helper()
	var c *client.Cluster
	var err error
	if !eventually(20*time.Second, func() bool {
		c, err = cl.Cluster(within(t, 5*time.Second))
		return err == nil
	}) {
		t.Fatal(err)
	}
	addrs := map[client.NodeID]string{}
	for _, n := range c.Nodes {
		addrs[client.NodeID(n.Id)] = n.ClientAddr
	}
	return addrs
}

func replicationReport(t testing.TB, l *client.Log, to client.LSN) *checker.Report {
	t.Helper()
	r, err := l.CheckReplication(within(t, 60*time.Second), client.CheckOptions{Until: to})
	if err != nil {
		t.Logf("replication of log %s: %v", l.Name(), err)
		return new(checker.Report)
	}
	return r
}
