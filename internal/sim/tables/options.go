package tables

import (
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/tables/tablet"
)

// The faults that this wing adds to those of every world.
const (
	faultTransfer = "transfer" // of group X's leadership to node
	faultOutage   = "outage"   // node is off for so long that a managed cluster replaces its replicas
	faultMove     = "move"     // group X gets a replica on node, and loses one
	faultFlush    = "flush"    // node's engine is flushed: its journal may go
	faultDamage   = "damage"   // node crashes, and group X's journal there is damaged: the replica is replaced
	faultTorn     = "tornTail" // node crashes and loses synced records at its journal's end
)

// Wing is the tables' wing.
func Wing() *sim.Wing {
	return &sim.Wing{Name: "tables", Draw: draw, Beyond: drawBeyond, Points: points, Rooms: []string{"multiraft", "tablet"},
		Build: func(w *sim.World) sim.Cluster { return newCluster(w) }}
}

// points are what a campaign is to reach beside every kind of fault.
var points = []string{
	"disk: sync failed", "journal: entries refused for want of space", "node: fatal fault",
	"snapshot: restored", "membership: changed", "client: gave up", "client: answered from memory",
	"client: retried", "cas: done", "cas: lost", "tablet: write parked", "tablet: write void", "tablet: duplicate entry",
	"leader: changed", "replica: damaged", "balancer: moved a leader", "balancer: changed a group", "fault: " + faultOutage, "replica: repaired", "leader: handed over", "clock: refused", "tail: in doubt",
	"fault: " + faultEclipse, "fault: " + faultUsurp, "fault: " + faultEcho, "fault: " + faultShuttle, "fault: " + faultForget, "fault: " + faultSqueeze,
	"fault: " + faultRelay, "leader: overthrown as soon as it was one", "membership: changes while only a bare majority is there",
	"engine: flushed between two commits", "snapshot: there is no room for it at once",
	"fault: " + faultLeak, "journal: refused what follows a refused append", "proposal: late", "proposal: in the next reign", "proposal: forged a copy", "snapshot: leaves under a flood of writes",
	"replica: lost what only a leader that went held beside it",
	"fault: " + faultTransfer, "fault: " + faultMove, "fault: " + faultFlush, "fault: " + faultTorn, "fault: " + faultDamage,
	"fault: " + sim.FaultJump, "fault: " + sim.FaultDrift,
}

// allRemembered is room for every request of a run.
const allRemembered = 8 << 20

func kinds(o *sim.Options) sim.Kinds {
	tablets, lease := o.Knob("tablets"), time.Duration(o.Knob("leaseMs"))*time.Millisecond
	group := func(s sim.Swarm, f *sim.Fault, _ int) { f.X = s.Int64N(tablets) }
	return append(append(sim.WorldKinds(), coups(tablets, lease)...),
		sim.Kind{Name: faultOutage, Most: 2, Draw: func(s sim.Swarm, f *sim.Fault, _ int) { f.For = s.Dur(6*time.Second, 30*time.Second) }},
		sim.Kind{Name: faultTransfer, Most: 8, Draw: group},
		sim.Kind{Name: faultMove, Most: 4, Draw: group},
		sim.Kind{Name: faultFlush, Most: 8},
		sim.Kind{Name: faultDamage, Most: 2, Draw: func(s sim.Swarm, f *sim.Fault, _ int) {
			f.For, f.X = s.Dur(10*time.Millisecond, 4*time.Second), s.Int64N(tablets)
		}},
		sim.Kind{Name: faultTorn, Most: 2, Draw: func(s sim.Swarm, f *sim.Fault, _ int) {
			f.For, f.X = s.Dur(10*time.Millisecond, 4*time.Second), int64(s.Int(1, 3))
		}},
		sim.Kind{Name: sim.FaultJump, Most: 3, Draw: func(s sim.Swarm, f *sim.Fault, _ int) {
			// Within what the nodes' clocks may differ by; or far outside, for a while.
			f.X, f.For = s.Int64N(40_000)-20_000, s.Dur(time.Second, 20*time.Second)
			if s.Coin(30) { // of one node only: a majority must agree about the time
				f.Node = 1 + int(o.Seed%uint64(o.Nodes))
				f.X, f.For = s.Int64N(1_200_000_000)-600_000_000, s.Dur(200*time.Millisecond, 5*time.Second)
			}
		}},
		sim.Kind{Name: sim.FaultDrift, Most: 2, Draw: func(s sim.Swarm, f *sim.Fault, _ int) {
			f.X, f.For = s.Int64N(14_000)-7_000, s.Dur(time.Second, 20*time.Second)
		}},
	)
}

func draw(seed uint64) *sim.Options {
	s := sim.NewSwarm(seed)
	nodes := []int{3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6, 7, 9}[s.IntN(13)]
	o := s.Base("tables", seed, nodes)
	k := o.Knobs
	k["tablets"] = int64(s.Int(1, 4))
	k["replicas"] = 3
	if nodes >= 5 && s.Coin(40) {
		k["replicas"] = 5
	}
	if s.Coin(40) { // by the real master and its balancer
		k["managed"] = 1
		k["deadMs"] = int64(s.Int(6000, 25000))
	}
	k["clients"] = int64(s.Int(3, 7))
	k["threads"] = int64(s.Int(1, 2))                                  // per client: requests under way at once
	k["thinkMs"] = int64(s.Int(72, 100)) * k["clients"] * k["threads"] // each client thinks so long at most twice over
	k["patienceMs"] = int64(s.Int(2000, 25000))
	k["tryMs"] = int64(s.Int(150, 1500))
	k["keys"] = int64(s.Int(1, 5)) // per tablet and workload
	k["answerLostOneIn"] = int64(s.Rare(3, 60))
	k["againOneIn"] = int64(s.Rare(3, 60))
	k["floorStays"] = int64(s.IntN(2))
	k["carryTime"] = int64(s.IntN(2))
	k["beatMs"] = int64(s.Int(140, 450))
	k["leaseMs"] = k["beatMs"] * int64(s.Int(4, 10))
	k["electionMs"] = time.Duration(s.Order(10*time.Millisecond, 400*time.Millisecond)).Milliseconds()
	k["loops"] = int64(s.Int(1, 2))
	k["logKiB"] = 16 << 10
	if s.Coin(50) {
		k["logKiB"] = int64(s.Int(1, 32)) // followers need snapshots
	}
	if k["managed"] == 0 && s.Coin(40) {
		k["rowTablets"] = 1
	}
	if s.Coin(6) { // processors with too much to do: what takes many steps takes long
		o.Sched.LagOneIn, o.Sched.Lag = s.Int(4, 20), s.Dur(50*time.Millisecond, 300*time.Millisecond)
	}
	k["chunkBytes"] = int64(s.Int(128, 16<<10))
	k["chunkLostOneIn"] = int64(s.Rare(10, 200))
	k["historyMs"] = []int64{0, 3000, 900_000}[s.IntN(3)]
	k["rememberedBytes"] = allRemembered
	if s.Coin(20) {
		k["rememberedBytes"] = int64(s.Int(4<<10, 64<<10))
	}
	k["flushMs"] = int64(s.Rare(4000, 30000))
	weights := func(name string) {
		if !s.Coin(25) {
			k["w."+name] = int64(s.Int(1, 10))
		}
	}
	for _, l := range loads {
		weights(l)
	}
	k["w.register"] = max(k["w.register"], 2)
	s.Schedule(o, kinds(o))
	aim(o, seed)
	turn(o, seed)
	k["handOver"] = 1 // beats pass as they are; all else is encoded in any case
	if s.Coin(25) {
		k["handOver"] = 0
	}
	return o
}

func (c *cluster) ms(name string) time.Duration {
	return time.Duration(c.w.Opt.Knob(name)) * time.Millisecond
}

func (c *cluster) hostConfig() multiraft.Config {
	k := c.w.Opt.Knob
	return multiraft.Config{
		Beat: c.ms("beatMs"), Lease: c.ms("leaseMs"), ElectionDelay: c.ms("electionMs"), MaxSkew: 500 * time.Millisecond,
		Loops: int(k("loops")), LogBytesMax: k("logKiB") << 10, SnapshotChunk: int(k("chunkBytes")),
	}
}

func (c *cluster) tabletOptions() tablet.Options {
	return tablet.Options{RememberedBytesMax: c.w.Opt.Knob("rememberedBytes")}
}

func (c *cluster) redisTable() *catalog.Table {
	return &catalog.Table{Id: uint32(catalog.RedisTableID), Keyspace: catalog.SystemKeyspace, Name: catalog.RedisTable,
		Hash: catalog.Hash_HASH_CRC16, HistoryRetentionMs: c.w.Opt.Knob("historyMs"), Schema: &catalog.Schema{Version: 1}}
}
