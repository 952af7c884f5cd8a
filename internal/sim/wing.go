package sim

import "io"

// Cluster is a wing's part of a world: it hosts the cores, makes the load and
// knows what was promised.
type Cluster interface {
	// Boot begins a life of a node from its durable state.
	Boot(n *Node)
	// Down is told that a life has ended. Nothing of it runs any more.
	Down(n *Node)
	// Start begins the load, after all nodes have booted.
	Start()
	// Fault carries out a fault that the world does not know, and says whether it
	// found somebody to strike.
	Fault(f *Fault) bool
	// MayLose says whether node n may lose durable state now: what it holds has
	// enough sound copies elsewhere.
	MayLose(n *Node) bool
	// Heal is told that the last fault is over. Nodes that were down boot after.
	Heal()
	// Watch is called after every event, for what must hold at every moment. It
	// must be cheap.
	Watch()
	// Converged says what is still missing for the cluster to be well.
	Converged() error
	// Check is the last word, once converged.
	Check() error
	// Ops is how many operations of clients were answered.
	Ops() int
	// Close lets go of what a run held.
	Close()
}

// Wing is a kind of cluster.
type Wing struct {
	Name string
	// Draw makes the options of a seed.
	Draw func(seed uint64) *Options
	// Beyond makes the options of a seed whose faults exceed what is promised; nil where
	// a wing has none.
	Beyond func(seed uint64) *Options
	// Build makes the cluster in a world of such options.
	Build func(w *World) Cluster
	// Points are the names that Result.Reached may have: a campaign says which it
	// did not reach.
	Points []string
	// Rooms are those whose points (package sometimes) this wing can reach. No two wings have one in common.
	Rooms []string
}

// Run is one run of options that this wing drew.
func (g *Wing) Run(o *Options, trace io.Writer) *Result {
	return NewWorld(o, trace, g.Build).Run()
}

// Result is how a run went.
type Result struct {
	Options *Options `json:",omitempty"`
	Error   string   `json:",omitempty"`
	Exposed string   `json:",omitempty"` // beyond what is promised: what was lost so that nobody can tell
	Hash    string
	Events  uint64
	Virtual Duration
	Ops     int
	Faults  int
	Skipped int               `json:",omitempty"`
	Reached map[string]uint64 `json:",omitempty"`
}
