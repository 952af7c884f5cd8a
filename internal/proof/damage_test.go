package proof

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	procs "github.com/braiddb/braid/internal/proof/cluster"
)

// journalGroups finds the groups of a stopped node's journal.
func journalGroups(t *testing.T, p *process) []procs.Group {
	t.Helper()
	all, err := p.JournalGroups()
	if err != nil || len(all) == 0 {
		t.Fatalf("no groups in the journal of node %d: %v", p.Index, err)
	}
	return all
}

// flip inverts bytes of a file.
func flip(t *testing.T, file string, at, n int64) {
	t.Helper()
	if err := procs.Flip(file, at, n); err != nil {
		t.Fatal(err)
	}
}

// writing runs writers until stop is called, which gives what they were told.
func writing(t *testing.T, c *cluster) (l *ledger, stop func()) {
	t.Helper()
	l = &ledger{keys: map[string]*entry{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i, p := range c.nodes {
		rc := redis.NewClient(&redis.Options{Addr: p.RedisAddr(), MaxRetries: -1, ReadTimeout: 8 * time.Second, DialTimeout: time.Second})
		t.Cleanup(func() { rc.Close() })
		for w := range 2 {
			wg.Go(func() {
				l.load(ctx, fmt.Sprint("n", i, "w", w), rand.New(rand.NewPCG(uint64(i), uint64(w))), func(k, v string) error {
					return rc.Set(context.Background(), k, v, 0).Err()
				})
			})
		}
	}
	return l, func() { cancel(); wg.Wait() }
}

// TestDamagedJournals spoils the journals of stopped nodes: bytes in the middle,
// which later groups vouch for; what stands behind the last group; and the last
// group itself. Every node starts, the replicas concerned are made anew or
// brought up to date from their peers, nothing acknowledged is lost, and the
// replicas are equal afterwards.
func TestDamagedJournals(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{flags: []string{"--lease", "1s", "--election-delay", "200ms"}})
	l, stop := writing(t, c)
	enough := func(n int) {
		t.Helper()
		before := l.acknowledged()
		if !eventually(30*time.Second, func() bool { return l.acknowledged() >= before+n }) {
			t.Fatal("the load stands still")
		}
	}
	said := func(p *process, words string) {
		t.Helper()
		if !eventually(20*time.Second, func() bool { return strings.Contains(p.Tail(), words) }) {
			t.Fatalf("node %d never said %q:\n%s", p.Index, words, p.Tail())
		}
	}
	enough(800)

	// Bytes in the middle, in three groups.
	p := c.nodes[1]
	p.Kill()
	groups := slices.DeleteFunc(journalGroups(t, p), func(g procs.Group) bool { return g.Records == 0 || g.Bytes < 600 })
	if len(groups) < 100 {
		t.Fatalf("only %d groups in the journal", len(groups))
	}
	for _, part := range []int{4, 5, 6} {
		g := groups[len(groups)*part/10]
		flip(t, g.File, g.FirstPayload+8, 5)
	}
	p.start()
	said(p, "the journal is damaged")
	said(p, "replica destroyed")
	enough(100)
	if !eventually(30*time.Second, func() bool { s := c.status(p); return s.Copies == "three copies" && len(s.Problems) == 0 }) {
		t.Fatalf("not repaired: %+v\n%s", c.status(p), p.Tail())
	}
	c.waitReady()

	// Something behind the last group, as of a group that was being written.
	p = c.nodes[2]
	p.Kill()
	if err := p.TearTail(0); err != nil {
		t.Fatal(err)
	}
	p.start()
	said(p, "suspect tail is cleared")
	enough(100)
	c.waitReady()

	// The last group itself, which had been acknowledged.
	p = c.nodes[0]
	p.Kill()
	groups = journalGroups(t, p)
	last := groups[len(groups)-1]
	flip(t, last.File, last.At+last.Bytes-3, 3)
	p.start()
	said(p, "suspect tail is cleared")
	enough(100)
	c.waitReady()

	stop()
	rc := redis.NewClient(&redis.Options{Addr: c.nodes[0].RedisAddr(), ReadTimeout: 8 * time.Second})
	defer rc.Close()
	l.check(t, rc)
	c.compareOnDisk()
}

// compareOnDisk ends the processes and runs their directories in this one, where
// replicas can be hashed.
func (c *cluster) compareOnDisk() {
	c.t.Helper()
	for _, p := range c.nodes {
		if err := p.Terminate(20 * time.Second); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := c.all.CompareReplicas(within(c.t, 60*time.Second)); err != nil {
		c.t.Error(err)
	}
}
