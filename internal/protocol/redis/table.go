package redis

import (
	"strings"
)

// families are the parts of the command table, a file each.
var families = []func() []*command{
	connectionCommands, keyCommands, stringCommands, hashCommands, setCommands, zsetCommands,
	listCommands, timeSeriesCommands, spaceCommands, transactionCommands, clientCommands,
	configCommands, serverCommands, clusterCommands, tableCommands,
}

// The table about itself: COMMAND, COMMAND COUNT DOCS INFO LIST GETKEYS HELP.
func tableCommands() []*command {
	const g = "server"
	const cf = loading | stale
	return []*command{
		{name: "command", arity: -1, flags: cf, group: g, since: "2.8.13", summary: "Returns detailed information about all commands.", run: runCommand, subs: []*command{
			{name: "command|count", arity: 2, flags: cf, group: g, since: "2.8.13", summary: "Returns a count of commands.", run: func(c *conn, _ *call) { c.w.int(int64(len(c.s.commands.all))) }},
			{name: "command|docs", arity: -2, flags: cf, group: g, since: "7.0.0", summary: "Returns documentary information about one, multiple or all commands.", run: runCommandDocs},
			{name: "command|info", arity: -2, flags: cf, group: g, since: "2.8.13", summary: "Returns information about one, multiple or all commands.", run: runCommandInfo},
			{name: "command|list", arity: -2, flags: cf, group: g, since: "7.0.0", summary: "Returns a list of command names.", run: runCommandList},
			{name: "command|getkeys", arity: -4, flags: cf, group: g, since: "2.8.13", summary: "Extracts the key names from an arbitrary command.", run: runGetKeys},
			{name: "command|help", arity: 2, flags: cf, group: g, since: "5.0.0", summary: "Returns helpful text about the different subcommands.", run: runHelp("COMMAND",
				"(no subcommand)", "    Return details about all commands.", "COUNT", "    Return the total number of commands in this server.",
				"LIST", "    Return a list of all commands in this server.", "INFO [<command-name> ...]", "    Return details about multiple commands.",
				"DOCS [<command-name> ...]", "    Return documentation details about multiple commands.", "GETKEYS <full-command>", "    Return the keys from a full command.")},
		}},
	}
}

func runCommand(c *conn, _ *call) {
	c.w.array(len(c.s.commands.all))
	for _, cmd := range c.s.commands.all {
		c.w.commandInfo(cmd)
	}
}

// named finds a command by "name" or "container|sub".
func (t *commandTable) named(name []byte) *command {
	container, sub, isSub := strings.Cut(string(name), "|")
	cmd := t.find([]byte(container))
	if cmd == nil || !isSub {
		return cmd
	}
	return cmd.sub([]byte(sub))
}

func runCommandInfo(c *conn, k *call) {
	if len(k.args) == 2 {
		runCommand(c, k)
		return
	}
	c.w.array(len(k.args) - 2)
	for _, name := range k.args[2:] {
		if cmd := c.s.commands.named(name); cmd != nil {
			c.w.commandInfo(cmd)
		} else {
			c.w.null()
		}
	}
}

// commandInfo writes the ten fields that COMMAND answers of each command.
func (w *writer) commandInfo(cmd *command) {
	w.array(10)
	w.bulkString(cmd.name)
	w.int(int64(cmd.arity))
	var names []string
	for _, f := range flagNames {
		if cmd.flags&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	w.set(len(names))
	for _, n := range names {
		w.simple(n)
	}
	w.int(int64(cmd.keys.first))
	w.int(int64(cmd.keys.last))
	w.int(int64(cmd.keys.step))
	w.set(1)
	w.simple("@" + aclCategory(cmd))
	w.array(0) // tips
	if cmd.keys.step == 0 {
		w.array(0)
	} else {
		w.array(1)
		w.keySpec(cmd)
	}
	w.array(len(cmd.subs))
	for _, s := range cmd.subs {
		w.commandInfo(s)
	}
}

func aclCategory(cmd *command) string {
	switch {
	case cmd.flags&write != 0:
		return "write"
	case cmd.flags&readonly != 0:
		return "read"
	case cmd.flags&admin != 0:
		return "admin"
	}
	return "connection"
}

// keySpec writes where the keys are, in the form of Redis 7.
func (w *writer) keySpec(cmd *command) {
	last := cmd.keys.last
	if last > 0 {
		last -= cmd.keys.first
	}
	w.dict(3)
	w.bulkString("flags")
	w.set(1)
	w.simple(map[bool]string{true: "RW", false: "RO"}[cmd.flags&write != 0])
	w.bulkString("begin_search")
	w.dict(2)
	w.bulkString("type")
	w.bulkString("index")
	w.bulkString("spec")
	w.dict(1)
	w.bulkString("index")
	w.int(int64(cmd.keys.first))
	w.bulkString("find_keys")
	w.dict(2)
	w.bulkString("type")
	w.bulkString("range")
	w.bulkString("spec")
	w.dict(3)
	w.bulkString("lastkey")
	w.int(int64(last))
	w.bulkString("keystep")
	w.int(int64(cmd.keys.step))
	w.bulkString("limit")
	w.int(0)
}

func runCommandDocs(c *conn, k *call) {
	cmds := c.s.commands.all
	if len(k.args) > 2 {
		cmds = nil
		for _, name := range k.args[2:] {
			if cmd := c.s.commands.named(name); cmd != nil {
				cmds = append(cmds, cmd)
			}
		}
	}
	c.w.dict(len(cmds))
	for _, cmd := range cmds {
		c.w.bulkString(cmd.name)
		c.w.commandDocs(cmd)
	}
}

func (w *writer) commandDocs(cmd *command) {
	fields := 3
	if cmd.subs != nil {
		fields++
	}
	w.dict(fields)
	w.bulkString("summary")
	w.bulkString(cmd.summary)
	w.bulkString("since")
	w.bulkString(cmd.since)
	w.bulkString("group")
	w.bulkString(cmd.group)
	if cmd.subs != nil {
		w.bulkString("subcommands")
		w.dict(len(cmd.subs))
		for _, s := range cmd.subs {
			w.bulkString(s.name)
			w.commandDocs(s)
		}
	}
}

// runCommandList: COMMAND LIST [FILTERBY PATTERN glob].
func runCommandList(c *conn, k *call) {
	pattern := "*"
	switch {
	case len(k.args) == 2:
	case len(k.args) == 5 && fold(k.args[2], "filterby") && fold(k.args[3], "pattern"):
		pattern = strings.ToLower(string(k.args[4]))
	case len(k.args) == 5 && fold(k.args[2], "filterby") && (fold(k.args[3], "module") || fold(k.args[3], "aclcat")):
		pattern = "" // none is of a module; there are no categories
	default:
		c.w.error(string(errSyntax))
		return
	}
	var names []string
	for _, cmd := range c.s.commands.all {
		if matchGlob(pattern, cmd.name) {
			names = append(names, cmd.name)
		}
	}
	c.w.array(len(names))
	for _, n := range names {
		c.w.bulkString(n)
	}
}

func runGetKeys(c *conn, k *call) {
	args := k.args[2:]
	cmd, err := c.s.commands.resolve(args)
	switch {
	case cmd == nil:
		c.w.error("ERR Invalid command specified")
		return
	case err != nil:
		c.w.error("ERR Invalid number of arguments specified for command")
		return
	}
	keys := cmd.keyArgs(args)
	if len(keys) == 0 {
		c.w.error("ERR The command has no key arguments")
		return
	}
	c.w.array(len(keys))
	for _, key := range keys {
		c.w.bulk(key)
	}
}
