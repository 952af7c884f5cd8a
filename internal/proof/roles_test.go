package proof

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
)

// TestSequencersAndStorageNodesAreACluster starts two nodes that only sequence
// and three that only store: they form, serve tables and logs, and keep tablets
// and the master where the disks are.
func TestSequencersAndStorageNodesAreACluster(t *testing.T) {
	t.Parallel()
	l := newLab(t, 5, 71)
	for i, b := range l.benches {
		b.cfg.Roles = []string{"storage"}
		if i < 2 {
			b.cfg.Roles = []string{"sequencer"}
		}
	}
	started := make(chan error, len(l.benches))
	for _, b := range l.benches {
		go func() { started <- b.start() }()
	}
	for range l.benches {
		if err := <-started; err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, b := range l.benches {
		if err := b.node.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	cl, err := client.Connect(ctx, []string{l.benches[0].node.Addrs().Client}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.CreateKeyspace(ctx, "k", 3, false); err != nil {
		t.Fatal(err)
	}
	table, err := cl.CreateTable(ctx, client.TableSpec{Keyspace: "k", Name: "t", Columns: []client.Column{{Name: "a", Type: client.Int64, Role: client.Hashed}, {Name: "b", Type: client.String}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Put(ctx, client.Row{"a": 1, "b": "x"}); err != nil {
		t.Error(err)
	}
	if _, err := cl.CreateLogs(ctx, "/l", 1); err != nil {
		t.Fatal(err)
	}
	log := openLog(t, cl, "/l")
	for i := range 20 {
		if _, err := log.Append(ctx, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := cl.Cluster(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stores := map[uint64]bool{}
	for _, n := range c.Nodes {
		stores[n.Id] = n.Roles == catalog.RoleStorage
	}
	for _, m := range c.Masters {
		if !stores[uint64(m)] {
			t.Errorf("a replica of the master is on node %d, which only sequences", m)
		}
	}
	for _, tablet := range c.Tablets {
		for _, r := range tablet.Replicas {
			if !stores[r.Node] {
				t.Errorf("a replica of tablet %d is on node %d, which only sequences", tablet.Id, r.Node)
			}
		}
	}
	epochs, err := log.Epochs(ctx)
	if err != nil || len(epochs) == 0 {
		t.Fatalf("epochs %v, %v", epochs, err)
	}
	for _, s := range epochs[0].Shards {
		if !stores[uint64(s.Node())] {
			t.Errorf("shard %s of a node that only sequences is in a nodeset", s)
		}
	}
	// Either sequencer may go.
	l.benches[0].kill()
	if cl2, err := client.Connect(ctx, []string{l.benches[1].node.Addrs().Client}, client.Options{}); err != nil {
		t.Error(err)
	} else {
		defer cl2.Close()
		if _, err := openLog(t, cl2, "/l").Append(ctx, []byte("after")); err != nil {
			t.Error(err)
		}
	}
	r := openLog(t, cl, "/l").NewReader(client.ReaderOptions{})
	defer r.Close()
	records := 0
	for records < 21 {
		e, err := r.Next(ctx)
		if err != nil {
			t.Fatal(errors.Join(err, fmt.Errorf("after %d records", records)))
		}
		if !e.IsGap() {
			records++
		}
	}
	checkReplication(t, cl, log)
}
