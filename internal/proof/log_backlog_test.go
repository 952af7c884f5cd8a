package proof

import (
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// fillLog appends n bytes that cannot be compressed, in records of some size, and
// gives the LSN of the last.
func fillLog(t testing.TB, l *client.Log, n, size int) client.LSN {
	t.Helper()
	w := l.BufferedWriter(client.BufferedWriterOptions{Mode: client.Independent})
	dice := rand.NewChaCha8([32]byte{1})
	ahead := make(chan struct{}, (16<<20)/size)
	for range n / size {
		payload := make([]byte, size)
		dice.Read(payload)
		ahead <- struct{}{}
		if err := w.Append(payload, func(_ client.LSN, _ int, err error) {
			if <-ahead; err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(within(t, 60*time.Second)); err != nil {
		t.Fatal(err)
	}
	return tailOf(t, l)
}

// A backlogCost is what reading a log from its beginning took.
type backlogCost struct {
	bytes int64 // of payloads
	took  time.Duration
	disk  float64 // bytes read from the files of partitions for each of them
	sent  float64 // bytes that nodes sent for each of them

	reader client.ReaderMetrics
}

// readBacklog reads all of a log.
func readBacklog(t testing.TB, cl *client.Client, l *client.Log, until client.LSN) (b backlogCost) {
	t.Helper()
	look := func() (disk, sent int64) {
		r := rows(t, cl, "SELECT sum(bytes_read), sum(delivered_bytes) FROM shards")
		return r[0][0].(int64), r[0][1].(int64)
	}
	disk, sent := look()
	begin := time.Now()
	rd := l.NewReader(client.ReaderOptions{From: oldest, Until: until, Window: 16384, BufferBytes: 32 << 20})
	defer rd.Close()
	ctx := within(t, 2*time.Minute)
	for {
		e, err := rd.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b.bytes += int64(len(e.Record.Payload))
	}
	b.reader = rd.Metrics()
	b.took = time.Since(begin)
	d, s := look()
	told := float64(b.reader.Bytes) // as they are stored
	b.disk, b.sent = float64(d-disk)/told, float64(s-sent)/told
	return b
}

// TestLogBacklogIsReadOnce reads a log of two copies that is larger than what its
// nodes keep in memory: each record is read from one disk and sent by one node.
func TestLogBacklogIsReadOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{})
	cl := connect(t, c)
	l := makeLog(t, cl, "/backlog")
	until := fillLog(t, l, 48<<20, 4<<10)
	b := readBacklog(t, cl, l, until)
	t.Logf("%d bytes in %.1f s, %.2f read from disk and %.2f sent for each; %+v", b.bytes, b.took.Seconds(), b.disk, b.sent, b.reader)
	if b.bytes != 48<<20 {
		t.Errorf("%d bytes were read", b.bytes)
	}
	// A record of which a slow machine stored two waves may be sent by a node of
	// each; both copies of every record would be 2.
	if b.disk < 0.3 || b.disk > 1.5 { // below 1 is what memory still has
		t.Errorf("%.2f bytes were read from disk for each", b.disk)
	}
	if b.sent > 1.5 {
		t.Errorf("%.2f bytes were sent for each", b.sent)
	}
	c.checkReplication(cl, l)
}

// BenchmarkLogBacklog reads a log of 384 MB from its beginning, and says what that
// costs the disks:
//
//	go test -run '^$' -bench LogBacklog -benchtime 3x ./internal/proof
func BenchmarkLogBacklog(b *testing.B) {
	c := startCluster(b, 3, clusterOptions{})
	cl := connect(b, c)
	l := makeLog(b, cl, "/backlog")
	until := fillLog(b, l, 384<<20, 1<<10)
	var sum backlogCost
	for b.Loop() {
		x := readBacklog(b, cl, l, until)
		b.Logf("%d bytes in %.2f s, %.3f read from disk and %.3f sent for each; %+v", x.bytes, x.took.Seconds(), x.disk, x.sent, x.reader)
		sum.bytes, sum.took, sum.disk, sum.sent = sum.bytes+x.bytes, sum.took+x.took, sum.disk+x.disk, sum.sent+x.sent
	}
	n := float64(b.N)
	b.ReportMetric(float64(sum.bytes)/1e6/sum.took.Seconds(), "MB/s")
	b.ReportMetric(sum.disk/n, "disk-B/B")
	b.ReportMetric(sum.sent/n, "sent-B/B")
	b.ReportMetric(0, "ns/op")
}
