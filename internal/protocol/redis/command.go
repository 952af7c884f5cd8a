package redis

import (
	"sync/atomic"
)

// flags of a command, as COMMAND names them, and two of our own.
type flags uint32

const (
	write flags = 1 << iota
	readonly
	denyoom
	admin
	noscript
	loading
	stale
	fast
	noAuth      // may be used before AUTH
	noMulti     // not inside MULTI
	movableKeys // keys are not where first, last and step say
	skipMonitor // carries secrets
	inMulti     // carried out at once even inside MULTI
)

var flagNames = []struct {
	flag flags
	name string
}{
	{write, "write"}, {readonly, "readonly"}, {denyoom, "denyoom"}, {admin, "admin"},
	{noscript, "noscript"}, {loading, "loading"}, {stale, "stale"}, {skipMonitor, "skip_monitor"},
	{fast, "fast"}, {noAuth, "no_auth"}, {noMulti, "no_multi"}, {movableKeys, "movablekeys"},
}

// keySpec says which arguments are keys: every step'th from first to last, which
// counts from the end when negative. The zero value: none.
type keySpec struct{ first, last, step int }

var (
	noKeys  = keySpec{}
	oneKey  = keySpec{1, 1, 1}
	twoKeys = keySpec{1, 2, 1}
	allKeys = keySpec{1, -1, 1}
	subKey  = keySpec{2, 2, 1} // of a subcommand
)

// command is one row of the command table: the one source for looking a command
// up, for its arity, its keys and its routing, for COMMAND and for its metrics.
type command struct {
	name    string // lower case; a subcommand's is "container|sub"
	arity   int    // with the name itself; negative: at least that many
	flags   flags
	keys    keySpec
	group   string
	since   string
	summary string

	// build turns arguments into operations (see call). Either build or run is set.
	build func(k *call) error
	// run carries the command out on the connection's goroutine and writes the reply.
	run func(c *conn, k *call)
	// across replaces build where the keys lie in different slots.
	across func(c *conn, k *call)
	// subs are the subcommands of a container.
	subs []*command
	// keysOf finds the keys where keys cannot say; for movableKeys.
	keysOf func(args [][]byte) [][]byte

	stats commandStats
}

// commandStats are counted by all connections.
type commandStats struct {
	calls    atomic.Uint64
	failed   atomic.Uint64 // answered with an error
	rejected atomic.Uint64 // not carried out: arity, authentication
	micros   atomic.Uint64
}

// arityFits reports whether n arguments, the name included, are acceptable.
func (cmd *command) arityFits(n int) bool {
	return n == cmd.arity || cmd.arity < 0 && n >= -cmd.arity
}

// keyArgs gives the arguments that are keys.
func (cmd *command) keyArgs(args [][]byte) [][]byte {
	if cmd.keysOf != nil {
		return cmd.keysOf(args)
	}
	if cmd.keys.step == 0 {
		return nil
	}
	last := cmd.keys.last
	if last < 0 {
		last += len(args)
	}
	var keys [][]byte
	for i := cmd.keys.first; i <= last && i < len(args); i += cmd.keys.step {
		keys = append(keys, args[i])
	}
	return keys
}

// sub finds a subcommand of a container.
func (cmd *command) sub(name []byte) *command {
	for _, s := range cmd.subs {
		if fold(name, s.name[len(cmd.name)+1:]) {
			return s
		}
	}
	return nil
}

// tableSlots is the size of the lookup table, a power of two well above the
// number of commands, so that nearly every lookup compares one name.
const tableSlots = 1024

// commandTable finds a command by its name in any case, without making a string.
type commandTable struct {
	slots [tableSlots]*command
	all   []*command // in the order of definition
}

// newCommandTable makes the table of a server; every server has its own, for
// the commands count what they did.
func newCommandTable() *commandTable {
	t := &commandTable{}
	for _, family := range families {
		for _, cmd := range family() {
			t.add(cmd)
		}
	}
	return t
}

func (t *commandTable) add(cmd *command) {
	if t.find([]byte(cmd.name)) != nil {
		panic("BUG: two commands named " + cmd.name)
	}
	if (cmd.build == nil) == (cmd.run == nil) && cmd.subs == nil {
		panic("BUG: command " + cmd.name + " must either build or run")
	}
	t.all = append(t.all, cmd)
	for i := nameHash([]byte(cmd.name)); ; i++ {
		if t.slots[i%tableSlots] == nil {
			t.slots[i%tableSlots] = cmd
			return
		}
	}
}

func (t *commandTable) find(name []byte) *command {
	for i := nameHash(name); ; i++ {
		cmd := t.slots[i%tableSlots]
		if cmd == nil || fold(name, cmd.name) {
			return cmd
		}
	}
}

// resolve finds the command that arguments call, and checks how many they are.
// The command may be known even when there is an error.
func (t *commandTable) resolve(args [][]byte) (*command, error) {
	cmd := t.find(args[0])
	if cmd == nil {
		return nil, unknownCommand(args)
	}
	if cmd.subs != nil && len(args) > 1 {
		sub := cmd.sub(args[1])
		if sub == nil {
			return cmd, unknownSubcommand(cmd, args[1])
		}
		cmd = sub
	}
	if !cmd.arityFits(len(args)) {
		return cmd, replyError("ERR wrong number of arguments for '" + cmd.name + "' command")
	}
	return cmd, nil
}

// nameHash is FNV-1a over the name with its letters' case bit set.
func nameHash(name []byte) uint32 {
	h := uint32(2166136261)
	for _, c := range name[:min(len(name), 32)] {
		h = (h ^ uint32(c|0x20)) * 16777619
	}
	return h ^ h>>15
}
