package client

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/master"
	"github.com/braiddb/braid/internal/wire"
)

// administered is a transport to a master that is really one: its group is a
// machine that applies at once.
type administered struct {
	Transport

	mu      sync.Mutex
	machine *master.Machine
	master  *master.Master
	at      uint64
	trees   atomic.Int64 // lists of logs that were sent
	asked   atomic.Int64
	hold    chan struct{} // if set, a read of the list waits for it,
	held    chan struct{} // and says so
}

func newAdministered(t testing.TB) (*administered, *Client) {
	t.Helper()
	a := &administered{machine: master.NewMachine()}
	founding := master.FirstCatalog("c", []*catalog.Node{{RpcAddr: "a:1", DirectoryId: []byte("a")}}, master.First{})
	a.master = master.New(master.Deps{Node: 1, Group: a, Founding: founding, Index: func() *catalog.Index {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.machine.Index()
	}}, master.Options{})
	a.master.Tick(time.Second)
	c := New(a, Options{Park: time.Second})
	t.Cleanup(func() { _ = c.Close() })
	return a, c
}

func (a *administered) Self() catalog.NodeID { return 0 }
func (a *administered) Leading() *wire.Error { return nil }
func (a *administered) Term() uint64         { return 1 }

func (a *administered) Propose(command []byte, done func(*wire.Error)) {
	a.mu.Lock()
	a.at++
	out, err := a.machine.Apply(hlc.FromMicros(int64(a.at)), command)
	a.mu.Unlock()
	if err != nil {
		panic(err)
	}
	a.master.Applied([]master.Applied{out})
	done(nil)
}

func (a *administered) Catalog(_ context.Context, req *wire.CatalogRequest) (*wire.CatalogResponse, error) {
	if req.Action == wire.CatalogRequest_ACTION_READ_LOGS {
		a.asked.Add(1)
		if a.hold != nil {
			a.held <- struct{}{}
			<-a.hold
		}
	}
	var resp *wire.CatalogResponse
	a.master.Catalog(time.Second, req, func(r *wire.CatalogResponse) { resp = r })
	if resp.Catalog != nil && req.Action == wire.CatalogRequest_ACTION_READ_LOGS {
		a.trees.Add(1)
	}
	return resp, nil
}

func TestLogsAreAdministered(t *testing.T) {
	_, c := newAdministered(t)
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.CreateLogDirectory(ctx, "/events", LogBacklog(48*time.Hour), LogReplication(&Replication{Node: 3})))
	info, err := c.CreateLogs(ctx, "/events/clicks", 4, LogMaxPayload(2<<20), LogWindow(7))
	must(err)
	if info.Path != "/events/clicks" || info.Logs != 4 || !slices.Equal(info.IDs(), []LogID{1, 2, 3, 4}) || info.Version == 0 ||
		info.Attributes.GetBacklogMs() != 48*3600*1000 || info.Attributes.Replication.Node != 3 || info.Attributes.GetMaxPayloadBytes() != 2<<20 {
		t.Errorf("made %+v", info)
	}
	must(c.AlterLog(ctx, "/", LogSequencerAffinity("eu"), LogAttribute("sticky_copysets", "false")))
	must(c.AlterLog(ctx, "/events/clicks", LogInherit("max_writes_in_flight"), LogIfVersion(info.Version)))
	one, err := c.LogInfo(ctx, "events/clicks#2")
	must(err)
	if one.ID != 3 || one.Number != 2 || one.Attributes.GetSequencerAffinity() != "eu" || one.Attributes.GetStickyCopysets() || one.Attributes.GetMaxWritesInFlight() != 1000 {
		t.Errorf("found %+v", one)
	}
	grown, err := c.ResizeLogs(ctx, "/events/clicks", 5)
	if must(err); grown.IDs()[4] != 5 {
		t.Errorf("grown %+v", grown)
	}
	must(c.RenameLog(ctx, "/events/clicks", "/a/b/clicks", LogParents()))
	list, err := c.Logs(ctx, "/")
	must(err)
	var paths []string
	for _, i := range list {
		paths = append(paths, i.Path)
	}
	if strings.Join(paths, " ") != "/ /a /a/b /a/b/clicks /events" {
		t.Errorf("the tree holds %v", paths)
	}
	byID, err := c.LogInfo(ctx, "5")
	if must(err); byID.Path != "/a/b/clicks" || byID.Number != 4 {
		t.Errorf("log 5 is %+v", byID)
	}
	sources, err := c.LogSources(ctx, "/a/b/clicks")
	must(err)
	if i := slices.IndexFunc(sources, func(s LogSource) bool { return s.Name == "sequencer_affinity" }); sources[i].From != "/" || sources[i].Value != "eu" {
		t.Errorf("%+v", sources[i])
	}
	must(c.RemoveLog(ctx, "/a", true))
	if _, err := c.LogInfo(ctx, "5"); !errors.Is(err, ErrNotFound) {
		t.Errorf("log 5 after it was removed: %v", err)
	}
	if _, err := c.CreateLogs(ctx, "/events/views", 1, LogFirstID(5)); !errors.Is(err, ErrIDClash) {
		t.Errorf("log 5 again: %v", err)
	}
}

func TestRefusalsOfLogsAreTyped(t *testing.T) {
	_, c := newAdministered(t)
	ctx := context.Background()
	info, err := c.CreateLogs(ctx, "/d/a", 2, LogParents())
	if err != nil {
		t.Fatal(err)
	}
	create := func(path string, n int, s ...LogSetting) error {
		_, err := c.CreateLogs(ctx, path, n, s...)
		return err
	}
	look := func(name string) error { _, err := c.resolveLog(ctx, name); return err }
	for what, got := range map[string]struct{ err, want error }{
		"exists":             {create("/d/a", 1), ErrAlreadyExists},
		"if not exists":      {create("/d/a", 9, LogIfNotExists()), nil},
		"not a directory":    {create("/d/a/b", 1), ErrNotDirectory},
		"no directory":       {create("/x/y", 1), ErrNotFound},
		"none":               {create("/x", 0), ErrInvalid},
		"bad name":           {create("/x#y", 1), ErrInvalid},
		"ids":                {create("/x", 1, LogFirstID(1)), ErrIDClash},
		"durability":         {create("/x", 1, LogAttribute("durability", "memory")), ErrInvalidAttributes},
		"unknown attribute":  {create("/x", 1, LogAttribute("colour", "red")), ErrInvalidAttributes},
		"unreadable":         {create("/x", 1, LogAttribute("backlog", "soon")), ErrInvalidAttributes},
		"contradiction":      {create("/x", 1, LogReplication(&Replication{Node: 2, Rack: 3})), ErrInvalidAttributes},
		"not empty":          {c.RemoveLog(ctx, "/d", false), ErrNotEmpty},
		"changed":            {c.RemoveLog(ctx, "/d/a", false, LogIfVersion(info.Version+1)), ErrConditionFailed},
		"which":              {look("/d/a"), ErrInvalid},
		"a third":            {look("/d/a#2"), ErrNotFound},
		"no log":             {look("/d/b"), ErrNotFound},
		"a directory":        {look("/d"), ErrNotDirectory},
		"not made by append": {func() error { _, err := c.resolveLogForAppend(ctx, "/d/b"); return err }(), ErrNotFound},
	} {
		if !errors.Is(got.err, got.want) {
			t.Errorf("%s: %v, want %v", what, got.err, got.want)
		}
	}
}

func TestCreateOnAppendMakesTheLogOnce(t *testing.T) {
	_, c := newAdministered(t)
	ctx := context.Background()
	if err := c.CreateLogDirectory(ctx, "/free", LogCreateOnAppend(true)); err != nil {
		t.Fatal(err)
	}
	first, err := c.resolveLogForAppend(ctx, "free/one/two")
	if err != nil || first.Path != "/free/one/two" || first.ID != 1 {
		t.Fatal(first, err)
	}
	again, err := c.resolveLogForAppend(ctx, "/free/one/two#0")
	if err != nil || again.ID != first.ID {
		t.Fatal(again, err)
	}
}

// The list of logs is fetched only when it may have changed, by one of those who
// need it, and what this client changed is seen by it at once.
func TestTheListOfLogsIsKept(t *testing.T) {
	a, c := newAdministered(t)
	ctx := context.Background()
	if _, err := c.CreateLogs(ctx, "/a", 1); err != nil {
		t.Fatal(err)
	}
	had := a.trees.Load()
	for range 10 {
		if info, err := c.resolveLog(ctx, "/a"); err != nil || info.ID != 1 {
			t.Fatal(info, err)
		}
		if _, err := c.LogInfo(ctx, "/a"); err != nil {
			t.Fatal(err)
		}
	}
	if a.trees.Load() != had {
		t.Errorf("an unchanged list was sent %d times", a.trees.Load()-had)
	}
	if attributes, ok := c.attributesOfLog(1); !ok || attributes.GetMaxPayloadBytes() != 1<<20 {
		t.Error(attributes, ok)
	}
	if err := c.AlterLog(ctx, "/a", LogMaxPayload(5)); err != nil {
		t.Fatal(err)
	}
	if info, err := c.resolveLog(ctx, "/a"); err != nil || info.Attributes.GetMaxPayloadBytes() != 5 {
		t.Errorf("an attribute changed by this client is %d, %v", info.Attributes.GetMaxPayloadBytes(), err)
	}

	// Many that know nothing share one question, and one that gives up does not wait
	// for its answer.
	cold := New(a, Options{Park: time.Second})
	defer cold.Close()
	a.hold, a.held = make(chan struct{}), make(chan struct{}, 1)
	asked := a.asked.Load()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if info, err := cold.resolveLog(ctx, "/a"); err != nil || info.ID != 1 {
				t.Error(info, err)
			}
		})
	}
	<-a.held
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := cold.LogInfo(canceled, "/a"); !errors.Is(err, ErrCanceled) {
		t.Errorf("canceled: %v", err)
	}
	close(a.hold)
	wg.Wait()
	if n := a.asked.Load() - asked; n != 1 {
		t.Errorf("asked %d times", n)
	}
}
