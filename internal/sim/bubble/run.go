package bubble

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"

	"github.com/braiddb/braid/internal/sim/bubble/world"
)

// seedTime is how long one world may take on the wall clock. One that takes longer
// hangs: its goroutines are in the error.
const seedTime = 10 * time.Minute

// ErrDiffers says that a seed was run twice and was not the same.
var ErrDiffers = errors.New("one seed, two traces: something in it follows the wall clock or another process")

// Run runs the world of a seed, and writes its trace to a file if one is named.
func (b *Binary) Run(ctx context.Context, seed uint64, trace string) (*world.Result, error) {
	// As many arguments and as much of an environment each time: both lie in memory.
	cmd := exec.CommandContext(ctx, b.path, "-test.run=^TestSeed$", "-test.timeout="+seedTime.String(), "-seed="+strconv.FormatUint(seed, 10), "-trace="+trace)
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1"}
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	failed := cmd.Run()
	res := new(world.Result)
	if err := json.Unmarshal(out.Bytes(), res); err != nil {
		said := append(out.Bytes(), bad.Bytes()...)
		return nil, fmt.Errorf("seed %d ended without a result: %w\n%s", seed, failed, said[:min(len(said), 20_000)])
	}
	return res, nil
}

// Twice runs a seed two times and compares.
func (b *Binary) Twice(ctx context.Context, seed uint64) (*world.Result, error) {
	first, err := b.Run(ctx, seed, "")
	if err != nil || b.Unknown != nil {
		return first, err
	}
	again, err := b.Run(ctx, seed, "")
	if err != nil {
		return nil, err
	}
	if first.Hash != again.Hash {
		return first, fmt.Errorf("seed %d: %w: %s and %s", seed, ErrDiffers, first.Hash, again.Hash)
	}
	return first, nil
}
