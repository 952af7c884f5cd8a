package proof

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// cpuTime is what a process has used of the processors, system calls included.
func (p *process) cpuTime() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may hold anything
	f := strings.Fields(rest)
	user, err := strconv.Atoi(f[11])
	if err != nil {
		p.t.Fatal(err)
	}
	system, err := strconv.Atoi(f[12])
	if err != nil {
		p.t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memory is what a process holds that is not a file's, in bytes.
func (p *process) memory() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "RssAnon:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		p.t.Fatal(err)
	}
	return kib << 10
}

// TestIdleTabletsCostLittle makes a table of 1,000 tablets on three processes,
// uses some of them, and leaves them alone: they take less than a twentieth of a
// core of each node, beyond what it took without them, and less than 300 KB a
// replica, even while the last leaders are moved for balance.
func TestIdleTabletsCostLittle(t *testing.T) {
	const tablets = 1000
	c := startCluster(t, 3, clusterOptions{})
	cl := connect(t, c)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	const window = 2 * time.Second
	idle := func() (used [3]time.Duration) {
		for i, p := range c.nodes {
			used[i] = -p.cpuTime()
		}
		pause(ctx, window)
		for i, p := range c.nodes {
			used[i] += p.cpuTime()
		}
		return used
	}
	bare := idle()
	before := make([]int, 3)
	for i, p := range c.nodes {
		before[i] = p.memory()
	}
	if err := cl.CreateKeyspace(ctx, "app", 0, false); err != nil {
		t.Fatal(err)
	}
	table, err := cl.CreateTable(ctx, client.TableSpec{Keyspace: "app", Name: "many", Tablets: tablets,
		Columns: []client.Column{{Name: "id", Type: client.String, Role: client.Hashed}, {Name: "v", Type: client.Int64}}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range tablets / 8 {
		names = append(names, fmt.Sprint(i))
	}
	each(t, 16, names, func(worker int, name string) error { return table.Put(ctx, client.Row{"id": name, "v": worker}) }, nil)
	var led float64
	if !eventually(20*time.Second, func() bool {
		led = 0
		for _, p := range c.nodes {
			led += metrics(t, p.WebAddr())["braid_node_leaders"]
		}
		return led == tablets+4
	}) {
		t.Fatalf("%v of %d groups are led", led, tablets+4)
	}
	var used [3]time.Duration
	if !eventually(30*time.Second, func() bool { // after the elections
		used = idle()
		quiet := true
		for i := range used {
			used[i] = max(0, used[i]-bare[i])
			quiet = quiet && used[i] < window/20
		}
		return quiet
	}) {
		t.Errorf("in %v of idleness the tablets took %v", window, used)
	}
	for i, p := range c.nodes {
		each := (p.memory() - before[i]) / tablets
		t.Logf("node %d: %.1f %% of a core, %d KB a replica", p.Index, 100*used[i].Seconds()/window.Seconds(), each/1000)
		if each > 300_000 {
			t.Errorf("node %d holds %d bytes a replica", p.Index, each)
		}
	}
}
