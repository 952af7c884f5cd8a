package tablet

import (
	"fmt"
	"sort"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// conflict is the reference's sentence: "conflict iff at least one is strong AND
// one is read and the other write".
func conflict(a, b Intent) bool {
	kind := map[Intent]struct{ strong, read bool }{
		WeakRead: {false, true}, WeakWrite: {false, false}, StrongRead: {true, true}, StrongWrite: {true, false},
	}
	for x, kx := range kind {
		for y, ky := range kind {
			if a&x != 0 && b&y != 0 && (kx.strong || ky.strong) && kx.read != ky.read {
				return true
			}
		}
	}
	return false
}

func TestIntentsConflictAsInTheReference(t *testing.T) {
	for a := range intentAll + 1 {
		for b := range intentAll + 1 {
			if got, want := conflicting[a]&b != 0, conflict(a, b); got != want {
				t.Errorf("%04b and %04b: conflict %v, want %v", a, b, got, want)
			}
		}
	}
	if got := (StrongRead | StrongWrite).weak(); got != WeakRead|WeakWrite {
		t.Errorf("weak of strong read and write is %04b", got)
	}
}

// lockModel says what the lock table is to do, with lists and nothing clever.
type lockModel struct {
	holders, waiters []*lockRequest
}

func (m *lockModel) excluded(r *lockRequest, by []*lockRequest) bool {
	for _, o := range by {
		for _, w := range r.wants {
			for _, v := range o.wants {
				if w.id == v.id && conflict(w.intents, v.intents) {
					return true
				}
			}
		}
	}
	return false
}

func (m *lockModel) acquire(r *lockRequest) bool {
	if m.excluded(r, m.holders) || m.excluded(r, m.waiters) {
		m.waiters = append(m.waiters, r)
		return false
	}
	m.holders = append(m.holders, r)
	return true
}

func (m *lockModel) leave(r *lockRequest) (granted []*lockRequest) {
	m.holders, m.waiters = dropped(m.holders, r), dropped(m.waiters, r)
	for i := 0; i < len(m.waiters); {
		if w := m.waiters[i]; !m.excluded(w, m.holders) && !m.excluded(w, m.waiters[:i]) {
			m.holders, m.waiters = append(m.holders, w), dropped(m.waiters, w)
			granted = append(granted, w)
			continue
		}
		i++
	}
	return granted
}

func dropped(list []*lockRequest, r *lockRequest) []*lockRequest {
	var kept []*lockRequest
	for _, o := range list {
		if o != r {
			kept = append(kept, o)
		}
	}
	return kept
}

func names(list []*lockRequest) string {
	var out []string
	for _, r := range list {
		out = append(out, fmt.Sprintf("%p", r))
	}
	sort.Strings(out)
	return fmt.Sprint(out)
}

func drawRequest(t *rapid.T) *lockRequest {
	r := &lockRequest{}
	if rapid.IntRange(0, 19).Draw(t, "whole") == 0 {
		r.want(rootPath, StrongRead|StrongWrite)
		return r
	}
	for range rapid.IntRange(1, 3).Draw(t, "paths") {
		i := rapid.SampledFrom([]Intent{StrongRead, StrongWrite, StrongRead | StrongWrite}).Draw(t, "intents")
		doc := rapid.Uint64Range(1, 4).Draw(t, "document")
		r.want(rootPath, i.weak())
		if rapid.Bool().Draw(t, "sub") { // a place within the document: its prefix is locked weakly
			r.want(doc, i.weak())
			r.want(doc*10+rapid.Uint64Range(0, 1).Draw(t, "place"), i)
			continue
		}
		r.want(doc, i)
	}
	return r
}

func TestLockTableIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, model := newLockTable(), &lockModel{}
		start := time.Unix(1000, 0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1, 2:
				r := drawRequest(t)
				r.deadline = start.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "deadline")) * time.Second)
				if got, want := table.acquire(r), model.acquire(r); got != want {
					t.Fatalf("acquired %v, want %v", got, want)
				}
			case 3, 4:
				if len(model.holders) == 0 {
					continue
				}
				r := rapid.SampledFrom(model.holders).Draw(t, "holder")
				if got, want := table.release(r, nil), model.leave(r); names(got) != names(want) {
					t.Fatalf("release grants %v, want %v", names(got), names(want))
				}
			case 5:
				if rapid.Bool().Draw(t, "expire") {
					expireBoth(t, table, model, start.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "now"))*time.Second))
					continue
				}
				if len(model.waiters) == 0 {
					continue
				}
				r := rapid.SampledFrom(model.waiters).Draw(t, "waiter")
				got, ok := table.cancel(r, nil)
				if want := model.leave(r); !ok || names(got) != names(want) {
					t.Fatalf("cancel (%v) grants %v, want %v", ok, names(got), names(want))
				}
			}
			checkTable(t, table, model)
		}
		for len(model.holders) > 0 {
			r := model.holders[0]
			table.release(r, nil)
			model.leave(r)
		}
		if paths, waiters := table.size(); paths != 0 || waiters != 0 || table.mu.root.held.set != 0 {
			t.Fatalf("%d paths and %d waiters are left when all is released", paths, waiters)
		}
	})
}

func expireBoth(t *rapid.T, table *lockTable, model *lockModel, now time.Time) {
	expired, granted, earliest := table.expire(now)
	var late, free []*lockRequest
	for _, r := range append([]*lockRequest(nil), model.waiters...) {
		if !r.deadline.After(now) && contains(model.waiters, r) {
			late = append(late, r)
			free = append(free, model.leave(r)...)
		}
	}
	if names(expired) != names(late) || names(granted) != names(free) {
		t.Fatalf("expire gives %v and grants %v, want %v and %v", names(expired), names(granted), names(late), names(free))
	}
	var want time.Time
	for _, r := range model.waiters {
		if want.IsZero() || r.deadline.Before(want) {
			want = r.deadline
		}
	}
	if !earliest.Equal(want) {
		t.Fatalf("the next deadline is %v, want %v", earliest, want)
	}
}

func contains(list []*lockRequest, r *lockRequest) bool { return len(dropped(list, r)) < len(list) }

// checkTable looks at L1 and at the states.
func checkTable(t *rapid.T, table *lockTable, model *lockModel) {
	for i, r := range model.holders {
		if r.state != lockHeld {
			t.Fatalf("a holder is in state %d", r.state)
		}
		if model.excluded(r, model.holders[:i]) {
			t.Fatal("two holders exclude each other")
		}
	}
	for _, r := range model.waiters {
		if r.state != lockWaiting {
			t.Fatalf("a waiter is in state %d", r.state)
		}
	}
	if _, waiters := table.size(); waiters != len(model.waiters) {
		t.Fatalf("%d wait, want %d", waiters, len(model.waiters))
	}
}

func request(wants ...any) *lockRequest {
	r := &lockRequest{}
	for i := 0; i < len(wants); i += 2 {
		r.want(uint64(wants[i].(int)), wants[i+1].(Intent))
	}
	return r
}

// TestStreamOfReadersDoesNotStarveAWriter: a new request that would fit with the
// holders still waits behind an older one that it conflicts with.
func TestStreamOfReadersDoesNotStarveAWriter(t *testing.T) {
	table := newLockTable()
	reader := func() *lockRequest { return request(1, StrongRead) }
	first, second := reader(), reader()
	writer, third := request(1, StrongRead|StrongWrite), reader()
	if !table.acquire(first) || !table.acquire(second) {
		t.Fatal("two readers exclude each other")
	}
	if table.acquire(writer) || table.acquire(third) {
		t.Fatal("a writer passed two readers, or a third reader the writer")
	}
	if got := table.release(first, nil); len(got) != 0 {
		t.Fatalf("granted %d beside a reader", len(got))
	}
	if got := table.release(second, nil); len(got) != 1 || got[0] != writer {
		t.Fatal("the writer was not next")
	}
	if got := table.release(writer, nil); len(got) != 1 || got[0] != third {
		t.Fatal("the third reader was forgotten")
	}
}

func TestAllLocksOrNone(t *testing.T) {
	table := newLockTable()
	a := request(1, StrongRead|StrongWrite)
	both := request(1, StrongRead|StrongWrite, 2, StrongRead|StrongWrite)
	b := request(2, StrongRead|StrongWrite)
	if !table.acquire(a) || table.acquire(both) || table.acquire(b) {
		t.Fatal("a request held part of its locks, or one behind it passed")
	}
	granted, ok := table.cancel(both, nil)
	if !ok || len(granted) != 1 || granted[0] != b {
		t.Fatal("taking back the request in between does not free the one behind it")
	}
	if _, again := table.cancel(both, nil); again {
		t.Fatal("cancelled twice")
	}
}

func TestBlindWritesOfOneCellRunSideBySide(t *testing.T) {
	table := newLockTable()
	if !table.acquire(request(0, WeakWrite, 1, StrongWrite)) || !table.acquire(request(0, WeakWrite, 1, StrongWrite)) {
		t.Fatal("blind writes exclude each other")
	}
	if table.acquire(request(0, WeakRead, 1, StrongRead)) {
		t.Fatal("a read passed two writes")
	}
}

func TestLocksUnderManyGoroutines(t *testing.T) {
	table := newLockTable()
	const workers, rounds = 8, 400
	var inside [3]int // guarded by the locks under test: the race detector watches
	var group sync.WaitGroup
	for n := range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := range rounds {
				k := (n + i) % 3
				done := make(chan struct{})
				r := request(0, WeakRead|WeakWrite, k+1, StrongRead|StrongWrite)
				r.write = &write{done: nil, locked: false}
				wake.Store(r, done)
				if !table.acquire(r) {
					<-done
				}
				inside[k]++
				for _, g := range table.release(r, nil) {
					ch, _ := wake.Load(g)
					close(ch.(chan struct{}))
				}
				wake.Delete(r)
			}
		}()
	}
	group.Wait()
	if inside[0]+inside[1]+inside[2] != workers*rounds {
		t.Fatalf("%v: updates were lost", inside)
	}
}

var wake sync.Map // *lockRequest -> chan struct{}

func BenchmarkLockSingleDocument(b *testing.B) {
	table := newLockTable()
	var r lockRequest
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r = lockRequest{}
		r.want(rootPath, WeakWrite)
		r.want(uint64(i)|1, StrongWrite)
		table.acquire(&r)
		table.release(&r, nil)
	}
}
