//go:build !replay

package world

// Replays says that this program was built over the seeded standard library.
const Replays = false

func simSeed(bool, uint64) {}
