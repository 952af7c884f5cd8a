//go:build race

package docdb

const raceEnabled = true
