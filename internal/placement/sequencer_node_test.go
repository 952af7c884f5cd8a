package placement

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
)

func sequencers(weights ...float64) *logs.Cluster {
	c := &logs.Cluster{}
	for i, w := range weights {
		c.Nodes = append(c.Nodes, logs.ClusterNode{
			ID: catalog.NodeID(3*i + 1), Alive: true, Sequencer: true, SequencerWeight: w,
		})
	}
	return c
}

func shares(c *logs.Cluster, affinity string, n int) map[catalog.NodeID]int {
	count := map[catalog.NodeID]int{}
	for log := range n {
		node, ok := SequencerNode(c, logs.LogID(log+1), affinity)
		if !ok {
			node = 0
		}
		count[node]++
	}
	return count
}

// Each node sequences its share of the weights, whatever the ids of logs: dense
// as they are given out, sparse, or in steps.
func TestSequencersAreInProportionToWeights(t *testing.T) {
	const n = 60000
	for _, weights := range [][]float64{{1, 1, 1}, {1, 2, 4}, {0.5, 0, 3, 3, 10}, {1e-3, 2e-3}} {
		c := sequencers(weights...)
		sum := 0.0
		for _, w := range weights {
			sum += w
		}
		for _, step := range []uint64{1, 1 << 20, 977} {
			count := make([]int, len(weights))
			for i := range n {
				node, ok := SequencerNode(c, logs.LogID(uint64(i)*step+1), "")
				if !ok {
					t.Fatal("nobody sequences")
				}
				count[(node-1)/3]++
			}
			for i, w := range weights {
				p := w / sum
				// Six standard deviations of a binomial distribution.
				if d := math.Abs(float64(count[i]) - n*p); d > 6*math.Sqrt(n*p*(1-p))+1e-9 {
					t.Errorf("weights %v, step %d: node %d has %d of %d logs, its share is %.0f", weights, step, i, count[i], n, n*p)
				}
			}
		}
	}
}

// When one node changes, logs move only to it or away from it.
func TestOnlyWhatMustMoves(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 60 {
		c := &logs.Cluster{}
		for i := range 2 + r.IntN(12) {
			c.Nodes = append(c.Nodes, logs.ClusterNode{
				ID: catalog.NodeID(i*i + 1), Alive: r.IntN(4) > 0, Starting: r.IntN(8) == 0,
				Sequencer: r.IntN(5) > 0, SequencerWeight: float64(r.IntN(4)),
			})
		}
		next := &logs.Cluster{Nodes: append([]logs.ClusterNode(nil), c.Nodes...)}
		x := &next.Nodes[r.IntN(len(next.Nodes))]
		before := *x
		switch r.IntN(3) {
		case 0:
			x.Alive = !x.Alive
		case 1:
			x.SequencerWeight *= 2
		default:
			x.SequencerWeight /= 3
		}
		heavier := !CanSequence(&before) || (CanSequence(x) && x.SequencerWeight > before.SequencerWeight)
		for log := range 500 {
			a, okA := SequencerNode(c, logs.LogID(log+1), "")
			b, okB := SequencerNode(next, logs.LogID(log+1), "")
			if a == b && okA == okB {
				continue
			}
			if (heavier && b != x.ID) || (!heavier && a != x.ID) {
				t.Fatalf("log %d moved from %d to %d, but it was node %d that changed (%+v to %+v)", log+1, a, b, x.ID, before, *x)
			}
		}
	}
}

func TestWhoIsNotEligibleSequencesNothing(t *testing.T) {
	change := map[string]func(*logs.ClusterNode){
		"dead":            func(n *logs.ClusterNode) { n.Alive = false },
		"starting":        func(n *logs.ClusterNode) { n.Starting = true },
		"without role":    func(n *logs.ClusterNode) { n.Sequencer = false },
		"without weight":  func(n *logs.ClusterNode) { n.SequencerWeight = 0 },
		"negative weight": func(n *logs.ClusterNode) { n.SequencerWeight = -1 },
	}
	for name, f := range change {
		c := sequencers(1, 1, 1)
		f(&c.Nodes[1])
		count := shares(c, "", 3000)
		if count[4] != 0 || count[1] == 0 || count[7] == 0 || count[0] != 0 {
			t.Errorf("%s: %v", name, count)
		}
	}
	if n, ok := SequencerNode(sequencers(0, 0), 1, ""); ok {
		t.Errorf("node %d of weight 0 sequences", n)
	}
	if n, ok := SequencerNode(&logs.Cluster{}, 1, "eu"); ok {
		t.Errorf("node %d of none sequences", n)
	}
}

func TestAffinityIsAPreference(t *testing.T) {
	c := sequencers(1, 1, 1, 1)
	for i, l := range []string{"eu/a/1", "eu/ab/1", "us/a/1", ""} {
		c.Nodes[i].Location = l
	}
	only := func(affinity string, want ...catalog.NodeID) {
		t.Helper()
		count := shares(c, affinity, 4000)
		for _, n := range want {
			if count[n] < 4000/len(want)/2 {
				t.Errorf("affinity %q: %v, wanted nodes %v", affinity, count, want)
			}
		}
		if len(count) != len(want) {
			t.Errorf("affinity %q: %v, wanted nodes %v", affinity, count, want)
		}
	}
	only("eu", 1, 4)
	only("eu/a", 1) // not eu/ab
	only("eu/a/1", 1)
	only("asia", 1, 4, 7, 10)
	c.Nodes[0].Alive = false
	only("eu/a", 4, 7, 10)
}

func TestAMetadataLogIsSequencedWithItsDataLog(t *testing.T) {
	c := sequencers(1, 2, 3, 4)
	for log := range logs.LogID(500) {
		a, _ := SequencerNode(c, log+1, "")
		b, _ := SequencerNode(c, (log + 1).MetadataLog(), "")
		if a != b {
			t.Fatalf("log %d is sequenced by %d, its metadata log by %d", log+1, a, b)
		}
	}
}

// The choice is part of the protocol between nodes and clients of all versions:
// it must not change by itself.
func TestTheChoiceIsStable(t *testing.T) {
	c := sequencers(1, 1, 2, 1, 3)
	var got []catalog.NodeID
	for _, log := range []logs.LogID{1, 2, 3, 100, 1 << 40, logs.LogIDMax} {
		n, _ := SequencerNode(c, log, "")
		got = append(got, n)
	}
	want := []catalog.NodeID{1, 13, 13, 1, 1, 13}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("chosen %v, once it was %v", got, want)
		}
	}
}

func BenchmarkSequencerNode(b *testing.B) {
	weights := make([]float64, 100)
	for i := range weights {
		weights[i] = 1
	}
	c := sequencers(weights...)
	log := logs.LogID(0)
	for b.Loop() {
		log++
		if _, ok := SequencerNode(c, log, ""); !ok {
			b.Fatal("nobody")
		}
	}
}
