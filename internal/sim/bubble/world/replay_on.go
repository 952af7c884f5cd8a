//go:build replay

package world

import _ "unsafe" // for go:linkname

//go:linkname simSeed runtime.SimSeed
func simSeed(on bool, seed uint64)
