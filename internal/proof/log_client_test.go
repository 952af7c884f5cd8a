package proof

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// A clientLab is a cluster on which the client's ways to append and to read are tried
// on both sides of a failover.
type clientLab struct {
	*cluster
	t  *testing.T
	cl *client.Client
}

// TestClientOverAFailover does with real nodes what the client's examples do with one
// that is made up: producers, find keys and times, filters, checkpoints and batches of
// the sequencer. Half of each is done before the node that numbers the log is killed,
// the other half afterwards.
func TestClientOverAFailover(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{})
	x := &clientLab{c, t, connect(t, c)}
	ctx := within(t, 120*time.Second)
	keyed, orders, small := makeLog(t, x.cl, "/client/keyed"), makeLog(t, x.cl, "/client/orders"),
		makeLog(t, x.cl, "/client/small", client.LogSequencerBatching(true), client.LogAttribute("sequencer_batching_time", "20ms"))
	var times []time.Time // before each half
	for half := range 2 {
		if half == 1 {
			x.killSequencers(keyed, orders, small)
		}
		times = append(times, time.Now())
		x.keys(ctx, keyed, half)
		x.checkpoints(ctx, orders, half)
		x.batches(ctx, small, half)
	}
	x.finds(ctx, keyed, times)
	x.filters(ctx, keyed)
	x.producers(ctx, orders)
	for _, l := range []*client.Log{keyed, orders, small} {
		c.checkReplication(x.cl, l)
	}
}

// killSequencers ends the reign of each log.
func (x *clientLab) killSequencers(all ...*client.Log) {
	x.t.Helper()
	for _, l := range all {
		at := x.sequencerOf(x.cl, l)
		x.nodes[at].Kill()
		x.nodes[at].start()
		x.waitReady()
	}
}

const keysEach = 40 // of a half

func findKeyOf(i int) []byte { return fmt.Appendf(nil, "key %03d", 2*i) } // every other number

// keys appends records with find keys that ascend, and filter keys by turns.
func (x *clientLab) keys(ctx context.Context, l *client.Log, half int) {
	x.t.Helper()
	for i := half * keysEach; i < (half+1)*keysEach; i++ {
		filter := fmt.Appendf(nil, "of %d", i%4)
		if _, err := l.Append(ctx, fmt.Appendf(nil, "record %d", i), client.FindKey(findKeyOf(i)), client.FilterKey(filter)); err != nil {
			x.t.Fatal(err)
		}
	}
}

// finds asks where keys and times are.
func (x *clientLab) finds(ctx context.Context, l *client.Log, times []time.Time) {
	x.t.Helper()
	var at []client.LSN // of each record
	readRange(x.t, l, oldest, tailOf(x.t, l), 30*time.Second, func(e client.Entry) {
		if !e.IsGap() {
			at = append(at, e.Record.LSN)
		}
	})
	if len(at) != 2*keysEach {
		x.t.Fatalf("%d records are there, %d were appended", len(at), 2*keysEach)
	}
	for _, i := range []int{1, keysEach - 1, keysEach, 2*keysEach - 1} {
		low, high, err := l.FindKey(ctx, findKeyOf(i), false)
		if err != nil || low != at[i-1] || high != at[i] {
			x.t.Errorf("key %s lies between %s and %s, not %s and %s: %v", findKeyOf(i), low, high, at[i-1], at[i], err)
		}
		between := append(findKeyOf(i-1), "and more"...)
		if low, high, err = l.FindKey(ctx, between, false); err != nil || low != at[i-1] || high != at[i] {
			x.t.Errorf("key %s lies between %s and %s, not %s and %s: %v", between, low, high, at[i-1], at[i], err)
		}
	}
	for half, when := range times {
		lsn, err := l.FindTime(ctx, when, false)
		first := half * keysEach
		// Never later than the first record since then, and behind the one before it.
		if err != nil || lsn > at[first] || first > 0 && lsn <= at[first-1] {
			x.t.Errorf("what was appended since %v begins at %s; the first since then is %s: %v", when, lsn, at[first], err)
		}
	}
}

// filters reads only the records of one filter key: the others are not sent.
func (x *clientLab) filters(ctx context.Context, l *client.Log) {
	x.t.Helper()
	read := func(f *client.Filter) (got []string, skipped int) {
		r := l.NewReader(client.ReaderOptions{Until: tailOf(x.t, l), Filter: f})
		defer r.Close()
		for {
			e, err := r.Next(ctx)
			switch {
			case errors.Is(err, io.EOF):
				return got, skipped
			case err != nil:
				x.t.Fatal(err)
			case e.IsGap() && e.Gap.Type == client.GapFilteredOut:
				skipped += int(e.Gap.To - e.Gap.From + 1)
			case !e.IsGap():
				got = append(got, string(e.Record.Payload))
			}
		}
	}
	var one, two []string
	for i := range 2 * keysEach {
		if i%4 == 3 {
			one = append(one, fmt.Sprint("record ", i))
		}
		if i%4 == 1 || i%4 == 2 {
			two = append(two, fmt.Sprint("record ", i))
		}
	}
	if got, skipped := read(&client.Filter{Key: []byte("of 3")}); !slices.Equal(got, one) || skipped != 2*keysEach-len(one) {
		x.t.Errorf("of one key there came %d records, %d were left out: %q", len(got), skipped, got)
	}
	if got, skipped := read(&client.Filter{Key: []byte("of 1"), To: []byte("of 2")}); !slices.Equal(got, two) || skipped != 2*keysEach-len(two) {
		x.t.Errorf("of a range of keys there came %d records, %d were left out: %q", len(got), skipped, got)
	}
}

const ordersEach = 10 // of a half

// checkpoints appends ten orders, and reads those and no others, by three readers
// of one name and on clients of their own: each goes on where the last one committed.
// What was read and not committed comes again.
func (x *clientLab) checkpoints(ctx context.Context, l *client.Log, half int) {
	x.t.Helper()
	p := l.Producer(7)
	for i := half * ordersEach; i < (half+1)*ordersEach; i++ {
		if _, err := p.Append(ctx, uint64(i+1), fmt.Appendf(nil, "order %d", i)); err != nil {
			x.t.Fatal(err)
		}
	}
	next := half * ordersEach
	for _, part := range []struct {
		n      int
		commit bool
	}{{4, true}, {3, false}, {6, true}} {
		other := connect(x.t, x.cluster)
		r, err := openLog(x.t, other, l.Name()).NewCheckpointedReader(ctx, "billing", client.CheckpointOptions{})
		if err != nil {
			x.t.Fatal(err)
		}
		for i := next; i < next+part.n; {
			e, err := r.Next(ctx)
			if err != nil {
				x.t.Fatalf("order %d: %v", i, err)
			}
			if e.IsGap() {
				continue
			}
			if want := fmt.Sprint("order ", i); string(e.Record.Payload) != want {
				x.t.Errorf("%s came where %s was to follow", e.Record.Payload, want)
			}
			i++
		}
		if part.commit {
			if err := r.Commit(ctx); err != nil {
				x.t.Fatal(err)
			}
			next += part.n
		}
		r.Close()
	}
}

// producers sends what was taken in the first reign once more: the log has it.
func (x *clientLab) producers(ctx context.Context, l *client.Log) {
	x.t.Helper()
	at := map[string]client.LSN{}
	read := func() {
		readRange(x.t, l, oldest, tailOf(x.t, l), 30*time.Second, func(e client.Entry) {
			if !e.IsGap() {
				if lsn, twice := at[string(e.Record.Payload)]; twice && lsn != e.Record.LSN {
					x.t.Errorf("%s is at %s and at %s", e.Record.Payload, lsn, e.Record.LSN)
				}
				at[string(e.Record.Payload)] = e.Record.LSN
			}
		})
	}
	read()
	p := openLog(x.t, connect(x.t, x.cluster), l.Name()).Producer(7)
	if seq, lsn, err := p.Last(ctx); err != nil || seq != 2*ordersEach || lsn != at[fmt.Sprint("order ", seq-1)] {
		x.t.Errorf("the producer was last at %d, %s: %v", seq, lsn, err)
	}
	for i := range 2 * ordersEach {
		payload := fmt.Sprint("order ", i)
		lsn, err := p.Append(ctx, uint64(i+1), []byte(payload))
		if err != nil && !errors.Is(err, client.ErrSequenceStale) || err == nil && lsn != at[payload] {
			x.t.Errorf("%s, sent again, is at %s, not %s: %v", payload, lsn, at[payload], err)
		}
	}
	if read(); len(at) != 2*ordersEach {
		x.t.Errorf("the log has %d orders, not %d", len(at), 2*ordersEach)
	}
}

// batches appends many small records at once to a log whose sequencer puts them
// together: they share LSNs, and each is read under the LSN that it was answered with.
func (x *clientLab) batches(ctx context.Context, l *client.Log, half int) {
	x.t.Helper()
	const writers, each = 16, 10
	from := client.LSN(0)
	if half > 0 {
		from = tailOf(x.t, l)
	}
	var mu sync.Mutex
	at := map[string]client.LSN{}
	var wg sync.WaitGroup
	for w := range writers {
		for n := range each {
			wg.Add(1)
			payload := fmt.Sprintf("%d.%d.%d %s", half, w, n, bytes.Repeat([]byte{'s'}, n))
			l.AppendAsync([]byte(payload), func(lsn client.LSN, err error) {
				defer wg.Done()
				if err != nil {
					x.t.Errorf("append %s: %v", payload, err)
				}
				mu.Lock()
				defer mu.Unlock()
				at[payload] = lsn
			})
		}
	}
	wg.Wait()
	read, lsns := 0, map[client.LSN]bool{}
	readRange(x.t, l, from+1, tailOf(x.t, l), 30*time.Second, func(e client.Entry) {
		if e.IsGap() {
			return
		}
		if lsn, ok := at[string(e.Record.Payload)]; !ok || lsn != e.Record.LSN {
			x.t.Errorf("%q is at %s, it was answered with %s", e.Record.Payload, e.Record.LSN, lsn)
		}
		read++
		lsns[e.Record.LSN] = true
	})
	x.t.Logf("%d records under %d LSNs", read, len(lsns))
	if read != writers*each || len(lsns) > read/4 {
		x.t.Errorf("%d records were read of %d, under %d LSNs", read, writers*each, len(lsns))
	}
}
