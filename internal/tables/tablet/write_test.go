package tablet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/wire"
)

func TestWriteThenRead(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	first := r.write(anonymous(set("k", "v")))
	expect(t, "SET", answered(first), "ok")
	if first.Copies != 3 || first.HybridTime == 0 {
		t.Fatalf("copies %d, hybrid time %d", first.Copies, first.HybridTime)
	}
	expect(t, "GET", text(r.value("k")), `"v"`)
	expect(t, "GET of nothing", text(r.value("none")), "nil")
	second := r.write(anonymous(set("k", "w")))
	if second.HybridTime <= first.HybridTime {
		t.Fatal("hybrid time went back")
	}
	old := r.Read(&wire.ReadRequest{Tablet: tabletID, Table: 1, Ops: []*wire.Op{get("k")}, ReadTime: first.HybridTime})
	expect(t, "GET at the first write's time", text(printResult(old.Results[0])), `"v"`)
}

func TestReadTimes(t *testing.T) {
	w := newWorld()
	r := newReplica(t, w, Options{})
	r.write(anonymous(set("k", "v")))
	at := func(ht uint64) string {
		resp := r.Read(&wire.ReadRequest{Tablet: tabletID, Table: 1, Ops: []*wire.Op{get("k")}, ReadTime: ht})
		if resp.Error != nil {
			return resp.Error.Code.String()
		}
		return printResult(resp.Results[0])
	}
	expect(t, "above the safe time", text(at(uint64(r.clock.Now().Add(time.Hour)))), "CODE_NOT_READY")
	expect(t, "before the write", text(at(1)), "nil")
	old := uint64(r.clock.Now())
	w.pass(time.Hour)
	r.write(anonymous(set("k", "w")))
	if !r.RaiseCutoff(r.clock.Now()) {
		t.Fatal("no cutoff is proposed after an hour")
	}
	expect(t, "below the cutoff", text(at(old)), "CODE_SNAPSHOT_TOO_OLD")
	expect(t, "now", text(r.value("k")), `"w"`)
	if r.RaiseCutoff(r.clock.Now()) {
		t.Fatal("the cutoff is proposed again at once")
	}
	have := r.Cutoff()
	r.restart()
	if r.Cutoff() != have {
		t.Fatalf("the cutoff is %v after a restart, was %v", r.Cutoff(), have)
	}
	w.pass(2 * time.Hour)
	r.RaiseCutoff(r.clock.Now())
	w.pass(2 * time.Hour)
	if r.RaiseCutoff(r.clock.Now()) {
		t.Fatal("an idle tablet is woken for its cutoff")
	}
}

func TestTableWithoutHistory(t *testing.T) {
	r := newFollower(t, newWorld(), Options{})
	r.table.HistoryRetentionMs = 0
	r.engine.Close()
	r.open()
	r.group.elect(1)
	for range 3 {
		r.write(anonymous(incr("n", 1)))
	}
	expect(t, "counter", text(r.value("n")), `"3"`)
	if got, want := r.Cutoff(), r.Applied().HybridTime; got != want {
		t.Fatalf("the cutoff is %v, the last write was at %v", got, want)
	}
}

func TestBatchIsAtomicAndSeesItself(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	expect(t, "batch", answered(r.write(anonymous(set("a", "1"), incr("a", 5), get("a"), set("b", "x")))), `ok 6 "6" ok`)
	version := r.write(anonymous(op(wire.OpVersion, "a"))).Results[0].Int
	if version == 0 {
		t.Fatal("a written document has no version")
	}
	before := len(r.group.entries())
	expect(t, "check fails", answered(r.write(anonymous(set("b", "y"), check("a", version+1)))), "CONDITION_FAILED")
	expect(t, "b", text(r.value("b")), `"x"`)
	if len(r.group.entries()) != before {
		t.Fatal("a failed condition without a client id went through the log")
	}
	expect(t, "check holds", answered(r.write(anonymous(check("a", version), set("b", "y")))), "ok ok")
	expect(t, "b", text(r.value("b")), `"y"`)
	expect(t, "an operation's error", answered(r.write(anonymous(incr("b", 1), set("c", "z")))), "error:NOT_AN_INTEGER ok")
	expect(t, "c", text(r.value("c")), `"z"`)
}

func TestRequestsThatDoNotFit(t *testing.T) {
	w := newWorld()
	r := newReplica(t, w, Options{RequestBytesMax: 4096, InflightMax: 2})
	full := false
	r.deps.DiskFull = func() bool { return full }
	r.Tablet.deps.DiskFull = r.deps.DiskFull
	other := func(change func(*wire.WriteRequest)) *wire.WriteRequest {
		req := anonymous(set("k", "v"))
		change(req)
		return req
	}
	for _, c := range []struct {
		what string
		req  *wire.WriteRequest
		want string
	}{
		{"another tablet", other(func(q *wire.WriteRequest) { q.Tablet = 5 }), "TABLET_NOT_FOUND"},
		{"another table", other(func(q *wire.WriteRequest) { q.Table = 5 }), "INVALID"},
		{"another schema", other(func(q *wire.WriteRequest) { q.SchemaVersion = 2 }), "SCHEMA_MISMATCH"},
		{"no schema version", other(func(q *wire.WriteRequest) { q.SchemaVersion = 0 }), "ok"},
		{"no schema version, for a row", other(func(q *wire.WriteRequest) { q.SchemaVersion, q.Ops[0].Code = 0, uint32(wire.OpRowPut) }), "SCHEMA_MISMATCH"},
		{"no operations", other(func(q *wire.WriteRequest) { q.Ops = nil }), "INVALID"},
		{"half a client id", other(func(q *wire.WriteRequest) { q.ClientId = []byte("short") }), "INVALID"},
		{"first running after itself", named(1, 3, 4, set("k", "v")), "INVALID"},
		{"too large", anonymous(set("k", strings.Repeat("x", 5000))), "TOO_LARGE"},
		{"a clock ahead", other(func(q *wire.WriteRequest) { q.HybridTime = uint64(r.clock.Now().Add(time.Minute)) }), "CLOCK_SKEW"},
	} {
		expect(t, c.what, answered(r.write(c.req)), c.want)
	}
	full = true
	expect(t, "full disk", answered(r.write(anonymous(set("k", "v")))), "DISK_FULL")
	full = false
	r.group.pause()
	one, two := r.begin(anonymous(set("a", "1")), 0), r.begin(anonymous(set("b", "1")), 0)
	expect(t, "one too many", answered(r.write(anonymous(set("c", "1")))), "OVERLOADED")
	r.group.resume()
	expect(t, "one", one, "ok")
	expect(t, "two", two, "ok")
	r.group.full = fmt.Errorf("log: %w", multiraft.ErrOverloaded)
	expect(t, "log is full", answered(r.write(named(1, 9, 9, set("c", "1")))), "OVERLOADED")
	r.group.full = nil
	expect(t, "retry", answered(r.write(named(1, 9, 9, set("c", "1")))), "ok")
	r.group.depose()
	if e := r.write(anonymous(set("a", "1"))).Error; e.Code != wire.Code_CODE_NOT_LEADER || e.LeaderNode != 7 {
		t.Fatalf("not leading: %v", e)
	}
	expect(t, "a read here", text(r.value("a")), "CODE_NOT_LEADER")
	if s := r.Status(); s.Inflight != 0 || s.InflightBytes != 0 || s.LockedPaths != 0 {
		t.Fatalf("something is left: %+v", s)
	}
}

// TestExactlyOnceWithDroppedAnswers: every increment's answer is dropped, and the
// request sent again: to the same leader, after a restart, to another leader.
func TestExactlyOnceWithDroppedAnswers(t *testing.T) {
	const n = 1000
	w := newWorld()
	lead, follow := newReplica(t, w, Options{}), newFollower(t, w, Options{})
	dice := rand.New(rand.NewPCG(1, 2))
	for id := uint64(1); id <= n; id++ {
		req := named(9, id, id-min(id-1, 5), incr("n", 1))
		original := lead.write(req)
		for range dice.IntN(3) {
			again := lead.write(req)
			if printResponse(again) != printResponse(original) || again.HybridTime != original.HybridTime {
				t.Fatalf("request %d: %s at %d, was %s at %d", id, answered(again), again.HybridTime, answered(original), original.HybridTime)
			}
		}
		switch {
		case id%199 == 0:
			lead.restart()
		case id%149 == 0:
			follow.feed(lead.group.entries())
			lead.group.depose()
			follow.group.elect(lead.group.term + 1)
			lead, follow = follow, lead
		}
		expect(t, fmt.Sprint("retry of ", id), answered(lead.write(req)), fmt.Sprint(id))
	}
	expect(t, "counter", text(lead.value("n")), fmt.Sprintf("%q", fmt.Sprint(n)))
	follow.feed(lead.group.entries())
	follow.group.elect(lead.group.term + 1)
	expect(t, "counter on the other replica", text(follow.value("n")), fmt.Sprintf("%q", fmt.Sprint(n)))
}

func TestLongAnswersAreRemembered(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	long := strings.Repeat("long", 1000)
	r.write(anonymous(set("k", long)))
	req := named(1, 1, 1, get("k"), set("k", "short"))
	want := printResponse(r.write(req))
	for range 2 {
		expect(t, "retry", answered(r.write(req)), want)
		r.restart()
	}
	expect(t, "k", text(r.value("k")), `"short"`)
}

func TestRequestWithoutEffectIsRemembered(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	r.write(anonymous(set("k", "v")))
	req := named(1, 1, 1, setNX("k", "w"))
	expect(t, "SET NX", answered(r.write(req)), "nil")
	condition := named(1, 2, 1, check("k", 1), set("k", "w"))
	expect(t, "a failed condition", answered(r.write(condition)), "CONDITION_FAILED")
	r.write(anonymous(op(wire.OpDelete, "k")))
	r.restart()
	expect(t, "its late copy", answered(r.write(req)), "nil")
	expect(t, "its late copy", answered(r.write(condition)), "CONDITION_FAILED")
	expect(t, "k", text(r.value("k")), "nil")
}

func TestRetryJoinsTheRunningOriginal(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	r.group.pause()
	req := named(1, 1, 1, incr("n", 1))
	one, two, three := r.begin(req, 0), r.begin(req, 0), r.begin(req, 0)
	if r.group.waiting() != 1 {
		t.Fatalf("%d proposals of one request", r.group.waiting())
	}
	expect(t, "before", two, "-")
	r.group.resume()
	for _, p := range []*pending{one, two, three} {
		expect(t, "after", p, "1")
	}
	expect(t, "later", answered(r.write(req)), "1")
	if got := r.Metrics().Attached.Load(); got != 2 {
		t.Fatalf("%d attached", got)
	}
}

func TestExpiredRequests(t *testing.T) {
	w := newWorld()
	r := newReplica(t, w, Options{})
	for id := uint64(1); id <= 10; id++ {
		r.write(named(1, id, max(id, 3)-2, incr("n", 1)))
	}
	expect(t, "declared answered", answered(r.write(named(1, 7, 1, incr("n", 1)))), "REQUEST_EXPIRED")
	expect(t, "not yet declared", answered(r.write(named(1, 8, 8, incr("n", 1)))), "8")
	r.restart()
	expect(t, "after a restart", answered(r.write(named(1, 7, 1, incr("n", 1)))), "REQUEST_EXPIRED")
	w.pass(700 * time.Second)
	r.write(named(2, 1, 1, set("x", "y"))) // time passes with entries only
	expect(t, "older than the window", answered(r.write(named(1, 10, 8, incr("n", 1)))), "REQUEST_EXPIRED")
	r.restart()
	expect(t, "older than the window, after a restart", answered(r.write(named(1, 10, 8, incr("n", 1)))), "REQUEST_EXPIRED")
	expect(t, "counter", text(r.value("n")), `"10"`)
}

func TestParkedWritesGoInOrder(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	r.group.pause()
	r.group.batch = 1
	var all []*pending
	for range 20 {
		all = append(all, r.begin(anonymous(incr("n", 1)), 0))
	}
	if got := r.Status(); got.ParkedWrites != 19 || r.group.waiting() != 1 {
		t.Fatalf("%d parked, %d proposed", got.ParkedWrites, r.group.waiting())
	}
	r.group.resume()
	for i, p := range all {
		expect(t, "answer", p, fmt.Sprint(i+1))
	}
}

func TestParkedWritesEndAtTheirDeadline(t *testing.T) {
	w := newWorld()
	r := newReplica(t, w, Options{})
	r.group.pause()
	holder := r.begin(anonymous(incr("n", 1)), 0)
	patient, hasty := r.begin(anonymous(incr("n", 10)), time.Minute), r.begin(anonymous(incr("n", 100)), time.Second)
	last := r.begin(named(1, 1, 1, incr("n", 1000)), 2*time.Second)
	w.pass(500 * time.Millisecond)
	expect(t, "in time", hasty, "-")
	w.pass(600 * time.Millisecond)
	expect(t, "late", hasty, "TIMEOUT")
	retry := r.begin(named(1, 1, 1, incr("n", 1000)), time.Minute) // lends the original its patience
	w.pass(5 * time.Second)
	expect(t, "still parked", last, "-")
	r.group.resume()
	for p, want := range map[*pending]string{holder: "1", patient: "11", last: "1011", retry: "1011"} {
		expect(t, "answer", p, want)
	}
	r.group.pause()
	r.begin(anonymous(incr("n", 1)), 0)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan *wire.WriteResponse)
	go func() { done <- r.Write(ctx, anonymous(incr("n", 1))) }()
	for r.Status().ParkedWrites == 0 {
		select {
		case resp := <-done:
			t.Fatalf("answered %s", answered(resp))
		default:
		}
	}
	cancel()
	expect(t, "cancelled", answered(<-done), "CANCELED")
	r.group.resume()
	expect(t, "counter", text(r.value("n")), `"1012"`)
	if s := r.Status(); s.LockedPaths != 0 || s.ParkedWrites != 0 || s.Inflight != 0 {
		t.Fatalf("something is left: %+v", s)
	}
}

func TestLostLeadershipEndsEveryWrite(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	r.group.pause()
	proposed := r.begin(named(1, 1, 1, incr("n", 1)), 0)
	var parked []*pending
	for id := uint64(2); id < 1000; id++ {
		parked = append(parked, r.begin(named(1, id, 1, incr("n", 1)), 0))
	}
	r.group.depose()
	expect(t, "in the log", proposed, "UNKNOWN_OUTCOME")
	for _, p := range parked {
		expect(t, "parked", p, "NOT_LEADER")
	}
	if s := r.Status(); s.LockedPaths != 0 || s.ParkedWrites != 0 || s.RunningRemembered != 0 {
		t.Fatalf("a replica that does not lead holds %+v", s)
	}
}

// TestEntryOfAnotherTermIsVoid: a leader reads, loses its term, somebody else
// writes, it wins another term, and only then the proposal gets into the log.
func TestEntryOfAnotherTermIsVoid(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	r.group.pause()
	stale := r.begin(named(1, 1, 1, incr("n", 1)), 0)
	taken := r.group.queue
	r.group.queue = nil
	r.group.resume()
	r.group.elect(3)
	r.group.queue = taken
	r.group.resume()
	expect(t, "stale", stale, "NOT_READY")
	expect(t, "counter", text(r.value("n")), "nil")
	expect(t, "retry", answered(r.write(named(1, 1, 1, incr("n", 1)))), "1")
	if r.Metrics().Void.Load() != 1 {
		t.Fatal("the void write was not counted")
	}
}

// TestSecondCopyInTheLogHasNoEffect: two entries of one request commit.
func TestSecondCopyInTheLogHasNoEffect(t *testing.T) {
	w := newWorld()
	r, other := newReplica(t, w, Options{}), newFollower(t, w, Options{})
	r.group.pause()
	one := r.begin(named(1, 1, 1, incr("n", 1)), 0)
	p := r.group.queue[0]
	copied := *p
	var second *wire.WriteResponse
	forged := &write{tablet: r.Tablet, req: named(1, 1, 1), requests: r.requests.Load(), key: requestKey{client: clientID{0: 1, 15: 1}, id: 1},
		done: func(resp *wire.WriteResponse) { second = resp }}
	forged.proposal = copied
	forged.proposal.Done = forged.proposed
	forged.handoff.Store(handoffProposed)
	r.inflight.Add(1)
	r.group.queue = append(r.group.queue, &forged.proposal)
	r.group.batch = 1
	r.group.resume()
	expect(t, "first", one, "1")
	expect(t, "second", answered(second), "1")
	expect(t, "counter", text(r.value("n")), `"1"`)
	other.feed(r.group.entries())
	other.group.elect(5)
	expect(t, "counter on the other replica", text(other.value("n")), `"1"`)
	if r.Metrics().Duplicates.Load() != 1 {
		t.Fatal("the second copy was not counted")
	}
}

func TestTruncate(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	for i := range 50 {
		r.write(anonymous(set(fmt.Sprint("k", i), "v")))
	}
	before := uint64(r.clock.Now())
	r.group.pause()
	writer := r.begin(anonymous(incr("n", 1)), 0)
	whole := r.begin(named(1, 1, 1, op(wire.OpTruncate, "")), 0)
	behind := r.begin(anonymous(incr("n", 1)), 0)
	if r.group.waiting() != 1 {
		t.Fatal("a truncation runs beside a write")
	}
	r.group.resume()
	expect(t, "the write before", writer, "1")
	expect(t, "truncation", whole, "ok")
	expect(t, "the write behind", behind, "1")
	for i := range 50 {
		expect(t, "k", text(r.value(fmt.Sprint("k", i))), "nil")
	}
	old := r.Read(&wire.ReadRequest{Tablet: tabletID, Table: 1, Ops: []*wire.Op{get("k1")}, ReadTime: before})
	if old.Error == nil || old.Error.Code != wire.Code_CODE_SNAPSHOT_TOO_OLD {
		t.Fatalf("a read before the truncation: %v", old)
	}
	r.restart()
	expect(t, "n", text(r.value("n")), `"1"`)
	expect(t, "retry", answered(r.write(named(1, 1, 1, op(wire.OpTruncate, "")))), "ok")
	expect(t, "n", text(r.value("n")), `"1"`)
}

func TestAlterSchema(t *testing.T) {
	w := newWorld()
	r, other := newReplica(t, w, Options{}), newFollower(t, w, Options{})
	table := redisTable()
	table.Schema.Version = 2
	r.group.pause()
	writer := r.begin(anonymous(incr("n", 1)), 0)
	done := make(chan error)
	go func() { done <- r.AlterSchema(context.Background(), table) }()
	for r.Status().ParkedWrites == 0 {
		select {
		case err := <-done:
			t.Fatalf("the schema changed beside a write: %v", err)
		default:
		}
	}
	late := r.begin(anonymous(incr("n", 1)), 0)
	r.group.resume()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	expect(t, "the write before", writer, "1")
	expect(t, "the write behind, made for the old schema", late, "SCHEMA_MISMATCH")
	fresh := anonymous(incr("n", 1))
	fresh.SchemaVersion = 2
	expect(t, "a write for the new schema", answered(r.write(fresh)), "2")
	if err := r.AlterSchema(context.Background(), table); err != nil {
		t.Fatalf("asked again: %v", err)
	}
	r.restart()
	other.feed(r.group.entries())
	for _, at := range []*replica{r, other} {
		if got := at.Status().SchemaVersion; got != 2 {
			t.Fatalf("schema version %d", got)
		}
	}
	r.group.depose()
	table = redisTable()
	table.Schema.Version = 3
	if err, ok := r.AlterSchema(context.Background(), table).(*ChangeError); !ok || err.Code != wire.Code_CODE_NOT_LEADER {
		t.Fatalf("not leading: %v", err)
	}
}

func TestCloseAnswersWhoIsParked(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	r.group.pause()
	proposed, parked := r.begin(anonymous(incr("n", 1)), 0), r.begin(anonymous(incr("n", 1)), time.Minute)
	r.Close()
	expect(t, "parked", parked, "TABLET_NOT_FOUND")
	expect(t, "later", answered(r.write(anonymous(set("k", "v")))), "TABLET_NOT_FOUND")
	r.group.resume()
	expect(t, "proposed", proposed, "1")
}

func TestFlushedReadsBackWhatIsDurable(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	r.write(anonymous(set("k", "v")))
	if err := r.Flushed(); err != nil || r.group.flushed != 0 {
		t.Fatalf("flushed to %d before any flush (%v)", r.group.flushed, err)
	}
	if err := r.engine.Flush(); err != nil {
		t.Fatal(err)
	}
	at := r.Applied().Index
	r.write(anonymous(set("k", "w")))
	if err := r.Flushed(); err != nil || r.group.flushed != at {
		t.Fatalf("flushed to %d, want %d (%v)", r.group.flushed, at, err)
	}
}

// TestManyWritersAtOnce: counters under contention, retries, lost answers and
// leadership that comes and goes; every acknowledged increment counts once.
func TestManyWritersAtOnce(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	const workers, rounds = 8, 150
	var sums [4]atomic.Int64
	var group sync.WaitGroup
	for n := range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			dice := rand.New(rand.NewPCG(uint64(n), 7))
			for id := uint64(1); id <= rounds; id++ {
				k := dice.IntN(len(sums))
				req := named(byte(n+1), id, id, incr(fmt.Sprint("n", k), 1))
				for try := 0; ; try++ {
					resp := r.Write(context.Background(), req)
					if resp.Error == nil && (try > 0 || dice.IntN(3) > 0) {
						break
					}
					if resp.Error != nil && !resp.Error.Code.Retriable() {
						t.Errorf("answer %s", answered(resp))
						return
					}
				}
				sums[k].Add(1)
			}
		}()
	}
	stop := make(chan struct{})
	var chaos sync.WaitGroup
	chaos.Add(1)
	go func() {
		defer chaos.Done()
		for term := uint64(2); ; term++ {
			select {
			case <-stop:
				return
			default:
			}
			r.value("n0")
			// Nothing is being applied while the group is paused and drained.
			r.group.mu.Lock()
			busy := r.group.pumping
			r.group.paused = true
			r.group.mu.Unlock()
			if !busy {
				r.group.depose()
				r.group.electIdle(term)
			}
			r.group.resume()
		}
	}()
	group.Wait()
	close(stop)
	chaos.Wait()
	for k := range sums {
		expect(t, "counter", text(r.value(fmt.Sprint("n", k))), fmt.Sprintf("%q", fmt.Sprint(sums[k].Load())))
	}
	if s := r.Status(); s.LockedPaths != 0 || s.Inflight != 0 || s.RunningRemembered != 0 {
		t.Fatalf("something is left: %+v", s)
	}
}

func BenchmarkWriteSet(b *testing.B) {
	r := newReplica(b, newWorld(), Options{})
	value := strings.Repeat("v", 128)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		id := uint64(i + 1)
		r.WriteAsync(named(1, id, id, set("key", value)), time.Time{}, func(resp *wire.WriteResponse) {
			if resp.Error != nil {
				b.Fatal(resp.Error)
			}
		})
		r.world.us.Add(1)
	}
}

func BenchmarkReadGet(b *testing.B) {
	r := newReplica(b, newWorld(), Options{})
	r.write(anonymous(set("key", strings.Repeat("v", 128))))
	req := &wire.ReadRequest{Tablet: tabletID, Table: 1, SchemaVersion: 1, Ops: []*wire.Op{get("key")}}
	b.ReportAllocs()
	for b.Loop() {
		if resp := r.Read(req); resp.Error != nil {
			b.Fatal(resp.Error)
		}
	}
}
