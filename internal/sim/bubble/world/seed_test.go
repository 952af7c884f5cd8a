//go:build overlay

package world

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

var (
	seedFlag  = flag.Uint64("seed", 1, "seed of the world to run")
	traceFlag = flag.String("trace", "", "file to write the trace to")
)

// TestSeed runs the world of one seed, says what came of it in one line of JSON,
// and ends the process: lives of nodes have left goroutines in the bubble.
func TestSeed(t *testing.T) {
	if Replays {
		runtime.GOMAXPROCS(1)
		debug.SetGCPercent(-1)
	}
	cryptotest.SetGlobalRandom(t, *seedFlag)
	synctest.Test(t, func(*testing.T) {
		var trace bytes.Buffer
		var out io.Writer
		if *traceFlag != "" {
			out = &trace
		}
		simSeed(true, *seedFlag)
		res := Run(*seedFlag, out)
		simSeed(false, 0)
		if out != nil {
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
