package tablet

import "github.com/braiddb/braid/internal/sim/sometimes"

// What a campaign of the simulation must reach, and says if it did not.
var (
	pointParked     = sometimes.Point("tablet: a write waits for a lock")
	pointGranted    = sometimes.Point("tablet: a write that waited goes on")
	pointUnled      = sometimes.Point("tablet: a write that waited finds another leader")
	pointTimedOut   = sometimes.Point("tablet: a write's deadline passes while it waits")
	pointAttached   = sometimes.Point("tablet: a retry joins its running original")
	pointRemembered = sometimes.Point("tablet: a retry is answered from memory")
	pointFromDisk   = sometimes.Point("tablet: a long outcome is read back from disk")
	pointExpired    = sometimes.Point("tablet: a retry is older than what is remembered")
	pointVoid       = sometimes.Point("tablet: apply voids a write of an earlier term")
	// No leader proposes a request twice, and whoever leads next has applied what is in
	// the log before it serves: a second copy would be somebody's mistake, for which
	// apply looks all the same (W2). The simulation forges some.
	pointDuplicate = sometimes.Point("tablet: apply finds a second copy of a request")
	pointGarbage   = sometimes.Point("tablet: records of forgotten requests are deleted")
	pointOvertaken = sometimes.Point("tablet: the cutoff overtakes a read")
)
