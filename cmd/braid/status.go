package main

import (
	"fmt"
	"strconv"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
)

type statusCmd struct{ lookFlags }

// Help shows how to use it from a program.
func (statusCmd) Help() string {
	return "Examples:\n  braid status\n  braid status --addr 127.0.0.2:7200 --format json"
}

// statusReport is the cluster in one screen.
type statusReport struct {
	Cluster  string   `json:"cluster"`
	Nodes    int      `json:"nodes"`
	Alive    int      `json:"nodes_alive"`
	Tables   int      `json:"tables"`
	Tablets  int      `json:"tablets"`
	Leading  int      `json:"tablets_with_leader"`
	Copies   string   `json:"copies"`
	Problems []string `json:"problems"`
}

func report(c *client.Cluster) statusReport {
	r := statusReport{Cluster: c.ID, Tables: len(c.Tables), Tablets: len(c.Tablets), Problems: []string{}}
	for i, n := range nodeRows(c) {
		n, replicas := c.Nodes[i], n.Replicas
		if n.Forgotten() || n.Gone() && replicas == 0 {
			continue // replaced: nothing is missing because of it
		}
		r.Nodes++
		if n.State == catalog.NodeState_NODE_STATE_ALIVE || n.State == catalog.NodeState_NODE_STATE_DRAINING {
			r.Alive++
		} else {
			r.Problems = append(r.Problems, fmt.Sprintf("node %d at %s is %s", n.Id, n.RpcAddr, word(n.State.String(), "NODE_STATE_")))
		}
	}
	least := -1
	short := 0
	for _, t := range c.Tablets {
		voters := 0
		for _, rep := range t.Replicas {
			if rep.Role == catalog.Role_ROLE_VOTER {
				voters++
			}
		}
		if least < 0 || voters < least {
			least = voters
		}
		if table := c.Table(t.Tablet.Table); table != nil && voters < int(table.ReplicationFactor) {
			short++
		}
		if t.Leader != 0 {
			r.Leading++
		} else {
			r.Problems = append(r.Problems, fmt.Sprintf("tablet %d has no leader", t.Id))
		}
	}
	r.Copies = copies(least)
	if short > 0 {
		r.Problems = append(r.Problems, fmt.Sprintf("%d of %d tablets have fewer copies than their table asks for; start more nodes with --join", short, len(c.Tablets)))
	}
	return r
}

// copies says the least replication in words.
func copies(n int) string {
	switch n {
	case -1:
		return "no tablets"
	case 1:
		return "one copy"
	case 2:
		return "two copies"
	case 3:
		return "three copies"
	}
	return strconv.Itoa(n) + " copies"
}

// Run prints the report.
func (c statusCmd) Run() error {
	cl, err := c.cluster()
	if err != nil {
		return err
	}
	r := report(cl)
	rows := [][]string{
		{"cluster", r.Cluster},
		{"nodes", fmt.Sprintf("%d, %d alive", r.Nodes, r.Alive)},
		{"tables", strconv.Itoa(r.Tables)},
		{"tablets", fmt.Sprintf("%d, %d with a leader", r.Tablets, r.Leading)},
		{"copies", r.Copies},
	}
	for _, p := range r.Problems {
		rows = append(rows, []string{"problem", p})
	}
	if len(r.Problems) == 0 {
		rows = append(rows, []string{"problems", "none"})
	}
	return c.show(r, rows)
}
