package proof

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/sim/simfs"
	"github.com/braiddb/braid/internal/wire"
)

// TestLogPowerLoss cuts the power of all nodes of a cluster in one process, in the
// middle of the load, twice: STORED means synced, so all that was acknowledged is
// read afterwards, and read again it is the same.
func TestLogPowerLoss(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	l := newLab(t, 3, seed)
	l.start()
	root, files := sourceFiles(t)
	j := newLogJob(t, l.connect, "/go/lines", 32<<10)
	for round, crash := range []simfs.Crash{{}, {Sectors: 50, Tear: 50, Names: 50}} {
		j.load(root, files[200*round:200*round+200], func() {
			j.reached(200*round + 20 + rng.IntN(80))
			crash.Dice = rng.Uint64()
			for _, i := range rng.Perm(len(l.benches)) {
				l.benches[i].fs = l.benches[i].fs.Crash(crash)
			}
			for _, b := range l.benches {
				b.kill()
			}
			l.start()
		})
	}
	until := j.mark()
	first := readRange(t, j.log, oldest, until, 60*time.Second, nil)
	again := readRange(t, j.log, oldest, until, 60*time.Second, nil)
	if first.hash() != again.hash() {
		t.Error("read again, the log differs")
	}
	j.ledger.compare(t, first.lines)
	checkReplication(t, j.cl, j.log)
}

// errTooFewNodes is how appends fail for which there are too few storage nodes.
var errTooFewNodes error = &client.LogError{Status: wire.LogStatus_LOG_STATUS_UNDER_REPLICATED}

// TestThreeCopiesOnThreeNodes has appends wait while one node of three is down and
// three copies are asked for: they fail with a cause that says so if their time is
// over, and go on, in order, when the node is back.
func TestThreeCopiesOnThreeNodes(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{})
	cl := connect(t, c)
	l := makeLog(t, cl, "/three", client.LogReplication(&client.Replication{Node: 3}))
	h := newAppendHistory(t)
	write := func(n int) {
		for i := range 100 {
			payload := fmt.Sprintf("w%d.%d", n, i)
			lsn, err := l.Append(within(t, 60*time.Second), []byte(payload))
			h.outcome(payload, lsn, err)
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	write(1)
	down := c.storageNode(cl, c.sequencerOf(cl, l))
	var nodeID int64
	for id, i := range c.nodeIDs(cl) {
		if i == down {
			nodeID = id
		}
	}
	c.nodes[down].Kill()
	ctx := within(t, 3*time.Second)
	lsn, err := l.Append(ctx, []byte("short"))
	h.outcome("short", lsn, err)
	if !errors.Is(err, errTooFewNodes) {
		t.Errorf("an append with one node of three down: %s, %v", lsn, err)
	}
	t.Logf("with one of three nodes down: %v", err)
	missing := fmt.Sprintf("N%d:S0 is", nodeID)
	if !eventually(10*time.Second, func() bool {
		r := rows(t, cl, "SELECT trouble FROM sequencers WHERE log_id = %d AND state = 'ACTIVE'", l.ID())
		return len(r) > 0 && strings.Contains(fmt.Sprint(r[0][0]), missing)
	}) {
		t.Errorf("no sequencer says that %s missing: %v", missing, rows(t, cl, "SELECT * FROM sequencers"))
	}
	waited := make(chan error, 1)
	go func() {
		lsn, err := l.Append(within(t, 60*time.Second), []byte("patient"))
		h.outcome("patient", lsn, err)
		waited <- err
	}()
	select {
	case err := <-waited:
		t.Errorf("an append ended with two nodes of three up: %v", err)
	case <-time.After(time.Second):
	}
	c.nodes[down].start()
	c.waitReady()
	ready := time.Now()
	if err := <-waited; err != nil {
		t.Errorf("with the third node back: %v", err)
	}
	t.Logf("appends went on %.1f s after the node was ready", time.Since(ready).Seconds())
	write(2)
	h.check(l)
	c.checkReplication(cl, l)
}

// TestOneCopyLost wipes the data directory of one node: with two copies everything
// is still read, and the same as before.
func TestOneCopyLost(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{})
	cl := connect(t, c)
	l := makeLog(t, cl, "/two")
	h := newAppendHistory(t)
	for i := range 600 {
		payload := fmt.Sprintf("%d %s", i, bytes.Repeat([]byte{'x'}, i))
		lsn, err := l.Append(within(t, 30*time.Second), []byte(payload))
		if h.outcome(payload, lsn, err); err != nil {
			t.Fatal(err)
		}
	}
	before := readRange(t, l, oldest, h.highest(), 30*time.Second, nil)
	c.checkReplication(cl, l)
	at := c.storageNode(cl, c.sequencerOf(cl, l))
	lost, shard := c.nodes[at], logs.MakeShard(client.NodeID(c.nodeID(cl, at)), 0)
	lost.Kill()
	if err := os.RemoveAll(lost.Dir); err != nil {
		t.Fatal(err)
	}
	again := readRange(t, l, oldest, h.highest(), 30*time.Second, nil)
	if again.hash() != before.hash() {
		t.Error("with one directory gone, the log differs")
	}
	lost.start()
	lsn, err := l.Append(within(t, 30*time.Second), []byte("after"))
	if h.outcome("after", lsn, err); err != nil {
		t.Error(err)
	}
	h.check(l)
	// The directory came back as another node; what it had lost is nobody's to say.
	c.waitReady()
	checkReplication(t, cl, l, shard)
}
