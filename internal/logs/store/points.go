package store

import "github.com/braiddb/braid/internal/sim/sometimes"

// What a campaign of the simulation must reach, and says if it did not.
var (
	pointFencedOff      = sometimes.Point("store: a store is fenced off by a seal")
	pointGivenUp        = sometimes.Point("store: a copy of a plan that was given up comes late")
	pointPutOff         = sometimes.Point("store: an amendment waits for a look into the partitions")
	pointAmendNothing   = sometimes.Point("store: an amendment of nothing is refused")
	pointReleaseWaits   = sometimes.Point("store: a release waits for a purge")
	pointNothingToPurge = sometimes.Point("store: nothing is there to be purged")
	pointCleanEarly     = sometimes.Point("store: an epoch is clean above one that is not")
	pointNotShown       = sometimes.Point("store: a recovery was not shown what was taken from others")
	pointSoftSeal       = sometimes.Point("store: a soft seal stands against a seal")
	pointDeleted        = sometimes.Point("store: copies are deleted from a partition")
	pointSetAside       = sometimes.Point("store: a damaged partition is set aside")
	pointReadDisk       = sometimes.Point("store: a reader leaves the record cache")
)
