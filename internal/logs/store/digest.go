package store

import (
	"errors"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// Digest gives recovery the copies of a stretch of an epoch, released or not.
// What does not verify is left out, as if it were not here.
func (s *Store) Digest(req *wire.DigestRequest, reply func(*wire.DigestResponse)) {
	id := logs.LogID(req.Log)
	switch {
	case !s.addressed(req.Shard):
		reply(&wire.DigestResponse{Status: statusMisplaced})
		return
	case !id.Valid() || req.Epoch == 0 || req.From > req.To:
		reply(&wire.DigestResponse{Status: statusInvalid})
		return
	}
	if s.isUnknown(id) {
		reply(&wire.DigestResponse{Status: statusUnknown})
		return
	}
	if out := s.digestFenced(req); out != nil {
		reply(out)
		return
	}
	if !s.run(func() { reply(s.digest(req)) }) {
		reply(&wire.DigestResponse{Status: statusShutdown})
	}
}

// digestFenced refuses whose seal is not the highest any more: somebody newer
// recovers the log. Where copies may be lost it has who asks come again: the doubt
// ends, while a PARTIAL digest is of what is lost for good, or of damage that stays for want
// of room.
func (s *Store) digestFenced(req *wire.DigestRequest) *wire.DigestResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusesDigest(req)
}

// refusesDigest is digestFenced with mu held.
func (s *Store) refusesDigest(req *wire.DigestRequest) *wire.DigestResponse {
	l := s.peek(logs.LogID(req.Log))
	by := l.hard
	if l.soft.epoch > by.epoch {
		by = l.soft
	}
	if by.epoch > logs.Epoch(req.SealEpoch) {
		return &wire.DigestResponse{Status: statusPreempted, SealEpoch: uint32(by.epoch)}
	}
	e := logs.Epoch(req.Epoch)
	if s.doubted(l).meets(logs.MakeLSN(e, logs.ESN(req.From)), logs.MakeLSN(e, logs.ESN(req.To))) {
		s.askOthers(l, l.hard.epoch)
		return &wire.DigestResponse{Status: statusAgain, SealEpoch: req.SealEpoch}
	}
	return nil
}

func (s *Store) digest(req *wire.DigestRequest) *wire.DigestResponse {
	id, e := logs.LogID(req.Log), logs.Epoch(req.Epoch)
	from, to := logs.MakeLSN(e, logs.ESN(req.From)), logs.MakeLSN(e, logs.ESN(req.To))
	out := &wire.DigestResponse{SealEpoch: req.SealEpoch}
	s.mu.Lock()
	l := s.peek(id)
	fenced := l.fenced
	if l.lost().meets(from, to) {
		out.Status = statusPartial
	}
	s.mu.Unlock()
	failed := func(err error) *wire.DigestResponse {
		s.o.Logger.Error("logs/store: digest", "log", id, "epoch", e, "error", err)
		return &wire.DigestResponse{Status: statusFailed}
	}
	v, err := s.view(id, from, to)
	if err != nil {
		return failed(err)
	}
	defer v.close()
	budget := budgetOf(req.BytesMax)
	for v.next() {
		lsn := v.versions[0].lsn
		if budget <= 0 {
			out.Next = uint32(lsn.ESN())
			break
		}
		r, err := v.content()
		switch {
		case errors.Is(err, errHollow):
			continue
		case err != nil:
			s.count.damaged.Add(1)
			s.o.Logger.Error("logs/store: damaged copy", "log", id, "lsn", lsn, "error", err)
			if !s.full.Load() { // it is about to be set aside, and to be in doubt, which ends
				return &wire.DigestResponse{Status: statusAgain, SealEpoch: req.SealEpoch}
			}
			if v.versions[0].upTo > 0 { // nobody can tell how many
				out.Status = statusPartial
			} else {
				out.Damaged = append(out.Damaged, uint32(lsn.ESN()))
			}
			continue
		}
		out.Records = append(out.Records, r)
		budget -= r.SizeVT() + 8
	}
	if v.err != nil {
		return failed(v.err)
	}
	// A seal that came meanwhile takes stores off the table that this digest may
	// have been made without.
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused := s.refusesDigest(req); refused != nil {
		return refused
	}
	if l := s.logs[id]; l != nil && l.fenced == fenced {
		l.shown.add(req, out.Next)
	}
	return out
}

func budgetOf(bytesMax uint32) int {
	if bytesMax == 0 {
		return bytesMaxDefault
	}
	return min(int(bytesMax), bytesMaxMost)
}
