package proof

import (
	"context"
	"crypto/sha256"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// sourceFiles lists every regular file under GOROOT/src.
func sourceFiles(t testing.TB) (root string, files []string) {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(strings.TrimSpace(string(out)), "src")
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			name, _ := filepath.Rel(root, p)
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 5000 {
		t.Fatalf("only %d files under %s", len(files), root)
	}
	return root, files
}

// TestGoSourceTree is the project's main job on real input: the Go source tree
// is loaded over Redis into three processes, one is killed in the middle, later
// all three, and every file comes back with the hash that it has on disk.
func TestGoSourceTree(t *testing.T) {
	t.Parallel()
	root, files := sourceFiles(t)
	c := startCluster(t, 3, clusterOptions{})
	clients := stockClients(t, c)

	const workers = 16
	var loaded, bytes atomic.Int64
	half := make(chan struct{})
	var once sync.Once
	each(t, workers, files, func(worker int, name string) error {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		if err := clients[worker%len(clients)].Set(context.Background(), name, data, 0).Err(); err != nil {
			return err
		}
		bytes.Add(int64(len(data)))
		if loaded.Add(1) == int64(len(files)/2) {
			once.Do(func() { close(half) })
		}
		return nil
	}, func() {
		<-half
		c.nodes[2].Kill()
		t.Logf("killed node 3 after %d files", loaded.Load())
		if !eventually(60*time.Second, func() bool { return loaded.Load() >= int64(len(files)*3/4) }) {
			t.Error("the load stopped with one of three nodes down")
		}
		c.nodes[2].start()
	})
	t.Logf("%d files, %d bytes loaded", loaded.Load(), bytes.Load())

	c.waitReady()
	for _, p := range c.nodes {
		p.Kill()
	}
	for _, p := range c.nodes {
		p.start()
	}
	c.waitReady()

	each(t, workers, files, func(worker int, name string) error {
		want, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		got, err := clients[worker%len(clients)].Get(context.Background(), name).Bytes()
		if err != nil {
			return err
		}
		if sha256.Sum256(got) != sha256.Sum256(want) {
			t.Errorf("%s: %d bytes came back, %d are on disk, and they differ", name, len(got), len(want))
		}
		return nil
	}, nil)
}

// stockClients gives one plain go-redis client per node, with ordinary retries;
// each knows the other nodes' addresses too and goes on to them when its own is down.
func stockClients(t testing.TB, c *cluster) []redis.UniversalClient {
	t.Helper()
	var out []redis.UniversalClient
	addrs := c.redisAddrs()
	for i := range addrs {
		dialer := failoverDialer(append(append([]string(nil), addrs[i:]...), addrs[:i]...))
		cl := redis.NewClient(&redis.Options{Addr: addrs[i], Dialer: dialer, MaxRetries: 30, MinRetryBackoff: 50 * time.Millisecond,
			MaxRetryBackoff: time.Second, ReadTimeout: 10 * time.Second, PoolSize: 16})
		t.Cleanup(func() { cl.Close() })
		out = append(out, cl)
	}
	return out
}

// each runs do for every name on a number of workers, with meanwhile beside
// them; the first error of do fails the test.
func each(t testing.TB, workers int, names []string, do func(worker int, name string) error, meanwhile func()) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	var failed atomic.Bool
	for w := range workers {
		wg.Go(func() {
			for !failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= len(names) {
					return
				}
				if err := do(w, names[i]); err != nil {
					if !failed.Swap(true) {
						t.Errorf("%s: %v", names[i], err)
					}
					return
				}
			}
		})
	}
	if meanwhile != nil {
		meanwhile()
	}
	wg.Wait()
	if failed.Load() {
		t.FailNow()
	}
}
