package proof

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// TestEveryColumnOfEveryTable asks a cluster with a log, and somebody who reads it,
// for every column of every table: each answers, and has a row of which some values
// are what they should be. So that all have, a node is taken away and comes back.
func TestEveryColumnOfEveryTable(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{links: true})
	cl := connect(t, c)
	l := makeLog(t, cl, "/tables/log")
	var last client.LSN
	for i := range 10 {
		lsn, err := l.Append(within(t, 20*time.Second), fmt.Append(nil, i))
		if err != nil {
			t.Fatal(err)
		}
		last = lsn
	}
	r := l.NewReader(client.ReaderOptions{From: 2})
	defer r.Close()
	if _, err := r.Next(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := l.Trim(within(t, 20*time.Second), last-5); err != nil {
		t.Fatal(err)
	}
	grown, err := cl.CreateLogs(within(t, 20*time.Second), "/tables/grown", 2, client.LogAttribute("sequencer_batching_compression", "lz4"))
	if err != nil {
		t.Fatal(err)
	}
	makeLog(t, cl, "/tables/between")
	if _, err := cl.ResizeLogs(within(t, 20*time.Second), "/tables/grown", 5); err != nil {
		t.Fatal(err)
	}
	// What is to be found sooner or later: a condition on a row of each table that has any.
	sane := map[string]string{
		"info": "node_id = 2 AND length(cluster_id) = 32 AND not_ready = '' AND uptime_ms > 0", "nodes": "node_id = 3 AND state = 'alive' AND storage_state = 'read_write'",
		"append_throughput": "log_group_name = '/tables/log' AND appends_1min > 0 AND payloads_10min > 0 AND throughput_5min > 0",
		"tablet_replicas":   "tablet_id = 1 AND role = 'leader'",
		"sequencers":        fmt.Sprintf("log_id = %d AND state = 'ACTIVE' AND last_released = '%s'", l.ID(), last),
		"gossip":            "node_id = 1 AND target_node_id = 3 AND state = 'ALIVE' AND isolated = ''",
		"log_groups": fmt.Sprintf("name = '/tables/grown' AND range = 1 AND logid_lo = %d AND logid_hi = %d AND replication_property = 'node:2' AND "+
			"durability = 'fsync' AND sequencer_batching_compression = 'lz4' AND sequencer_batching_time_ms = 1000 AND create_on_append = 0 AND sequencer_affinity = ''",
			uint64(grown.ID)+3, uint64(grown.ID)+5),
		"log_storage_state": fmt.Sprintf("log_id = %d AND trim_point = '%s'", l.ID(), last-5), "epoch_store": "next_epoch = 2 OR next_epoch = 1",
		"partitions": "writable = 1", "readers": fmt.Sprintf("log_id = %d AND start_lsn <> '' AND last_released = '%s'", l.ID(), last),
		"records": fmt.Sprintf("lsn = '%s' AND payload_bytes = 1", last), "historical_metadata": "since = 1 AND nodeset_size = 3",
		"shards": "stores > 0 AND damaged = 0", "logsdb_directory": "copies > 0 AND first_timestamp_ms > 0 AND first_lsn <> ''",
		"tables": "name = 'columns'", "columns": "table_name = 'info' AND name = 'pid' AND type = 'INTEGER'",
	}
	var tables []string
	for _, row := range rows(t, cl, "SELECT name FROM tables") {
		tables = append(tables, row[0].(string))
	}
	for _, table := range slices.Concat(tables, []string{"tables", "columns"}) {
		var columns []string
		for _, row := range rows(t, cl, "SELECT name FROM columns WHERE table_name = '%s'", table) {
			columns = append(columns, row[0].(string))
		}
		if len(columns) == 0 {
			t.Errorf("table %s has no columns", table)
			continue
		}
		where := ""
		if slices.Contains(ofOneLog, table) {
			where = fmt.Sprintf(" WHERE log_id = %d", l.ID())
			if _, err := cl.Query(within(t, 20*time.Second), "SELECT * FROM "+table); !errors.Is(err, client.ErrInvalid) ||
				!strings.Contains(err.Error(), table) || !strings.Contains(err.Error(), "WHERE log_id = ") {
				t.Errorf("all of %s: %v", table, err)
			}
		}
		rows(t, cl, "SELECT %s FROM %s%s", strings.Join(columns, ", "), table, where)
		if want, ok := sane[table]; ok && !eventually(20*time.Second, func() bool {
			and := " WHERE ("
			if where != "" {
				and = where + " AND ("
			}
			return len(rows(t, cl, "SELECT * FROM %s%s%s)", table, and, want)) > 0
		}) {
			t.Errorf("%s has no row with %s: %v", table, want, rows(t, cl, "SELECT * FROM %s%s", table, where))
		}
	}
	for _, table := range tables {
		if _, ok := sane[table]; !ok && !slices.Contains(ofTrouble, table) {
			t.Errorf("nothing is demanded of the rows of %s", table)
		}
	}
	if n := rows(t, cl, "SELECT count(*) FROM log_storage_state WHERE trim_point = 'invalid'"); n[0][0] != int64(0) {
		t.Errorf("%v trim points are not LSNs", n[0][0])
	}
	if n := rows(t, cl, "SELECT range, logid_hi - logid_lo FROM log_groups WHERE name = '/tables/grown' ORDER BY range"); fmt.Sprint(n) != "[[0 1] [1 2]]" {
		t.Errorf("the ranges of the group that grew: %v", n)
	}
	c.tablesOfTrouble(cl, l)
	c.checkReplication(cl, l)
}

// ofOneLog are the tables that must be told of which log.
var ofOneLog = []string{"records", "epoch_store", "historical_metadata", "logsdb_directory"}

// ofTrouble are the tables that have no rows where all is well.
var ofTrouble = []string{"recoveries", "purges", "graylist"}

// tablesOfTrouble takes away the node that numbers a log: first it sleeps, then it is
// killed. With one copy of each record its last epoch cannot be recovered without that
// node, with two it is. When the node comes back it asks what was decided, which is over
// too soon to be seen for certain: package recovery looks at purges that wait.
func (c *cluster) tablesOfTrouble(cl *client.Client, two *client.Log) {
	t := c.t
	t.Helper()
	has := func(table, where string) {
		t.Helper()
		if !eventually(30*time.Second, func() bool { return len(rows(t, cl, "SELECT * FROM %s WHERE %s", table, where)) > 0 }) {
			t.Errorf("%s has no row with %s: %v", table, where, rows(t, cl, "SELECT * FROM %s", table))
		}
	}
	at := c.sequencerOf(cl, two)
	id := c.nodeID(cl, at)
	write := func(l *client.Log) {
		t.Helper()
		for i := range 20 {
			if _, err := l.Append(within(t, 30*time.Second), fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	one := makeLog(t, cl, "/tables/one", client.LogReplication(&client.Replication{Node: 1}), client.LogStickyCopysets(false))
	write(one)
	other := c.numberedElsewhere(cl, at)
	c.nodes[at].Signal(syscall.SIGSTOP)
	write(other)
	has("graylist", fmt.Sprintf("shard = 'N%d:S0' AND reason <> ''", id))
	numbers := c.sequencerOf(cl, one)
	c.nodes[at].Kill()
	if numbers != at { // then its reign is ended, too
		c.nodes[numbers].Kill()
		c.nodes[numbers].start()
	}
	write(two)
	write(one)
	has("recoveries", fmt.Sprintf("log_id = %d AND epoch = 1 AND state IN ('SEALING', 'DIGESTING')", one.ID()))
	c.nodes[at].start()
	c.waitReady()
	for _, table := range []string{"recoveries", "purges"} {
		if !eventually(30*time.Second, func() bool { return len(rows(t, cl, "SELECT * FROM %s", table)) == 0 }) {
			t.Errorf("with all nodes back there are still %s: %v", table, rows(t, cl, "SELECT * FROM %s", table))
		}
	}
	readRange(t, one, oldest, tailOf(t, one), 30*time.Second, nil)
}

// numberedElsewhere makes a log that another node than the given one numbers.
func (c *cluster) numberedElsewhere(cl *client.Client, but int) *client.Log {
	c.t.Helper()
	for i := range 20 {
		l := makeLog(c.t, cl, fmt.Sprint("/tables/elsewhere", i), client.LogStickyCopysets(false))
		if _, err := l.Append(within(c.t, 30*time.Second), []byte("first")); err != nil {
			c.t.Fatal(err)
		}
		if c.sequencerOf(cl, l) != but {
			return l
		}
	}
	c.t.Fatalf("node %d numbers all logs", but+1)
	return nil
}
