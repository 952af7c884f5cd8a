package proof

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// An ackLedger is what was acknowledged of a log, by LSN.
type ackLedger struct {
	mu    sync.Mutex
	sums  map[client.LSN]*lineSum
	lines int
	bytes int64
	last  client.LSN
	fault error
}

// A lineWriter gives lines to a BufferedWriter, a bounded number of bytes ahead of
// what is acknowledged.
type lineWriter struct {
	ledger *ackLedger
	w      *client.BufferedWriter
	stream bool // its lines are to be in order, whatever fails
	mu     sync.Mutex
	room   *sync.Cond
	ahead  int
	most   int     // of it
	places []place // of all lines, in the order in which they were given
}

// place is where a payload is in a log.
type place struct {
	lsn    client.LSN
	offset int32
}

func (a *ackLedger) writer(l *client.Log, most int, o client.BufferedWriterOptions) *lineWriter {
	w := &lineWriter{ledger: a, w: l.BufferedWriter(o), stream: o.Mode == client.Stream, most: most}
	w.room = sync.NewCond(&w.mu)
	return w
}

func (a *ackLedger) failed(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fault == nil {
		a.fault = err
	}
}

func (a *ackLedger) add(lsn client.LSN, payload []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sums[lsn]
	if s == nil {
		s = newLineSum()
		a.sums[lsn] = s
	}
	s.add(payload)
	a.lines++
	a.bytes += int64(len(payload))
	a.last = max(a.last, lsn)
}

// append gives one line; it waits where too much is ahead.
func (w *lineWriter) append(line []byte) error {
	w.mu.Lock()
	for w.ahead > w.most {
		w.room.Wait()
	}
	w.ahead += len(line) + 64
	n := len(w.places)
	w.places = append(w.places, place{})
	w.mu.Unlock()
	return w.w.Append(line, func(lsn client.LSN, offset int, err error) {
		if err != nil {
			w.ledger.failed(fmt.Errorf("a line of %d bytes: %w", len(line), err))
		} else {
			w.ledger.add(lsn, line)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.places[n] = place{lsn, int32(offset)}
		w.ahead -= len(line) + 64
		w.room.Signal()
	})
}

// appendFile gives every line of a file; a last line without an end counts.
func (w *lineWriter) appendFile(name string) (lines int, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte{'\n'})
		if err := w.append(line); err != nil {
			return lines, fmt.Errorf("%s: %w", name, err)
		}
		data = rest
		lines++
	}
	return lines, nil
}

// inOrder demands that the log has a writer's lines in the order in which it was
// given them.
func (w *lineWriter) inOrder(t testing.TB) {
	t.Helper()
	var last place
	for i, p := range w.places {
		if p.lsn == 0 {
			continue // not acknowledged: said elsewhere
		}
		if p.lsn < last.lsn || p.lsn == last.lsn && p.offset != last.offset+1 || p.lsn > last.lsn && p.offset != 0 {
			t.Errorf("line %d is at %s.%d, the one before at %s.%d", i, p.lsn, p.offset, last.lsn, last.offset)
			return
		}
		last = p
	}
}

// compare demands that what was read is what was acknowledged: every LSN with as
// many payloads and the same ones in the same order, and no other.
func (a *ackLedger) compare(t testing.TB, read []tailLine) {
	t.Helper()
	if a.fault != nil {
		t.Error(a.fault)
	}
	seen := 0
	for _, l := range read {
		if l.Count == 0 {
			continue
		}
		want := a.sums[l.LSN]
		switch {
		case want == nil:
			t.Errorf("%s was read, with %d payloads; no append was acknowledged with it", l.LSN, l.Count)
		case want.count != l.Count || !bytes.Equal(want.hash.Sum(nil), l.Sum):
			t.Errorf("%s: %d payloads were read, %d acknowledged, and they differ", l.LSN, l.Count, want.count)
		}
		seen++
	}
	if seen != len(a.sums) {
		t.Errorf("%d LSNs were acknowledged, %d read", len(a.sums), seen)
	}
}

// A logJob appends files to a log, a line a record, through several writers.
type logJob struct {
	t       testing.TB
	cl      *client.Client
	log     *client.Log
	ledger  *ackLedger
	writers []*lineWriter
	done    atomic.Int64 // files
	lines   atomic.Int64
}

func newLogJob(t testing.TB, connect func() *client.Client, path string, ahead int) *logJob {
	t.Helper()
	j := &logJob{t: t, cl: connect(), ledger: &ackLedger{sums: map[client.LSN]*lineSum{}}}
	other := connect()
	t.Cleanup(func() { j.cl.Close(); other.Close() })
	j.log = makeLog(t, j.cl, path, client.LogMaxPayload(2<<20))
	second := openLog(t, other, path)
	for i, mode := range []client.WriterMode{client.Stream, client.Independent, client.Stream, client.Independent} {
		l := j.log
		if i >= 2 {
			l = second
		}
		j.writers = append(j.writers, j.ledger.writer(l, ahead, client.BufferedWriterOptions{Mode: mode, Retries: 3}))
	}
	return j
}

// load appends all files; meanwhile runs beside it.
func (j *logJob) load(root string, files []string, meanwhile func()) {
	j.t.Helper()
	begin, lines, bytes := time.Now(), j.ledger.lines, j.ledger.bytes
	each(j.t, len(j.writers), files, func(worker int, name string) error {
		n, err := j.writers[worker].appendFile(filepath.Join(root, name))
		j.lines.Add(int64(n))
		j.done.Add(1)
		return err
	}, meanwhile)
	for _, w := range j.writers {
		if err := w.w.Sync(within(j.t, 60*time.Second)); err != nil {
			j.t.Fatal(err)
		}
	}
	took := time.Since(begin).Seconds()
	for _, w := range j.writers {
		if w.stream {
			w.inOrder(j.t)
		}
	}
	if int64(j.ledger.lines) != j.lines.Load() && j.ledger.fault == nil {
		j.t.Errorf("%d lines were given, %d acknowledged", j.lines.Load(), j.ledger.lines)
	}
	lines, bytes = j.ledger.lines-lines, j.ledger.bytes-bytes
	j.t.Logf("%d lines, %d bytes in %d records in %.1f s: %.0f lines/s, %.1f MB/s", lines, bytes, len(j.ledger.sums),
		took, float64(lines)/took, float64(bytes)/1e6/took)
}

// mark appends the record behind which reading ends.
func (j *logJob) mark() client.LSN {
	j.t.Helper()
	lsn, err := j.log.Append(within(j.t, 60*time.Second), []byte("end"))
	if err != nil {
		j.t.Fatal(err)
	}
	if lsn <= j.ledger.last {
		j.t.Errorf("the last record got %s, though %s was acknowledged before", lsn, j.ledger.last)
	}
	j.ledger.add(lsn, []byte("end"))
	return lsn
}

// reached waits until a share of the files was given to the writers.
func (j *logJob) reached(files int) {
	j.t.Helper()
	if !eventually(90*time.Second, func() bool { return j.done.Load() >= int64(files) || j.t.Failed() }) {
		j.t.Errorf("the load stands at %d files, %d lines", j.done.Load(), j.lines.Load())
	}
}

// killWhileTailed loads files while another process tails the log, kills the node
// with the sequencer in the middle and starts it again, later kills another
// storage node, and demands that everything acknowledged was read once and in
// order, and is the same when it is read again.
func (j *logJob) killWhileTailed(c *cluster, root string, files []string) {
	t := j.t
	t.Helper()
	tail := startTailer(t, c, j.log.Name())
	var other int
	j.load(root, files, func() {
		j.reached(len(files) * 4 / 10)
		killed := c.sequencerOf(j.cl, j.log)
		c.nodes[killed].Kill()
		t.Logf("killed node %d, the sequencer's, at %d lines", killed+1, j.lines.Load())
		j.reached(len(files) * 6 / 10)
		c.nodes[killed].start()
		j.reached(len(files) * 8 / 10)
		other = c.storageNode(j.cl, killed, c.sequencerOf(j.cl, j.log))
		c.nodes[other].Kill()
		t.Logf("killed node %d, a storage node, at %d lines", other+1, j.lines.Load())
	})
	until := j.mark()
	begin := time.Now()
	read, end := tail.finish(until, 60*time.Second)
	t.Logf("the tailing process was %.1f s behind; gaps %v", time.Since(begin).Seconds(), end.Gaps)
	j.ledger.compare(t, read)

	begin = time.Now()
	again := readRange(t, j.log, oldest, until, 60*time.Second, nil)
	took := time.Since(begin).Seconds()
	t.Logf("read again in %.1f s: %.0f lines/s, %.1f MB/s", took, float64(again.records)/took, float64(again.bytes)/1e6/took)
	if again.hash() != end.Hash {
		t.Errorf("read again, the log differs: %d records, %d bytes, gaps %v; before %d, %d, %v", again.records, again.bytes, again.gaps, end.Records, end.Bytes, end.Gaps)
	}
	c.nodes[other].start()
	begin = time.Now()
	c.checkReplication(j.cl, j.log)
	t.Logf("replication was found whole after %.1f s", time.Since(begin).Seconds())
	j.purged(c)
}

// storageNode gives the position of a storage node that is none of those.
func (c *cluster) storageNode(cl *client.Client, but ...int) int {
	c.t.Helper()
	ids := c.nodeIDs(cl)
	for _, r := range rows(c.t, cl, "SELECT node_id FROM nodes WHERE roles LIKE '%%storage%%' ORDER BY node_id") {
		if i := ids[r[0].(int64)]; !slices.Contains(but, i) {
			return i
		}
	}
	c.t.Fatal("there is no other storage node")
	return 0
}

// TestGoSourceLines is the log's main job on real input: every line of the Go source
// tree is appended by four writers on two clients, while another process tails the
// log. The node with the sequencer is killed in the middle and comes back; later a
// storage node is killed. Everything acknowledged arrives once, in order, and again
// the same when it is read again.
func TestGoSourceLines(t *testing.T) {
	t.Parallel()
	root, files := sourceFiles(t)
	c := startCluster(t, 3, clusterOptions{})
	j := newLogJob(t, func() *client.Client { return connect(t, c) }, "/go/lines", 8<<20)
	if err := j.writers[0].w.Append(make([]byte, 2<<20+1), nil); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("a payload above the maximum: %v", err)
	}
	if _, err := j.log.Append(within(t, 10*time.Second), make([]byte, 2<<20+1)); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("an append above the maximum: %v", err)
	}
	j.killWhileTailed(c, root, files)
}

// TestLogRoles is the same, with all the lines, where two nodes number and three others
// store.
func TestLogRoles(t *testing.T) {
	t.Parallel()
	root, files := sourceFiles(t)
	c := startCluster(t, 5, clusterOptions{roles: []string{"sequencer", "sequencer", "storage", "storage", "storage"}})
	j := newLogJob(t, func() *client.Client { return connect(t, c) }, "/go/lines", 8<<20)
	j.killWhileTailed(c, root, files)
}

// purged demands that every node comes to the same last clean epoch with the next
// release: those that were away when it was recovered have asked what was decided.
func (j *logJob) purged(c *cluster) {
	j.t.Helper()
	if _, err := j.log.Append(within(j.t, 30*time.Second), []byte("released")); err != nil {
		j.t.Fatal(err)
	}
	var got [][]any
	if !eventually(20*time.Second, func() bool {
		got = rows(j.t, j.cl, "SELECT node_id, last_clean_epoch FROM log_storage_state WHERE log_id = %d", j.log.ID())
		for _, r := range got {
			if r[1] != got[0][1] || r[1].(int64) == 0 {
				return false
			}
		}
		return len(got) > 2
	}) {
		j.t.Errorf("last clean epochs differ: %v", got)
	}
}
