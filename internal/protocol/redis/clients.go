package redis

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// CLIENT: ID GETNAME SETNAME SETINFO INFO LIST KILL REPLY NO-EVICT NO-TOUCH
// UNBLOCK GETREDIR TRACKINGINFO HELP.
//
//   - CLIENT SETINFO and NO-TOUCH are those of Redis 7.2.
//   - CLIENT TRACKING and CACHING are refused: there is no invalidation, so a
//     client-side cache would be wrong (rueidis: set DisableCache).
//   - CLIENT PAUSE is refused: one node cannot pause a cluster.
func clientCommands() []*command {
	const g = "connection"
	const cf = noscript | loading | stale
	refuse := func(name, since, summary, why string) *command {
		return &command{name: "client|" + name, arity: -2, flags: cf, group: g, since: since, summary: summary,
			run: func(c *conn, _ *call) { c.w.error("ERR " + why) }}
	}
	return []*command{{name: "client", arity: -2, flags: cf, group: g, since: "2.4.0", summary: "A container for client connection commands.", subs: []*command{
		{name: "client|id", arity: 2, flags: cf, group: g, since: "5.0.0", summary: "Returns the unique client ID of the connection.", run: func(c *conn, _ *call) { c.w.int(int64(c.id)) }},
		{name: "client|getname", arity: 2, flags: cf, group: g, since: "2.6.9", summary: "Returns the name of the connection.", run: func(c *conn, _ *call) {
			if name := c.name(); name != "" {
				c.w.bulkString(name)
			} else {
				c.w.null()
			}
		}},
		{name: "client|setname", arity: 3, flags: cf, group: g, since: "2.6.9", summary: "Sets the connection name.", run: func(c *conn, k *call) {
			if !plainName(k.args[2]) {
				c.w.error(errClientName)
				return
			}
			c.setName(k.args[2])
			c.w.ok()
		}},
		{name: "client|setinfo", arity: 4, flags: cf, group: g, since: "7.2.0", summary: "Sets information specific to the client or connection.", run: runSetInfo},
		{name: "client|info", arity: 2, flags: cf, group: g, since: "6.2.0", summary: "Returns information about the connection.", run: func(c *conn, _ *call) { c.w.verbatim(c.describe(c.now) + "\n") }},
		{name: "client|list", arity: -2, flags: cf | admin, group: g, since: "2.4.0", summary: "Lists open connections.", run: runClientList},
		{name: "client|kill", arity: -3, flags: cf | admin, group: g, since: "2.4.0", summary: "Terminates open connections.", run: runClientKill},
		{name: "client|reply", arity: 3, flags: cf | noMulti, group: g, since: "3.2.0", summary: "Instructs the server whether to reply to commands.", run: runClientReply},
		{name: "client|no-evict", arity: 3, flags: cf | admin, group: g, since: "7.0.0", summary: "Sets the client eviction mode of the connection.", run: func(c *conn, k *call) { c.onOff(k.args[2]) }},
		{name: "client|no-touch", arity: 3, flags: cf, group: g, since: "7.2.0", summary: "Controls whether commands sent by the client affect the LRU/LFU of accessed keys.", run: func(c *conn, k *call) { c.onOff(k.args[2]) }},
		{name: "client|unblock", arity: -3, flags: cf | admin, group: g, since: "5.0.0", summary: "Unblocks a client blocked by a blocking command from a different connection.", run: func(c *conn, k *call) {
			if _, ok := parseInt(k.args[2]); !ok {
				c.w.error(string(errNotInteger))
				return
			}
			c.w.int(0) // nobody is blocked
		}},
		{name: "client|getredir", arity: 2, flags: cf, group: g, since: "6.0.0", summary: "Returns the client ID to which the connection's tracking notifications are redirected.", run: func(c *conn, _ *call) { c.w.int(-1) }},
		{name: "client|trackinginfo", arity: 2, flags: cf, group: g, since: "6.2.0", summary: "Returns information about server-assisted client-side caching for the connection.", run: func(c *conn, _ *call) {
			c.w.dict(3)
			c.w.bulkString("flags")
			c.w.set(1)
			c.w.bulkString("off")
			c.w.bulkString("redirect")
			c.w.int(-1)
			c.w.bulkString("prefixes")
			c.w.array(0)
		}},
		refuse("tracking", "6.0.0", "Controls server-assisted client-side caching for the connection.", "client-side caching is not supported: keys may change at other nodes"),
		refuse("caching", "6.0.0", "Instructs the server whether to track the keys in the next request.", "client-side caching is not supported: keys may change at other nodes"),
		refuse("pause", "3.0.0", "Suspends commands processing.", "CLIENT PAUSE is not supported: one node cannot pause a cluster"),
		refuse("unpause", "6.2.0", "Resumes processing commands from paused clients.", "CLIENT UNPAUSE is not supported: one node cannot pause a cluster"),
		{name: "client|help", arity: 2, flags: loading | stale, group: g, since: "5.0.0", summary: "Returns helpful text about the different subcommands.", run: runHelp("CLIENT",
			"GETNAME", "    Return the name of the current connection.", "ID", "    Return the ID of the current connection.",
			"INFO", "    Return information about the current client connection.", "KILL <ip:port>", "    Kill connection made from <ip:port>.",
			"KILL <option> <value> [<option> <value> [...]]", "    Kill connections. Options: ADDR LADDR TYPE USER SKIPME ID MAXAGE.",
			"LIST [options ...]", "    Return information about client connections. Options: TYPE ID.",
			"REPLY (ON|OFF|SKIP)", "    Control the replies sent to the current connection.",
			"SETINFO <option> <value>", "    Set client meta attr. Options: LIB-NAME LIB-VER.",
			"SETNAME <name>", "    Assign the name <name> to the current connection.")},
	}}}
}

const errClientName = "ERR Client names cannot contain spaces, newlines or special characters."

// plainName reports whether a name can stand in a line of CLIENT LIST.
func plainName(b []byte) bool {
	return len(b) <= 1024 && !slices.ContainsFunc(b, func(c byte) bool { return c < '!' || c > '~' })
}

func (c *conn) setName(name []byte) {
	c.info.mu.Lock()
	c.info.mu.name = string(name)
	c.info.mu.Unlock()
}

func (c *conn) name() string {
	c.info.mu.Lock()
	defer c.info.mu.Unlock()
	return c.info.mu.name
}

func (c *conn) onOff(a []byte) {
	if !fold(a, "on") && !fold(a, "off") {
		c.w.error(string(errSyntax))
		return
	}
	c.w.ok()
}

func runSetInfo(c *conn, k *call) {
	attr, value := k.args[2], k.args[3]
	if !fold(attr, "lib-name") && !fold(attr, "lib-ver") {
		c.w.error("ERR Unrecognized option '" + string(attr) + "'")
		return
	}
	if !plainName(value) {
		c.w.error("ERR " + strings.ToLower(string(attr)) + " cannot contain spaces, newlines or special characters.")
		return
	}
	c.info.mu.Lock()
	if fold(attr, "lib-name") {
		c.info.mu.libName = string(value)
	} else {
		c.info.mu.libVersion = string(value)
	}
	c.info.mu.Unlock()
	c.w.ok()
}

// describe is the connection's line in CLIENT LIST. Others may call it.
func (c *conn) describe(now time.Time) string {
	var b strings.Builder
	field := func(name, value string) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(name)
		b.WriteByte('=')
		b.WriteString(value)
	}
	number := func(name string, n int64) { field(name, strconv.FormatInt(n, 10)) }
	c.info.mu.Lock()
	name, libName, libVersion := c.info.mu.name, c.info.mu.libName, c.info.mu.libVersion
	c.info.mu.Unlock()
	number("id", int64(c.id))
	field("addr", c.remote)
	field("laddr", c.local)
	number("fd", int64(c.id)) // descriptors are the runtime's own affair
	field("name", name)
	number("age", int64(now.Sub(c.created)/time.Second))
	number("idle", max(now.UnixMilli()-c.info.last.Load(), 0)/1000)
	switch {
	case c.info.monitor.Load():
		field("flags", "O")
	case c.info.queued.Load() >= 0:
		field("flags", "x")
	default:
		field("flags", "N")
	}
	number("db", 0)
	number("sub", 0)
	number("psub", 0)
	number("ssub", 0)
	number("multi", int64(c.info.queued.Load()))
	number("watch", int64(c.info.watched.Load()))
	number("qbuf", c.info.input.Load())
	number("omem", int64(c.box.backlog()))
	last := "NULL"
	if cmd := c.info.cmd.Load(); cmd != nil {
		last = cmd.name
	}
	field("cmd", last)
	field("user", "default")
	number("redir", -1)
	number("resp", map[bool]int64{true: 3, false: 2}[c.info.resp3.Load()])
	field("lib-name", libName)
	field("lib-ver", libVersion)
	number("tot-cmds", int64(c.info.calls.Load()))
	return b.String()
}

func sortConns(all []*conn) {
	slices.SortFunc(all, func(a, b *conn) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
}

// clientType knows the types of CLIENT LIST and KILL; every connection here is
// normal.
func clientType(a []byte) (normal, ok bool) {
	switch {
	case fold(a, "normal"):
		return true, true
	case fold(a, "master"), fold(a, "replica"), fold(a, "slave"), fold(a, "pubsub"):
		return false, true
	}
	return false, false
}

// runClientList: CLIENT LIST [TYPE type] [ID id ...].
func runClientList(c *conn, k *call) {
	args, all := k.args[2:], c.s.connections()
	switch {
	case len(args) == 2 && fold(args[0], "type"):
		normal, ok := clientType(args[1])
		if !ok {
			c.w.error("ERR Unknown client type '" + string(args[1]) + "'")
			return
		}
		if !normal {
			all = nil
		}
	case len(args) > 1 && fold(args[0], "id"):
		wanted := map[uint64]bool{}
		for _, a := range args[1:] {
			id, ok := parseInt(a)
			if !ok || id < 1 {
				c.w.error("ERR Invalid client ID")
				return
			}
			wanted[uint64(id)] = true
		}
		all = slices.DeleteFunc(all, func(o *conn) bool { return !wanted[o.id] })
	case len(args) != 0:
		c.w.error(string(errSyntax))
		return
	}
	var b strings.Builder
	for _, o := range all {
		b.WriteString(o.describe(c.now))
		b.WriteByte('\n')
	}
	c.w.verbatim(b.String())
}

// killFilter is what CLIENT KILL asks for.
type killFilter struct {
	id            uint64
	addr, laddr   string
	none, skipMe  bool
	maxAgeSeconds int64
}

// runClientKill: CLIENT KILL addr | CLIENT KILL filter value ...
func runClientKill(c *conn, k *call) {
	old := len(k.args) == 3
	f := killFilter{skipMe: !old}
	if old {
		f.addr = string(k.args[2])
	} else if problem := f.parse(k.args[2:]); problem != nil {
		c.w.error(problem.Error())
		return
	}
	killed := int64(0)
	for _, o := range c.s.connections() {
		if f.none || f.id != 0 && o.id != f.id || f.addr != "" && o.remote != f.addr || f.laddr != "" && o.local != f.laddr ||
			f.skipMe && o == c || f.maxAgeSeconds > 0 && c.now.Sub(o.created) < time.Duration(f.maxAgeSeconds)*time.Second {
			continue
		}
		killed++
		if o == c {
			c.closing = true // after the reply
			continue
		}
		o.kill()
	}
	switch {
	case !old:
		c.w.int(killed)
	case killed == 0:
		c.w.error("ERR No such client")
	default:
		c.w.ok()
	}
}

func (f *killFilter) parse(args [][]byte) error {
	for i := 0; i < len(args); i += 2 {
		if i+1 == len(args) {
			return errSyntax
		}
		switch a, v := args[i], args[i+1]; {
		case fold(a, "id"):
			id, ok := parseInt(v)
			if !ok || id < 1 {
				return replyError("ERR client-id should be greater than 0")
			}
			f.id = uint64(id)
		case fold(a, "addr"):
			f.addr = string(v)
		case fold(a, "laddr"):
			f.laddr = string(v)
		case fold(a, "type"):
			normal, ok := clientType(v)
			if !ok {
				return replyError("ERR Unknown client type '" + string(v) + "'")
			}
			f.none = f.none || !normal
		case fold(a, "user"):
			if string(v) != "default" {
				return replyError("ERR No such user '" + string(v) + "'")
			}
		case fold(a, "skipme") && (fold(v, "yes") || fold(v, "no")):
			f.skipMe = fold(v, "yes")
		case fold(a, "maxage"):
			n, ok := parseInt(v)
			if !ok || n < 1 || n > 1<<31 {
				return errNotInteger
			}
			f.maxAgeSeconds = n
		default:
			return errSyntax
		}
	}
	return nil
}

// kill ends a connection of another goroutine.
func (c *conn) kill() {
	c.info.killed.Store(true)
	_ = c.nc.Close() // wakes it
}

func runClientReply(c *conn, k *call) {
	switch a := k.args[2]; {
	case fold(a, "on"):
		c.mode = replyOn
		c.w.ok()
	case fold(a, "off"):
		c.mode = replyOff
	case fold(a, "skip"):
		if c.mode == replyOn {
			c.mode = replySkipNext
		}
	default:
		c.w.error(string(errSyntax))
	}
}

// runHelp makes the HELP subcommand of a container.
func runHelp(name string, lines ...string) func(*conn, *call) {
	return func(c *conn, _ *call) {
		c.w.array(len(lines) + 3)
		c.w.simple(name + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
		for _, l := range lines {
			c.w.simple(l)
		}
		c.w.simple("HELP")
		c.w.simple("    Print this help.")
	}
}
