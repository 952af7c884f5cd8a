package checker

import (
	"fmt"
	"slices"
	"strings"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// held is the copy of one LSN that counts on one shard.
type held struct {
	shard   *shard
	record  *wire.LogRecord
	below   []*wire.LogRecord // earlier versions, in whose place it came
	damaged bool
}

// one judges an LSN of which there are copies.
func (c *Checker) one(lsn logs.LSN) {
	var copies []held
	for _, s := range c.shards {
		damaged := len(s.damaged) > 0 && s.damaged[0] == lsn
		h := held{shard: s, damaged: damaged}
		if len(s.copies) > 0 && logs.LSN(s.copies[0].Lsn) == lsn {
			n := 1
			for n < len(s.copies) && logs.LSN(s.copies[n].Lsn) == lsn {
				n++
			}
			h.record, h.below = s.copies[0], s.copies[1:n]
		}
		if h.record != nil || damaged {
			copies = append(copies, h)
		}
	}
	c.at = lsn + 1
	c.enter(lsn.Epoch())
	defer c.enter(c.at.Epoch())
	if lsn <= c.report.Trim || c.ended {
		return // behind a bridge nothing is read
	}
	c.seen = lsn
	c.report.Records++
	c.judgeCopies(lsn, copies)
}

func (c *Checker) judgeCopies(lsn logs.LSN, copies []held) {
	e := c.epochOf(lsn.Epoch())
	var f Finding
	top := uint64(0)
	whole := 0
	for _, h := range copies {
		c.report.Copies++
		if h.damaged {
			c.report.Damaged++
			continue
		}
		whole++
		top = max(top, logs.Precedence(h.record))
	}
	if whole == 0 {
		c.lostCopies(lsn, e, copies)
		return
	}
	var winner *wire.LogRecord
	var any, latest []logs.ShardID
	holes, records := false, false
	for _, h := range copies {
		if h.damaged {
			continue
		}
		r := h.record
		any = append(any, h.shard.id)
		f |= c.judgeCopyset(e, h)
		if hole := r.Flags&logs.FlagHole != 0; lsn <= h.shard.released {
			// What a shard has not released it may still purge; nobody is shown it.
			holes, records = holes || hole, records || !hole
		}
		if logs.Precedence(r) != top {
			continue
		}
		latest = append(latest, h.shard.id)
		if winner == nil {
			winner = r
			continue
		}
		if winner.Checksum != r.Checksum {
			f |= DifferentPayload
		}
	}
	if holes && records {
		f |= HoleRecordConflict
	}
	if !c.agree(copies, top) && !c.settled(e, copies, winner) {
		f |= DifferentCopysetInLatestWave
	}
	c.ended = winner.Flags&logs.FlagBridge != 0
	doubt := c.doubted(winner)
	if !e.replicated(append(any, doubt...)) {
		f |= BadReplication
	}
	if !e.replicated(append(latest, doubt...)) && !c.settled(e, copies, winner) {
		f |= BadReplicationLastWave
	}
	if f != 0 {
		c.found(lsn, lsn, f, describe(copies))
	}
}

// agree says whether the copies of the wave that counts name one copyset. A recovery
// that made its plan anew leaves a copy of the plan before on a shard that failed
// without an answer and had taken it. That is no harm where the shards of another
// plan all have it and name each other: readers get it from one of them (C4).
func (c *Checker) agree(copies []held, top uint64) bool {
	var latest []held
	replanned := true
	for _, h := range copies {
		if !h.damaged && logs.Precedence(h.record) == top {
			latest = append(latest, h)
			replanned = replanned && h.record.Flags&logs.FlagWrittenByRecovery != 0
		}
	}
	for _, h := range latest {
		n := 0
		for _, other := range latest {
			if sameSet(h.record.Copyset, other.record.Copyset) {
				n++
			}
		}
		if n == len(latest) || replanned && n+len(c.doubted(h.record)) >= len(h.record.Copyset) {
			return true
		}
	}
	return false
}

// settled says whether an LSN of which a recovery's latest wave is not whole, or not all by
// one plan, is stored as an earlier wave wants it (C5): all that are on its copyset have a
// copy, of that wave or a later one, and every copy says what the latest says. The later
// may have taken the place of the earlier one everywhere: then what lies below tells of it.
func (c *Checker) settled(e *epoch, copies []held, latest *wire.LogRecord) bool {
	differs := func(r *wire.LogRecord) bool {
		return r.Checksum != latest.Checksum || (r.Flags^latest.Flags)&(logs.FlagHole|logs.FlagBridge) != 0
	}
	other := func(h held) bool { return h.damaged || differs(h.record) }
	if latest.Flags&logs.FlagWrittenByRecovery == 0 || slices.ContainsFunc(copies, other) {
		return false
	}
	for _, h := range copies {
		for _, r := range append([]*wire.LogRecord{h.record}, h.below...) {
			if logs.Precedence(r) < logs.Precedence(latest) && !differs(r) && c.wholeSince(e, copies, r) {
				return true
			}
		}
	}
	return false
}

// wholeSince says whether all that are on a version's copyset have a copy of its wave or
// of a later one.
func (c *Checker) wholeSince(e *epoch, copies []held, r *wire.LogRecord) bool {
	var have []logs.ShardID
	for _, o := range copies {
		if logs.Precedence(o.record) >= logs.Precedence(r) && slices.Contains(r.Copyset, uint64(o.shard.id)) {
			have = append(have, o.shard.id)
		}
	}
	return len(have) == len(r.Copyset) && e.replicated(have)
}

// lostCopies judges an LSN of which there are only damaged copies.
func (c *Checker) lostCopies(lsn logs.LSN, e *epoch, copies []held) {
	set := placement.NewShardSet(e.meta.Replication, e.nodeset)
	for _, s := range c.shards {
		if !s.silent {
			set.Set(s.id, placement.ShardHeard)
		}
	}
	if set.FMajority().Reached() {
		c.found(lsn, lsn, DataLoss, describe(copies))
	}
}

// judgeCopyset judges what one copy says of where the others are.
func (c *Checker) judgeCopyset(e *epoch, h held) (f Finding) {
	distinct := map[uint64]bool{}
	self := false
	for _, id := range h.record.Copyset {
		if distinct[id] {
			f |= DuplicatesInCopyset
		}
		distinct[id] = true
		self = self || id == uint64(h.shard.id)
		if !slices.Contains(e.meta.Nodeset, id) {
			f |= CopysetNotInNodeset
		}
	}
	if !self {
		f |= CopysetWithoutSelf
	}
	if len(distinct) < placement.Copies(e.meta.Replication) {
		f |= SmallCopyset
	}
	return f
}

// doubted are the members of a copyset that could not be asked (C2).
func (c *Checker) doubted(r *wire.LogRecord) (ids []logs.ShardID) {
	for _, id := range r.Copyset {
		if s := c.find(logs.ShardID(id)); s != nil && s.silent {
			ids = append(ids, s.id)
		}
	}
	return ids
}

// replicated says whether these shards hold a record as the epoch demands.
func (e *epoch) replicated(ids []logs.ShardID) bool {
	var among []placement.LogShard
	for _, n := range e.nodeset {
		if slices.Contains(ids, n.Shard) {
			among = append(among, n)
		}
	}
	return placement.CanReplicate(e.meta.Replication, among)
}

func sameSet(a, b []uint64) bool {
	if slices.Equal(a, b) {
		return true
	}
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// describe prints who has what.
func describe(copies []held) string {
	var parts []string
	for _, h := range copies {
		if h.record == nil {
			parts = append(parts, fmt.Sprintf("%s damaged", h.shard.id))
			continue
		}
		s := fmt.Sprintf("%s wave %d", h.shard.id, h.record.Wave)
		switch f := h.record.Flags; {
		case f&logs.FlagBridge != 0:
			s += " bridge"
		case f&logs.FlagHole != 0:
			s += " hole"
		}
		if h.record.Flags&logs.FlagWrittenByRecovery != 0 {
			s += " by recovery"
		}
		if h.damaged {
			s += " damaged"
		}
		var members []string
		for _, id := range h.record.Copyset {
			members = append(members, logs.ShardID(id).String())
		}
		parts = append(parts, s+" on {"+strings.Join(members, " ")+"}")
	}
	return strings.Join(parts, ", ")
}
