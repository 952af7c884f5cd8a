//go:build replay

package world

import _ "unsafe" // for go:linkname

// Replays says that this program was built over the seeded standard library.
const Replays = true

//go:linkname simSeed runtime.SimSeed
func simSeed(on bool, seed uint64)
