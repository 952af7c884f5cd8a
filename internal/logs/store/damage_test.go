package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/sim/simfs"
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
		r := rec(lsn(1, i), strings.Repeat(fmt.Sprint(i), 8))
		r.Producer, r.Sequence, r.Flags = 7, uint64(i), logs.FlagProducer
		b.put(r)
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
	rng := rand.New(rand.NewPCG(1, 2))
	whole := b.fs
	gaps, refused, partial := 0, 0, 0
	for range 40 {
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
		partial += b.checkLookups(n)
		gaps += b.checkFlipped(n)
		if pieces := len(b.s.torn[labLog]); pieces > 2 { // a piece costs a read of the damaged block, and that is dear
			t.Errorf("one flipped bit tore out %d pieces", pieces)
		}
		b.stop()
	}
	if gaps == 0 || partial == 0 {
		t.Errorf("%d gaps, %d look-ups that are not whole: the test does not reach the data", gaps, partial)
	}
	t.Logf("%d gaps, %d refusals, %d look-ups that are not whole", gaps, refused, partial)
}

// checkLookups asks for all that a producer has, both ways: what is not told was told to
// be unreadable.
func (b *lab) checkLookups(n logs.ESN) (partial int) {
	b.t.Helper()
	for _, limit := range []uint32{0, uint32(n)} {
		a := call(b.s.ProducerLookup, &wire.ProducerLookupRequest{Log: uint64(labLog), Producer: 7, To: uint64(lsn(2, 0)), Limit: limit})
		switch {
		case a.Status == statusPartial || a.Status == statusAgain:
			partial++
		case a.Status != statusOK:
			b.t.Errorf("limit %d: %s", limit, a.Status)
		case len(a.Entries) != int(n):
			b.t.Errorf("limit %d: of %d appends %d are told, and not that it is not all", limit, n, len(a.Entries))
		}
	}
	return partial
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

// manifestOf gives the current manifest of a Pebble, and where its records begin.
func manifestOf(t *testing.T, fs *simfs.FS, dir string) (name string, records []int64) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if at := strings.Index(n, "MANIFEST-"); strings.HasPrefix(n, "marker.manifest.") && at > 0 {
			name = fs.PathJoin(dir, n[at:])
		}
	}
	content, err := fs.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	r := record.NewReader(bytes.NewReader(content), 0)
	for {
		at := r.Offset()
		if _, err := r.Next(); err != nil {
			return name, records
		}
		records = append(records, at)
	}
}

// TestAShortManifestIsNotACrash damages the manifest of the partition that takes copies
// and of the marks, record by record, when the journal has let go of what they hold.
// Pebble would open them, as they were before that record. The partition begins anew,
// in doubt, and what it had is asked for and may be repaired; the marks are refused.
func TestAShortManifestIsNotACrash(t *testing.T) {
	b := newLab(t, 44)
	b.jopts = journal.Options{SegmentBytes: 32 << 10, SegmentsMax: 16}
	b.open()
	n := logs.ESN(0)
	for range 5 {
		for range 20 {
			n++
			b.put(rec(lsn(1, n), strings.Repeat("x", 2000)))
		}
		b.release(lsn(1, n))
		b.s.settled()
		for _, l := range b.s.writable() {
			if err := l.lsm.db.Flush(); err != nil {
				t.Fatal(err)
			}
			l.done()
		}
		b.s.advance()
	}
	dir := b.s.open.dir
	b.stop()
	whole := b.fs
	name, records := manifestOf(t, whole, dir)
	if len(records) < 5 {
		t.Fatalf("only %d records in %s", len(records), name)
	}
	for _, at := range records {
		b.fs = whole.Copy()
		if err := b.fs.Flip(name, (at+10)*8); err != nil {
			t.Fatal(err)
		}
		b.open()
		if !b.s.Suspect() {
			t.Fatalf("record at %d: not suspect, reads %.200s", at, text(b.read(span(n))))
		}
		b.expect(fmt.Sprint("record at ", at), text(b.read(span(2))), "under[e1n1 e1n2]")
		if f := b.fence(labLog, 3); f.err != nil {
			t.Fatal(f.err)
		}
		b.must(func(done func(error)) { b.s.Repair(labLog, 0, []*wire.LogRecord{rec(lsn(1, 1), "repaired")}, done) })
		b.stop()
		b.open() // the partition that began anew is as good as any
		if got := text(b.read(span(1))); !b.s.Suspect() || got != "e1n1=repaired" {
			t.Fatalf("record at %d, repaired: %s, suspect %v", at, got, b.s.Suspect())
		}
		b.stop()
	}
	name, records = manifestOf(t, whole, "logs/"+marksDir)
	for _, at := range records {
		b.fs = whole.Copy()
		if err := b.fs.Flip(name, (at+10)*8); err != nil {
			t.Fatal(err)
		}
		if err := b.tryOpen(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("marks, record at %d: opened with %v", at, err)
		}
	}
}

// TestAPartitionIsSetAsideInAnyPiece cuts the power at every operation of an Open that
// sets a partition aside: the next one begins it anew, in doubt, or does so again.
func TestAPartitionIsSetAsideInAnyPiece(t *testing.T) {
	b := newLab(t, 45).open()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(1, 2), "b"))
	b.release(lsn(1, 2))
	b.s.settled()
	for _, l := range b.s.writable() {
		if err := l.lsm.db.Flush(); err != nil {
			t.Fatal(err)
		}
		l.done()
	}
	dir := b.s.open.dir
	b.stop()
	name, records := manifestOf(t, b.fs, dir)
	if err := b.fs.Flip(name, (records[len(records)-1]+10)*8); err != nil {
		t.Fatal(err)
	}
	whole, begun := b.fs, 0
	for _, c := range []simfs.Crash{{}, {Names: 50, Sectors: 50, Tear: 50}, {Names: 100, Sectors: 100}} {
		for _, after := range []string{"renamed", "made"} {
			b.fs = whole.Copy()
			cut := b.fs
			cut.SetFault(func(op simfs.Op) (f simfs.Fault) {
				f.Crash = after == "renamed" && op.Kind == simfs.OpRename && strings.Contains(op.Path, asidePrefix) ||
					after == "made" && op.Kind == simfs.OpMkdir && op.Path == dir
				f.After = true
				return f
			})
			if err := b.tryOpen(); err == nil {
				t.Fatalf("%s: the machine did not stop", after)
			}
			for dice := range uint64(8) {
				c.Dice = dice
				b.fs = cut.Copy().Crash(c)
				b.fs.SetFault(nil)
				b.open()
				if !b.s.Suspect() {
					t.Errorf("%s, %+v: not suspect", after, c)
				}
				if b.s.open.id != 1 {
					t.Errorf("%s, %+v: partition %d", after, c, b.s.open.id)
				}
				b.stop()
				begun++
			}
		}
	}
	if begun != 48 {
		t.Errorf("%d lives", begun)
	}
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
	b.s.full.Store(true) // else it is to come again
	if a := call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 1, To: 9, SealEpoch: 1}); len(a.Records) != 2 {
		t.Errorf("digest of %d records", len(a.Records))
	}
}

// damageJournal ends a life, flips a bit of the journal where a payload lies, and begins
// another.
func (b *lab) damageJournal(payload string) {
	b.t.Helper()
	b.fs = b.fs.Copy() // a life that ends here
	b.s.abandon()
	if err := b.j.Close(); err != nil {
		b.t.Fatal(err)
	}
	names, err := b.fs.List("journal")
	if err != nil {
		b.t.Fatal(err)
	}
	flipped := false
	for _, name := range names {
		content, err := b.fs.Read("journal/" + name)
		if at := bytes.Index(content, []byte(payload)); err == nil && at > 0 {
			flipped = b.fs.Flip("journal/"+name, int64(at)*8) == nil
		}
	}
	if !flipped {
		b.t.Fatal("the record is not in the journal")
	}
	b.open()
}

// TestACorruptStreamLeavesADoubt: a damaged group of the journal costs what was
// in it and after it, and the shard says so from then on.
func TestACorruptStreamLeavesADoubt(t *testing.T) {
	b := newLab(t, 42).open()
	for i := logs.ESN(1); i <= 6; i++ {
		b.put(rec(lsn(1, i), fmt.Sprintf("<%d>", i)))
	}
	b.damageJournal("<3>")
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
