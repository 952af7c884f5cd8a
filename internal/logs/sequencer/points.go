package sequencer

import "github.com/braiddb/braid/internal/sim/sometimes"

// What a campaign of the simulation must reach, and says if it did not.
var (
	pointWave      = sometimes.Point("sequencer: a record goes out in a later wave")
	pointAmend     = sometimes.Point("sequencer: a wave amends a copy of an earlier one")
	pointAmendLost = sometimes.Point("sequencer: the copy that a wave amends is gone")
	pointSilent    = sometimes.Point("sequencer: a shard that was silent is graylisted")
	pointNoSpace   = sometimes.Point("sequencer: a shard has no space")
	pointPreempted = sometimes.Point("sequencer: a reign is preempted")
	pointFenced    = sometimes.Point("sequencer: a record is fenced off")
	pointDrained   = sometimes.Point("sequencer: an epoch that drains is empty")
	pointFrozen    = sometimes.Point("sequencer: the last known good freezes below a record that was given up")
	pointOrphan    = sometimes.Point("sequencer: a stored record of a stream stands behind one that was given up")
	pointCrosses   = sometimes.Point("sequencer: an append of a stream waits for those before it in an epoch that drains")
	pointOvertaken = sometimes.Point("sequencer: an append that may have been lost is refused, for a later one of its stream was not")
	pointNewEpoch  = sometimes.Point("sequencer: an append that has seen an earlier epoch is refused")
	pointToldAgain = sometimes.Point("sequencer: a shard is told again what is released")
	pointForgotten = sometimes.Point("sequencer: a session is forgotten")
)
