package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// shadow is the shard in its simplest form: a sorted list of copies.
type shadow struct {
	copies   []*wire.Store
	released logs.LSN
	trim     logs.LSN
}

func (m *shadow) add(st *wire.Store) {
	at, found := slices.BinarySearchFunc(m.copies, st, func(a, b *wire.Store) int {
		ka := copyKey(nil, 0, 0, logs.LSN(a.Record.Lsn), logs.Precedence(a.Record), kindOf(a))
		kb := copyKey(nil, 0, 0, logs.LSN(b.Record.Lsn), logs.Precedence(b.Record), kindOf(b))
		return bytes.Compare(ka, kb)
	})
	if found {
		m.copies[at] = st
		return
	}
	m.copies = slices.Insert(m.copies, at, st)
}

func kindOf(st *wire.Store) copyKind {
	if st.Amend {
		return kindAmend
	}
	return kindWhole
}

// hasWhole says whether an amendment has something to amend.
func (m *shadow) hasWhole(lsn uint64) bool {
	return slices.ContainsFunc(m.copies, func(c *wire.Store) bool {
		return c.Record.Lsn == lsn && !c.Amend && !pseudo(c.Record.Flags)
	})
}

// read gives what a reader must get of [from, until], as text.
func (m *shadow) read(s *Store, req *wire.ReadStartRequest) string {
	from, until := logs.LSN(req.From), logs.LSN(req.Until)
	until = min(until, max(m.released, m.trim))
	d := delivery{s: s, terms: terms{flags: req.Flags, filter: req.Filter, key1: req.FilterKey1, key2: req.FilterKey2}, next: from, log: labLog}
	for _, f := range req.FilteredOut {
		d.terms.filteredOut = append(d.terms.filteredOut, logs.ShardID(f))
	}
	if from <= m.trim && from <= until {
		d.gap(logs.ServerGapTrim, min(m.trim, until))
	}
	for i := 0; i < len(m.copies); {
		top := m.copies[i]
		at := logs.LSN(top.Record.Lsn)
		var body *wire.Store
		for ; i < len(m.copies) && m.copies[i].Record.Lsn == top.Record.Lsn; i++ {
			if c := m.copies[i]; body == nil && !c.Amend && (c == top || !pseudo(c.Record.Flags)) {
				body = c
			}
		}
		if pseudo(top.Record.Flags) {
			body = top
		}
		if at < d.next || at > until || body == nil {
			continue
		}
		h := header{flags: top.Record.Flags, filterKey: body.Record.FilterKey}
		switch {
		case d.terms.flags&logs.ReadSingleCopy != 0 && !d.sends(top.Record.Copyset, at):
		case !d.terms.passes(&h):
			d.until(at)
			d.gap(logs.ServerGapFilteredOut, at)
		default:
			d.until(at)
			r := &wire.LogRecord{Lsn: uint64(at), Payload: body.Record.Payload, Wave: top.Record.Wave}
			if d.terms.flags&logs.ReadNoPayload != 0 {
				r.Payload = nil
			}
			d.out = append(d.out, &wire.Delivery{Record: r})
			d.advance(at)
		}
	}
	if d.next <= until {
		d.nothing(until)
	}
	return text(d.out)
}

// TestReadsAgreeWithAList: whatever was done to the shard, cached, flushed,
// rotated, restarted, a read gives what a list of its copies gives.
func TestReadsAgreeWithAList(t *testing.T) {
	const seeds = 6
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 77))
			b := newLab(t, 100+seed)
			b.opts.MemTableBytes, b.opts.RecordCacheBytes = 64<<10, int64(1+rng.IntN(20))<<10
			b.opts.PartitionTime, b.opts.PartitionsOpen = 24*365*time.Hour, 2
			b.open()
			m := &shadow{}
			for range 500 {
				b.disturb(rng, m)
			}
			b.stop()
		})
	}
}

// disturb does one thing at random.
func (b *lab) disturb(rng *rand.Rand, m *shadow) {
	b.t.Helper()
	last := logs.ESN(1)
	if n := len(m.copies); n > 0 {
		last = logs.LSN(m.copies[n-1].Record.Lsn).ESN()
	}
	switch n := rng.IntN(100); {
	case n < 50:
		b.send1(rng, m, last)
	case n < 60:
		m.released = max(m.released, lsn(1, logs.ESN(rng.IntN(int(last)+3))))
		b.release(m.released)
	case n < 62:
		m.trim = max(m.trim, lsn(1, logs.ESN(rng.IntN(int(last)/2+1))))
		call(b.s.Trim, &wire.TrimRequest{Log: uint64(labLog), Lsn: uint64(m.trim)})
	case n < 65:
		if err := b.s.nextPartition(); err != nil {
			b.t.Fatal(err)
		}
	case n < 67:
		b.s.Pressure()
	case n < 68:
		b.stop()
		b.open()
	case n < 70 && len(m.copies) > 0:
		from := lsn(1, logs.ESN(rng.IntN(int(last))+1))
		to := from + logs.LSN(rng.IntN(4))
		done := make(chan error, 1)
		b.s.DeleteCopies(labLog, from, to, func(err error) { done <- err })
		if err := <-done; err != nil {
			b.t.Fatal(err)
		}
		m.copies = slices.DeleteFunc(m.copies, func(c *wire.Store) bool {
			return logs.LSN(c.Record.Lsn) >= from && logs.LSN(c.Record.Lsn) <= to
		})
	default:
		from := logs.ESN(rng.IntN(int(last)) + 1)
		req := &wire.ReadStartRequest{From: uint64(lsn(1, from)), Until: uint64(lsn(1, from+logs.ESN(rng.IntN(60))))}
		if rng.IntN(2) == 0 {
			req.Flags |= logs.ReadSingleCopy
			if rng.IntN(2) == 0 {
				req.FilteredOut = []uint64{uint64(others[rng.IntN(2)])}
			}
		}
		if rng.IntN(4) == 0 {
			req.Flags |= logs.ReadNoPayload
		}
		if rng.IntN(3) == 0 {
			req.Filter = 1 + uint32(rng.IntN(2))
			req.FilterKey1, req.FilterKey2 = []byte{byte('a' + rng.IntN(3))}, []byte{byte('b' + rng.IntN(3))}
		}
		b.expect("read", merge(b.read(req)), m.read(b.s, req))
	}
}

// merge prints deliveries as if they had come in one answer.
func merge(ds []*wire.Delivery) string {
	var out []*wire.Delivery
	for _, d := range ds {
		if n := len(out); n > 0 && d.Record == nil && out[n-1].Record == nil && out[n-1].Gap == d.Gap {
			out[n-1].GapTo = d.GapTo
			continue
		}
		out = append(out, d)
	}
	return text(out)
}

// send1 stores a copy: new, of another wave, an amendment or a hole.
func (b *lab) send1(rng *rand.Rand, m *shadow, last logs.ESN) {
	b.t.Helper()
	at := last + 1 + logs.ESN(rng.IntN(4)/3*2)
	if rng.IntN(4) == 0 {
		at = logs.ESN(rng.IntN(int(last)+1) + 1)
	}
	r := rec(lsn(1, at), fmt.Sprintf("p%d", at))
	r.Wave = uint32(1 + rng.IntN(4))
	r.Copyset[1] = uint64(others[rng.IntN(2)])
	r.FilterKey = []byte{byte('a' + at%4)}
	st := store(r)
	switch n := rng.IntN(20); {
	case n < 3:
		st.Amend, r.Payload, r.Checksum, r.FilterKey = true, nil, 0, nil
	case n < 4:
		r.Flags, r.Payload, r.Checksum, r.FilterKey = logs.FlagHole|logs.FlagWrittenByRecovery, nil, 0, nil
	}
	got := b.status(st).Status
	want := statusOK
	if st.Amend && !m.hasWhole(r.Lsn) {
		want = statusFailed
	}
	if got != want {
		b.t.Fatalf("store of %s: %s, want %s", logs.LSN(r.Lsn), got, want)
	}
	if got == statusOK {
		m.add(st)
	}
}
