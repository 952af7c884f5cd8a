package reader

import (
	"fmt"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// deliver takes one record or gap from a shard.
func (c *Core) deliver(s *shard, d *wire.Delivery) error {
	s.missed = 0
	if d.Record == nil {
		return c.deliverGap(s, d)
	}
	r := d.Record
	lsn := LSN(r.Lsn)
	c.Counters.BytesReceived += uint64(len(r.Payload))
	switch {
	case r.Log != uint64(c.cfg.Log):
		return fmt.Errorf("sent a record of log %d", r.Log)
	case lsn == logs.LSNInvalid || lsn == logs.LSNMax:
		return errMalformed
	case lsn > c.window.high || lsn > c.cfg.Until: // R5
		return fmt.Errorf("%w: %s, window %s", errBeyondWindow, lsn, c.window.high)
	}
	c.rel = max(c.rel, lsn)
	if lsn >= c.head {
		payloads, ok := c.open(r)
		if !ok { // R6
			c.Counters.Damaged++
			c.damaged(s, lsn, lsn)
			return nil
		}
		n := slotBytes + len(r.Payload)
		if payloads != nil {
			n = slotBytes
			for _, p := range payloads {
				n += len(p)
			}
		}
		c.Counters.Bytes += uint64(len(r.Payload))
		if s.slots.add(slot{lo: lsn, hi: lsn, record: r, payloads: payloads, base: d.CountBase, known: d.CountKnown, bytes: n}) {
			c.window.hold(n)
		}
	}
	c.passed(s, lsn)
	s.sent = true
	return nil
}

// open checks a record's payload and takes a batch apart.
func (c *Core) open(r *wire.LogRecord) (payloads [][]byte, ok bool) {
	if c.cfg.WithoutPayload || r.Flags&(logs.FlagHole|logs.FlagBridge) != 0 {
		return nil, true
	}
	if logs.Checksum(r.Payload) != r.Checksum {
		return nil, false
	}
	if r.Flags&logs.FlagBatch == 0 {
		return [][]byte{r.Payload}, true
	}
	b, err := logs.OpenBatch(r.Payload)
	if err != nil || b.Count() != int(r.Count) {
		return nil, false
	}
	return b.AppendPayloads(make([][]byte, 0, b.Count())), true
}

// deliverGap takes a stretch without records.
func (c *Core) deliverGap(s *shard, d *wire.Delivery) error {
	from, to := LSN(d.GapFrom), LSN(d.GapTo)
	if d.Gap == logs.ServerGapNone || d.Gap > logs.ServerGapUnderReplicated || from > to {
		return errMalformed
	}
	switch d.Gap {
	case logs.ServerGapTrim:
		c.trim = max(c.trim, to)
	case logs.ServerGapChecksum:
		c.damaged(s, from, to)
		return nil
	case logs.ServerGapUnderReplicated:
		s.suspectTo = max(s.suspectTo, above(to, 1))
	case logs.ServerGapFilteredOut:
		if to > c.window.high || to > c.cfg.Until { // R5
			return fmt.Errorf("%w: %s, window %s", errBeyondWindow, to, c.window.high)
		}
		if lo := max(from, c.head); lo <= to {
			s.slots.add(slot{lo: lo, hi: to})
		}
	}
	c.rel = max(c.rel, min(to, c.cfg.Until))
	c.passed(s, to)
	return nil
}

// damaged takes copies that a shard has, but not whole.
func (c *Core) damaged(s *shard, from, to LSN) {
	s.suspectTo = max(s.suspectTo, above(to, 1))
	c.rel = max(c.rel, min(to, c.cfg.Until))
	c.passed(s, to)
	if to >= c.head {
		c.passOver(s, to)
	}
}

// passed notes how far a shard has come.
func (c *Core) passed(s *shard, lsn LSN) {
	s.next = max(s.next, above(lsn, 1))
}
