package proof

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/sim/simfs"
)

// TestLogPowerLoss cuts the power of all nodes of a cluster in one process, in the
// middle of the load, twice: STORED means synced, so all that was acknowledged is
// read afterwards, and read again it is the same.
func TestLogPowerLoss(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	l := newLab(t, 3, seed)
	l.start()
	root, files := sourceFiles(t)
	j := newLogJob(t, l.connect, "/go/lines", 32<<10)
	for round, crash := range []simfs.Crash{{}, {Sectors: 50, Tear: 50, Names: 50}} {
		j.load(root, files[200*round:200*round+200], func() {
			j.reached(200*round + 20 + rng.IntN(80))
			crash.Dice = rng.Uint64()
			for _, i := range rng.Perm(len(l.benches)) {
				l.benches[i].fs = l.benches[i].fs.Crash(crash)
			}
			for _, b := range l.benches {
				b.kill()
			}
			l.start()
		})
	}
	until := j.mark()
	first := readRange(t, j.log, oldest, until, 60*time.Second, nil)
	again := readRange(t, j.log, oldest, until, 60*time.Second, nil)
	if first.hash() != again.hash() {
		t.Error("read again, the log differs")
	}
	j.ledger.compare(t, first.lines)
}
