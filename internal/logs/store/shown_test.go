package store

import (
	"testing"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestACleanIsOfWhatWasShown: a shard that lost the end of its journal after a recovery's
// digest takes back what others have that names it, also what it never had and the
// recovery did not decide on. It takes the CLEAN when it has shown that too.
func TestACleanIsOfWhatWasShown(t *testing.T) {
	b := inDoubt(t, 64)
	defer func() { b.stop() }()
	digest := func(from, bytes uint32) *wire.DigestResponse {
		return call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 4, From: from, To: uint32(logs.ESNMax), SealEpoch: 4, BytesMax: bytes})
	}
	clean := func(seal uint32) wire.LogStatus {
		return call(b.s.Clean, &wire.CleanRequest{Log: uint64(labLog), Epoch: 4, SealEpoch: seal, LastKnownGood: 2, Last: 6}).Status
	}
	if f := b.fence(labLog, 6); f.err != nil {
		t.Fatal(f.err)
	}
	call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 4, LastCleanEpoch: 3})
	b.must(func(done func(error)) { b.s.Repair(labLog, 3, []*wire.LogRecord{rec(lsn(4, 7), "never here")}, done) })
	b.must(func(done func(error)) { b.sure(labLog, logs.Compared{Clean: 3, UpTo: lsn(4, logs.ESNMax)}, done) })
	if s := clean(4); s != statusAgain {
		t.Fatalf("a recovery that was shown nothing since: %s", s)
	}
	if digest(5, 0); clean(4) != statusAgain {
		t.Error("a recovery that was shown only the end")
	}
	d := digest(3, 1)
	if d.Next == 0 || clean(4) != statusAgain {
		t.Errorf("a recovery that was shown only the beginning: %v", d)
	}
	for d.Next != 0 {
		d = digest(d.Next, 1)
	}
	if s := clean(5); s != statusAgain {
		t.Errorf("another recovery: %s", s)
	}
	if s := clean(4); s != statusOK {
		t.Errorf("a recovery that was shown everything: %s", s)
	}
	if s := clean(5); s != statusOK {
		t.Errorf("another recovery, of what is clean: %s", s)
	}
}
