package proof

import (
	"context"
	bits "encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/braiddb/braid/internal/node"
)

// A journalGroup is one group as it lies on a stopped node's disk.
type journalGroup struct {
	file         string
	at           int64
	bytes        int64 // from its first to the last of its last record
	number       uint64
	records      uint32
	firstPayload int64 // where in the file
}

// journalGroups finds the groups of a node's journal that are of its present
// use, in order of their numbers. docs/formats/journal.md has the layout.
func journalGroups(t *testing.T, data string) []journalGroup {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(data, "journal", "*.journal"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no journal in %s: %v", data, err)
	}
	var out []journalGroup
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		generation, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(file), ".journal"), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		for at := 512; at+512 <= len(b); {
			h := b[at:]
			if string(h[:4]) != "BRJG" || bits.LittleEndian.Uint64(h[40:]) != generation || bits.LittleEndian.Uint64(h[48:]) != uint64(at) {
				at += 512
				continue
			}
			g := journalGroup{file: file, at: int64(at), records: bits.LittleEndian.Uint32(h[12:]),
				bytes: int64(bits.LittleEndian.Uint64(h[24:])), number: bits.LittleEndian.Uint64(h[32:])}
			g.firstPayload = g.at + 104 + 16*int64(bits.LittleEndian.Uint32(h[16:])) + 40
			out = append(out, g)
			at += int((g.bytes + 511) / 512 * 512)
		}
	}
	slices.SortFunc(out, func(a, b journalGroup) int { return int(int64(a.number) - int64(b.number)) })
	return out
}

// overwrite changes a file in place.
func overwrite(t *testing.T, file string, at int64, with []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(with, at)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// flip inverts bytes of a file.
func flip(t *testing.T, file string, at, n int64) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	part := slices.Clone(b[at : at+n])
	for i := range part {
		part[i] ^= 0xff
	}
	overwrite(t, file, at, part)
}

// writing runs writers until stop is called, which gives what they were told.
func writing(t *testing.T, c *cluster) (l *ledger, stop func()) {
	t.Helper()
	l = &ledger{keys: map[string]*entry{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i, p := range c.nodes {
		rc := redis.NewClient(&redis.Options{Addr: p.redisAddr(), MaxRetries: -1, ReadTimeout: 8 * time.Second, DialTimeout: time.Second})
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
		if !eventually(20*time.Second, func() bool { return strings.Contains(p.tail(), words) }) {
			t.Fatalf("node %d never said %q:\n%s", p.index, words, p.tail())
		}
	}
	enough(800)

	// Bytes in the middle, in three groups.
	p := c.nodes[1]
	p.kill()
	groups := slices.DeleteFunc(journalGroups(t, p.dir), func(g journalGroup) bool { return g.records == 0 || g.bytes < 600 })
	if len(groups) < 100 {
		t.Fatalf("only %d groups in the journal", len(groups))
	}
	for _, part := range []int{4, 5, 6} {
		g := groups[len(groups)*part/10]
		flip(t, g.file, g.firstPayload+8, 5)
	}
	p.start()
	said(p, "the journal is damaged")
	said(p, "replica destroyed")
	enough(100)
	if !eventually(30*time.Second, func() bool { s := c.status(p); return s.Copies == "three copies" && len(s.Problems) == 0 }) {
		t.Fatalf("not repaired: %+v\n%s", c.status(p), p.tail())
	}
	c.waitReady()

	// Something behind the last group, as of a group that was being written.
	p = c.nodes[2]
	p.kill()
	groups = journalGroups(t, p.dir)
	last := groups[len(groups)-1]
	overwrite(t, last.file, last.at+(last.bytes+511)/512*512, []byte("BRJG and what never came"))
	p.start()
	said(p, "suspect tail is cleared")
	enough(100)
	c.waitReady()

	// The last group itself, which had been acknowledged.
	p = c.nodes[0]
	p.kill()
	groups = journalGroups(t, p.dir)
	last = groups[len(groups)-1]
	flip(t, last.file, last.at+last.bytes-3, 3)
	p.start()
	said(p, "suspect tail is cleared")
	enough(100)
	c.waitReady()

	stop()
	rc := redis.NewClient(&redis.Options{Addr: c.nodes[0].redisAddr(), ReadTimeout: 8 * time.Second})
	defer rc.Close()
	l.check(t, rc)
	c.compareOnDisk()
}

// compareOnDisk ends the processes and runs their directories in this one, where
// replicas can be hashed.
func (c *cluster) compareOnDisk() {
	t := c.t
	var join []string
	for _, p := range c.nodes {
		join = append(join, net.JoinHostPort(p.host, strconv.Itoa(p.node)))
		if err := p.terminate(20 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	held := &lab{t: t}
	var wg sync.WaitGroup
	for _, p := range c.nodes {
		b := &bench{t: t}
		b.cfg = node.Config{Data: p.dir, Listen: p.host, Join: join, Memory: 128 << 20, Version: "proof",
			NodePort: p.node, ClientPort: p.cli, RedisPort: p.redis, ConsolePort: p.web}
		held.benches = append(held.benches, b)
		wg.Go(func() {
			deps := node.RealDeps(slog.New(slog.NewTextHandler(&b.log, nil)), func(err error) { t.Error(err) })
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			var err error
			if b.node, err = node.Start(ctx, b.cfg, deps); err != nil {
				t.Errorf("node %d: %v", p.index, err)
			}
		})
	}
	wg.Wait()
	defer func() {
		for _, b := range held.benches {
			b.kill()
		}
	}()
	if t.Failed() {
		return
	}
	held.waitReady()
	var last string
	if !eventually(15*time.Second, func() bool { last = held.compare(); return last == "" }) {
		t.Error(last)
	}
}
