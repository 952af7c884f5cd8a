//go:build !replay

package world

func simSeed(bool, uint64) {}
