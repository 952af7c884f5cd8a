package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
)

// A shard whose journal was found corrupt or suspect, or whose open partition was
// found damaged, may have lost copies and
// seals that it acknowledged. It takes a doubt: a number that the stream's state
// keeps. Until a log is fenced for that doubt no store of it is taken, and until
// Trust every answer that could hide a loss says PARTIAL, every stretch without a
// record UNDER_REPLICATED. doc.go argues it.
type doubt struct {
	number  uint64 // of the newest doubt, 0: there never was one
	trusted uint64 // doubts up to it are over
}

const doubtVersion = 1

func (d doubt) encode() []byte {
	b := []byte{doubtVersion}
	b = binary.AppendUvarint(b, d.number)
	return binary.AppendUvarint(b, d.trusted)
}

func decodeDoubt(b []byte) (doubt, error) {
	d := decoder{b: b}
	if len(b) == 0 {
		return doubt{}, nil
	}
	if v := d.byte(); v != doubtVersion {
		return doubt{}, fmt.Errorf("%w: state of the stream has version %d, not %d", ErrCorrupt, v, doubtVersion)
	}
	out := doubt{d.uvarint(), d.uvarint()}
	if d.bad || len(d.b) > 0 || out.trusted > out.number {
		return doubt{}, fmt.Errorf("%w: state of the stream does not decode", ErrCorrupt)
	}
	return out, nil
}

// recoverDoubt reads the doubt that stands. Of a corrupt stream the state itself
// may be lost, so the marks are asked too.
func (s *Store) recoverDoubt(r *journal.StreamReplay) error {
	d, err := decodeDoubt(r.State)
	if err != nil && !r.Corrupt {
		return err
	}
	for _, l := range s.logs {
		d.number = max(d.number, l.fenced)
	}
	s.doubt = d
	return nil
}

// settleDoubt makes a new doubt durable, if there is cause, before anything is
// answered.
func (s *Store) settleDoubt() error {
	corrupt := s.o.Recovered != nil && s.o.Recovered.Corrupt
	if !corrupt && !s.o.Suspect && !s.damaged {
		return nil
	}
	s.doubt.number++
	recs := []journal.Record{{Stream: s.o.Stream, Kind: journal.KindState, Payload: s.doubt.encode()}}
	if corrupt {
		// What was read is made durable, then the stream begins anew behind it.
		for _, l := range s.writable() {
			err := l.lsm.db.Flush()
			l.done()
			if err != nil {
				return fmt.Errorf("logs/store: flush what a corrupt stream had: %w", err)
			}
		}
		recs = append(recs, journal.Record{Stream: s.o.Stream, Kind: journal.KindStart, Pos: s.pos})
	}
	s.o.Logger.Warn("logs/store: copies or seals may be lost", "shard", s.o.Shard, "corrupt", corrupt, "doubt", s.doubt.number)
	return s.appendAndWait(recs)
}

func (s *Store) appendAndWait(recs []journal.Record) error {
	wait := make(chan error, 1)
	s.o.Journal.Append(recs, func(err error) { wait <- err })
	if err := <-wait; err != nil {
		return fmt.Errorf("logs/store: write to the journal: %w", err)
	}
	return nil
}

// Suspect says whether the shard may have lost what it acknowledged.
func (s *Store) Suspect() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doubt.number > s.doubt.trusted
}

// Trust ends the doubt: whoever calls it knows that the shard holds again, or
// never lost, all that it acknowledged. It waits for the disk.
func (s *Store) Trust() error {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	d := s.doubt
	s.mu.Unlock()
	d.trusted = d.number
	if err := s.appendAndWait([]journal.Record{{Stream: s.o.Stream, Kind: journal.KindState, Payload: d.encode()}}); err != nil {
		return err
	}
	s.mu.Lock()
	s.doubt = d
	s.mu.Unlock()
	return nil
}

// needsFence says whether a log must not take stores yet. mu is held.
func (s *Store) needsFence(l *logState) bool {
	return s.doubt.number > s.doubt.trusted && l.fenced < s.doubt.number && !l.id.IsMetadata()
}

// doubted is up to where LSNs of a log may have been lost here. mu is held.
func (s *Store) doubted(l *logState) logs.LSN {
	switch {
	case s.needsFence(l):
		return logs.LSNMax
	case l.fenced > s.doubt.trusted:
		return l.doubtTo
	}
	return 0
}

// askFence learns which epoch is the next one. Seals that may be lost are below
// the epoch that reigns, so that one minus one is as good as any of them. mu is
// held.
func (s *Store) askFence(l *logState) {
	if l.fencing || s.o.NextEpoch == nil {
		return
	}
	l.fencing = true
	number, id := s.doubt.number, l.id
	asked := s.run(func() {
		s.o.NextEpoch(id, func(next logs.Epoch, err error) {
			if err == nil {
				m := mark{kind: markFence, log: id, number: uint64(next), by: number}
				s.write(&batch{s: s, marks: []mark{m}, done: func(err error) { s.fenced(id, err) }})
				return
			}
			s.fenced(id, err)
		})
	})
	l.fencing = asked
}

func (s *Store) fenced(id logs.LogID, err error) {
	s.mu.Lock()
	s.log(id).fencing = false
	s.mu.Unlock()
	if err != nil && !errors.Is(err, journal.ErrClosed) {
		s.o.Logger.Warn("logs/store: fence a log that is in doubt", "log", id, "error", err)
	}
}

// admitFence is the fence made durable. mu is held.
func (l *logState) admitFence(next logs.Epoch, number uint64) {
	if next >= 2 {
		l.hard.raise(seal{epoch: next - 2})
	}
	l.fenced = max(l.fenced, number)
	if next > 0 {
		l.doubtTo = max(l.doubtTo, logs.MakeLSN(next, 0)-1)
	}
}
