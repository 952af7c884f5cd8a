package sequencer

import (
	"math/bits"
	"time"
)

// A wheel keeps the timers of a core: setting and clearing one costs the same
// however many there are, and a log that is idle costs only its place in a far
// slot. Near slots are a tick apart, far ones a whole turn of the near.
const (
	wheelTick  = time.Millisecond
	nearSlots  = 1024
	farSlots   = 1024
	farTicks   = nearSlots
	wheelReach = int64(farSlots-1) * farTicks
)

// timerKind says what a timer is for.
type timerKind uint8

const (
	timerWave     timerKind = iota // a wave's shards have had their time
	timerAnswer                    // an append in flight has waited long enough
	timerActivate                  // try the epoch store again; the seals have had their time
	timerDrain                     // the old reign has had its time
	timerRecover                   // recovery is tried again
	timerMark                      // the metadata log's flag is tried again
	timerBuffer                    // look at the appends that wait
	timerQuiet                     // tell all what is released
	timerLaggards                  // tell those who are behind
	timerRound                     // tell all again, of a slice of the logs
	timerGather                    // a batch is due
	timerIdle                      // forget producers, let go of memory
	timerNodeset                   // is the nodeset still the one that would be chosen
	timerLookup                    // look at the appends that are held
	timerAsk                       // ask for a producer's sequences again
	timerProbe                     // a shard's ban is over, or its probe is overdue
	timerSweep                     // go on with a walk over all logs
	timerIsolated                  // an isolated node lets go of its sequencers
)

// timer is a place in the wheel. Exactly one of a, s and h is set, or none for
// the core's own.
type timer struct {
	next, prev *timer
	at         int64 // tick
	slot       int32 // 0: not set; near slots from 1, far ones after them
	kind       timerKind
	a          *appender
	s          *sequencer
	h          *shardHealth
}

type wheel struct {
	tick     int64 // up to here all have fired
	count    int
	slots    [nearSlots + farSlots]*timer // circular lists, oldest first
	nearBits [nearSlots / 64]uint64
	farBits  [farSlots / 64]uint64
	due      []*timer
}

// set starts a timer, or moves it.
func (w *wheel) set(t *timer, at time.Duration) {
	if t.slot != 0 {
		w.clear(t)
	}
	t.at = max(int64((at+wheelTick-1)/wheelTick), w.tick+1)
	w.count++
	w.place(t)
}

func (w *wheel) place(t *timer) {
	at := min(t.at, w.tick+wheelReach)
	var i int
	if at-w.tick < nearSlots {
		i = int(at % nearSlots)
		w.nearBits[i/64] |= 1 << (i % 64)
	} else {
		far := int(at / farTicks % farSlots)
		w.farBits[far/64] |= 1 << (far % 64)
		i = nearSlots + far
	}
	t.slot = int32(i + 1)
	head := w.slots[i]
	if head == nil {
		t.next, t.prev = t, t
		w.slots[i] = t
		return
	}
	t.next, t.prev = head, head.prev
	head.prev.next, head.prev = t, t
}

// clear stops a timer; one that is not set is left alone.
func (w *wheel) clear(t *timer) {
	if t.slot == 0 {
		return
	}
	i := int(t.slot - 1)
	if t.next == t {
		w.slots[i] = nil
		if i < nearSlots {
			w.nearBits[i/64] &^= 1 << (i % 64)
		} else {
			i -= nearSlots
			w.farBits[i/64] &^= 1 << (i % 64)
		}
	} else {
		t.prev.next, t.next.prev = t.next, t.prev
		if w.slots[i] == t {
			w.slots[i] = t.next
		}
	}
	t.next, t.prev, t.slot = nil, nil, 0
	w.count--
}

// advance collects what is due at now, in order of deadline, then of setting.
// The list is valid until the next call.
func (w *wheel) advance(now time.Duration) []*timer {
	w.due = w.due[:0]
	to := int64(now / wheelTick)
	for w.tick < to {
		if w.count == 0 {
			w.tick = to
			break
		}
		w.tick++
		if w.tick%farTicks == 0 {
			w.cascade(int(w.tick / farTicks % farSlots))
		}
		for t := w.slots[w.tick%nearSlots]; t != nil; t = w.slots[w.tick%nearSlots] {
			w.clear(t)
			w.due = append(w.due, t)
		}
	}
	return w.due
}

// cascade moves a far slot's timers nearer. Those that were out of reach when
// set go round again.
func (w *wheel) cascade(far int) {
	i := nearSlots + far
	var moved []*timer
	for t := w.slots[i]; t != nil; t = w.slots[i] {
		w.clear(t)
		moved = append(moved, t)
	}
	for _, t := range moved {
		w.count++
		w.place(t)
	}
}

// next is when advance has something to do, 0 if never.
func (w *wheel) next() time.Duration {
	if w.count == 0 {
		return 0
	}
	at := int64(1<<63 - 1)
	if d := firstBit(&w.nearBits, int((w.tick+1)%nearSlots)); d >= 0 {
		at = w.tick + 1 + int64(d)
	}
	turn := w.tick/farTicks + 1 // its slot's timers come nearer when it begins
	if d := firstBit(&w.farBits, int(turn%farSlots)); d >= 0 {
		at = min(at, (turn+int64(d))*farTicks)
	}
	return time.Duration(at) * wheelTick
}

// firstBit is the distance from a bit to the first that is set, going round; -1
// if none is.
func firstBit(set *[16]uint64, from int) int {
	word := from / 64
	if b := set[word] >> (from % 64); b != 0 {
		return bits.TrailingZeros64(b)
	}
	for i := 1; i <= len(set); i++ {
		w := (word + i) % len(set)
		if b := set[w]; b != 0 {
			return (w*64 + bits.TrailingZeros64(b) - from + 1024) % 1024
		}
	}
	return -1
}
