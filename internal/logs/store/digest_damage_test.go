package store

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestADigestNamesDamagedCopies: recovery must not take an LSN for a hole of
// which a copy was here. It is to come again where that will be back; where there is no
// room to set the partition aside it is told which those are.
func TestADigestNamesDamagedCopies(t *testing.T) {
	b := newLab(t, 43).open()
	defer b.stop()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(1, 2), "b"), rec(lsn(1, 3), "c"))
	b.s.settled()
	if err := b.s.open.lsm.db.Set(copyKey(nil, spacePayload, labLog, lsn(1, 2), 1, kindWhole), []byte("?"), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	b.s.mu.Lock()
	l := b.s.log(labLog)
	l.cached, l.coverFrom = nil, logs.LSNMax
	b.s.mu.Unlock()
	call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 1, SealedBy: 2})
	req := &wire.DigestRequest{Log: uint64(labLog), Epoch: 1, From: 1, To: uint32(logs.ESNMax), SealEpoch: 1}
	if a := call(b.s.Digest, req); a.Status != statusAgain || len(a.Records)+len(a.Damaged) > 0 {
		t.Errorf("while the damage is about to be made good: %v", a)
	}
	b.s.full.Store(true)
	a := call(b.s.Digest, req)
	if len(a.Records) != 2 || fmt.Sprint(a.Damaged) != "[2]" {
		t.Errorf("%s: %d records, damaged %v; want 2 and [2]", a.Status, len(a.Records), a.Damaged)
	}
}
