package bubble

// original is a file of the standard library as a known release has it.
type original struct {
	path   string // below GOROOT/src
	sha256 string
	edits  []edit
	after  string // what is added at the end
}

// edit replaces the one place where old stands, by as many lines.
type edit struct{ old, new string }

// release is a release of Go whose scheduler is understood.
type release struct {
	version string
	files   []original
}

// releases are those for which the overlay has been proved. For another one, the
// edits are looked over against its source, its hashes are entered here, and the
// test that runs seeds twice says whether anything was missed.
var releases = []release{{
	version: "go1.26.8",
	files: []original{
		{"runtime/rand.go", "f0c4935ece88ac3861ebd5060a3507831158bcf5ac47abae5860220c0da970c5", randEdits, dice},
		{"runtime/proc.go", "b0ea864c1dd251cd9146644863ae9126ca57761dff05862dc80ab0799925fec6", procEdits, ""},
		{"runtime/runtime2.go", "1aae37f643d6092ab3911ae5bf95b14941e88efc2c17609bb1db29f6c70841dd", idleEdits, ""},
		{"runtime/select.go", "93977178a5c507d2bd0bbd990613fa0c8a1d6d18b974fcbcd6c9edce6bd8b5bf", selectEdits, ""},
		{"runtime/sema.go", "451de314f2db754e318c0ab7857ec3b808d604845e6306eed064a57b8b2cd52b", semaEdits, ""},
		{"runtime/time.go", "38c7dde4ad56b211cda6216c67e8f4c1b1f3a3ea544ff25b62fc83126e8a5f5c", timeEdits, ""},
		{"internal/sync/mutex.go", "0535ca03e44cb62cf3e4a511b989ffd0f08ec899d864e2a817b77c4025bec48c", mutexEdits, ""},
	},
}}

// least is what no world can do without, in a release that is not known.
var least = []original{{path: "runtime/runtime2.go", edits: idleEdits}}

// randEdits: every process boots with the same random state, and what a
// goroutine of a bubble draws (map order, hash seeds, sync.Pool) comes from the
// seed.
var randEdits = []edit{
	{"\tglobalRand.state.Init(*seed)\n\tclear(seed[:])\n", "\tsimBoot(seed); globalRand.state.Init(*seed)\n\tclear(seed[:])\n"},
	{"func rand() uint64 {\n", "func rand() uint64 { if simOn && getg().bubble != nil { return simNext() }\n"},
}

// dice are what the other edits use. SimSeed is called by the world.
const dice = `
var simOn bool
var simState uint64
var simTick uint32
var simAlone = true

//go:linkname SimSeed runtime.SimSeed
func SimSeed(on bool, seed uint64) { simOn = on; simState = seed; simTick = 0 }

func simBoot(seed *[32]byte) {
	for i := range seed {
		seed[i] = byte(i*7 + 1)
	}
}

//go:nosplit
func simNext() uint64 {
	simState += 0xa0761d6478bd642f
	hi, lo := math.Mul64(simState, simState^0xe7037ed1a0b428db)
	return hi ^ lo
}

//go:nosplit
func simcheaprand() uint32 {
	if simOn && getg().bubble != nil {
		return uint32(simNext() >> 32)
	}
	return cheaprand()
}

//go:nosplit
func simcheaprandn(n uint32) uint32 { return uint32((uint64(simcheaprand()) * uint64(n)) >> 32) }

// simFair says whether it is time to look at the global queue.
func simFair(tick uint32) bool {
	if simOn {
		tick = simTick
	}
	return tick%61 == 0
}
`

// procEdits: nobody is preempted by the wall clock, who is in a system call keeps
// the processor, and the main goroutine has no thread of its own: so no two threads
// race to hand the processor over, as many are made each time, and memory lies at
// the same addresses (maps keyed by pointers are in their order). Whether a goroutine that was
// made ready runs next or last is the seed's choice; and the look at the global
// queue, once in 61 rounds, counts the bubble's goroutines only.
var procEdits = []edit{
	{"const forcePreemptNS = 10 * 1000 * 1000 // 10ms\n", "const forcePreemptNS = 3600 * 1000 * 1000 * 1000\n"},
	{"\t// to preserve the lock.\n\tlockOSThread()\n", "\t// to preserve the lock.\n\n"},
	{"\tneedUnlock := true\n", "\tneedUnlock := false\n"},
	{"\tneedUnlock = false\n\tunlockOSThread()\n", "\tneedUnlock = false\n\n"},
	{"func retake(now int64) uint32 {\n", "func retake(now int64) uint32 { if simAlone { return 0 }\n"},
	{"func runqput(pp *p, gp *g, next bool) {\n", "func runqput(pp *p, gp *g, next bool) { next = next && (!simOn || gp.bubble == nil || simNext()&(1<<40) != 0)\n"},
	{"\tif pp.schedtick%61 == 0 && !sched.runq.empty() {\n", "\tif simFair(pp.schedtick) && !sched.runq.empty() {\n"},
	{"\t\tmp.p.ptr().schedtick++\n", "\t\tmp.p.ptr().schedtick++; if gp.bubble != nil { simTick++ }\n"},
}

// idleEdits: who waits for a mutex is idle like who waits for a channel, since
// nothing outside of the bubble holds one. Time can then pass while a goroutine
// holds a mutex over a slow operation of a simulated disk.
var idleEdits = []edit{{
	"\twaitReasonSynctestSelect:        true,\n",
	"\twaitReasonSynctestSelect: true, waitReasonSyncMutexLock: true, waitReasonSyncRWMutexRLock: true, waitReasonSyncRWMutexLock: true,\n",
}}

var selectEdits = []edit{{"\t\tj := cheaprandn(uint32(norder + 1))\n", "\t\tj := simcheaprandn(uint32(norder + 1))\n"}}

var semaEdits = []edit{{"\ts.ticket = cheaprand() | 1\n", "\ts.ticket = simcheaprand() | 1\n"}}

var timeEdits = []edit{{"\t\t\tt.rand = cheaprand()\n", "\t\t\tt.rand = simcheaprand()\n"}}

// mutexEdits: a mutex does not become fair because of the wall clock.
var mutexEdits = []edit{{"\tstarvationThresholdNs = 1e6\n", "\tstarvationThresholdNs = 3600e9\n"}}
