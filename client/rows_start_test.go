package client

import (
	"errors"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/wire"
)

// startedRow and startedGet wait for what was started.
func startedRow(table *Table, m Mutation) error {
	done := make(chan error, 1)
	table.StartRow(m, time.Time{}, func(err error) { done <- err })
	return <-done
}

func startedGet(table *Table, key Row, columns ...string) (Row, error) {
	type answer struct {
		row Row
		err error
	}
	done := make(chan answer, 1)
	table.StartGet(key, time.Time{}, func(row Row, err error) { done <- answer{row, err} }, columns...)
	a := <-done
	return a.row, a.err
}

func TestStartedRows(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		named := eventTable(t, c, 1)
		cold := New(f, Options{})
		defer cold.Close()
		table := cold.table(named.ID()) // its routes are not known yet
		key := Row{"user": "u", "at": 1, "seq": 1}
		row := Row{"user": "u", "at": 1, "seq": 1, "text": "x"}
		if _, err := startedGet(table, key); !errors.Is(err, ErrNotFound) {
			t.Errorf("a row that is not there: %v", err)
		}
		if err := startedRow(table, PutRow(row, IfAbsent())); err != nil {
			t.Fatal(err)
		}
		if err := startedRow(table, PutRow(row, IfAbsent())); !errors.Is(err, ErrConditionFailed) {
			t.Errorf("a row that is there: %v", err)
		}
		if err := startedRow(table, PutRow(Row{"user": "u"})); !errors.Is(err, ErrInvalid) {
			t.Errorf("half a key: %v", err)
		}
		if got, err := startedGet(table, key, "text"); err != nil || got["text"] != "x" {
			t.Error(got, err)
		}
		// The schema changes under them.
		if err := c.AlterTable(t.Context(), "app", "events", AddColumn(Column{Name: "extra", Type: Int64})); err != nil {
			t.Fatal(err)
		}
		if err := startedRow(table, PutRow(row)); err != nil {
			t.Error(err)
		}
		f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict { return verdict{silent: true} }
		if err := startedRow(table, PutRow(row)); !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("no answer: %v", err)
		}
		if err := cold.Close(); err != nil {
			t.Fatal(err)
		}
		if err := startedRow(table, PutRow(row)); !errors.Is(err, ErrCanceled) {
			t.Errorf("closed: %v", err)
		}
		if err := startedRow(cold.table(77), PutRow(row)); !errors.Is(err, ErrClosed) {
			t.Errorf("closed, no routes: %v", err)
		}
	})
}
