package store

import (
	"fmt"
	"testing"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestAPurgeHidesNoOlderRecordOfAProducer: the index by producer has LSNs whose
// copies are gone; they do not use up what was asked for.
func TestAPurgeHidesNoOlderRecordOfAProducer(t *testing.T) {
	b := newLab(t, 42).open()
	defer b.stop()
	var all []*wire.LogRecord
	for n := logs.ESN(1); n <= 40; n++ {
		r := rec(lsn(1, n), fmt.Sprint(n))
		r.Producer, r.Sequence, r.Flags = 7, uint64(n), logs.FlagProducer
		all = append(all, r)
	}
	b.put(all...)
	done := make(chan error, 1)
	b.s.DeleteCopies(labLog, lsn(1, 16), lsn(1, logs.ESNMax), func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	a := call(b.s.ProducerLookup, &wire.ProducerLookupRequest{Log: uint64(labLog), Producer: 7, To: uint64(lsn(2, 0)), Limit: 8})
	var got []uint64
	for _, e := range a.Entries {
		got = append(got, e.Sequence)
	}
	if fmt.Sprint(got) != "[15 14 13 12 11 10 9 8]" {
		t.Errorf("%s: sequences %v; want the newest eight of 1 to 15", a.Status, got)
	}
}
