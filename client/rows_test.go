package client

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

var eventColumns = []Column{
	{Name: "user", Type: String, Role: Hashed},
	{Name: "at", Type: Int64, Role: Ranged, Descending: true},
	{Name: "seq", Type: Int64, Role: Ranged},
	{Name: "text", Type: String},
	{Name: "score", Type: Float64},
	{Name: "seen", Type: Bool},
	{Name: "raw", Type: Bytes},
	{Name: "made", Type: Timestamp},
}

func eventTable(t *testing.T, c *Client, tablets int) *Table {
	t.Helper()
	table, err := c.CreateTable(t.Context(), TableSpec{Keyspace: "app", Name: "events", Columns: eventColumns, Tablets: tablets})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestRowsComeBackAsTheyWerePut(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		table := eventTable(t, c, 3)
		made := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
		key := Row{"user": "ann", "at": 5, "seq": 1}
		whole := Row{"user": "ann", "at": 5, "seq": 1, "text": "hi\x00", "score": 1.5, "seen": true, "raw": []byte{0, 1}, "made": made}
		if err := table.Put(t.Context(), whole); err != nil {
			t.Fatal(err)
		}
		got, err := table.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		whole["at"], whole["seq"] = int64(5), int64(1)
		if fmt.Sprint(got) != fmt.Sprint(whole) {
			t.Errorf("got %v, put %v", got, whole)
		}
		if err := table.Update(t.Context(), Row{"user": "ann", "at": 5, "seq": 1, "score": 2.5, "text": nil}); err != nil {
			t.Fatal(err)
		}
		got, err = table.Get(t.Context(), key, "score", "text", "seen")
		if err != nil || fmt.Sprint(got) != "map[score:2.5 seen:true text:<nil>]" {
			t.Errorf("after an update: %v, %v", got, err)
		}
		if err := table.Put(t.Context(), Row{"user": "ann", "at": 5, "seq": 1, "score": 3}); err != nil {
			t.Fatal(err)
		}
		if got, err = table.Get(t.Context(), key, "score", "seen"); err != nil || fmt.Sprint(got) != "map[score:3 seen:<nil>]" {
			t.Errorf("after a put, which replaces: %v, %v", got, err)
		}
		if err := table.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if _, err := table.Get(t.Context(), key); !errors.Is(err, ErrNotFound) {
			t.Errorf("after a delete: %v", err)
		}
	})
}

func TestConditionalWrites(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		table := eventTable(t, c, 1)
		ctx, key := t.Context(), Row{"user": "u", "at": 1, "seq": 1}
		row := func(score float64) Row { return Row{"user": "u", "at": 1, "seq": 1, "score": score} }
		steps := []struct {
			what string
			err  error
			want error
		}{
			{"update of what is not there", table.Update(ctx, row(1), IfPresent()), ErrConditionFailed},
			{"first insert", table.Put(ctx, row(1), IfAbsent()), nil},
			{"second insert", table.Put(ctx, row(2), IfAbsent()), ErrConditionFailed},
			{"condition that holds", table.Put(ctx, row(2), If(Condition{"score", Equal, 1.0})), nil},
			{"condition that does not", table.Put(ctx, row(3), If(Condition{"score", Less, 2.0})), ErrConditionFailed},
			{"null", table.Put(ctx, row(3), If(Condition{"text", Equal, nil}), TTL(time.Minute)), nil},
			{"delete under condition", table.Delete(ctx, key, If(Condition{"score", Greater, 5.0})), ErrConditionFailed},
		}
		for _, s := range steps {
			if !errors.Is(s.err, s.want) {
				t.Errorf("%s: %v, want %v", s.what, s.err, s.want)
			}
		}
		if last := f.writes[len(f.writes)-2].Ops[0]; len(last.Ints) != 1 || last.Ints[0] != 60_000 {
			t.Errorf("time to live %v", last.Ints)
		}
		err := table.WriteRows(ctx, UpdateRow(row(8)), PutRow(row(7), IfAbsent()))
		if got, getErr := table.Get(ctx, key, "score"); !errors.Is(err, ErrConditionFailed) || getErr != nil || got["score"] != 3.0 {
			t.Errorf("a batch with a condition that fails: %v; then %v, %v", err, got, getErr)
		}
		err = table.WriteRows(ctx, UpdateRow(row(8)), DeleteRow(key, If(Condition{"score", Equal, 8.0})), PutRow(row(9), IfAbsent()))
		if got, getErr := table.Get(ctx, key, "score"); err != nil || getErr != nil || got["score"] != 9.0 {
			t.Errorf("a batch of which each sees those before: %v; then %v, %v", err, got, getErr)
		}
	})
}

func TestBadRowsAreRefusedBeforeTheyAreSent(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		table := eventTable(t, c, 1)
		ctx := t.Context()
		key := Row{"user": "u", "at": 1, "seq": 1}
		_, getErr := table.Get(ctx, key, "nope")
		for _, bad := range []struct {
			what string
			err  error
			want error
		}{
			{"unknown column", table.Put(ctx, Row{"user": "u", "at": 1, "seq": 1, "nope": 1}), ErrNotFound},
			{"unknown column read", getErr, ErrNotFound},
			{"key column missing", table.Put(ctx, Row{"user": "u", "at": 1}), ErrInvalid},
			{"null in the key", table.Put(ctx, Row{"user": nil, "at": 1, "seq": 1}), ErrInvalid},
			{"wrong type in the key", table.Put(ctx, Row{"user": 1, "at": 1, "seq": 1}), ErrInvalid},
			{"wrong type", table.Put(ctx, Row{"user": "u", "at": 1, "seq": 1, "score": "x"}), ErrInvalid},
			{"condition on nothing", table.Put(ctx, key, If(Condition{"nope", Equal, 1})), ErrNotFound},
			{"condition on the key", table.Put(ctx, key, If(Condition{"at", Equal, 1})), ErrInvalid},
			{"delete of columns", table.Delete(ctx, Row{"user": "u", "at": 1, "seq": 1, "score": 1.0}), ErrInvalid},
			{"rows of the Redis table", c.Redis().Put(ctx, key), ErrInvalid},
		} {
			if !errors.Is(bad.err, bad.want) {
				t.Errorf("%s: %v, want %v", bad.what, bad.err, bad.want)
			}
		}
		if len(f.writes)+len(f.reads) > 0 {
			t.Errorf("%d requests were sent", len(f.writes)+len(f.reads))
		}
	})
}

func TestAChangedSchemaIsLearntAndTheRowEncodedAnew(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		table := eventTable(t, c, 1)
		other := New(f, Options{})
		defer other.Close()
		if err := other.AlterTable(t.Context(), "app", "events", AddColumn(Column{Name: "extra", Type: Int64})); err != nil {
			t.Fatal(err)
		}
		row := Row{"user": "u", "at": 1, "seq": 1, "text": "x"}
		if err := table.Put(t.Context(), row); err != nil {
			t.Fatal(err)
		}
		row["extra"] = 9
		if err := table.Put(t.Context(), row); err != nil {
			t.Fatal(err)
		}
		if got, err := table.Get(t.Context(), Row{"user": "u", "at": 1, "seq": 1}); err != nil || got["extra"] != int64(9) {
			t.Errorf("%v, %v", got, err)
		}
		// For a moment after a change the leader is behind.
		behind := true
		f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict {
			if behind {
				return code(wire.Code_CODE_SCHEMA_MISMATCH)
			}
			return verdict{}
		}
		time.AfterFunc(time.Second, func() {
			f.mu.Lock()
			behind = false
			f.mu.Unlock()
		})
		if err := table.Put(t.Context(), row); err != nil {
			t.Errorf("a leader that is behind: %v", err)
		}
		if err := other.AlterTable(t.Context(), "app", "events", DropColumn("text")); err != nil {
			t.Fatal(err)
		}
		if err := table.Put(t.Context(), row); !errors.Is(err, ErrNotFound) {
			t.Errorf("a dropped column was written: %v", err)
		}
	})
}

func TestScan(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		table := eventTable(t, c, 4)
		ctx := t.Context()
		for u := range 20 {
			for at := range 5 {
				for seq := range 2 {
					row := Row{"user": fmt.Sprint("user-", u), "at": at, "seq": seq, "score": float64(at)}
					if err := table.Put(ctx, row); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		collect := func(q Query) []string {
			var rows []string
			for row, err := range table.Scan(ctx, q) {
				if err != nil {
					t.Fatal(err)
				}
				rows = append(rows, fmt.Sprint(row["user"], " ", row["at"], "/", row["seq"]))
			}
			return rows
		}

		all := collect(Query{PageRows: 7})
		if len(all) != 200 {
			t.Errorf("%d rows of 200", len(all))
		}
		unique := map[string]bool{}
		times := map[uint64]bool{}
		for _, r := range all {
			unique[r] = true
		}
		for _, r := range f.reads[1:] {
			times[r.ReadTime] = true
		}
		if len(unique) != 200 || len(times) != 1 {
			t.Errorf("%d different rows, %d read times", len(unique), len(times))
		}
		if got := collect(Query{Limit: 13, PageRows: 5}); !slices.Equal(got, all[:13]) {
			t.Errorf("with a limit: %v", got)
		}

		one := collect(Query{Key: Row{"user": "user-3"}, PageRows: 3})
		want := "[user-3 4/0 user-3 4/1 user-3 3/0 user-3 3/1 user-3 2/0 user-3 2/1 user-3 1/0 user-3 1/1 user-3 0/0 user-3 0/1]"
		if fmt.Sprint(one) != want {
			t.Errorf("one key, at descending: %v", one)
		}
		if got := fmt.Sprint(collect(Query{Key: Row{"user": "user-3"}, From: 3, To: 1})); got != "[user-3 3/0 user-3 3/1 user-3 2/0 user-3 2/1]" {
			t.Errorf("from 3 to 1: %v", got)
		}
		if got := fmt.Sprint(collect(Query{Key: Row{"user": "user-3", "at": 2}, From: 1})); got != "[user-3 2/1]" {
			t.Errorf("under a longer key: %v", got)
		}
		if got := collect(Query{Where: []Condition{{"score", GreaterOrEqual, 3.0}}}); len(got) != 80 {
			t.Errorf("%d rows with a score of 3 or 4", len(got))
		}
		for _, err := range table.Scan(ctx, Query{From: 1}) {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("bounds without a key: %v", err)
			}
		}
	})
}

func TestAScanGoesOnOverASplit(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		table := eventTable(t, c, 1)
		for u := range 60 {
			if err := table.Put(t.Context(), Row{"user": fmt.Sprint(u), "at": 1, "seq": 1}); err != nil {
				t.Fatal(err)
			}
		}
		f.tablets = slices.DeleteFunc(f.tablets, func(l *wire.TabletLocation) bool { return l.Tablet.Table == uint32(catalog.RedisTableID) })
		seen := map[any]bool{}
		for row, err := range table.Scan(t.Context(), Query{PageRows: 4}) {
			if err != nil {
				t.Fatal(err)
			}
			seen[row["user"]] = true
			if len(seen) == 10 {
				f.split(1 << 63)
			}
		}
		if len(seen) != 60 {
			t.Errorf("%d rows of 60", len(seen))
		}
	})
}

func TestAnErrorEndsAScan(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		table := eventTable(t, c, 1)
		f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict {
			return code(wire.Code_CODE_SNAPSHOT_TOO_OLD)
		}
		n := 0
		for _, err := range table.Scan(t.Context(), Query{ReadTime: 1}) {
			if n++; !errors.Is(err, ErrSnapshotTooOld) {
				t.Errorf("error %v", err)
			}
		}
		if n != 1 {
			t.Errorf("%d steps", n)
		}
	})
}

func TestTablesByName(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		made := eventTable(t, c, 2)
		same, err := c.Table(t.Context(), "app", "events")
		if err != nil || same != made {
			t.Errorf("%v, %v: not the same table", same, err)
		}
		info, err := same.Info(t.Context())
		if err != nil || fmt.Sprint(info.Columns[:2]) != fmt.Sprint(eventColumns[:2]) || info.SchemaVersion != 1 {
			t.Errorf("%+v, %v", info, err)
		}
		if _, err := c.Table(t.Context(), "app", "none"); !errors.Is(err, ErrNotFound) {
			t.Errorf("error %v", err)
		}
		if _, err := c.CreateTable(t.Context(), TableSpec{Keyspace: "app", Name: "events", Columns: eventColumns}); !errors.Is(err, ErrAlreadyExists) {
			t.Errorf("error %v", err)
		}
		tables, err := c.ListTables(t.Context(), "app")
		if err != nil || len(tables) != 1 || tables[0].Name != "events" {
			t.Errorf("%v, %v", tables, err)
		}
	})
}
