package proof

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// A rowWriter writes the rows of its keys again and again while the table
// changes under it, and knows what it has written.
type rowWriter struct {
	t     *testing.T
	table *client.Table
	name  string
	keys  []rowState
	acked atomic.Int64
}

// rowState is what is known of one row.
type rowState struct {
	number  int64 // of the last write that was acknowledged
	unknown int64 // of the last write whose outcome is unknown, 0 if none
	extra   bool  // the acknowledged write named the column "extra"
	doubt   bool  // whether a value of "extra" is there is unknown
}

// tolerated is what a writer may be answered while columns come and go and a
// node dies: words that its column is not there. Everything else is a fault.
func tolerated(err error) bool { return errors.Is(err, client.ErrNotFound) }

// run writes until ctx ends. naming says whether "extra" is to be named.
func (w *rowWriter) run(ctx context.Context, naming *atomic.Bool) {
	for n := int64(1); ctx.Err() == nil; n++ {
		i := int(n) % len(w.keys)
		s := &w.keys[i]
		row := client.Row{"id": fmt.Sprint(w.name, i), "n": n}
		named := naming.Load()
		if named {
			row["extra"] = n
		}
		op, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err := w.table.Update(op, row)
		cancel()
		switch {
		case err == nil:
			s.number, s.unknown = n, 0
			s.extra = s.extra || named
			w.acked.Add(1)
		case named && tolerated(err): // surely not written
		case errors.Is(err, client.ErrUnknownOutcome):
			s.unknown = n
			s.doubt = s.doubt || named
		default:
			w.t.Errorf("%s: %v", row["id"], err)
			return
		}
	}
}

// check reads every row back.
func (w *rowWriter) check(ctx context.Context, extra func(s rowState, value any) error) {
	w.t.Helper()
	for i, s := range w.keys {
		key := fmt.Sprint(w.name, i)
		row, err := w.table.Get(ctx, client.Row{"id": key})
		if err != nil {
			if s.number > 0 || !errors.Is(err, client.ErrNotFound) {
				w.t.Errorf("get %s: %v; write %d was acknowledged", key, err, s.number)
			}
			continue
		}
		if n := row["n"]; n != s.number && (s.unknown == 0 || n != s.unknown) {
			w.t.Errorf("%s: n is %v; acknowledged %d, unknown %d", key, n, s.number, s.unknown)
		}
		if err := extra(s, row["extra"]); err != nil {
			w.t.Errorf("%s: %v", key, err)
		}
	}
}

// TestTablesChangeUnderWriters creates, alters and drops tables of three real
// processes through the client while others write to them and a node is killed
// and comes back. Writers that name no column that goes see no error at all.
func TestTablesChangeUnderWriters(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{flags: []string{"--journal-size", "64MiB", "--lease", "1s", "--election-delay", "200ms"}})
	admin, user := connect(t, c), connect(t, c)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	must("create keyspace", admin.CreateKeyspace(ctx, "app", 0, false))
	spec := client.TableSpec{Keyspace: "app", Name: "items", Tablets: 6, Columns: []client.Column{
		{Name: "id", Type: client.String, Role: client.Hashed}, {Name: "n", Type: client.Int64}, {Name: "note", Type: client.String},
	}}
	_, err := admin.CreateTable(ctx, spec)
	must("create table", err)

	var plain, naming atomic.Bool
	var writers []*rowWriter
	var wg sync.WaitGroup
	run, stop := context.WithCancel(ctx)
	defer stop()
	for i := range 6 {
		table, err := user.Table(ctx, "app", "items")
		must("open table", err)
		w := &rowWriter{t: t, table: table, name: fmt.Sprint("w", i, "."), keys: make([]rowState, 25)}
		writers = append(writers, w)
		flag := &plain
		if i >= 3 {
			flag = &naming
		}
		wg.Go(func() { w.run(run, flag) })
	}
	progress := func(n int64) {
		t.Helper()
		for _, w := range writers {
			before := w.acked.Load()
			if !eventually(30*time.Second, func() bool { return w.acked.Load() >= before+n || t.Failed() }) {
				t.Fatalf("writer %s stands still", w.name)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	alter := func(changes ...client.Alteration) {
		t.Helper()
		begin := time.Now()
		must("alter table", admin.AlterTable(ctx, "app", "items", changes...))
		t.Logf("altered in %v", time.Since(begin).Round(time.Millisecond))
	}
	progress(20)
	alter(client.AddColumn(client.Column{Name: "extra", Type: client.Int64}))
	naming.Store(true)
	progress(50)
	c.nodes[1].Kill()
	alter(client.RenameColumn("note", "remark"))
	progress(20)
	c.nodes[1].start()
	progress(50)
	alter(client.DropColumn("extra")) // with writers that name it
	naming.Store(false)
	progress(20)
	c.waitReady()
	alter(client.AddColumn(client.Column{Name: "extra", Type: client.Int64})) // of the same name, and another
	progress(5)
	stop()
	wg.Wait()
	for _, w := range writers {
		w.check(ctx, func(_ rowState, v any) error {
			if v != nil {
				return fmt.Errorf("extra is %v: a dropped column's value came back", v)
			}
			return nil
		})
	}
	c.dropTables(ctx, admin, user, spec)
}

// dropTables drops the table, makes one of the same name, which is empty, and
// drops that too; nothing of either is left on any node.
func (c *cluster) dropTables(ctx context.Context, admin, user *client.Client, spec client.TableSpec) {
	t := c.t
	old, err := user.Table(ctx, "app", "items")
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.DropTable(ctx, "app", "items"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var last error
	if !eventually(5*time.Second, func() bool {
		last = old.Put(short, client.Row{"id": "w0.0", "n": 1})
		return last != nil
	}) || !errors.Is(last, client.ErrNotFound) {
		t.Errorf("a write to a dropped table: %v", last)
	}
	if _, err := user.Table(ctx, "app", "items"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("open a dropped table: %v", err)
	}
	fresh, err := admin.CreateTable(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Get(ctx, client.Row{"id": "w0.0"}); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("a new table of the old name holds a row: %v", err)
	}
	if err := fresh.Put(ctx, client.Row{"id": "w0.0", "n": 7}); err != nil {
		t.Error(err)
	}
	c.nodes[2].Kill() // it hears of the drop when it is back
	if err := admin.DropTable(ctx, "app", "items"); err != nil {
		t.Fatal(err)
	}
	c.nodes[2].start()
	c.waitReady()
	for _, p := range c.nodes {
		var groups, streams float64
		if !eventually(15*time.Second, func() bool {
			m := metrics(t, p.WebAddr())
			groups, streams = m["braid_node_replicas"], m["braid_journal_streams"]
			return groups == 4 && streams == 4 // three tablets of Redis and the master
		}) {
			t.Errorf("node %d still has %v groups and %v streams of the journal", p.Index, groups, streams)
		}
	}
	c.journalLetsGo(ctx)
}

// journalLetsGo writes more than the journal may hold: what was retired pins
// none of it.
func (c *cluster) journalLetsGo(ctx context.Context) {
	clients := stockClients(c.t, c)
	v := noise(6, 1<<20)
	for i := range 72 {
		if err := clients[i%3].Set(ctx, fmt.Sprint("fill", i%8), v, 0).Err(); err != nil {
			c.t.Fatalf("write %d MiB after the drop: %v", i, err)
		}
	}
	for _, p := range c.nodes {
		m := metrics(c.t, p.WebAddr())
		if m["braid_journal_segments"] > 4 || m["braid_journal_recycled"]+m["braid_journal_removed"] == 0 {
			c.t.Errorf("node %d: the journal has %v segments, let go of %v", p.Index, m["braid_journal_segments"], m["braid_journal_recycled"]+m["braid_journal_removed"])
		}
	}
}
