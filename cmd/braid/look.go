package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/node"
)

// lookFlags are shared by the commands that look at a running cluster.
type lookFlags struct {
	Addr    []string      `help:"Client addresses of one or more nodes." default:"127.0.0.1:7200" placeholder:"ADDR"`
	Format  string        `help:"table or json." enum:"table,json" default:"table"`
	Timeout time.Duration `help:"How long to wait for an answer." default:"5s"`
}

func (f lookFlags) connect(ctx context.Context) (*client.Client, error) {
	return f.connectWith(ctx, client.Options{})
}

func (f lookFlags) connectWith(ctx context.Context, o client.Options) (*client.Client, error) {
	addrs := f.addrs()
	c, err := client.Connect(ctx, addrs, o)
	if err != nil {
		return nil, fmt.Errorf("no node answers at %s: %w; is one running? try: braid demo", strings.Join(addrs, ", "), err)
	}
	return c, nil
}

// addrs are the addresses with their ports.
func (f lookFlags) addrs() []string {
	addrs := make([]string, len(f.Addr))
	for i, a := range f.Addr {
		if _, _, err := net.SplitHostPort(a); err != nil {
			a = net.JoinHostPort(strings.Trim(a, "[]"), strconv.Itoa(node.ClientPort))
		}
		addrs[i] = a
	}
	return addrs
}

func (f lookFlags) cluster() (*client.Cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), f.Timeout)
	defer cancel()
	c, err := f.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	cl, err := c.Cluster(ctx)
	if err != nil {
		return nil, fmt.Errorf("the cluster at %s does not answer: %w", strings.Join(f.Addr, ", "), err)
	}
	return cl, nil
}

// show prints rows, the first of which is the heading, as a table, or v as JSON.
func (f lookFlags) show(v any, rows [][]string) error {
	if f.Format == "json" {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

func id[T ~uint64 | ~uint32](v T) string { return strconv.FormatUint(uint64(v), 10) }

// nodesCmd holds the commands about nodes; without a word it lists them.
type nodesCmd struct {
	List   nodesListCmd   `cmd:"" default:"withargs" help:"List the nodes."`
	Forget nodesForgetCmd `cmd:"" help:"Give a node up whose data directory is gone for good."`
}

// Help shows typical calls.
func (nodesCmd) Help() string {
	return "Examples:\n  braid nodes --addr 127.0.0.1,127.0.0.2\n  braid nodes forget 3"
}

type nodesForgetCmd struct {
	lookFlags
	Node     uint64 `arg:"" help:"The node's id, as braid nodes lists it."`
	DataLost bool   `help:"Although data may have been on it, or on forgotten nodes, alone: readers of logs are then told of the loss."`
}

// Help says when to use it.
func (nodesForgetCmd) Help() string {
	return `A node that is only silent is waited for: it may come back with all that it
acknowledged. One whose disk is lost does not, and where too few others can answer in
its place, logs go on only when that is said. Stop the node first; it is never let in
again with its old data directory.

Examples:
  braid nodes forget 3
  braid nodes forget 4 --data-lost`
}

// Run gives the node up.
func (c nodesForgetCmd) Run() error {
	return c.administer(func(ctx context.Context, cl *client.Client) error {
		if err := cl.ForgetNode(ctx, client.NodeID(c.Node), c.DataLost); err != nil {
			return err
		}
		return c.show(map[string]uint64{"forgotten": c.Node}, [][]string{{"FORGOTTEN"}, {id(c.Node)}})
	})
}

type nodesListCmd struct{ lookFlags }

type nodeRow struct {
	ID       uint64 `json:"id"`
	State    string `json:"state"`
	Node     string `json:"node_addr"`
	Client   string `json:"client_addr"`
	Redis    string `json:"redis_addr"`
	Console  string `json:"console_addr"`
	Location string `json:"location"`
	Replicas int    `json:"replicas"`
	Leaders  int    `json:"leaders"`
	Master   bool   `json:"master"`
	Version  string `json:"version"`
}

func nodeRows(c *client.Cluster) []nodeRow {
	var out []nodeRow
	for _, n := range c.Nodes {
		r := nodeRow{
			ID: n.Id, State: word(n.State.String(), "NODE_STATE_"), Node: n.RpcAddr, Client: n.ClientAddr, Redis: n.RedisAddr,
			Console: n.ConsoleAddr, Location: n.Location, Version: n.Version, Master: slices.Contains(c.Masters, catalog.NodeID(n.Id)),
		}
		for _, t := range c.Tablets {
			for _, rep := range t.Replicas {
				if rep.Node == n.Id {
					r.Replicas++
				}
			}
			if t.Leader == catalog.NodeID(n.Id) {
				r.Leaders++
			}
		}
		out = append(out, r)
	}
	return out
}

// word turns an enum's name into the word that people read.
func word(name, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(name, prefix))
}

// Help shows a typical call.
func (nodesListCmd) Help() string { return "Example:\n  braid nodes --addr 127.0.0.1,127.0.0.2" }

// Run lists the nodes.
func (c nodesListCmd) Run() error {
	cl, err := c.cluster()
	if err != nil {
		return err
	}
	list := nodeRows(cl)
	rows := [][]string{{"NODE", "STATE", "REDIS", "CLIENT", "NODES", "CONSOLE", "LOCATION", "MASTER", "REPLICAS", "LEADERS", "VERSION"}}
	for _, n := range list {
		master := ""
		if n.Master {
			master = "yes"
			if cl.MasterLeader == catalog.NodeID(n.ID) {
				master = "leader"
			}
		}
		rows = append(rows, []string{id(n.ID), n.State, n.Redis, n.Client, n.Node, n.Console, n.Location, master,
			strconv.Itoa(n.Replicas), strconv.Itoa(n.Leaders), n.Version})
	}
	return c.show(list, rows)
}

type tablesCmd struct{ lookFlags }

type tableRow struct {
	ID       uint32   `json:"id"`
	Keyspace string   `json:"keyspace"`
	Name     string   `json:"name"`
	State    string   `json:"state"`
	Hash     string   `json:"hash"`
	Schema   uint32   `json:"schema_version"`
	Columns  []string `json:"columns"`
	Copies   uint32   `json:"replication_factor"`
	Tablets  int      `json:"tablets"`
}

// Help shows a typical call.
func (tablesCmd) Help() string { return "Example:\n  braid tables --format json" }

// Run lists the tables.
func (c tablesCmd) Run() error {
	cl, err := c.cluster()
	if err != nil {
		return err
	}
	var list []tableRow
	rows := [][]string{{"TABLE", "ID", "STATE", "HASH", "SCHEMA", "COLUMNS", "COPIES", "TABLETS"}}
	for _, t := range cl.Tables {
		r := tableRow{ID: t.Id, Keyspace: t.Keyspace, Name: t.Name, State: word(t.State.String(), "TABLE_STATE_"),
			Hash: word(t.Hash.String(), "HASH_"), Schema: t.Schema.GetVersion(), Copies: t.ReplicationFactor}
		for _, col := range t.Schema.GetColumns() {
			r.Columns = append(r.Columns, col.Name+" "+word(col.Type.String(), "TYPE_"))
		}
		for _, tablet := range cl.Tablets {
			if tablet.Tablet.Table == t.Id {
				r.Tablets++
			}
		}
		list = append(list, r)
		rows = append(rows, []string{r.Keyspace + "." + r.Name, id(r.ID), r.State, r.Hash, "v" + id(r.Schema),
			strings.Join(r.Columns, ", "), id(r.Copies), strconv.Itoa(r.Tablets)})
	}
	return c.show(list, rows)
}

type tabletsCmd struct {
	lookFlags
	Table string `help:"Only those of this table (keyspace.name)." placeholder:"NAME"`
}

type tabletRow struct {
	ID       uint64   `json:"id"`
	Table    string   `json:"table"`
	Start    string   `json:"hash_start"`
	End      string   `json:"hash_end"`
	Leader   uint64   `json:"leader_node"`
	Replicas []string `json:"replicas"`
}

// Help shows a typical call.
func (tabletsCmd) Help() string { return "Example:\n  braid tablets --addr 127.0.0.2" }

// Run lists the tablets.
func (c tabletsCmd) Run() error {
	cl, err := c.cluster()
	if err != nil {
		return err
	}
	var list []tabletRow
	rows := [][]string{{"TABLET", "TABLE", "FROM HASH", "TO HASH", "LEADER", "REPLICAS (replica@node)"}}
	for _, t := range cl.Tablets {
		name := id(t.Tablet.Table)
		if table := cl.Table(t.Tablet.Table); table != nil {
			name = table.Keyspace + "." + table.Name
		}
		if c.Table != "" && c.Table != name {
			continue
		}
		r := tabletRow{ID: t.Id, Table: name, Start: fmt.Sprintf("%016x", t.HashStart), End: fmt.Sprintf("%016x", t.HashEnd-1), Leader: uint64(t.Leader)}
		for _, rep := range t.Replicas {
			s := id(rep.Id) + "@" + id(rep.Node)
			if rep.Role == catalog.Role_ROLE_LEARNER {
				s += " (learner)"
			}
			r.Replicas = append(r.Replicas, s)
		}
		leader := "none"
		if r.Leader != 0 {
			leader = "node " + id(r.Leader)
		}
		list = append(list, r)
		rows = append(rows, []string{id(r.ID), r.Table, r.Start, r.End, leader, strings.Join(r.Replicas, " ")})
	}
	return c.show(list, rows)
}
