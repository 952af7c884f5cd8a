package proof

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	procs "github.com/braiddb/braid/internal/proof/cluster"
)

// fullLogs are two logs on a cluster of three of which one disk runs full: two copies
// of each record find place on the others, three do not.
type fullLogs struct {
	t          testing.TB
	two, three *client.Log
	h2, h3     *appendHistory
}

func newFullLogs(t testing.TB, cl *client.Client) *fullLogs {
	t.Helper()
	f := &fullLogs{t: t, two: makeLog(t, cl, "/full/two", client.LogStickyCopysets(false)),
		three: makeLog(t, cl, "/full/three", client.LogReplication(&client.Replication{Node: 3})), h2: newAppendHistory(t), h3: newAppendHistory(t)}
	f.room("before")
	return f
}

// write appends records that must be taken.
func (f *fullLogs) write(l *client.Log, h *appendHistory, when string) {
	f.t.Helper()
	for i := range 30 {
		payload := fmt.Sprintf("%s.%d %s", when, i, strings.Repeat("x", 100*i))
		lsn, err := l.Append(within(f.t, 30*time.Second), []byte(payload))
		if h.outcome(payload, lsn, err); err != nil {
			f.t.Fatalf("%s: append to %s: %v", when, l.Name(), err)
		}
	}
}

// room demands that both logs take records.
func (f *fullLogs) room(when string) {
	f.t.Helper()
	f.write(f.two, f.h2, when)
	f.write(f.three, f.h3, when)
}

// full demands that the log of two copies takes records, that the one of three says
// which shard has no space, and that what is there is read.
func (f *fullLogs) full(when, shard string) {
	f.t.Helper()
	f.write(f.two, f.h2, when)
	var last error
	n := 0
	if !eventually(30*time.Second, func() bool { // it is some time before the node looks, and while it is tried again nobody knows
		payload := fmt.Sprint(when, ".waits.", n)
		n++
		lsn, err := f.three.Append(within(f.t, 3*time.Second), []byte(payload))
		f.h3.outcome(payload, lsn, err)
		last = err
		return errors.Is(err, errTooFewNodes) && strings.Contains(err.Error(), shard+" is NO_SPACE")
	}) {
		f.t.Fatalf("%s: an append of three copies does not say that %s has no space: %v", when, shard, last)
	}
	f.t.Logf("%s: %v", when, last)
	readRange(f.t, f.two, oldest, f.h2.highest(), 30*time.Second, nil)
}

// check compares both logs with what was acknowledged.
func (f *fullLogs) check() {
	f.t.Helper()
	f.h2.check(f.two)
	f.h3.check(f.three)
}

// TestLogFullDisk lets the disk of one of three processes run full, first to what a
// node keeps free and then to the last byte, under two logs. With space again all goes
// on by itself, and nothing that was acknowledged is lost.
func TestLogFullDisk(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, clusterOptions{flags: []string{"--journal-size", "64MiB"}})
	disk, err := procs.MountSmall(c.nodes[2].Dir, 448<<20)
	if errors.Is(err, syscall.EPERM) {
		t.Logf("%v: TestFullDisk has the same on disks of its own", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.all.Close()
		disk.Unmount(false)
	})
	for _, p := range c.nodes {
		p.start()
	}
	c.waitReady()
	cl := connect(t, c)
	f := newFullLogs(t, cl)
	shard := fmt.Sprintf("N%d:S0", c.nodeID(cl, 2))
	for _, left := range []int64{128 << 20, 0} {
		if err := disk.Fill(left); err != nil {
			t.Fatal(err)
		}
		f.full(fmt.Sprint(left>>20, " MiB left"), shard)
	}
	if end, running := c.nodes[2].Ended(); running {
		select {
		case <-end:
			t.Fatalf("node 3 ended since its disk was full:\n%s", c.nodes[2].Tail())
		default:
		}
	}
	disk.Drain()
	f.room("with space again")
	f.check()
	c.checkReplication(cl, f.two)
	c.checkReplication(cl, f.three)
}
