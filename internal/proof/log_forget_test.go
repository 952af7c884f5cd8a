package proof

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// TestForgottenNode takes a node away for good under a log whose records have one copy
// each. Until somebody says that it is gone the log waits for it. Then it goes on: what
// lay on that node is told as lost, to the record, and nothing else is.
func TestForgottenNode(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{flags: []string{"--lease", "1s", "--election-delay", "200ms"}})
	cl := connect(t, c)
	l := makeLog(t, cl, "/forget", client.LogReplication(&client.Replication{Node: 1}), client.LogStickyCopysets(false))
	ctx := within(t, 120*time.Second)
	acked := map[client.LSN]string{}
	write := func(name string, n int) {
		t.Helper()
		for i := range n {
			payload := fmt.Sprint(name, ".", i)
			lsn, err := l.Append(ctx, []byte(payload))
			if err != nil {
				t.Fatalf("append %s: %v", payload, err)
			}
			acked[lsn] = payload
		}
	}
	write("before", 300)

	gone := c.sequencerOf(cl, l) // so that the log must be recovered
	ids := map[int]int64{}
	for id, at := range c.nodeIDs(cl) {
		ids[at] = id
	}
	forget := func(more ...string) (string, int) {
		args := []string{"nodes", "forget", fmt.Sprint(ids[gone]), "--addr", strings.Join(c.clientAddrs(), ","), "--timeout", "10s"}
		stdout, stderr, code := c.run(append(args, more...)...)
		return stdout + stderr, code
	}
	if out, code := forget(); code == 0 || !strings.Contains(out, "may be alive") {
		t.Fatalf("a node that lives is forgotten: %s", out)
	}
	c.nodes[gone].Kill()
	if !eventually(40*time.Second, func() bool { out, _ := forget(); return !strings.Contains(out, "may be alive") }) {
		t.Fatal("it is dead, and may be alive for ever")
	}
	if out, code := forget(); code == 0 || !strings.Contains(out, "/forget may have no copy left") {
		t.Fatalf("the only copy: %s", out)
	}
	if out, code := forget("--data-lost"); code != 0 {
		t.Fatalf("the only copy, the loss accepted: %s", out)
	}
	write("after", 20)

	// Every acknowledged record is there, or in a gap that says so.
	var got []client.LSN
	var gaps []client.Gap
	until := tailOf(t, l)
	r := l.NewReader(client.ReaderOptions{From: oldest, Until: until})
	defer r.Close()
	for at := client.LSN(0); at < until; {
		e, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("behind %v: %v", at, err)
		}
		if at = max(e.Record.LSN, e.Gap.To); !e.IsGap() {
			if acked[at] != string(e.Record.Payload) {
				t.Errorf("%v holds %q, acknowledged was %q", at, e.Record.Payload, acked[at])
			}
			got = append(got, at)
		} else if e.Gap.Type == client.GapDataLoss {
			gaps = append(gaps, e.Gap)
		}
	}
	lost := 0
	for lsn, payload := range acked {
		if slices.Contains(got, lsn) {
			continue
		}
		lost++
		if !slices.ContainsFunc(gaps, func(g client.Gap) bool { return g.From <= lsn && lsn <= g.To }) {
			t.Errorf("%q, acknowledged at %v, is missing and no gap says that it is lost", payload, lsn)
		}
	}
	t.Logf("%d of %d records are lost, told in %d gaps", lost, len(acked), len(gaps))
	if lost == 0 || lost > 200 { // a third of 300, about
		t.Errorf("%d records are lost", lost)
	}

	// It is not let in again.
	c.nodes[gone].start()
	if !eventually(30*time.Second, func() bool { return c.nodes[gone].said(0, "given up by hand") }) {
		t.Errorf("a forgotten node lives on: %s", c.nodes[gone].Tail())
	}
}
