package logs

import (
	"time"

	"github.com/braiddb/braid/internal/sim"
)

// The faults that this wing adds to those of every world.
const (
	faultMove   = "moveSequencer" // log X is appended to at node, whatever gossip says
	faultDrain  = "drainNode"     // node takes no new copies and no sequencers, for a while
	faultShape  = "changeNodeset" // log X gets another nodeset size or replication
	faultTrim   = "trim"          // log X, up to what a reader has read
	faultEpochs = "epochsAway"    // the epoch store does not answer, for a while
	faultTorn   = "tornTail"      // node crashes, and loses synced records at its journal's end
	faultFlip   = "flipBit"       // a bit of a file of records that node has is flipped
	faultFlush  = "flushStore"    // node's store is flushed: its journal may go
	faultMoment = "moment"        // whoever comes to moment X next crashes, is cut off or paused, for a while
	faultReader = "newReader"     // somebody begins to read log X, from the oldest or the tail
)

// Wing is the logs' wing.
func Wing() *sim.Wing {
	return &sim.Wing{Name: "logs", Draw: draw, Beyond: drawBeyond, Points: points, Rooms: []string{"recovery", "sequencer", "store"},
		Build: func(w *sim.World) sim.Cluster { return newCluster(w) }}
}

// points are what a campaign is to reach beside every kind of fault.
var points = []string{
	"append: acknowledged", "append: unknown outcome", "append: refused", "append: to a node that sees no majority", "append: conditional done", "append: conditional lost",
	"append: found stored by a retry", "append: a stream goes on in another epoch", "append: a later epoch", "wave: a second one", "log: reactivated", "log: recovered", "recovery: holes", "shard: purged",
	"reader: bridge", "reader: hole", "reader: trimmed", "reader: rewound", "reader: all send all", "reader: a batch",
	"epoch store: an answer was lost", "epoch store: a lost race", "disk: sync failed", "node: fatal fault",
	"fault: " + faultMove, "fault: " + faultDrain, "fault: " + faultShape, "fault: " + faultTrim, "fault: " + faultEpochs,
	"fault: " + faultFlush, "fault: " + faultFlip, "fault: " + faultTorn, "shard: in doubt", "fault: " + faultReader, "fault: " + faultMoment, "moment: somebody comes to it", "fault: " + sim.FaultJump, "fault: " + sim.FaultDrift,
}

func kinds(o *sim.Options) sim.Kinds {
	n := o.Knob("logs")
	log := func(s sim.Swarm, f *sim.Fault, _ int) { f.X = s.Int64N(n) }
	long := func(lo, hi time.Duration) func(sim.Swarm, *sim.Fault, int) {
		return func(s sim.Swarm, f *sim.Fault, _ int) { f.X, f.For = s.Int64N(1<<16), s.Dur(lo, hi) }
	}
	return append(sim.WorldKinds(),
		sim.Kind{Name: faultMove, Most: 8, Draw: log},
		sim.Kind{Name: faultDrain, Most: 2, Draw: long(2*time.Second, 20*time.Second)},
		sim.Kind{Name: faultShape, Most: 3, Draw: long(0, time.Second)},
		sim.Kind{Name: faultTrim, Most: 4, Draw: log},
		sim.Kind{Name: faultEpochs, Most: 2, Draw: long(200*time.Millisecond, 6*time.Second)},
		sim.Kind{Name: faultFlush, Most: 6},
		sim.Kind{Name: faultTorn, Most: 2, Draw: func(s sim.Swarm, f *sim.Fault, _ int) {
			f.X, f.For = s.Int64N(40), s.Dur(100*time.Millisecond, 5*time.Second)
		}},
		sim.Kind{Name: faultReader, Most: 5, Draw: log},
		sim.Kind{Name: sim.FaultDiskFull, Most: 1, Draw: long(5*time.Second, 25*time.Second)}, // until somebody makes room
		sim.Kind{Name: faultMoment, Most: 8, Draw: func(s sim.Swarm, f *sim.Fault, _ int) {
			f.X, f.Peer, f.For = s.Int64N(int64(moments*strikes)), s.IntN(20), s.Order(10*time.Millisecond, 6*time.Second)
		}},
		sim.Kind{Name: sim.FaultJump, Most: 3, Draw: func(s sim.Swarm, f *sim.Fault, _ int) {
			f.X, f.For = s.Int64N(1_200_000)-600_000, s.Dur(time.Second, 20*time.Second)
			if s.Coin(30) { // nothing of logs depends on wall clocks
				f.X = s.Int64N(1_200_000_000) - 600_000_000
			}
		}},
		sim.Kind{Name: sim.FaultDrift, Most: 2, Draw: func(s sim.Swarm, f *sim.Fault, _ int) {
			f.X, f.For = s.Int64N(14_000)-7_000, s.Dur(time.Second, 20*time.Second)
		}},
		sim.Kind{Name: faultFlip, Most: 3, Draw: func(s sim.Swarm, f *sim.Fault, _ int) { f.X = s.Int64N(1 << 40) }},
	)
}

func draw(seed uint64) *sim.Options {
	s := sim.NewSwarm(seed)
	nodes := []int{3, 3, 3, 4, 4, 5, 5, 6, 7, 9}[s.IntN(10)]
	o := s.Base("logs", seed, nodes)
	k := o.Knobs
	k["logs"] = int64(s.Int(1, 3))
	k["copies"] = 2
	if s.Coin(40) {
		k["copies"] = 3
	}
	k["nodeset"] = int64(s.Int(int(k["copies"]), nodes)) // shards of a log, if not all
	if s.Coin(40) {
		k["nodeset"] = 0
	}
	k["racks"] = 0
	if nodes >= 4 && s.Coin(25) {
		k["racks"] = int64(s.Int(2, nodes/2)) // copies lie in two of them
	}
	k["window"] = int64(s.Int(2, 200))
	k["batching"] = int64(s.IntN(2))
	k["singleCopy"] = int64(s.IntN(2))
	k["sticky"] = int64(s.IntN(2))
	k["inline"] = []int64{-1, 1, 4}[s.IntN(3)] // records in flight up to which callers step
	k["loops"] = int64(s.Int(1, 2))
	k["esnMax"] = 0
	if s.Coin(20) {
		k["esnMax"] = int64(s.Int(40, 400)) // epochs are used up
	}
	k["storeMs"] = int64(s.Int(20, 400))
	k["graylistMs"] = int64(s.Int(500, 20_000))
	k["producers"] = int64(s.Int(2, 5))
	k["pipeline"] = int64(s.Int(1, 6)) // appends of a producer under way at once
	k["thinkMs"] = int64(s.Int(47, 64)) * k["producers"] * k["pipeline"]
	k["patienceMs"] = int64(s.Int(3000, 12_000))
	k["tryMs"] = int64(s.Int(200, 1500))
	k["payload"] = int64(s.Int(0, 400))
	k["readers"] = int64(s.Int(1, 2)) // of a log
	k["readWindow"] = int64(s.Int(8, 300))
	k["readWaitMs"] = int64(s.Int(200, 5000))
	k["failOverMs"] = int64(s.Int(1000, 8000))
	k["epochMs"] = int64(s.Int(1, 40))
	k["epochLostOneIn"] = int64(s.Rare(5, 60))
	k["recoverySlots"] = int64(s.Int(1, 32)) // stored at a time
	k["digestBytes"] = int64(s.Int(200, 8000))
	k["partitionMs"] = int64(s.Int(12_000, 100_000))
	k["partitionBytes"] = int64(s.Int(8<<10, 80<<10)) // see memTableBytes
	k["cacheBytes"] = int64(s.Int(2<<10, 256<<10))    // of recent records
	k["hasty"] = []int64{0, 33, 33, 100}[s.IntN(4)]   // percent of plain producers that let others overtake them
	k["burstMs"] = 0
	if s.Coin(15) {
		k["burstMs"] = int64(s.Int(4000, 25_000))
	}
	k["appendKiB"] = 0 // of appends that a sequencer's node holds, if not as many as it likes
	if s.Coin(25) {
		k["appendKiB"] = int64(s.Int(4, 24))
	}
	s.Schedule(o, kinds(o))
	k["sessionsMax"] = 0
	if s.Coin(20) {
		k["sessionsMax"] = int64(s.Int(1, 2)) // producers that a sequencer remembers
	}
	k["handOver"] = 1 // gossip passes as it is; all else is encoded in any case
	if s.Coin(25) {
		k["handOver"] = 0
	}
	k["crowdMs"] = 0 // appends begin whenever they do
	if s.Coin(75) {
		k["crowdMs"] = int64(s.Int(80, 600))
	}
	k["gossipMs"] = 50
	if s.Coin(90) {
		k["gossipMs"] = int64(s.Int(180, 280))
	}
	return o
}

func (c *cluster) ms(name string) time.Duration {
	return time.Duration(c.w.Opt.Knob(name)) * time.Millisecond
}
