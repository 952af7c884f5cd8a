package client

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// listed is a cluster of shards with a list of logs.
type listed struct {
	*fakeShards
	version uint64
	there   map[uint64]bool
	lists   int
}

func (f *listed) Catalog(_ context.Context, req *wire.CatalogRequest) (*wire.CatalogResponse, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.lists++
	if req.Log.GetKnownVersion() == f.version {
		return &wire.CatalogResponse{LogVersion: f.version}, nil
	}
	out := &catalog.Catalog{Version: f.version, LogVersion: f.version}
	for id := range f.there {
		out.LogGroups = append(out.LogGroups, &catalog.LogGroup{Id: id, Parent: 1, Name: "l", FirstLog: id, LastLog: id})
	}
	return &wire.CatalogResponse{Catalog: out, LogVersion: f.version}, nil
}

// TestReaderOfALogThatIsRemoved: shards serve a removed log on, and say nothing; a
// reader at its end is told all the same, one of another log is not, and however
// many there are, the list of logs is asked for once a while.
func TestReaderOfALogThatIsRemoved(t *testing.T) {
	withShards(t, 3, func(t *testing.T, shards *fakeShards, _ *Client) {
		f := &listed{fakeShards: shards, version: 1, there: map[uint64]bool{7: true, 8: true}}
		c := New(f, Options{})
		defer c.Close()
		last := appendThese(t, c.logByID(7, ""), "a", "b")
		appendThese(t, c.logByID(8, ""), "a", "b")
		var readers []*Reader
		next := func(r *Reader, wait time.Duration) (Entry, error) {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			return r.Next(ctx)
		}
		for i := range 4 {
			r := c.logByID(LogID(7+i%2), "").NewReader(ReaderOptions{From: LSN(1<<32 + 1)})
			for _, want := range []string{"a", "b"} {
				if e, err := next(r, time.Minute); err != nil || string(e.Record.Payload) != want {
					t.Fatalf("%+v, %v", e, err)
				}
			}
			readers = append(readers, r)
		}
		count := func() (lists, states int) {
			f.with(func() { lists, states = f.lists, f.states })
			return lists, states
		}
		_, before := count()
		if e, err := next(readers[0], 20*time.Second); err == nil {
			t.Fatalf("%+v at the end of a log that is there", e)
		}
		if lists, states := count(); states != before || lists < 2 || lists > 4 {
			t.Errorf("in 20 s at the end of a log the list was read %d times and the sequencer asked %d times", lists, states-before)
		}
		f.with(func() { f.version, f.there = 2, map[uint64]bool{8: true} })
		// The list alone does not end it: it may be older than the log.
		if e, err := next(readers[0], 12*time.Second); err == nil {
			t.Fatalf("%+v, and the sequencer has the log", e)
		}
		f.with(func() { f.removed[7] = true })
		for i := 0; i < len(readers); i += 2 {
			e, err := next(readers[i], 20*time.Second)
			if err != nil || e.Gap != (Gap{GapNotInConfig, last + 1, LSNMax}) {
				t.Errorf("%+v, %v", e, err)
			}
			if _, err := next(readers[i], time.Second); err != io.EOF {
				t.Errorf("after the end: %v", err)
			}
		}
		if e, err := next(readers[1], 12*time.Second); err == nil {
			t.Errorf("%+v of the log that is there", e)
		}
		for _, r := range readers {
			r.Close()
		}
	})
}
