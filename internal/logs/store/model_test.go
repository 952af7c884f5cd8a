package store

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/sim/simfs"
	"github.com/braiddb/braid/internal/wire"
)

var seedFlag = flag.Uint64("seed", 0, "run the model test with this seed only")

// promise is what the shard has said of a log and must keep.
type promise struct {
	sent    map[logs.LSN][]string          // contents that were ever sent, at any wave
	acked   map[logs.LSN]map[uint64]string // by precedence
	seal    logs.Epoch
	trim    logs.LSN
	clean   map[uint32]uint64 // epoch -> count
	deleted [][2]logs.LSN
}

// world drives one shard at random through crashes.
type world struct {
	*lab
	rng   *rand.Rand
	mu    sync.Mutex
	logs  map[logs.LogID]*promise
	next  map[logs.LogID]logs.LSN
	wg    sync.WaitGroup
	clean bool // the last end was in good order
}

func (w *world) promise(id logs.LogID) *promise {
	p := w.logs[id]
	if p == nil {
		p = &promise{sent: map[logs.LSN][]string{}, acked: map[logs.LSN]map[uint64]string{}, clean: map[uint32]uint64{}}
		w.logs[id] = p
	}
	return p
}

func (w *world) pick() logs.LogID { return labLog + logs.LogID(w.rng.IntN(3)) }

// storeSome sends a batch and notes what becomes of it, without waiting.
func (w *world) storeSome() {
	b := &wire.LogBatch{FromNode: 2}
	type key struct {
		id   logs.LogID
		lsn  logs.LSN
		prec uint64
	}
	contents := map[uint64]string{}
	keys := map[uint64]key{}
	for i := range 1 + w.rng.IntN(6) {
		id := w.pick()
		w.mu.Lock()
		p := w.promise(id)
		at := w.next[id]
		if at == 0 || w.rng.IntN(40) == 0 {
			at = logs.MakeLSN(at.Epoch()+1, 0)
		}
		at++
		w.next[id] = at
		if w.rng.IntN(8) == 0 && at.ESN() > 3 {
			at -= logs.LSN(1 + w.rng.IntN(3)) // a later wave of an older one
		}
		r := rec(at, fmt.Sprintf("%d/%s/%d", id, at, w.rng.IntN(1<<20)))
		for _, old := range p.sent[at] { // the content of an LSN is one
			r.Payload = []byte(old)
			r.Checksum = logs.Checksum(r.Payload)
		}
		r.Log, r.Wave = uint64(id), uint32(1+w.rng.IntN(4))
		p.sent[at] = append(p.sent[at], string(r.Payload))
		w.mu.Unlock()
		cookie := uint64(i + 1)
		contents[cookie], keys[cookie] = string(r.Payload), key{id, at, logs.Precedence(r)}
		b.Stores = append(b.Stores, &wire.Store{Record: r, Cookie: cookie})
	}
	n := len(b.Stores)
	w.wg.Add(n)
	w.s.HandleBatch(b, func(a *wire.LogBatch) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, s := range a.Stored {
			if s.Status == statusOK {
				k := keys[s.Cookie]
				p := w.promise(k.id)
				if p.acked[k.lsn] == nil {
					p.acked[k.lsn] = map[uint64]string{}
				}
				p.acked[k.lsn][k.prec] = contents[s.Cookie]
				if k.lsn.Epoch() <= p.seal {
					w.t.Errorf("log %d: %s acknowledged though epoch %d was sealed before", k.id, k.lsn, p.seal)
				}
			}
			w.wg.Done()
		}
	})
}

func (w *world) step() {
	id := w.pick()
	w.mu.Lock()
	at := w.next[id]
	w.mu.Unlock()
	switch n := w.rng.IntN(100); {
	case n < 75:
		w.storeSome()
	case n < 82:
		w.s.HandleBatch(&wire.LogBatch{FromNode: 2, Releases: []*wire.Release{{Log: uint64(id), Released: uint64(at), Epoch: uint32(at.Epoch())}}}, nil)
	case n < 86 && at > 0:
		w.wg.Wait() // what was sent before is answered, so the promise can be told by its time
		e := at.Epoch()
		if w.rng.IntN(2) == 0 {
			e--
		}
		a := call(w.s.Seal, &wire.SealRequest{Log: uint64(id), Epoch: uint32(e), SealedBy: 3})
		if a.Status == statusOK {
			w.mu.Lock()
			w.promise(id).seal = max(w.promise(id).seal, e)
			w.next[id] = max(w.next[id], logs.MakeLSN(e+1, 0))
			w.mu.Unlock()
		}
	case n < 88 && at > 0:
		lsn := at - logs.LSN(w.rng.IntN(20))
		if a := call(w.s.Trim, &wire.TrimRequest{Log: uint64(id), Lsn: uint64(lsn)}); a.Status == statusOK {
			w.mu.Lock()
			w.promise(id).trim = max(w.promise(id).trim, lsn)
			w.mu.Unlock()
		}
	case n < 90 && at.Epoch() > 1:
		e := uint32(at.Epoch() - 1)
		a := call(w.s.Clean, &wire.CleanRequest{Log: uint64(id), Epoch: e, SealEpoch: e, Count: uint64(e) * 7})
		if a.Status == statusOK {
			w.mu.Lock()
			w.promise(id).clean[e] = uint64(e) * 7
			w.promise(id).seal = max(w.promise(id).seal, logs.Epoch(e))
			w.mu.Unlock()
		}
	case n < 94:
		w.clock.advance(time.Duration(w.rng.IntN(3000)) * time.Millisecond)
	case n < 96:
		w.s.Pressure()
	case n < 98:
		if err := w.s.nextPartition(); err != nil {
			w.t.Log(err)
		}
	default:
		w.verify()
	}
}

// verify compares what the shard says with what it promised.
func (w *world) verify() {
	w.t.Helper()
	w.wg.Wait()
	for id, p := range w.logs {
		a := call(w.s.Records, &wire.RecordsRequest{Log: uint64(id), From: 1, To: uint64(logs.LSNMax), Payloads: true, Limit: rowsMost})
		if a.Status != statusOK || a.Next != 0 || len(a.Damaged) > 0 {
			w.t.Fatalf("records of log %d: %s, next %d, damaged %v", id, a.Status, a.Next, a.Damaged)
		}
		have := map[logs.LSN]map[uint64]string{}
		for _, r := range a.Records {
			lsn := logs.LSN(r.Lsn)
			if have[lsn] == nil {
				have[lsn] = map[uint64]string{}
			}
			have[lsn][logs.Precedence(r)] = string(r.Payload)
			if sent := p.sent[lsn]; len(sent) == 0 || sent[0] != string(r.Payload) {
				w.t.Fatalf("log %d: %s holds %q, which was never sent", id, lsn, r.Payload)
			}
		}
		for lsn, versions := range p.acked {
			for prec, content := range versions {
				if got, ok := have[lsn][prec]; !ok || got != content {
					w.t.Fatalf("log %d: %s with precedence %x was acknowledged as %q and is %q", id, lsn, prec, content, got)
				}
			}
		}
		seal := call(w.s.CheckSeal, &wire.CheckSealRequest{Log: uint64(id)})
		if logs.Epoch(seal.SealEpoch) < p.seal {
			w.t.Fatalf("log %d: seal of epoch %d was acknowledged, %d stands", id, p.seal, seal.SealEpoch)
		}
		if st := call(w.s.LogState, &wire.LogStateRequest{Logs: []uint64{uint64(id)}}); p.trim > 0 && (len(st.States) != 1 || logs.LSN(st.States[0].TrimPoint) < p.trim) {
			w.t.Fatalf("log %d: trim of %s was acknowledged: %v", id, p.trim, st)
		}
		er := call(w.s.EpochRecovery, &wire.EpochRecoveryRequest{Log: uint64(id), From: 1, To: 200})
		known := map[uint32]uint64{}
		for _, r := range er.Epochs {
			known[r.Epoch] = r.Count
		}
		for e, count := range p.clean {
			if known[e] != count {
				w.t.Fatalf("log %d: epoch %d was made clean with %d payloads, %d are known", id, e, count, known[e])
			}
		}
	}
}

// life runs until the end of it.
func (w *world) life() {
	w.open()
	w.verify()
	steps := 20 + w.rng.IntN(120)
	for range steps {
		w.step()
	}
	w.clean = w.rng.IntN(4) == 0
	if w.clean {
		w.wg.Wait()
		w.stop()
		return
	}
	percent := func() int { return w.rng.IntN(3) * 50 }
	// Nothing that is answered after the power went counts.
	c := simfs.Crash{Sectors: percent(), Tear: percent(), Names: percent(), Dice: w.rng.Uint64()}
	w.crash(c)
	w.wg.Wait()
}

// TestWhatWasAcknowledgedSurvivesCrashes: acknowledged stores, seals, trims and
// clean epochs are there after any crash, and nothing else is.
func TestWhatWasAcknowledgedSurvivesCrashes(t *testing.T) {
	seeds := []uint64{*seedFlag}
	if *seedFlag == 0 {
		seeds = seeds[:0]
		for s := range uint64(8) {
			seeds = append(seeds, s+1)
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := &world{lab: newLab(t, seed), rng: rand.New(rand.NewPCG(seed, 9)), logs: map[logs.LogID]*promise{}, next: map[logs.LogID]logs.LSN{}}
			w.opts.MemTableBytes, w.opts.RecordCacheBytes = 64<<10, 4<<10
			w.jopts.SegmentBytes, w.jopts.SegmentsMax = 16<<10, 8 // so that the journal lets go
			w.trusting = true
			for range 8 {
				w.life()
				if t.Failed() {
					return
				}
			}
		})
	}
}
