package catalog

import (
	"fmt"
	"strings"
)

// Text prints a catalog for people: golden tests, logs and the console.
//
//	catalog 7 of cluster c
//	node 1 n1:7100 alive
//	keyspace shop x3
//	table 2 shop.orders murmur3 x3 running, schema 1: customer#1 string hash, at#2 timestamp range desc
//	tablet 4 of 2 [0, end) v1: 10@n1 11@n2 12@n3(learner) +13@n4 -10 as of 99
//	log directory 2 /events, backlog=7d
//	log group 3 /events/clicks 1-4 9-12 v7, replication=node:3
func Text(c *Catalog) string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "catalog %d of cluster %s\n", c.GetVersion(), c.GetClusterId())
	for _, n := range c.GetNodes() {
		fmt.Fprintf(&sb, "node %d %s %s", n.Id, n.RpcAddr, lower(n.State.String(), "NODE_STATE_"))
		if n.Location != "" {
			fmt.Fprintf(&sb, " in %s", n.Location)
		}
		sb.WriteByte('\n')
	}
	for _, k := range c.GetKeyspaces() {
		fmt.Fprintf(&sb, "keyspace %s x%d\n", k.Name, k.ReplicationFactor)
	}
	for _, t := range c.GetTables() {
		fmt.Fprintf(&sb, "table %d %s.%s %s x%d %s, schema %d: %s\n", t.Id, t.Keyspace, t.Name, lower(t.Hash.String(), "HASH_"),
			t.ReplicationFactor, lower(t.State.String(), "TABLE_STATE_"), t.Schema.GetVersion(), columnsText(t.Schema))
	}
	if len(c.GetMasterReplicas()) > 0 {
		fmt.Fprintf(&sb, "master %s\n", groupText(c.MasterTablet()))
	}
	for _, t := range c.GetTablets() {
		end := "end"
		if t.HashEnd != 0 {
			end = fmt.Sprintf("%#x", t.HashEnd)
		}
		fmt.Fprintf(&sb, "tablet %d of %d [%#x, %s) %s\n", t.Id, t.Table, t.HashStart, end, groupText(t))
	}
	logsText(&sb, c)
	return sb.String()
}

func lower(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

func columnsText(s *Schema) string {
	var list []string
	for _, c := range s.GetColumns() {
		text := fmt.Sprintf("%s#%d %s", c.Name, c.Id, lower(c.Type.String(), "TYPE_"))
		if c.Kind != ColumnKind_COLUMN_KIND_REGULAR {
			text += " " + lower(c.Kind.String(), "COLUMN_KIND_")
		}
		if c.Descending {
			text += " desc"
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

func groupText(t *Tablet) string {
	list := []string{fmt.Sprintf("v%d:", t.Version)}
	for _, r := range t.Replicas {
		text := fmt.Sprintf("%d@n%d", r.Id, r.Node)
		if r.Role != Role_ROLE_VOTER {
			text += "(" + lower(r.Role.String(), "ROLE_") + ")"
		}
		list = append(list, text)
	}
	if t.Adding != nil {
		list = append(list, fmt.Sprintf("+%d@n%d", t.Adding.Id, t.Adding.Node))
	}
	if t.Removing != 0 {
		list = append(list, fmt.Sprintf("-%d", t.Removing))
	}
	if t.ConfigIndex != 0 {
		list = append(list, fmt.Sprintf("as of %d", t.ConfigIndex))
	}
	return strings.Join(list, " ")
}
