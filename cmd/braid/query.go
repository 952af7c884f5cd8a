package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/braiddb/braid/client"
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
	result, err := c.ask(ctx, strings.Join(c.Statement, " "))
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

// ask asks a node of the cluster, or the one that there is: what is cut off from the
// others has no catalog, and most to tell.
func (c queryCmd) ask(ctx context.Context, statement string) (*client.QueryResult, error) {
	soon, done := context.WithTimeout(ctx, c.Timeout/3)
	defer done()
	cl, unconnected := c.connect(soon)
	if unconnected != nil {
		var err error
		if cl, err = client.Open(c.addrs(), client.Options{}); err != nil {
			return nil, err
		}
	}
	defer cl.Close()
	result, err := cl.Query(ctx, statement)
	if err != nil {
		return nil, errors.Join(err, unconnected)
	}
	return result, nil
}
