package query

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// twoTables is a table of nodes and one of records that must be asked for by log.
func twoTables(asked *[]Filter) []Table {
	return []Table{
		{Name: "nodes", Columns: []Column{{Name: "id", Type: Integer}, {Name: "name", Type: Text}, {Name: "load", Type: Real}},
			Rows: func(_ context.Context, _ Filter, yield func([]any) bool) error {
				for i := range 3 {
					if !yield([]any{uint64(i + 1), fmt.Sprintf("n%d", i+1), float64(i) / 2}) {
						return nil
					}
				}
				return nil
			}},
		{Name: "records", Columns: []Column{{Name: "log_id", Type: Integer, Required: true}, {Name: "node", Type: Integer}, {Name: "hole", Type: Integer}},
			Rows: func(_ context.Context, f Filter, yield func([]any) bool) error {
				*asked = append(*asked, f)
				id, _ := f.Int("log_id")
				for i := range int64(4) {
					if !yield([]any{id, 1 + i%3, i == 2}) {
						return nil
					}
				}
				return nil
			}},
	}
}

func engine(t *testing.T, tables []Table, o Options) *Engine {
	t.Helper()
	e, err := New(tables, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func ask(t *testing.T, e *Engine, sql string) string {
	t.Helper()
	r, err := e.Query(context.Background(), sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return fmt.Sprint(r.Columns, r.Rows)
}

func TestQueriesSelectJoinAndAggregate(t *testing.T) {
	var asked []Filter
	e := engine(t, twoTables(&asked), Options{})
	for sql, want := range map[string]string{
		"SELECT id, name FROM nodes WHERE load >= 0.5 ORDER BY id DESC LIMIT 1":                                         "[id name] [[3 n3]]",
		"SELECT count(*) AS n, sum(load) FROM Nodes;":                                                                   "[n sum(load)] [[3 1.5]]",
		"SELECT n.name, count(*) FROM records r JOIN nodes n ON n.id = r.node WHERE r.log_id = 7 GROUP BY 1 ORDER BY 1": "[name count(*)] [[n1 2] [n2 1] [n3 1]]",
		"WITH h AS (SELECT * FROM records WHERE log_id = 9 AND hole) SELECT log_id, node FROM h -- the end; really":     "[log_id node] [[9 3]]",
		"SELECT name FROM tables ORDER BY name":                                                                         "[name] [[columns] [nodes] [records] [tables]]",
		"SELECT name, type FROM columns WHERE table_name = 'nodes' ORDER BY name":                                       "[name type] [[id INTEGER] [load REAL] [name TEXT]]",
		"VALUES (1, ';'), (2, 'a--b')":                                                                                  "[column1 column2] [[1 ;] [2 a--b]]",
	} {
		if got := ask(t, e, sql); got != want {
			t.Errorf("%s:\n got %s\nwant %s", sql, got, want)
		}
	}
	for _, f := range asked {
		if id, ok := f.Int("log_id"); !ok || (id != 7 && id != 9) {
			t.Errorf("rows asked for with %v", f)
		}
	}
	if len(asked) == 0 {
		t.Error("the records were never asked for")
	}
}

func TestARequiredColumnTakesItsValueFromAJoin(t *testing.T) {
	var asked []Filter
	e := engine(t, twoTables(&asked), Options{})
	if got, want := ask(t, e, "SELECT count(*) FROM records r, nodes n WHERE r.log_id = n.id"), "[count(*)] [[12]]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := e.Query(context.Background(), "SELECT * FROM records"); !errors.Is(err, ErrRequired) {
		t.Errorf("a look at all records: %v", err)
	}
}

func TestOnlyReads(t *testing.T) {
	e := engine(t, twoTables(new([]Filter)), Options{})
	file := filepath.Join(t.TempDir(), "stolen")
	for _, sql := range []string{
		"", "  ", ";", "DELETE FROM nodes", "ATTACH '" + file + "' AS f", "SELECT 1; ATTACH '" + file + "' AS f",
		"SELECT 1 /* ; */ ; -- x\n ATTACH '" + file + "' AS f", "/* SELECT */ PRAGMA query_only=OFF", "VACUUM INTO '" + file + "'",
		"SELECT ';' ; DROP TABLE nodes",
	} {
		if _, err := e.Query(context.Background(), sql); !errors.Is(err, ErrNotRead) {
			t.Errorf("%q: %v", sql, err)
		}
	}
	if _, err := e.Query(context.Background(), "WITH x AS (SELECT 1) INSERT INTO nodes SELECT * FROM x"); err == nil {
		t.Error("an INSERT behind WITH was run")
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error("a query made a file")
	}
}

func TestBoundsOfAQuery(t *testing.T) {
	e := engine(t, twoTables(new([]Filter)), Options{RowsMax: 2})
	if _, err := e.Query(context.Background(), "SELECT * FROM nodes"); !errors.Is(err, ErrTooMany) {
		t.Errorf("three rows where two are allowed: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := e.Query(ctx, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an endless query: %v", err)
	}
	broken := errors.New("node 2 does not answer")
	e = engine(t, []Table{{Name: "t", Columns: []Column{{Name: "a", Type: Text}},
		Rows: func(context.Context, Filter, func([]any) bool) error { return broken }}}, Options{})
	if _, err := e.Query(context.Background(), "SELECT * FROM t"); !errors.Is(err, broken) {
		t.Errorf("a table that fails: %v", err)
	}
}

func TestBadTables(t *testing.T) {
	for _, tables := range [][]Table{
		{{Name: "a b", Columns: []Column{{Name: "x", Type: Text}}}},
		{{Name: "a", Columns: []Column{{Name: "x y", Type: Text}}}},
		{{Name: "a"}},
		{{Name: "tables", Columns: []Column{{Name: "x", Type: Text}}}},
	} {
		if _, err := New(tables, Options{}); err == nil {
			t.Errorf("%+v was accepted", tables)
		}
	}
}

func FuzzOnlyReads(f *testing.F) {
	for _, s := range []string{"SELECT 1", "select ';'; attach 'x' as y", "WITH a AS (SELECT 1) SELECT * FROM a;", "/* */ SELECT [;] -- ;"} {
		f.Add(s)
	}
	e, err := New(twoTables(new([]Filter)), Options{RowsMax: 100})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		e.Query(ctx, s) // must neither crash nor leave the sandbox: query_only and the statement check
	})
}
