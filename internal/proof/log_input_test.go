package proof

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// rawAppend sends one append as no client does, to the node that numbers the log.
func rawAppend(t testing.TB, c *cluster, cl *client.Client, l *client.Log, req *wire.AppendRequest) *wire.AppendResponse {
	t.Helper()
	pool := rpc.NewPool(rpc.TCP{}, rpc.PoolOptions{Role: rpc.RoleClient})
	defer pool.Close()
	req.Log = uint64(l.ID())
	resp := new(wire.AppendResponse)
	if err := pool.To(c.nodes[c.sequencerOf(cl, l)].clientAddr()).Call(within(t, 10*time.Second), rpc.MethodAppend, req, resp); err != nil {
		t.Fatal(err)
	}
	return resp
}

// TestLogBadInput gives a cluster what it must refuse, each with an error of its
// own, and demands that nothing of it, and nothing else, is in the log.
func TestLogBadInput(t *testing.T) {
	c := startCluster(t, 3, clusterOptions{})
	cl := connect(t, c)
	ctx := within(t, 90*time.Second)
	l := makeLog(t, cl, "/in/log")
	var lsns []client.LSN
	for i := range 20 {
		lsn, err := l.Append(ctx, fmt.Append(nil, i))
		if err != nil {
			t.Fatal(err)
		}
		lsns = append(lsns, lsn)
	}
	create := func(settings ...client.LogSetting) error {
		_, err := cl.CreateLogs(ctx, "/in/new", 1, settings...)
		return err
	}
	for name, x := range map[string]struct {
		want error
		do   func() error
	}{
		"payload too large":  {client.ErrTooLarge, func() error { _, err := l.Append(ctx, make([]byte, 1<<20+1)); return err }},
		"unknown log":        {client.ErrNotFound, func() error { _, err := cl.Log(ctx, "/in/nowhere"); return err }},
		"unknown log number": {client.ErrNotFound, func() error { _, err := cl.Log(ctx, "/in/log#7"); return err }},
		"unknown id":         {client.ErrNotFound, func() error { _, err := cl.Log(ctx, "99999"); return err }},
		"trim past the tail": {client.ErrPastTail, func() error { return l.Trim(ctx, lsns[19]+1000) }},
		"producer's gap": {client.ErrSequenceGap, func() error {
			p := l.Producer(9)
			_, err := p.Append(ctx, 5, []byte("x"))
			_, err2 := p.Append(ctx, 7, []byte("x"))
			return errors.Join(err2, err)
		}},
		"another tail": {client.ErrConditionFailed, func() error { _, err := l.AppendIf(ctx, lsns[3], []byte("x")); return err }},
		"four copies on three nodes": {errTooFewNodes, func() error {
			l := makeLog(t, cl, "/in/four", client.LogReplication(&client.Replication{Node: 4}))
			_, err := l.Append(within(t, 3*time.Second), []byte("x"))
			return err
		}},
		"more racks than copies": {client.ErrInvalidAttributes, func() error {
			return create(client.LogReplication(&client.Replication{Node: 2, Rack: 3, Zone: 4}))
		}},
		"nodeset below copies": {client.ErrInvalidAttributes, func() error {
			return create(client.LogReplication(&client.Replication{Node: 3}), client.LogNodesetSize(2))
		}},
		"no window":                 {client.ErrInvalidAttributes, func() error { return create(client.LogWindow(0)) }},
		"unknown attribute":         {client.ErrInvalidAttributes, func() error { return create(client.LogAttribute("colour", "red")) }},
		"a word for a number":       {client.ErrInvalidAttributes, func() error { return create(client.LogAttribute("nodeset_size", "many")) }},
		"a path with an empty word": {client.ErrInvalid, func() error { _, err := cl.CreateLogs(ctx, "/in//new", 1); return err }},
		"the same again":            {client.ErrAlreadyExists, func() error { _, err := cl.CreateLogs(ctx, "/in/log", 1); return err }},
		"an id again":               {client.ErrIDClash, func() error { return create(client.LogFirstID(l.ID())) }},
		"a directory in use":        {nil, func() error { return cl.RemoveLog(ctx, "/in", false) }},
	} {
		err := x.do()
		if err == nil || x.want != nil && !errors.Is(err, x.want) {
			t.Errorf("%s: got %v, want %v", name, err, x.want)
		}
	}
	rawRefusals(t, c, cl, l)
	readEdges(t, ctx, l, lsns)
	c.checkReplication(cl, l)
}

// rawRefusals sends appends that only a broken client would.
func rawRefusals(t *testing.T, c *cluster, cl *client.Client, l *client.Log) {
	t.Helper()
	junk := []byte("this is no batch")
	for name, x := range map[string]struct {
		req  *wire.AppendRequest
		want wire.LogStatus
	}{
		"malformed batch":     {&wire.AppendRequest{Payload: junk, Checksum: logs.Checksum(junk), Count: 3, Flags: logs.AppendBatch}, wire.LogStatus_LOG_STATUS_BAD_PAYLOAD},
		"damaged on the way":  {&wire.AppendRequest{Payload: junk, Checksum: logs.Checksum(junk) + 1, Count: 1}, wire.LogStatus_LOG_STATUS_BAD_PAYLOAD},
		"producer without id": {&wire.AppendRequest{Payload: junk, Checksum: logs.Checksum(junk), Count: 1, Flags: logs.AppendProducer, Sequence: 1}, wire.LogStatus_LOG_STATUS_INVALID},
	} {
		if resp := rawAppend(t, c, cl, l, x.req); resp.Status != x.want {
			t.Errorf("%s: %s %s, want %s", name, resp.Status, resp.Message, x.want)
		}
	}
}

// readEdges reads what is trimmed and what is not there yet.
func readEdges(t *testing.T, ctx context.Context, l *client.Log, lsns []client.LSN) {
	t.Helper()
	if err := l.Trim(ctx, lsns[9]); err != nil {
		t.Fatal(err)
	}
	var got []string
	r := readRange(t, l, oldest, lsns[19], 20*time.Second, func(e client.Entry) {
		if !e.IsGap() {
			got = append(got, string(e.Record.Payload))
		}
	})
	if want := "[10 11 12 13 14 15 16 17 18 19]"; fmt.Sprint(got) != want || r.gaps["TRIM"] != 1 {
		t.Errorf("after the trim: %v, gaps %v", got, r.gaps)
	}
	tail := tailOf(t, l)
	past := l.NewReader(client.ReaderOptions{From: tail + 5, Until: tail + 6})
	defer past.Close()
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if e, err := past.Next(short); err == nil {
		t.Errorf("past the tail there is %+v", e)
	}
}
