package store

import (
	"bytes"
	"testing"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// seedRecords covers what a header can have.
func seedRecords() []*wire.LogRecord {
	full := rec(lsn(7, 9), "payload")
	full.Producer, full.Sequence, full.FindKey, full.FilterKey = 1<<63, 5, []byte("k"), []byte{}
	full.Flags = logs.FlagWrittenByRecovery | logs.FlagBatch | logs.FlagProducer
	full.Origins = []*wire.Origin{{Producer: 3, Sequence: 4, Flags: logs.FlagProducer}, {}}
	hole := rec(lsn(1, 1), "")
	hole.Flags, hole.Copyset = logs.FlagHole, nil
	return []*wire.LogRecord{rec(lsn(1, 1), "x"), full, hole}
}

// FuzzHeader: what decodes was encoded, and encodes to the same bytes again.
func FuzzHeader(f *testing.F) {
	for _, r := range seedRecords() {
		f.Add(appendHeader(nil, r, false), r.Log, r.Lsn, logs.Precedence(r))
		f.Add(appendHeader(nil, r, true), r.Log, r.Lsn, logs.Precedence(r))
	}
	f.Fuzz(func(t *testing.T, b []byte, log, lsn, precedence uint64) {
		if len(b) >= 10 { // the checksum would keep the fuzzer out
			sum := headerSum(logs.LogID(log), logs.LSN(lsn), precedence, b[4:])
			b[0], b[1], b[2], b[3] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		h, err := decodeHeader(b, logs.LogID(log), logs.LSN(lsn), precedence)
		if err != nil {
			return
		}
		r := h.record(logs.LogID(log))
		if h.payloadBytes > 1<<20 {
			return
		}
		r.Payload = make([]byte, h.payloadBytes)
		again, err := decodeHeader(appendHeader(nil, r, h.amend()), logs.LogID(log), logs.LSN(lsn), precedence)
		if err != nil {
			t.Fatalf("encoded again: %v", err)
		}
		a, _ := r.MarshalVT()
		r2 := again.record(logs.LogID(log))
		r2.Payload = r.Payload
		if c, _ := r2.MarshalVT(); !bytes.Equal(a, c) {
			t.Fatalf("%v became %v", r, r2)
		}
	})
}

// FuzzEntry: journal entries of any bytes are refused or decode, within their
// bytes.
func FuzzEntry(f *testing.F) {
	b := &batch{}
	var stores []*wire.Store
	for _, r := range seedRecords() {
		stores = append(stores, store(r))
	}
	b.encode(stores, 9)
	f.Add(b.buf)
	f.Add(encodeMarks([]mark{{kind: markSeal, log: 1, number: 2, by: 3}, {kind: markClean, log: 1, number: 2, body: []byte("x")}}))
	f.Fuzz(func(t *testing.T, p []byte) {
		if _, entries, err := decodeCopies(p); err == nil {
			for i := range entries {
				if len(entries[i].header)+len(entries[i].payload) > len(p) {
					t.Fatal("more than there is")
				}
			}
		}
		if ms, err := decodeMarks(p); err == nil {
			if again, err := decodeMarks(encodeMarks(ms)); err != nil || len(again) != len(ms) {
				t.Fatalf("%d marks became %d: %v", len(ms), len(again), err)
			}
		}
		if m, err := decodeLogMarks(p); err == nil {
			if _, err := decodeLogMarks(m.encode(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if x, err := decodeExtent(p); err == nil {
			if y, err := decodeExtent(x.encode(nil)); err != nil || x != y {
				t.Fatalf("%v became %v: %v", x, y, err)
			}
		}
		_, _ = decodeDoubt(p)
	})
}
