package main

import (
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/sim/logs"
	"github.com/braiddb/braid/internal/sim/tables"
)

// wings are what a campaign runs.
var wings = []*sim.Wing{
	tables.Wing(),
	logs.Wing(),
}
