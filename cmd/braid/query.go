package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

type queryCmd struct {
	lookFlags
	Statement []string `arg:"" help:"One SQL statement that reads." placeholder:"SQL"`
}

// Help shows typical calls.
func (queryCmd) Help() string {
	return `The cluster's live state as tables, in SQLite's SQL. What there is:

  braid query 'SELECT name, doc FROM tables'
  braid query "SELECT name, type, doc FROM columns WHERE table_name = 'nodes'"

Example:
  braid query 'SELECT node_id, state, roles FROM nodes ORDER BY node_id'
  braid query --format json 'SELECT role, count(*) AS n FROM tablet_replicas GROUP BY role'`
}

// Run asks a node and prints its answer; what is missing from it goes to stderr.
func (c queryCmd) Run() error {
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	cl, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	result, err := cl.Query(ctx, strings.Join(c.Statement, " "))
	if err != nil {
		return err
	}
	for _, w := range result.Warnings {
		fmt.Fprintln(os.Stderr, "braid: warning:", w)
	}
	rows := [][]string{result.Columns}
	objects := []map[string]any{}
	for _, r := range result.Rows {
		words, object := make([]string, len(r)), map[string]any{}
		for i, v := range r {
			object[result.Columns[i]] = v
			if words[i] = fmt.Sprint(v); v == nil {
				words[i] = "-"
			}
		}
		rows, objects = append(rows, words), append(objects, object)
	}
	if len(result.Warnings) > 0 {
		return errors.Join(c.show(objects, rows), errors.New("the answer is not complete"))
	}
	return c.show(objects, rows)
}
