package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/sim/simfs"
)

var seedFlag = flag.Uint64("seed", 0, "run the model test with this seed only")

// manualClock runs its timers when the test says so.
type manualClock struct {
	mu     sync.Mutex
	timers []func()
}

func (c *manualClock) AfterFunc(_ time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timers = append(c.timers, f)
	return func() bool { return false }
}

func (c *manualClock) fire() {
	c.mu.Lock()
	due := c.timers
	c.timers = nil
	c.mu.Unlock()
	for _, f := range due {
		f()
	}
}

// modelStream is what a stream should hold.
type modelStream struct {
	state, start []byte
	hasState     bool
	hasStart     bool
	startPos     uint64
	entries      []Record
	low          uint64
	end          uint64 // of the log, also where its entries are gone
	hole         string // J10: an entry that was taken without the one before it
}

func (s *modelStream) clone() *modelStream {
	c := *s
	c.entries = slices.Clone(s.entries)
	return &c
}

func (s *modelStream) next() uint64 {
	return s.end + 1
}

// model is what a journal should hold after some of the appends.
type model map[StreamID]*modelStream

func (m model) clone() model {
	c := model{}
	for id, s := range m {
		c[id] = s.clone()
	}
	return c
}

func (m model) apply(recs []Record) {
	for _, r := range recs {
		s := m[r.Stream]
		if s == nil {
			s = &modelStream{}
			m[r.Stream] = s
		}
		switch r.Kind {
		case KindState:
			s.state, s.hasState = r.Payload, true
		case KindEntry:
			if r.Pos != s.end+1 {
				s.hole = fmt.Sprintf("stream %d: entry %d was taken behind %d", r.Stream, r.Pos, s.end)
			}
			s.entries, s.end = append(s.entries, r), r.Pos
		case KindTruncate:
			s.entries = slices.DeleteFunc(s.entries, func(e Record) bool { return e.Pos >= r.Pos })
			s.end = min(s.end, r.Pos-1)
		case KindStart:
			s.entries, s.startPos, s.start, s.hasStart = nil, r.Pos, r.Payload, true
			s.end = r.Pos
		case KindDrop:
			delete(m, r.Stream)
		}
	}
}

// differs says how a replayed stream is not what the model holds. What lies at
// or below the low-water mark may be missing, but only from the front.
func (s *modelStream) differs(id StreamID, got *StreamReplay) string {
	if got == nil {
		got = &StreamReplay{}
		needed := s.hasState || s.hasStart || len(s.needed()) > 0
		if needed {
			return fmt.Sprintf("stream %d is gone", id)
		}
		return ""
	}
	if !bytes.Equal(got.State, s.state) {
		return fmt.Sprintf("stream %d has state %.20q, not %.20q", id, got.State, s.state)
	}
	if s.hasStart && (got.StartPos != s.startPos || !bytes.Equal(got.Start, s.start)) {
		return fmt.Sprintf("stream %d starts after %d %.20q, not %d %.20q", id, got.StartPos, got.Start, s.startPos, s.start)
	}
	if len(got.Records) > len(s.entries) || len(got.Records) < len(s.needed()) {
		return fmt.Sprintf("stream %d has %d entries of %d, %d needed", id, len(got.Records), len(s.entries), len(s.needed()))
	}
	for i, e := range s.entries[len(s.entries)-len(got.Records):] {
		g := got.Records[i]
		if g.Pos != e.Pos || g.Kind != e.Kind || g.Stream != id || !bytes.Equal(g.Payload, e.Payload) {
			return fmt.Sprintf("stream %d entry %d is at %d with %d bytes, not at %d with %d", id, i, g.Pos, len(g.Payload), e.Pos, len(e.Payload))
		}
	}
	return ""
}

// hole says which stream was taken with one (J10).
func (m model) hole() string {
	for _, id := range slices.Sorted(maps.Keys(m)) {
		if h := m[id].hole; h != "" {
			return h
		}
	}
	return ""
}

func (s *modelStream) needed() []Record {
	for i, e := range s.entries {
		if e.Pos > s.low {
			return s.entries[i:]
		}
	}
	return nil
}

func (m model) differs(got map[StreamID]*StreamReplay, skip func(StreamID) bool) string {
	for _, id := range slices.Sorted(maps.Keys(got)) {
		if m[id] == nil && !skip(id) {
			return fmt.Sprintf("stream %d should not be: %+v", id, got[id])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m)) {
		if skip(id) {
			continue
		}
		if d := m[id].differs(id, got[id]); d != "" {
			return d
		}
	}
	return ""
}

// submission is one Append and what became of it.
type submission struct {
	low   map[StreamID]uint64 // the marks of streams that it dropped
	recs  []Record
	err   error
	told  bool
	batch int
}

// world runs lives of one journal on one simulated disk.
type world struct {
	t    testing.TB
	seed uint64
	rng  *rand.Rand
	fs   *simfs.FS
	o    Options
	life uint64

	sure  model // what is durable beyond doubt
	low   map[StreamID]uint64
	subs  []*submission // of this life, in order
	batch int
	mu    sync.Mutex // guards subs' outcomes
	crash int
	seen  map[string]int
	log   []string

	doubted bool         // the life before began in doubt and ended so: nobody was asked
	broken  *atomic.Bool // a sync failed in this life; a life before this one has its own
}

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), sure: model{}, low: map[StreamID]uint64{}, seen: map[string]int{}, broken: new(atomic.Bool)}
	w.fs = simfs.New(simfs.Options{Seed: seed})
	w.o = Options{SegmentBytes: 16 << 10, SegmentsMax: 4 + w.rng.IntN(4)}
	return w
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	for _, l := range w.log[max(0, len(w.log)-40):] {
		w.t.Log(l)
	}
	w.t.Fatalf("seed %d life %d: %s", w.seed, w.life, fmt.Sprintf(format, args...))
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%d: ", w.life)+fmt.Sprintf(format, args...))
}

// record draws what to append; m is what the stream holds by then.
func (w *world) record(m model) Record {
	id := StreamID(1 + w.rng.IntN(4))
	s := m[id]
	if s == nil {
		s = &modelStream{}
	}
	size := 0
	switch w.rng.IntN(8) {
	case 0:
	case 1:
		size = 400 + w.rng.IntN(3000)
	default:
		size = w.rng.IntN(300)
	}
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(w.rng.Uint32())
	}
	if size >= 8 {
		binary.LittleEndian.PutUint64(payload, w.rng.Uint64())
	}
	switch k := w.rng.IntN(40); {
	case k < 8:
		return Record{Stream: id, Kind: KindState, Payload: payload}
	case k < 11 && len(s.needed()) > 0:
		n := s.needed()
		return Record{Stream: id, Kind: KindTruncate, Pos: n[w.rng.IntN(len(n))].Pos}
	case k == 11:
		return Record{Stream: id, Kind: KindStart, Pos: s.next() + uint64(w.rng.IntN(5)), Payload: payload}
	case k == 12:
		return Record{Stream: id, Kind: KindDrop}
	case k == 13 && w.rng.IntN(4) == 0:
		payload = append(payload, make([]byte, 10<<10+w.rng.IntN(30<<10))...)
	}
	return Record{Stream: id, Kind: KindEntry, Pos: s.next(), Payload: payload}
}

// expected is the model when everything submitted so far goes well.
func (w *world) expected() model {
	m := w.sure.clone()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.subs {
		if !errors.Is(s.err, ErrNoSpace) {
			m.apply(s.recs)
		}
	}
	return m
}

// appendBatch submits a few Appends at once and waits for all.
// What it draws behind an Append that is refused it draws as if that were not: it is
// for the journal to refuse what follows, also if there is room by then.
func (w *world) appendBatch(j *Journal, between func()) {
	w.batch++
	m := w.expected()
	var wait sync.WaitGroup
	again := w.refused()
	for range 1 + w.rng.IntN(4) + len(again) {
		sub := &submission{batch: w.batch}
		if len(again) > 0 {
			sub.recs, again = again[0].recs, again[1:]
			m.apply(sub.recs)
		} else {
			for range 1 + w.rng.IntN(3) {
				r := w.record(m)
				sub.recs = append(sub.recs, r)
				m.apply([]Record{r})
			}
		}
		w.mu.Lock()
		w.subs = append(w.subs, sub)
		w.mu.Unlock()
		wait.Add(1)
		j.Append(sub.recs, func(err error) {
			w.mu.Lock()
			sub.err, sub.told = err, true
			w.mu.Unlock()
			wait.Done()
		})
		if between(); j.Full() && w.rng.IntN(3) == 0 {
			break
		}
	}
	wait.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.subs {
		switch {
		case s.batch != w.batch:
		case s.err == nil:
			w.seen["acknowledged"]++
			for _, r := range s.recs {
				if r.Kind == KindDrop {
					if s.low == nil {
						s.low = map[StreamID]uint64{}
					}
					if _, twice := s.low[r.Stream]; !twice {
						s.low[r.Stream] = w.low[r.Stream]
					}
					delete(w.low, r.Stream) // who comes next under this id begins anew
				}
			}
		case errors.Is(s.err, ErrNoSpace):
			w.seen["refused"]++
			if strings.Contains(s.err.Error(), "was refused what comes before") {
				w.seen["barred"]++
			}
		}
	}
}

// refused gives the Appends of the last batch that are to be written again, as writers
// do, in order: those that were refused, unless what came behind them was taken.
func (w *world) refused() (again []*submission) {
	if w.rng.IntN(3) > 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	overtaken := map[StreamID]bool{}
	for _, s := range slices.Backward(w.subs) {
		if s.batch != w.batch-1 {
			break
		}
		refused := errors.Is(s.err, ErrNoSpace)
		if refused && !slices.ContainsFunc(s.recs, func(r Record) bool { return overtaken[r.Stream] }) {
			again = append(again, s)
		}
		for _, r := range s.recs {
			overtaken[r.Stream] = overtaken[r.Stream] || !refused
		}
	}
	slices.Reverse(again)
	return again
}

const boundless = 1 << 40

// fill lets the disk run full, or have room again.
func (w *world) fill(clock *manualClock) {
	switch w.rng.IntN(24) {
	case 0:
		w.fs.SetCapacity(w.fs.Used())
	case 1, 2, 3, 4, 5, 6:
		w.fs.SetCapacity(boundless)
		clock.fire()
	}
}

// moveLow sets a low-water mark somewhere below what is acknowledged.
func (w *world) moveLow(j *Journal) {
	m := w.expected()
	for _, id := range slices.Sorted(maps.Keys(m)) {
		s := m[id]
		if len(s.entries) == 0 || w.rng.IntN(2) == 0 {
			continue
		}
		pos := s.entries[w.rng.IntN(len(s.entries))].Pos
		if pos > w.low[id] {
			j.SetLowWater(id, pos)
			w.low[id] = pos
		}
	}
}

// outcome gives the models that may be found: everything acknowledged must be
// in, and of what nobody was told about, any number from the first on.
func (w *world) outcome(got *Replay, sure func(*submission) bool, skip func(StreamID) bool) (model, string) {
	m := w.sure.clone()
	least := -1
	for i, s := range w.subs {
		if s.told && s.err == nil && sure(s) {
			least = i
		}
	}
	first := ""
	for i := -1; i < len(w.subs); i++ {
		if i >= 0 {
			if errors.Is(w.subs[i].err, ErrNoSpace) {
				continue
			}
			m.apply(w.subs[i].recs)
		}
		if i < least {
			continue
		}
		c := m.clone()
		w.lower(c, i+1)
		d := c.differs(got.Streams, skip)
		if d == "" {
			return c, ""
		}
		if first == "" {
			first = d
		}
	}
	return nil, first
}

// lower gives a model the low-water marks, as far as truncations left them. Of those
// submissions that it has not seen, from one on, drops did not happen either: the
// stream has the mark that it had before the first of them.
func (w *world) lower(m model, unseen int) {
	for id, s := range m {
		s.low = w.low[id]
		for _, sub := range w.subs[unseen:] {
			if low, dropped := sub.low[id]; dropped {
				s.low = low
				break
			}
		}
		if n := len(s.entries); n > 200 {
			s.entries = s.entries[n-200:]
		}
	}
}

// settle makes the outcome the model of the next life.
func (w *world) settle(m model) {
	w.sure, w.subs = m, nil
	for id := range w.low {
		if m[id] == nil || len(m[id].entries) == 0 {
			delete(w.low, id)
			if m[id] != nil {
				m[id].low = 0
			}
			continue
		}
		top := m[id].entries[len(m[id].entries)-1].Pos
		w.low[id] = min(w.low[id], top)
	}
}

func everything(*submission) bool { return true }
func noStream(StreamID) bool      { return false }

// open begins the next life, over crashes if that is what the hook has in mind.
func (w *world) open(clock Clock) (*Journal, *Replay) {
	for {
		w.life++
		j, r, err := Open(w.fs, "journal", testIdentity(w.life), clock, w.o)
		if err == nil {
			return j, r
		}
		if !errors.Is(err, simfs.ErrCrashed) && !(w.broken.Load() && errors.Is(err, simfs.ErrIO)) {
			w.fatalf("open: %v", err)
		}
		w.note("crashed in Open, or its sync failed")
		w.seen["crash in open"]++
		w.lose()
	}
}

// lose ends the machine or the process and begins with what is left.
func (w *world) lose() {
	w.crash++
	if w.broken.Load() {
		w.seen["failed sync"]++
	}
	mode := w.rng.IntN(8)
	percent := func() int { return []int{0, 50, 100, w.rng.IntN(101)}[w.rng.IntN(4)] }
	if mode == 0 || w.broken.Load() && mode < 5 {
		// What a failed sync left in the page cache is what the next life reads.
		w.note("kill, sync failed %v", w.broken.Load())
		w.seen["kill"]++
		w.fs = w.fs.Kill()
	} else {
		c := simfs.Crash{Sectors: percent(), Tear: percent(), Names: percent(), Dice: uint64(w.crash)}
		w.note("power loss %+v", c)
		w.fs = w.fs.Crash(c)
	}
	w.arm(w.rng.IntN(3) == 0)
}

// arm sets the next crash so many operations ahead; early ones hit Open.
func (w *world) arm(early bool) {
	left := 5 + w.rng.IntN(70)
	if early {
		left = w.rng.IntN(14)
	}
	after, fails := w.rng.IntN(2) == 0, w.rng.IntN(5) == 0
	broken := new(atomic.Bool)
	w.broken = broken
	w.fs.SetFault(func(op simfs.Op) simfs.Fault {
		left--
		if fails && left < 0 {
			if op.Kind != simfs.OpSync || broken.Swap(true) {
				return simfs.Fault{}
			}
			return simfs.Fault{Err: simfs.ErrIO}
		}
		return simfs.Fault{Crash: left < 0, After: after}
	})
}

// live runs one life, checks what it began with, and ends it.
func (w *world) live() {
	clock := &manualClock{}
	j, r := w.open(clock)
	w.note("open: suspect %v torn %d corrupt %v", r.Suspect, r.Torn, r.Corrupt)
	m, wrong := w.outcome(r, everything, noStream)
	if wrong == "" {
		wrong = m.hole()
	}
	if wrong != "" {
		w.fatalf("%s", wrong)
	}
	if len(r.Corrupt) > 0 {
		w.fatalf("corruption where there was none: %+v", r.Corrupt)
	}
	for id, s := range r.Streams {
		if s.Corrupt {
			w.fatalf("stream %d is refused, and there was no damage", id)
		}
	}
	if w.doubted && !r.Suspect {
		w.fatalf("the doubt about the tail is gone, and no peer was asked")
	}
	w.doubted = r.Suspect
	if r.Suspect {
		w.seen["suspect"]++
		if w.rng.IntN(2) == 0 {
			j.Trust()
			w.doubted = false
		}
	}
	w.settle(m)
	for id, pos := range w.low {
		j.SetLowWater(id, pos)
	}
	for range w.rng.IntN(14) {
		if j.failed.Load() {
			break
		}
		w.appendBatch(j, func() { w.fill(clock) })
		if w.rng.IntN(2) == 0 || j.Full() {
			w.moveLow(j)
		}
		if w.rng.IntN(4) == 0 || j.Full() {
			clock.fire()
		}
	}
	w.end(j)
}

func (w *world) end(j *Journal) {
	w.fs.SetCapacity(boundless)
	if w.rng.IntN(6) == 0 && j.Close() == nil {
		w.note("closed")
		w.seen["close"]++
		w.arm(w.rng.IntN(3) == 0)
		return
	}
	w.lose() // the machine goes first, then the dead process is waited for
	m := j.Metrics()
	w.seen["recycled"] += int(m.Recycled)
	w.seen["rewritten"] += int(m.Rewritten)
	j.Close()
}

const crashesPerRun, crashesPerShortRun = 6000, 600

// TestModel is the journal's proof: over thousands of crashes at every kind of
// point nothing acknowledged is lost, nothing is invented, and no crash is taken
// for corruption.
func TestModel(t *testing.T) {
	if *seedFlag != 0 {
		w := newWorld(t, *seedFlag)
		w.arm(false)
		for w.crash < 300 {
			w.live()
		}
		return
	}
	goal := crashesPerRun
	if testing.Short() {
		goal = crashesPerShortRun
	}
	crashes, seen := 0, map[string]int{}
	for seed := uint64(1); crashes < goal; seed++ {
		w := newWorld(t, seed)
		w.arm(false)
		for w.crash < 100 {
			w.live()
		}
		crashes += w.crash
		for k, n := range w.seen {
			seen[k] += n
		}
	}
	t.Logf("%d crashes: %v", crashes, seen)
	for _, k := range []string{"crash in open", "kill", "failed sync", "suspect", "close", "recycled", "rewritten", "refused", "barred", "acknowledged"} {
		if seen[k] < goal/300 {
			t.Errorf("%q was reached %d times only", k, seen[k])
		}
	}
}
