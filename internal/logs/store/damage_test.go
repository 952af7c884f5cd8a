package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestAFlippedBitIsNeverData flips one bit of a partition's files at a time: what
// is delivered is what was stored, what is not is a gap that says so, and every
// LSN is covered.
func TestAFlippedBitIsNeverData(t *testing.T) {
	for _, closed := range []bool{true, false} {
		t.Run(fmt.Sprintf("closed=%t", closed), func(t *testing.T) { flipBits(t, closed) })
	}
}

func flipBits(t *testing.T, closed bool) {
	b := newLab(t, 40)
	b.opts.RecordCacheBytes = 1 << 10 // else all is read from there
	b.open()
	const n = 200 // small blocks: Pebble tries every bit of a damaged one
	for i := logs.ESN(1); i <= n; i++ {
		b.put(rec(lsn(1, i), strings.Repeat(fmt.Sprint(i), 8)))
	}
	b.release(lsn(1, n))
	b.s.settled()
	if closed {
		if err := b.s.nextPartition(); err != nil {
			t.Fatal(err)
		}
		until(t, func() bool { return b.s.Partitions()[0].EndMs > 0 })
	}
	dir := b.s.shelf.all[0].dir
	b.stop()
	names, err := b.fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !closed { // what Pebble takes for a crash is not told from one: docs/formats/log-store.md
		names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".sst") })
	}
	rng := rand.New(rand.NewPCG(1, 2))
	whole := b.fs
	gaps, refused := 0, 0
	flips := 40
	if !closed {
		flips = 12
	}
	for range flips {
		b.fs = whole.Copy()
		name := b.fs.PathJoin(dir, names[rng.IntN(len(names))])
		content, err := b.fs.Read(name)
		if err != nil || len(content) == 0 {
			continue // the lock
		}
		if err := b.fs.Flip(name, rng.Int64N(int64(len(content))*8)); err != nil {
			t.Fatal(err)
		}
		if err := b.tryOpen(); err != nil {
			refused++
			continue
		}
		gaps += b.checkFlipped(n)
		if pieces := len(b.s.torn[labLog]); pieces > 2 { // a piece costs a read of the damaged block, and that is dear
			t.Errorf("one flipped bit tore out %d pieces", pieces)
		}
		b.stop()
	}
	if gaps == 0 {
		t.Error("no flip was noticed: the test does not reach the data")
	}
	t.Logf("%d gaps, %d refusals", gaps, refused)
}

func (b *lab) checkFlipped(n logs.ESN) (gaps int) {
	b.t.Helper()
	start := call(b.s.ReadStart, &wire.ReadStartRequest{Log: uint64(labLog), From: uint64(lsn(1, 1)), Until: uint64(lsn(1, n)), WindowHigh: uint64(logs.LSNMax)})
	next := lsn(1, 1)
	for next <= lsn(1, n) {
		a := call(b.s.ReadNext, &wire.ReadNextRequest{Stream: start.Stream})
		if a.Status != statusOK {
			return gaps + 1 // the partition does not open
		}
		for _, d := range a.Deliveries {
			from, to := logs.LSN(d.GapFrom), logs.LSN(d.GapTo)
			switch r := d.Record; {
			case r != nil:
				from, to = logs.LSN(r.Lsn), logs.LSN(r.Lsn)
				if want := strings.Repeat(fmt.Sprint(to.ESN()), 8); string(r.Payload) != want {
					b.t.Fatalf("%s delivered as %q", to, r.Payload)
				}
			case d.Gap == logs.ServerGapChecksum:
				gaps++
			case d.Gap == logs.ServerGapUnderReplicated && b.s.Suspect():
				gaps++
			default:
				b.t.Fatalf("%s..%s: gap %d of what was stored", from, to, d.Gap)
			}
			if from != next {
				b.t.Fatalf("%s where %s is next", from, next)
			}
			next = to + 1
		}
	}
	return gaps
}

// TestADamagedPayloadIsOneGap: damage of a single copy costs that LSN, and the
// payload of another wave of it is as good.
func TestADamagedPayloadIsOneGap(t *testing.T) {
	b := newLab(t, 41).open()
	defer b.stop()
	second := rec(lsn(1, 3), "c")
	second.Wave = 2
	b.put(rec(lsn(1, 1), "a"), rec(lsn(1, 2), "b"), rec(lsn(1, 3), "c"), second)
	b.release(lsn(1, 3))
	b.s.settled()
	p := b.s.open
	for _, r := range []struct {
		n    logs.ESN
		wave uint64
	}{{2, 1}, {3, 2}} {
		if err := p.lsm.db.Set(copyKey(nil, spacePayload, labLog, lsn(1, r.n), r.wave, kindWhole), []byte("?"), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	b.s.mu.Lock()
	l := b.s.log(labLog)
	l.cached, l.coverFrom = nil, logs.LSNMax
	b.s.mu.Unlock()
	b.expect("read", text(b.read(span(3))), "e1n1=a checksum[e1n2 e1n2] e1n3=c")
	if a := call(b.s.Records, &wire.RecordsRequest{Log: uint64(labLog), From: 1, To: uint64(logs.LSNMax)}); fmt.Sprint(a.Damaged) != fmt.Sprint([]uint64{uint64(lsn(1, 2)), uint64(lsn(1, 3))}) {
		t.Errorf("damaged: %v", a.Damaged)
	}
	if a := call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 1, To: 9, SealEpoch: 1}); len(a.Records) != 2 {
		t.Errorf("digest of %d records", len(a.Records))
	}
}

// TestACorruptStreamLeavesADoubt: a damaged group of the journal costs what was
// in it and after it, and the shard says so from then on.
func TestACorruptStreamLeavesADoubt(t *testing.T) {
	b := newLab(t, 42).open()
	for i := logs.ESN(1); i <= 6; i++ {
		b.put(rec(lsn(1, i), fmt.Sprintf("<%d>", i)))
	}
	whole := b.fs
	b.fs = whole.Copy() // a life that ends here
	b.s.abandon()
	if err := b.j.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := b.fs.List("journal")
	if err != nil {
		t.Fatal(err)
	}
	flipped := false
	for _, name := range names {
		content, err := b.fs.Read("journal/" + name)
		if at := bytes.Index(content, []byte("<3>")); err == nil && at > 0 {
			flipped = b.fs.Flip("journal/"+name, int64(at)*8) == nil
		}
	}
	if !flipped {
		t.Fatal("the record is not in the journal")
	}
	b.open()
	if !b.s.Suspect() {
		t.Fatal("not suspect")
	}
	for range 2 {
		a := call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 1})
		if a.Status != statusPartial {
			t.Errorf("seal: %v", a)
		}
		d := call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 1, To: 99, SealEpoch: 1})
		if d.Status != statusAgain || len(d.Records) != 0 {
			t.Errorf("digest: %v", d)
		}
		b.stop()
		b.open()
	}
	r := call(b.s.Records, &wire.RecordsRequest{Log: uint64(labLog), From: 1, To: uint64(lsn(1, 99))})
	if !r.Doubt || len(r.Records) != 2 {
		t.Errorf("records: %v", r)
	}
	if b.s.o.Recovered.Corrupt {
		t.Error("the journal's stream was not begun anew")
	}
	b.stop()
}

// TestAForeignEntryIsRefused: a stream that does not decode is not passed over.
func TestAForeignEntryIsRefused(t *testing.T) {
	b := newLab(t, 43)
	b.open()
	wait := make(chan error, 1)
	b.j.Append([]journal.Record{{Stream: labStream, Kind: kindCopies, Pos: 1, Payload: []byte{entryVersion, 1, 2}}}, func(err error) { wait <- err })
	if err := <-wait; err != nil {
		t.Fatal(err)
	}
	b.stop()
	if err := b.tryOpen(); err == nil {
		t.Error("opened")
	}
}
