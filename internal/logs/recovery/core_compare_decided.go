package recovery

import (
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// What a comparison takes of epochs that are clean is what was decided (D3). It asks its
// own shard, and each peer that missed something, or all where the own shard did.

// lastClean is the last of the epochs that are compared of which recovery has decided.
func (c *comparison) lastClean() logs.Epoch {
	if c.log.IsMetadata() {
		return 0
	}
	return min(c.upTo, c.clean)
}

// untold is the first epoch of which a peer may know what was decided, was not asked, and
// is not clean, or of which that is not known here; 0: none. It is asked before it shows
// what it has: what it learns later only takes copies away.
func (c *comparison) untold(p *comparePeer) logs.Epoch {
	for e := max(p.told+1, c.from.Epoch()); e <= c.lastClean(); e++ {
		if e > p.clean || c.decided[e] == nil {
			return e
		}
	}
	return 0
}

// unjudged says whether a peer may have copies of which nobody who was heard knows if they
// are what was decided, and somebody else may yet tell.
func (c *comparison) unjudged(p *comparePeer) bool {
	more := func(q comparePeer) bool {
		return q.id != p.id && c.awaits(&q.source) && (!q.sealed || c.untold(&q) != 0)
	}
	if !slices.ContainsFunc(c.peers, more) {
		return false
	}
	for e := max(p.clean+1, c.from.Epoch()); e <= c.lastClean(); e++ {
		if c.decisionOf(e) == nil {
			return true
		}
	}
	return false
}

// decisionOf is what the highest seal decided of an epoch, as far as was told.
func (c *comparison) decisionOf(e logs.Epoch) *wire.EpochRecovery {
	best := c.decided[e]
	for i := range c.peers {
		if d := c.peers[i].took[e]; d.GetSealEpoch() > best.GetSealEpoch() {
			best = d
		}
	}
	return best
}

// note adds what recovery decided of epochs. What a purge noted because nobody knew of a
// decision is none.
func note(into *map[logs.Epoch]*wire.EpochRecovery, told []*wire.EpochRecovery) {
	if *into == nil {
		*into = map[logs.Epoch]*wire.EpochRecovery{}
	}
	for _, d := range told {
		if d.SealEpoch > 0 {
			(*into)[logs.Epoch(d.Epoch)] = d
		}
	}
}

// stands says whether a peer's copy is what its LSN holds, as far as that was decided. A
// peer that is clean there, or took part in the recovery, has nothing else; and what it
// has may lie as its sequencer stored it, if it lay well. Of another only what recovery
// did not touch stands, or what it stored.
func (c *comparison) stands(p *comparePeer, r *wire.LogRecord) bool {
	lsn := logs.LSN(r.Lsn)
	e := lsn.Epoch()
	if e > c.lastClean() || e <= p.clean || p.took[e] != nil {
		return true
	}
	d := c.decisionOf(e)
	return d == nil || uint32(lsn.ESN()) <= d.LastKnownGood || r.Flags&logs.FlagWrittenByRecovery != 0 && r.Wave >= d.SealEpoch
}
