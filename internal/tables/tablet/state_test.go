package tablet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/tables/docdb"
	"github.com/braiddb/braid/internal/wire"
)

// dump prints what is remembered: equal on replicas at equal entries.
func (r *requests) dump() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for id, c := range r.mu.clients {
		var b strings.Builder
		fmt.Fprintf(&b, "%02x floor %d last %d:", id[0], c.floor, c.last)
		for _, rec := range c.records {
			fmt.Fprintf(&b, " %d@%d/%d=%x", rec.id, rec.entry.index, rec.entry.time, rec.outcome)
		}
		lines = append(lines, b.String())
	}
	sort.Strings(lines)
	return fmt.Sprintf("%s\nlive %d bytes %d\n", strings.Join(lines, "\n"), r.mu.live, r.mu.bytes)
}

// history makes entries as a Raft log would hold them: clients with requests out
// of order and in copies, terms that do not fit, and time that jumps.
type history struct {
	dice    *rand.Rand
	index   uint64
	term    uint64
	now     hlc.Timestamp
	clients map[byte]*historyClient
	sent    []sentRequest
	applied map[string]uint64 // request -> the entry that carries it out
}

type historyClient struct{ next, first uint64 }

type sentRequest struct {
	client byte
	id     uint64
	first  uint64
	at     hlc.Timestamp
}

func newHistory(seed uint64) *history {
	return &history{dice: rand.New(rand.NewPCG(seed, 3)), term: 1, now: hlc.FromMicros(1_700_000_000_000_000),
		clients: make(map[byte]*historyClient), applied: make(map[string]uint64)}
}

func (h *history) entry() multiraft.Entry {
	h.index++
	h.now = h.now.Add(time.Duration(h.dice.IntN(1000)+1) * time.Millisecond)
	switch h.dice.IntN(40) {
	case 0:
		h.now = h.now.Add(time.Duration(h.dice.IntN(900)) * time.Second)
	case 1:
		h.term++
		return multiraft.Entry{Index: h.index, Term: h.term, Kind: multiraft.KindNoop, HybridTime: h.now}
	case 2:
		return multiraft.Entry{Index: h.index, Term: h.term, Kind: multiraft.KindConf, HybridTime: h.now, Conf: []byte{byte(h.index)}}
	}
	e := multiraft.Entry{Index: h.index, Term: h.term, Kind: multiraft.KindWrites, HybridTime: h.now}
	for range h.dice.IntN(4) {
		e.Writes = append(e.Writes, multiraft.EntryWrite{Data: h.payload()})
	}
	return e
}

// payload is one write: mostly a new request, sometimes a copy of a recent one.
func (h *history) payload() []byte {
	s := h.request()
	key := fmt.Sprintf("%d/%d", s.client, s.id)
	var batch docdb.WriteBatch
	batch.Reset()
	x := docdb.NewExec(nil, &batch, 1, h.now.Millis())
	if _, err := x.Write(set(key, fmt.Sprint(h.index))); err != nil {
		panic(err)
	}
	long := 0
	if h.dice.IntN(10) == 0 {
		long = 100
	}
	o := outcome{results: []*wire.Result{{Kind: wire.Kind_KIND_BYTES, Bytes: []byte(key + strings.Repeat("x", long))}}}
	p := payload{kind: payloadWrite, term: h.term, remembered: true, firstRunning: s.first, outcome: o.append(nil), effects: batch.Encode(nil),
		request: requestKeyOf(named(s.client, s.id, s.first))}
	if h.dice.IntN(15) == 0 {
		p.term-- // checked in another term
	}
	return p.append(nil)
}

func (h *history) request() sentRequest {
	if n := len(h.sent); n > 0 && h.dice.IntN(4) == 0 {
		if s := h.sent[n-1-h.dice.IntN(min(n, 30))]; h.now.Sub(s.at) < 600*time.Second {
			return s // no client retries longer than that
		}
	}
	id := byte(h.dice.IntN(6) + 1)
	c := h.clients[id]
	if c == nil || h.dice.IntN(50) == 0 {
		c = &historyClient{next: 1, first: 1}
		if h.clients[id] != nil {
			c.next, c.first = h.clients[id].next+10, h.clients[id].next+10
		}
		h.clients[id] = c
	}
	if h.dice.IntN(3) > 0 {
		c.first += uint64(h.dice.IntN(int(c.next-c.first) + 1))
	}
	s := sentRequest{id, c.next, c.first, h.now}
	c.next++
	if h.dice.IntN(5) == 0 && c.next-c.first > 2 { // overtaken by the one after it
		s.id, c.next = c.next, c.next+1
		h.sent = append(h.sent, sentRequest{id, s.id - 1, c.first, h.now})
	}
	h.sent = append(h.sent, s)
	return s
}

func tightLimits() Options {
	return Options{RequestWindow: 660 * time.Second, RememberedBytesMax: 25 * recordBytes, ClientsMax: 6}
}

// requestKeyOf is the key a request is remembered under.
func requestKeyOf(req *wire.WriteRequest) (k requestKey) {
	copy(k.client[:], req.ClientId)
	k.id = req.RequestId
	return k
}

// TestReplicasRememberAlike: straight through, through restarts, through crashes
// that lose what was not flushed, and through snapshots, replicas that applied
// the same entries remember the same requests and hold the same documents; and
// no request has its effect twice.
func TestReplicasRememberAlike(t *testing.T) {
	for seed := range uint64(25) {
		h := newHistory(seed)
		w := newWorld()
		straight, winding := newFollower(t, w, tightLimits()), newFollower(t, w, tightLimits())
		var log []multiraft.Entry
		first := make(map[string]string)
		for range 300 {
			e := h.entry()
			log = append(log, e)
			for _, r := range []*replica{straight, winding} {
				if err := r.Apply([]multiraft.Entry{e}); err != nil {
					t.Fatal(err)
				}
			}
			onlyOnce(t, seed, straight, e, first)
			switch h.dice.IntN(30) {
			case 0:
				if err := winding.engine.Flush(); err != nil {
					t.Fatal(err)
				}
			case 1:
				winding.crash(log)
			case 2:
				winding = copyOf(t, w, winding)
			}
			if got, want := winding.requests.Load().dump(), straight.requests.Load().dump(); got != want {
				t.Fatalf("seed %d, entry %d: remembered are\n%swant\n%s", seed, e.Index, got, want)
			}
		}
		at := straight.apply.state.HybridTime
		a, errA := straight.Hash(at)
		b, errB := winding.Hash(at)
		if errA != nil || errB != nil || a != b {
			t.Fatalf("seed %d: documents differ: %x %x (%v %v)", seed, a, b, errA, errB)
		}
		if got, want := winding.Applied(), straight.Applied(); got.Index != want.Index || !bytes.Equal(got.Conf, want.Conf) {
			t.Fatalf("seed %d: applied is %+v, want %+v", seed, got, want)
		}
	}
}

// onlyOnce looks at every document that an entry names: the first entry to write
// it is the only one ever.
func onlyOnce(t *testing.T, seed uint64, r *replica, e multiraft.Entry, first map[string]string) {
	t.Helper()
	for _, w := range e.Writes {
		p, err := decodePayload(w.Data)
		if err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprintf("%d/%d", p.request.client[0], p.request.id)
		v, err := r.engine.View(r.span, hlc.Max, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := docdb.NewExec(v, nil, 1, 0).Read(get(key))
		v.Close()
		if err != nil {
			t.Fatal(err)
		}
		now := printResult(res)
		if was, ok := first[key]; ok && was != now {
			t.Fatalf("seed %d: request %s took effect at entry %s and again at %s", seed, key, was, now)
		}
		if now != "nil" {
			first[key] = now
		}
	}
}

// crash loses what the engine has not flushed, opens the rest and applies the
// log's remainder in one go.
func (r *replica) crash(log []multiraft.Entry) {
	r.t.Helper()
	clone := r.fs.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
	if err := r.engine.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.fs = clone
	r.open()
	var rest []multiraft.Entry
	for _, e := range log {
		if e.Index > r.Applied().Index {
			rest = append(rest, e)
		}
	}
	if err := r.Apply(rest); err != nil {
		r.t.Fatal(err)
	}
}

// copyOf makes a replica from another's snapshot.
func copyOf(t testing.TB, w *world, from *replica) *replica {
	t.Helper()
	to := newFollower(t, w, from.deps.Options)
	to.write1(t) // something of its own, to be replaced
	s, err := from.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := to.Restore(s.State(), s); err != nil {
		t.Fatal(err)
	}
	return to
}

// write1 applies one entry that no log has.
func (r *replica) write1(t testing.TB) {
	h := newHistory(99)
	h.now = 1
	if err := r.Apply([]multiraft.Entry{h.entry()}); err != nil {
		t.Fatal(err)
	}
}

func TestExactlyOnceAcrossASnapshot(t *testing.T) {
	w := newWorld()
	r := newReplica(t, w, Options{})
	for id := uint64(1); id <= 20; id++ {
		r.write(named(1, id, min(id, 15), incr("n", 1)))
	}
	s, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	r.write(named(1, 21, 15, incr("n", 1))) // is not in it
	if s.State().Index != r.Applied().Index-1 {
		t.Fatalf("the snapshot is of entry %d", s.State().Index)
	}
	other := newFollower(t, w, Options{})
	if err := other.Restore(s.State(), s); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if got := other.value("n"); got != "CODE_NOT_LEADER" {
		t.Fatalf("a follower reads %s", got)
	}
	other.group.index, other.group.term = other.Applied().Index, other.Applied().Term
	other.clock.AtLeast(other.Applied().HybridTime)
	other.group.elect(2)
	expect(t, "remembered", answered(other.write(named(1, 18, 15, incr("n", 1)))), "18")
	expect(t, "below the floor", answered(other.write(named(1, 14, 14, incr("n", 1)))), "REQUEST_EXPIRED")
	expect(t, "new to it", answered(other.write(named(1, 21, 15, incr("n", 1)))), "21")
	other.restart()
	expect(t, "remembered", answered(other.write(named(1, 18, 15, incr("n", 1)))), "18")
}

func TestDamagedSnapshotChangesNothing(t *testing.T) {
	w := newWorld()
	from, to := newReplica(t, w, Options{}), newReplica(t, w, Options{})
	for i := range 30 {
		from.write(anonymous(set(fmt.Sprint("k", i), "from")))
	}
	to.write(named(1, 1, 1, set("k1", "to")))
	s, err := from.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	stream, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	before := to.Applied()
	stream[len(stream)/2] ^= 1
	if err := to.Restore(s.State(), bytes.NewReader(stream)); !errors.Is(err, docdb.ErrStream) {
		t.Fatalf("a flipped bit: %v", err)
	}
	if err := to.Restore(s.State(), bytes.NewReader(stream[:len(stream)/3])); !errors.Is(err, docdb.ErrStream) {
		t.Fatalf("cut short: %v", err)
	}
	if got := to.Applied(); got.Index != before.Index {
		t.Fatalf("applied went from %d to %d", before.Index, got.Index)
	}
	expect(t, "k1", text(to.value("k1")), `"to"`)
	expect(t, "retry", answered(to.write(named(1, 1, 1, set("k1", "again")))), "ok")
	expect(t, "k1", text(to.value("k1")), `"to"`)
}

func TestDestroyLeavesNothing(t *testing.T) {
	w := newWorld()
	r := newReplica(t, w, Options{})
	r.write(named(1, 1, 1, set("k", "v")))
	if err := r.Destroy(); err != nil {
		t.Fatal(err)
	}
	fresh, err := New(r.deps, r.desc, r.table)
	if err != nil {
		t.Fatal(err)
	}
	if got := fresh.Applied(); got.Index != 0 || got.Conf != nil {
		t.Fatalf("applied is %+v", got)
	}
	if clients, live, _, _ := fresh.requests.Load().counts(); clients != 0 || live != 0 {
		t.Fatalf("%d clients, %d requests are remembered", clients, live)
	}
}

func TestRememberedRequestsAreBounded(t *testing.T) {
	w := newWorld()
	r := newReplica(t, w, Options{RememberedBytesMax: 100 * 100, ClientsMax: 8})
	for id := uint64(1); id <= 2000; id++ { // a client that never declares anything answered
		r.write(named(1, id, 1, incr("n", 1)))
	}
	s := r.Status()
	if s.RememberedBytes > 100*100 || s.RememberedWrites < 50 {
		t.Fatalf("remembered: %d requests, %d bytes", s.RememberedWrites, s.RememberedBytes)
	}
	expect(t, "forgotten for want of memory", answered(r.write(named(1, 1000, 1, incr("n", 1)))), "REQUEST_EXPIRED")
	expect(t, "one of the last", answered(r.write(named(1, 1990, 1, incr("n", 1)))), "1990")
	if n := r.recordsOnDisk(); n > 2*deadEntriesMax {
		t.Fatalf("%d records are on disk for %d remembered requests", n, s.RememberedWrites)
	}
	for c := byte(2); c <= 8; c++ {
		expect(t, "another client", answered(r.write(named(c, 1, 1, incr("n", 1)))), fmt.Sprint(1999+int(c)))
	}
	expect(t, "one client too many", answered(r.write(named(9, 1, 1, incr("n", 1)))), "OVERLOADED")
	expect(t, "without memory", answered(r.write(anonymous(incr("n", 1)))), "2008")
	w.pass(700 * time.Second)
	r.write(anonymous(incr("n", 1))) // an entry, so that time passes in the log too
	expect(t, "once the others are old", answered(r.write(named(9, 1, 1, incr("n", 1)))), "2010")
	r.restart()
	if s := r.Status(); s.Clients > 8 {
		t.Fatalf("%d clients are remembered", s.Clients)
	}
}

func (r *replica) recordsOnDisk() (n int) {
	r.t.Helper()
	err := r.engine.ScanGroupState(r.id, keyRecords, []byte{keyRecords[0] + 1}, func(_, _ []byte) bool { n++; return true })
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// TestTimePassesInEntriesWithoutRequestsToo: what such an entry made the tablet
// forget is not back after a restart, though nothing on disk says so but the time.
func TestTimePassesInEntriesWithoutRequestsToo(t *testing.T) {
	w := newWorld()
	r := newReplica(t, w, Options{})
	r.write(named(1, 1, 1, incr("n", 1)))
	w.pass(700 * time.Second)
	r.write(anonymous(incr("n", 1)))
	want := r.requests.Load().dump()
	if err := r.engine.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if got := r.requests.Load().dump(); got != want {
		t.Fatalf("remembered are\n%swant\n%s", got, want)
	}
}

// TestOneStuckRequestDoesNotKeepTheRest: a dead client's request stays, all the
// others around it go from disk and from memory.
func TestOneStuckRequestDoesNotKeepTheRest(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	r.write(named(9, 1, 1, incr("n", 1)))
	for id := uint64(1); id <= 3000; id++ {
		r.write(named(1, id, id, incr("n", 1)))
	}
	if n := r.recordsOnDisk(); n > 2*deadEntriesMax {
		t.Fatalf("%d records are on disk", n)
	}
	if n := len(r.requests.Load().mu.entries); n > 200 {
		t.Fatalf("%d entries are in memory", n)
	}
	expect(t, "the stuck one", answered(r.write(named(9, 1, 1, incr("n", 1)))), "1")
	r.restart()
	expect(t, "the stuck one", answered(r.write(named(9, 1, 1, incr("n", 1)))), "1")
}

func TestEntriesThatCannotBeReadStopTheReplica(t *testing.T) {
	good := (&payload{kind: payloadWrite, term: 1}).append(nil)
	for what, e := range map[string]multiraft.Entry{
		"a kind of entry":    {Index: 1, Term: 1, Kind: multiraft.KindLogAppend},
		"a kind of payload":  {Index: 1, Term: 1, Kind: multiraft.KindWrites, Writes: []multiraft.EntryWrite{{Data: []byte{1, 9, 1}}}},
		"a payload version":  {Index: 1, Term: 1, Kind: multiraft.KindWrites, Writes: []multiraft.EntryWrite{{Data: append([]byte{9}, good[1:]...)}}},
		"a payload cut":      {Index: 1, Term: 1, Kind: multiraft.KindWrites, Writes: []multiraft.EntryWrite{{Data: good[:2]}}},
		"flags of a payload": {Index: 1, Term: 1, Kind: multiraft.KindWrites, Writes: []multiraft.EntryWrite{{Data: []byte{1, 1, 1, 0x80}}}},
	} {
		r := newFollower(t, newWorld(), Options{})
		if err := r.Apply([]multiraft.Entry{e}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzPayload(f *testing.F) {
	h := newHistory(1)
	for range 5 {
		f.Add(h.payload())
	}
	f.Add((&payload{kind: payloadSchema, term: 3, schema: redisTable()}).append(nil))
	f.Add((&payload{kind: payloadCutoff, term: 3, cutoff: 77}).append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := decodePayload(data)
		if err != nil {
			return
		}
		again, err := decodePayload(p.append(nil))
		if err != nil || again.term != p.term || again.kind != p.kind || again.request != p.request || !bytes.Equal(again.effects, p.effects) {
			t.Fatalf("%+v became %+v (%v)", p, again, err)
		}
		if p.remembered {
			if o, err := decodeOutcome(p.outcome); err == nil {
				if _, err := decodeOutcome(o.append(nil)); err != nil {
					t.Fatalf("outcome: %v", err)
				}
			}
		}
	})
}

func FuzzState(f *testing.F) {
	key := requestKeyOf(named(3, 7, 5))
	f.Add(appendRequest(appendRequestsHeader(nil, 99, 1), key, 5, []byte{0, 0}), []byte("0123456789abcdef"))
	f.Add(clientFloor{key.client, 4, 9}.append(nil), key.client[:])
	f.Add((&appliedRecord{1, 2, 3, 4, 5}).append(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, data, id []byte) {
		if at, list, err := decodeRequests(data); err == nil {
			again := appendRequestsHeader(nil, at, len(list))
			for _, q := range list {
				again = appendRequest(again, q.key, q.firstRunning, q.outcome)
			}
			if _, more, err := decodeRequests(again); err != nil || len(more) != len(list) {
				t.Fatalf("%d requests became %d (%v)", len(list), len(more), err)
			}
		}
		if fl, err := decodeFloor(id, data); err == nil && !bytes.Equal(fl.append(nil), data) {
			t.Fatal("a floor reads otherwise than it is written")
		}
		if a, err := decodeApplied(data); err == nil && !bytes.Equal(a.append(nil), data) {
			t.Fatal("applied state reads otherwise than it is written")
		}
	})
}
