package proof

import (
	"context"
	"sync"
	"testing"
	"time"

	procs "github.com/braiddb/braid/internal/proof/cluster"
)

// TestLogsOnZooKeeper keeps the epochs of three nodes on a ZooKeeper. The node that
// numbers a log under load is killed: another takes the next epoch there, and appends
// go on. Then ZooKeeper is killed: the reign that has begun goes on without it, and with
// it again, and all nodes, nothing is missing.
func TestLogsOnZooKeeper(t *testing.T) {
	t.Parallel()
	z, err := procs.NewZooKeeper(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(z.Kill)
	if err := z.Start(); err != nil {
		t.Fatal(err)
	}
	bare := z.Znodes()
	c := startCluster(t, 3, clusterOptions{flags: []string{"--epoch-store", "zookeeper://" + z.Addr + "/braid/proof"}})
	cl := connect(t, c)
	l := makeLog(t, cl, "/zoo/log")
	h := newAppendHistory(t)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() { h.appendOn(ctx, l, w) })
	}
	more := func(when string) {
		t.Helper()
		before := h.acknowledged()
		if !eventually(30*time.Second, func() bool { return h.acknowledged() > before+100 }) {
			t.Fatalf("%s: no appends are acknowledged", when)
		}
	}
	more("at first")
	if n := z.Znodes(); n <= bare {
		t.Errorf("ZooKeeper holds %d znodes, %d when it began: the epochs are elsewhere", n, bare)
	}
	first := h.highest().Epoch()
	at := c.sequencerOf(cl, l)
	c.nodes[at].Kill()
	if !eventually(30*time.Second, func() bool { return h.highest().Epoch() > first }) {
		t.Fatalf("after the kill of node %d nobody took another epoch", at+1)
	}
	more("after the kill")
	if r := rows(t, cl, "SELECT next_epoch FROM epoch_store WHERE log_id = %d", l.ID()); len(r) != 1 || r[0][0].(int64) != int64(h.highest().Epoch())+1 {
		t.Errorf("the epoch store says %v, the log is in epoch %d", r, h.highest().Epoch())
	}
	readRange(t, l, oldest, h.highest(), 30*time.Second, nil) // so what the store had to be told of the first epoch it knows

	z.Kill()
	more("without ZooKeeper")
	stop()
	wg.Wait()
	readRange(t, l, oldest, h.highest(), 30*time.Second, nil)
	if err := z.Start(); err != nil {
		t.Fatal(err)
	}
	c.nodes[at].start()
	c.waitReady()
	h.check(l)
	c.checkReplication(cl, l)
}
