package redis

import (
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// CONFIG: GET SET RESETSTAT REWRITE HELP.
//
//   - requirepass, maxclients and timeout can be set, on this node, until it
//     restarts; everything else that is listed says how things are.
//   - A new password does not log anybody out.
func configCommands() []*command {
	const g = "server"
	const cf = admin | noscript | loading | stale
	return []*command{{name: "config", arity: -2, flags: cf, group: g, since: "2.0.0", summary: "A container for server configuration commands.", subs: []*command{
		{name: "config|get", arity: -3, flags: cf, group: g, since: "2.0.0", summary: "Returns the effective values of configuration parameters.", run: runConfigGet},
		{name: "config|set", arity: -4, flags: cf | skipMonitor, group: g, since: "2.0.0", summary: "Sets configuration parameters in-flight.", run: runConfigSet},
		{name: "config|resetstat", arity: 2, flags: cf, group: g, since: "2.0.0", summary: "Resets the server's statistics.", run: func(c *conn, _ *call) {
			c.w.error("ERR statistics are not reset: the console's metrics only grow")
		}},
		{name: "config|rewrite", arity: 2, flags: cf, group: g, since: "2.8.0", summary: "Persists the effective configuration to file.", run: func(c *conn, _ *call) {
			c.w.error("ERR The server is running without a config file")
		}},
		{name: "config|help", arity: 2, flags: loading | stale, group: g, since: "5.0.0", summary: "Returns helpful text about the different subcommands.", run: runHelp("CONFIG",
			"GET <pattern>", "    Return parameters matching the glob-like <pattern> and their values.",
			"SET <directive> <value>", "    Set the configuration <directive> to <value>: requirepass, maxclients, timeout.")},
	}}}
}

// config holds what CONFIG SET may change.
type config struct {
	mu struct {
		sync.RWMutex
		pass    []byte
		clients int
	}
	timeout atomic.Int64 // time.Duration; asked with every read
	fixed   map[string]string
}

func (cf *config) init(o Options) {
	cf.mu.pass = []byte(o.Password)
	cf.mu.clients = o.MaxClients
	cf.fixed = map[string]string{
		"appendfsync":               "always",
		"appendonly":                "yes",
		"client-query-buffer-limit": strconv.Itoa(o.QueryBytesMax),
		"cluster-enabled":           "yes",
		"databases":                 "1",
		"maxmemory":                 "0",
		"maxmemory-policy":          "noeviction",
		"proto-max-bulk-len":        strconv.Itoa(o.ValueBytesMax),
		"save":                      "",
	}
}

func (cf *config) password() (pass []byte, set bool) {
	cf.mu.RLock()
	defer cf.mu.RUnlock()
	return cf.mu.pass, len(cf.mu.pass) > 0
}

func (cf *config) passwordSet() bool {
	_, set := cf.password()
	return set
}

func (cf *config) maxClients() int {
	cf.mu.RLock()
	defer cf.mu.RUnlock()
	return cf.mu.clients
}

// idle is how long a client may say nothing, 0: for ever.
func (cf *config) idle() time.Duration { return time.Duration(cf.timeout.Load()) }

// all gives every parameter.
func (cf *config) all() map[string]string {
	values := map[string]string{}
	for name, v := range cf.fixed {
		values[name] = v
	}
	cf.mu.RLock()
	defer cf.mu.RUnlock()
	values["requirepass"] = string(cf.mu.pass)
	values["maxclients"] = strconv.Itoa(cf.mu.clients)
	values["timeout"] = strconv.Itoa(int(cf.idle() / time.Second))
	return values
}

func runConfigGet(c *conn, k *call) {
	values := c.s.config.all()
	var names []string
	for name := range values {
		for _, pattern := range k.args[2:] {
			if matchGlob(strings.ToLower(string(pattern)), name) {
				names = append(names, name)
				break
			}
		}
	}
	sort.Strings(names)
	c.w.dict(len(names))
	for _, name := range names {
		c.w.bulkString(name)
		c.w.bulkString(values[name])
	}
}

// runConfigSet checks all parameters before it sets one.
func runConfigSet(c *conn, k *call) {
	if len(k.args)%2 != 0 {
		c.w.error("ERR wrong number of arguments for 'config|set' command")
		return
	}
	cf := &c.s.config
	var apply []func()
	for i := 2; i < len(k.args); i += 2 {
		name, value := strings.ToLower(string(k.args[i])), string(k.args[i+1])
		n, err := strconv.Atoi(value)
		failed := func(why string) {
			c.w.error("ERR CONFIG SET failed (possibly related to argument '" + name + "') - " + why)
		}
		switch name {
		case "requirepass":
			if len(value) > 512 {
				failed("a password has at most 512 bytes")
				return
			}
			apply = append(apply, func() { cf.mu.pass = []byte(value) })
		case "maxclients":
			if err != nil || n < 1 {
				failed("argument must be between 1 and 4294967295 inclusive")
				return
			}
			apply = append(apply, func() { cf.mu.clients = n })
		case "timeout":
			if err != nil || n < 0 || n > 1<<31-1 {
				failed("argument must be between 0 and 2147483647 inclusive")
				return
			}
			apply = append(apply, func() { cf.timeout.Store(int64(time.Duration(n) * time.Second)) })
		default:
			if _, known := cf.fixed[name]; known {
				failed("can't set immutable config")
				return
			}
			c.w.error("ERR Unknown option or number of arguments for CONFIG SET - '" + name + "'")
			return
		}
	}
	cf.mu.Lock()
	defer cf.mu.Unlock()
	for _, f := range apply {
		f()
	}
	c.w.ok()
}

// matchGlob reports whether s matches a pattern of *, ?, [a-c], [^a] and \x.
func matchGlob(pattern, s string) bool {
	star, from := -1, 0 // where to take up again after a mismatch
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, from = p, i
			p++
			continue
		}
		if n, ok := matchOne(pattern[p:], s[i]); ok {
			p += n
			i++
			continue
		}
		if star < 0 {
			return false
		}
		from++
		p, i = star+1, from
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches one character, and says how long the pattern for it was.
func matchOne(pattern string, c byte) (n int, ok bool) {
	switch {
	case pattern == "":
		return 0, false
	case pattern[0] == '?':
		return 1, true
	case pattern[0] == '\\' && len(pattern) > 1:
		return 2, pattern[1] == c
	case pattern[0] == '[':
		return matchClass(pattern, c)
	}
	return 1, pattern[0] == c
}

func matchClass(pattern string, c byte) (n int, ok bool) {
	n = 1
	not := n < len(pattern) && pattern[n] == '^'
	if not {
		n++
	}
	for n < len(pattern) && pattern[n] != ']' {
		lo := pattern[n]
		if lo == '\\' && n+1 < len(pattern) {
			n++
			lo = pattern[n]
		}
		hi := lo
		if n+2 < len(pattern) && pattern[n+1] == '-' && pattern[n+2] != ']' {
			hi = pattern[n+2]
			n += 2
		}
		if lo > hi {
			lo, hi = hi, lo
		}
		ok = ok || lo <= c && c <= hi
		n++
	}
	return min(n+1, len(pattern)), ok != not
}
