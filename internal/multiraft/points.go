package multiraft

import "github.com/braiddb/braid/internal/sim/sometimes"

// What a campaign of the simulation must reach, and says if it did not.
var (
	pointVotePromised   = sometimes.Point("multiraft: a vote is withheld under a live promise")
	pointVoteForgot     = sometimes.Point("multiraft: a restarted voter withholds its vote")
	pointVoteOwing      = sometimes.Point("multiraft: a replica that lost acknowledged entries withholds its vote")
	pointRevoked        = sometimes.Point("multiraft: a successor takes over from a leader that revoked")
	pointAbdicated      = sometimes.Point("multiraft: a leader that could not hand over abdicates")
	pointDoubtAnswered  = sometimes.Point("multiraft: a voter hears that the leadership it is bound to is over")
	pointOutlier        = sometimes.Point("multiraft: a leader whose clock disagrees with its peers is refused by its gate")
	pointFence          = sometimes.Point("multiraft: the wall clock fences a leader whose lease looks alive")
	pointTimesBounded   = sometimes.Point("multiraft: a safe time is held down by the acknowledged bound")
	pointOrphaned       = sometimes.Point("multiraft: a proposal outlives its leadership")
	pointTruncated      = sometimes.Point("multiraft: entries in the journal are overwritten by another leader")
	pointCutShort       = sometimes.Point("multiraft: the log is cut although a follower lacks entries")
	pointGivenUp        = sometimes.Point("multiraft: a snapshot stream is given up for the log behind it")
	pointHeld           = sometimes.Point("multiraft: what follows a snapshot waits for its restore")
	pointRewritten      = sometimes.Point("multiraft: refused appends are written again")
	pointTailSound      = sometimes.Point("multiraft: a suspect tail turns out sound")
	pointTailLost       = sometimes.Point("multiraft: a suspect tail had lost acknowledged entries")
	pointAheadOfJournal = sometimes.Point("multiraft: the state machine is ahead of the journal at start")
)
