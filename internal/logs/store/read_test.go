package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// span asks for [e1n1, e1nTo].
func span(to logs.ESN) *wire.ReadStartRequest {
	return &wire.ReadStartRequest{From: uint64(lsn(1, 1)), Until: uint64(lsn(1, to))}
}

func (b *lab) expect(what, got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s\ngot  %s\nwant %s", what, got, want)
	}
}

func TestTheWindowAndTheReleaseBoundDelivery(t *testing.T) {
	b := newLab(t, 3).open()
	defer b.stop()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(1, 2), "b"), rec(lsn(1, 3), "c"))
	b.release(lsn(1, 2))
	b.expect("release", text(b.read(span(9))), "e1n1=a e1n2=b")
	w := span(9)
	w.WindowHigh = uint64(lsn(1, 1))
	b.expect("window", text(b.read(w)), "e1n1=a")
}

func TestAReaderWaitsForTheRelease(t *testing.T) {
	b := newLab(t, 4).open()
	defer b.stop()
	start := call(b.s.ReadStart, &wire.ReadStartRequest{Log: uint64(labLog), From: 1, Until: uint64(logs.LSNMax), WindowHigh: uint64(logs.LSNMax)})
	answers := make(chan *wire.ReadNextResponse, 4)
	next := func(ms uint32) {
		b.s.ReadNext(&wire.ReadNextRequest{Stream: start.Stream, WaitMs: ms}, func(a *wire.ReadNextResponse) { answers <- a })
	}
	next(5000)
	b.put(rec(lsn(1, 1), "a"))
	select {
	case a := <-answers:
		t.Fatalf("answered before the release: %v", a)
	default:
	}
	b.release(lsn(1, 1))
	b.expect("released", text((<-answers).Deliveries), "none[e0n1 e1n0] e1n1=a")
	next(300)
	b.clock.advance(250 * time.Millisecond)
	if len(answers) > 0 {
		t.Fatal("answered before its time")
	}
	b.clock.advance(100 * time.Millisecond)
	if a := <-answers; a.Status != statusOK || len(a.Deliveries) > 0 || a.LastReleased != uint64(lsn(1, 1)) {
		t.Fatalf("at the end of its time: %v", a)
	}
	next(60000)
	next(10) // takes its place
	if a := <-answers; len(a.Deliveries) > 0 {
		t.Fatalf("replaced: %v", a)
	}
	call(b.s.ReadStop, &wire.ReadStopRequest{Stream: start.Stream})
	if a := <-answers; a.Status != wire.LogStatus_LOG_STATUS_NO_STREAM {
		t.Fatalf("stopped: %v", a)
	}
	if a := call(b.s.ReadNext, &wire.ReadNextRequest{Stream: start.Stream}); a.Status != wire.LogStatus_LOG_STATUS_NO_STREAM {
		t.Fatalf("after the stop: %v", a)
	}
}

// everywhere runs a check on the record cache and again on partitions.
func (b *lab) everywhere(check func()) {
	b.t.Helper()
	check()
	b.stop()
	b.open()
	if err := b.s.nextPartition(); err != nil {
		b.t.Fatal(err)
	}
	before := b.s.Metrics().LSMReads
	check()
	if b.s.Metrics().LSMReads == before {
		b.t.Error("the second time did not read partitions")
	}
}

func TestTailReadsDoNotTouchPartitions(t *testing.T) {
	b := newLab(t, 5).open()
	defer b.stop()
	for i := range 50 {
		b.put(rec(lsn(1, logs.ESN(i+1)), "x"))
		b.release(lsn(1, logs.ESN(i+1)))
		b.read(&wire.ReadStartRequest{From: uint64(lsn(1, logs.ESN(i+1))), Until: uint64(lsn(1, logs.ESN(i+1)))})
	}
	if m := b.s.Metrics(); m.LSMReads > 0 || m.CacheReads < 50 {
		t.Errorf("%d reads of partitions, %d of the cache", m.LSMReads, m.CacheReads)
	}
}

func TestFiltersMergeIntoGaps(t *testing.T) {
	b := newLab(t, 6).open()
	defer func() { b.stop() }()
	for i, key := range []string{"a", "b", "c", "", "b", "d"} {
		r := rec(lsn(1, logs.ESN(i+1)), strings.ToUpper(key))
		if key != "" {
			r.FilterKey = []byte(key)
		}
		b.put(r)
	}
	hole := rec(lsn(1, 7), "")
	hole.Flags, hole.Count = logs.FlagHole, 0
	b.put(hole)
	b.release(lsn(1, 7))
	b.everywhere(func() {
		eq, rng := span(7), span(7)
		eq.Filter, eq.FilterKey1 = logs.FilterEquality, []byte("b")
		rng.Filter, rng.FilterKey1, rng.FilterKey2 = logs.FilterRange, []byte("b"), []byte("c")
		b.expect("equality", text(b.read(eq)), "filtered[e1n1 e1n1] e1n2=B filtered[e1n3 e1n4] e1n5=B filtered[e1n6 e1n6] e1n7=")
		b.expect("range", text(b.read(rng)), "filtered[e1n1 e1n1] e1n2=B e1n3=C filtered[e1n4 e1n4] e1n5=B filtered[e1n6 e1n6] e1n7=")
	})
}

// TestOneShardOfACopysetSends: of the shards that a reader takes for alive
// exactly one sends each record, and a shard ignores that it is listed itself.
func TestOneShardOfACopysetSends(t *testing.T) {
	all := []logs.ShardID{labShard, others[0], others[1]}
	sent := map[logs.ShardID]int{}
	for i := range 4000 {
		at := logs.LSN(i) << 6
		for out := range 8 {
			senders := 0
			for n, shard := range all {
				d := delivery{s: &Store{o: Options{Shard: shard}}}
				for m, o := range all {
					if out&(1<<m) != 0 && o != shard {
						d.terms.filteredOut = append(d.terms.filteredOut, o)
					}
				}
				if d.sends([]uint64{uint64(all[0]), uint64(all[1]), uint64(all[2])}, at) {
					if out&(1<<n) == 0 {
						senders++
					}
					if out == 0 {
						sent[shard]++
					}
				}
			}
			if out != 7 && senders != 1 {
				t.Fatalf("%s without %03b: %d send", at, out, senders)
			}
		}
	}
	for shard, n := range sent {
		if n < 1000 || n > 1700 {
			t.Errorf("%s sends %d of 4000", shard, n)
		}
	}
}

func TestSingleCopyDeliveryIsToldAsNoRecords(t *testing.T) {
	b := newLab(t, 7).open()
	defer func() { b.stop() }()
	var mine, theirs logs.ESN
	d := delivery{s: b.s}
	for n := logs.ESN(1); mine == 0 || theirs == 0; n += 1 << shuffleRun {
		if d.sends([]uint64{uint64(labShard), uint64(others[0])}, lsn(1, n)) {
			mine = n
		} else {
			theirs = n
		}
	}
	b.put(rec(lsn(1, mine), "mine"), rec(lsn(1, theirs), "theirs"))
	last := max(mine, theirs)
	b.release(lsn(1, last))
	b.everywhere(func() {
		req := &wire.ReadStartRequest{From: uint64(lsn(1, theirs)), Until: uint64(lsn(1, theirs)), Flags: logs.ReadSingleCopy}
		b.expect("another sends", text(b.read(req)), fmt.Sprintf("none[e1n%d e1n%d]", theirs, theirs))
		req.FilteredOut = []uint64{uint64(others[0])}
		b.expect("the other is silent", text(b.read(req)), fmt.Sprintf("e1n%d=theirs", theirs))
		req.From, req.Until, req.FilteredOut = uint64(lsn(1, mine)), uint64(lsn(1, mine)), []uint64{uint64(labShard)}
		b.expect("its own listing", text(b.read(req)), fmt.Sprintf("e1n%d=mine", mine))
	})
}

func TestTheHighestPrecedenceWins(t *testing.T) {
	b := newLab(t, 8).open()
	defer func() { b.stop() }()
	first, amend := rec(lsn(1, 1), "a"), rec(lsn(1, 1), "")
	amend.Wave, amend.Copyset, amend.Checksum = 3, []uint64{uint64(labShard), uint64(others[1])}, 0
	b.put(first)
	if a := b.send(&wire.Store{Record: amend, Amend: true, Cookie: 1})[1]; a.Status != statusOK {
		t.Fatalf("amend: %v", a)
	}
	nothing := rec(lsn(1, 5), "")
	nothing.Checksum = 0
	if a := b.send(&wire.Store{Record: nothing, Amend: true, Cookie: 1})[1]; a.Status != wire.LogStatus_LOG_STATUS_FAILED {
		t.Fatalf("amendment of nothing: %v", a)
	}
	b.put(rec(lsn(1, 2), "lost"))
	hole := rec(lsn(1, 2), "")
	hole.Flags, hole.Wave, hole.Count = logs.FlagHole|logs.FlagWrittenByRecovery, 1, 0
	b.put(hole)
	b.release(lsn(1, 2))
	b.everywhere(func() {
		got := b.read(span(2))
		b.expect("winners", text(got), "e1n1=a e1n2=")
		if r := got[0].Record; r.Wave != 3 || r.Copyset[1] != uint64(others[1]) || r.Checksum != logs.Checksum([]byte("a")) {
			t.Errorf("amended: %v", r)
		}
		if got[1].Record.Flags&logs.FlagHole == 0 {
			t.Error("the copy beat the hole")
		}
		a := call(b.s.Records, &wire.RecordsRequest{Log: uint64(labLog), From: 1, To: uint64(logs.LSNMax)})
		if len(a.Records) != 4 {
			t.Errorf("%d versions, 4 were stored", len(a.Records))
		}
	})
	amend.Wave = 4 // of a copy that is in a partition only
	if a := b.send(&wire.Store{Record: amend, Amend: true, Cookie: 1})[1]; a.Status != statusOK {
		t.Fatalf("amend from a partition: %v", a)
	}
	if r := b.read(span(1))[0].Record; r.Wave != 4 || string(r.Payload) != "a" {
		t.Errorf("amended from a partition: %v", r)
	}
}

func TestTrimIsAGapForGood(t *testing.T) {
	b := newLab(t, 9).open()
	defer func() { b.stop() }()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(1, 2), "b"), rec(lsn(1, 3), "c"))
	b.release(lsn(1, 3))
	if a := call(b.s.Trim, &wire.TrimRequest{Log: uint64(labLog), Lsn: uint64(lsn(1, 2))}); a.Status != statusOK || a.TrimPoint != uint64(lsn(1, 2)) {
		t.Fatalf("trim: %v", a)
	}
	b.everywhere(func() { b.expect("trimmed", text(b.read(span(3))), "trim[e1n1 e1n2] e1n3=c") })
	if a := call(b.s.Trim, &wire.TrimRequest{Log: uint64(labLog), Lsn: uint64(lsn(1, 1))}); a.TrimPoint != uint64(lsn(1, 2)) {
		t.Errorf("trimmed back: %v", a)
	}
}

// TestATrimGapGoesBeyondTheWindow: a shard tells of a trim as a whole, however small
// the reader's window, yet not beyond what the stream reads.
func TestATrimGapGoesBeyondTheWindow(t *testing.T) {
	b := newLab(t, 60).open()
	defer func() { b.stop() }()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(2, 3), "b"), rec(lsn(3, 1), "c"))
	b.release(lsn(3, 1))
	if a := call(b.s.Trim, &wire.TrimRequest{Log: uint64(labLog), Lsn: uint64(lsn(2, 5))}); a.Status != statusOK || logs.LSN(a.TrimPoint) != lsn(2, 5) {
		t.Fatalf("trim: %v", a)
	}
	first := func(until logs.LSN) string {
		start := call(b.s.ReadStart, &wire.ReadStartRequest{Log: uint64(labLog), From: uint64(lsn(1, 1)), Until: uint64(until), WindowHigh: uint64(lsn(1, 8))})
		defer call(b.s.ReadStop, &wire.ReadStopRequest{Stream: start.Stream})
		return text(call(b.s.ReadNext, &wire.ReadNextRequest{Stream: start.Stream, BytesMax: 4096}).Deliveries)
	}
	b.expect("beyond the window", first(logs.LSNMax), "trim[e1n1 e2n5]")
	b.expect("up to the stream's end", first(lsn(2, 2)), "trim[e1n1 e2n2]")
}

func TestNoPayload(t *testing.T) {
	b := newLab(t, 10).open()
	defer func() { b.stop() }()
	b.put(rec(lsn(1, 1), "a"))
	b.release(lsn(1, 1))
	b.everywhere(func() {
		req := span(1)
		req.Flags = logs.ReadNoPayload
		if got := b.read(req); len(got) != 1 || got[0].Record == nil || len(got[0].Record.Payload) > 0 || got[0].Record.Count != 1 {
			t.Errorf("got %v", got)
		}
	})
}

func TestARewindStartsAgain(t *testing.T) {
	b := newLab(t, 11).open()
	defer b.stop()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(1, 2), "b"))
	b.release(lsn(1, 2))
	req := span(2)
	req.Log, req.WindowHigh = uint64(labLog), uint64(lsn(1, 9))
	start := call(b.s.ReadStart, req)
	for version := range uint64(3) {
		a := call(b.s.ReadNext, &wire.ReadNextRequest{Stream: start.Stream})
		b.expect("whole", text(a.Deliveries), "e1n1=a e1n2=b")
		if a.FilterVersion != version {
			t.Errorf("filter version %d, want %d", a.FilterVersion, version)
		}
		req.Stream, req.FilterVersion = start.Stream, version+1
		if a := call(b.s.ReadStart, req); a.Status != statusOK || a.Stream != start.Stream {
			t.Fatalf("rewind: %v", a)
		}
	}
	req.Stream++
	if a := call(b.s.ReadStart, req); a.Status != wire.LogStatus_LOG_STATUS_NO_STREAM {
		t.Errorf("a stream that is not: %v", a)
	}
}

// TestCountsGoOnOverEpochs: what a delivery says of the log's count is of the
// record's epoch.
func TestCountsGoOnOverEpochs(t *testing.T) {
	b := newLab(t, 12).open()
	defer func() { b.stop() }()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(2, 1), "b"), rec(lsn(3, 1), "c"))
	call(b.s.Clean, &wire.CleanRequest{Log: uint64(labLog), Epoch: 1, SealEpoch: 2, CountBase: 0, Count: 10})
	call(b.s.Clean, &wire.CleanRequest{Log: uint64(labLog), Epoch: 2, SealEpoch: 2, CountBase: 10, Count: 5})
	b.release(lsn(3, 1))
	b.everywhere(func() {
		want := map[uint64]uint64{uint64(lsn(1, 1)): 0, uint64(lsn(2, 1)): 10, uint64(lsn(3, 1)): 15}
		for _, d := range b.read(&wire.ReadStartRequest{From: uint64(lsn(1, 1)), Until: uint64(lsn(3, 1))}) {
			if d.Record != nil && (!d.CountKnown || d.CountBase != want[d.Record.Lsn]) {
				t.Errorf("%s: base %d (known %t), want %d", logs.LSN(d.Record.Lsn), d.CountBase, d.CountKnown, want[d.Record.Lsn])
			}
		}
	})
}
