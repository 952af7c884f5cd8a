//go:build overlay

package world

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

var (
	seedFlag  = flag.Uint64("seed", 1, "seed of the world to run")
	traceFlag = flag.String("trace", "", "file to write the trace to")
)

// TestSeed runs the world of one seed, says what came of it in one line of JSON,
// and ends the process: lives of nodes have left goroutines in the bubble. Package
// bubble sets the environment: one processor, no collector.
func TestSeed(t *testing.T) {
	cryptotest.SetGlobalRandom(t, *seedFlag)
	synctest.Test(t, func(*testing.T) {
		var trace bytes.Buffer // always: it is part of what memory looks like
		simSeed(true, *seedFlag)
		res := Run(*seedFlag, &trace)
		simSeed(false, 0)
		if *traceFlag != "" {
			if err := os.WriteFile(*traceFlag, trace.Bytes(), 0o644); err != nil {
				res.Problems = append(res.Problems, err.Error())
			}
		}
		if err := json.NewEncoder(os.Stdout).Encode(res); err != nil || len(res.Problems) > 0 {
			os.Exit(1)
		}
		os.Exit(0)
	})
}
