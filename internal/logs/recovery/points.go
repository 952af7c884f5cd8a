package recovery

import "github.com/braiddb/braid/internal/sim/sometimes"

// What a campaign of the simulation must reach, and says if it did not.
var (
	pointPlugged         = sometimes.Point("recovery: an LSN that nobody has is plugged")
	pointBridge          = sometimes.Point("recovery: a bridge ends an epoch")
	pointOrphan          = sometimes.Point("recovery: a record of a stream stands behind a hole, and becomes one")
	pointLate            = sometimes.Point("recovery: a digest shows an LSN after it was decided")
	pointDisagree        = sometimes.Point("recovery: copies of one recovery name different copysets")
	pointLiesWell        = sometimes.Point("recovery: a record needs no store")
	pointShownAgain      = sometimes.Point("recovery: a shard has come to be in doubt since its digest, and is asked again")
	pointShort           = sometimes.Point("recovery: the mutation set is too small")
	pointReplaced        = sometimes.Point("recovery: a shard fails while decisions are stored, and the plan is made anew")
	pointPreemptedStore  = sometimes.Point("recovery: a store is preempted")
	pointPreemptedDigest = sometimes.Point("recovery: a digest is preempted")
	pointTookPart        = sometimes.Point("recovery: a purge finds an epoch whose recovery the shard took part in")
	pointLaterSeal       = sometimes.Point("recovery: a purge meets a later seal")
	pointNobodyKnows     = sometimes.Point("recovery: a purge finds nobody who knows what was decided")
	pointPurged          = sometimes.Point("recovery: a purge deletes")
)
