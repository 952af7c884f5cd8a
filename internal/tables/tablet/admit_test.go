package tablet

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/wire"
)

// TestWritesAreRefusedWhileTheLogIsSlow holds up a log: what comes while many are
// under way and the last took long is refused, with a time to come again.
func TestWritesAreRefusedWhileTheLogIsSlow(t *testing.T) {
	r := newReplica(t, newWorld(), Options{DelayMax: 400 * time.Millisecond, DelayFloor: 3})
	r.group.batch = 1
	r.group.pause()
	var during *wire.WriteResponse
	r.WriteAsync(anonymous(set("first", "v")), time.Time{}, func(*wire.WriteResponse) {
		r.WriteAsync(anonymous(set("late", "v")), time.Time{}, func(resp *wire.WriteResponse) { during = resp })
	})
	var others []*pending
	for _, key := range []string{"a", "b", "c", "d"} {
		others = append(others, r.begin(anonymous(set(key, "v")), 0))
	}
	r.world.pass(600 * time.Millisecond)
	r.group.resume()
	if during == nil || during.Error.GetCode() != wire.Code_CODE_OVERLOADED || during.Error.RetryAfterMs != 150 {
		t.Errorf("a write while four are under way, the last of which took 600 ms: %v", during)
	}
	for _, p := range others {
		expect(t, "a write that was under way", p, "ok")
	}
	expect(t, "what was refused", text(r.value("late")), "nil")
	if n := r.Metrics().Overloaded.Load(); n != 1 {
		t.Errorf("%d refusals are counted", n)
	}
	r.group.pause() // slow as it was: with few under way it is not asked
	p := r.begin(anonymous(set("late", "v")), 0)
	r.group.resume()
	expect(t, "a write when nothing is under way", p, "ok")
	if st := r.Status(); st.Inflight != 0 || st.InflightBytes != 0 {
		t.Errorf("%d writes of %d bytes are still counted", st.Inflight, st.InflightBytes)
	}
}

// TestExpiredWorkIsDroppedWhereItIsTakenUp: before it is begun, and when its turn
// for a lock comes.
func TestExpiredWorkIsDroppedWhereItIsTakenUp(t *testing.T) {
	w := newWorld()
	r := newReplica(t, w, Options{})
	p, before := &pending{}, len(r.group.entries())
	r.WriteAsync(anonymous(set("k", "v")), w.now(), p.done)
	expect(t, "a write whose deadline is now", p, "TIMEOUT")
	if n := len(r.group.entries()) - before; n != 0 {
		t.Errorf("%d entries for a write that nobody waits for", n)
	}
	r.group.pause()
	first := r.begin(anonymous(incr("n", 1)), 0)
	second := r.begin(anonymous(incr("n", 1)), time.Second)
	if second.count != 0 {
		t.Fatalf("the second write did not wait for the lock: %v", second)
	}
	w.us.Add(2e6) // the alarm has yet to ring when the lock is released
	r.group.resume()
	expect(t, "the first", first, "1")
	expect(t, "a write whose deadline passed while it waited", second, "TIMEOUT")
	expect(t, "the counter", text(r.value("n")), `"1"`)
	if n := r.Metrics().TimedOut.Load(); n != 2 {
		t.Errorf("%d expired writes are counted", n)
	}
}

// TestAWriteTellsTheLogHowLongItIsWorthProposing: multiraft drops it after that.
func TestAWriteTellsTheLogHowLongItIsWorthProposing(t *testing.T) {
	r := newReplica(t, newWorld(), Options{})
	r.group.pause()
	r.begin(anonymous(set("k", "v")), 3*time.Second)
	r.begin(anonymous(set("k", "v")), 0)
	if q := r.group.queue; len(q) != 2 || q[0].Wait != 3*time.Second || q[1].Wait != 0 {
		t.Errorf("%d proposals", len(q))
	}
	for _, p := range r.group.queue {
		p.Done(multiraft.ProposalResult{Err: multiraft.ErrExpired})
	}
	r.group.queue = nil
	if st := r.Status(); st.Inflight != 0 {
		t.Errorf("%d writes are under way after their proposals expired", st.Inflight)
	}
}
