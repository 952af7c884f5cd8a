package redis

import (
	"crypto/sha256"
	"crypto/subtle"
	"time"
)

// The connection itself: AUTH HELLO PING ECHO QUIT RESET SELECT READONLY READWRITE
// ASKING, and YugabyteDB's CREATEDB LISTDB DELETEDB.
//
//   - AUTH takes a password, or the user "default" and a password; there are no
//     other users. Until then a client may only AUTH, HELLO, RESET and QUIT, and
//     small limits hold for what it sends.
//   - HELLO chooses RESP2 or RESP3.
//   - There is one database, 0.
//   - READONLY, READWRITE and ASKING are accepted and change nothing: every node
//     serves every key, and reads are always linearizable.
func connectionCommands() []*command {
	const g = "connection"
	ok := func(c *conn, _ *call) { c.w.ok() }
	return []*command{
		{name: "auth", arity: -2, flags: noscript | loading | stale | fast | noAuth | skipMonitor, group: g, since: "1.0.0", summary: "Authenticates the connection.", run: runAuth},
		{name: "hello", arity: -1, flags: noscript | loading | stale | fast | noAuth | skipMonitor, group: g, since: "6.0.0", summary: "Handshakes with the Redis server.", run: runHello},
		{name: "ping", arity: -1, flags: fast, group: g, since: "1.0.0", summary: "Returns the server's liveliness response.", run: runPing},
		{name: "echo", arity: 2, flags: loading | stale | fast, group: g, since: "1.0.0", summary: "Returns the given string.", run: func(c *conn, k *call) { c.w.bulk(k.args[1]) }},
		{name: "quit", arity: -1, flags: noscript | loading | stale | fast | noAuth | inMulti, group: g, since: "1.0.0", summary: "Closes the connection.", run: func(c *conn, _ *call) {
			c.w.ok()
			c.closing = true
		}},
		{name: "reset", arity: 1, flags: noscript | loading | stale | fast | noAuth | inMulti, group: g, since: "6.2.0", summary: "Resets the connection.", run: runReset},
		{name: "select", arity: 2, flags: loading | stale | fast, group: g, since: "1.0.0", summary: "Changes the selected database.", run: func(c *conn, k *call) {
			if n, ok := parseInt(k.args[1]); !ok {
				c.w.error(string(errNotInteger))
			} else if n != 0 {
				c.w.error("ERR DB index is out of range")
			} else {
				c.w.ok()
			}
		}},
		{name: "createdb", arity: 2, flags: admin, group: g, since: "1.0.0", summary: "Creates a database. There is only database 0.", run: func(c *conn, k *call) {
			if text(k.args[1]) == "0" {
				c.w.error("ERR database 0 exists already")
				return
			}
			c.w.error(string(errOnlyDB0) + "; others cannot be created")
		}},
		{name: "listdb", arity: 1, flags: fast, group: g, since: "1.0.0", summary: "Lists the databases.", run: func(c *conn, _ *call) {
			c.w.array(1)
			c.w.bulkString("0")
		}},
		{name: "deletedb", arity: 2, flags: admin, group: g, since: "1.0.0", summary: "Deletes a database. There is only database 0.", run: func(c *conn, k *call) {
			c.w.error(string(errOnlyDB0) + ", and it cannot be deleted; FLUSHALL empties it")
		}},
		{name: "readonly", arity: 1, flags: loading | stale | fast, group: "cluster", since: "3.0.0", summary: "Enables read-only queries for a connection to a Redis Cluster replica node.", run: ok},
		{name: "readwrite", arity: 1, flags: loading | stale | fast, group: "cluster", since: "3.0.0", summary: "Enables read-write queries for a connection to a Reids Cluster replica node.", run: ok},
		{name: "asking", arity: 1, flags: fast, group: "cluster", since: "3.0.0", summary: "Signals that a cluster client is following an -ASK redirect.", run: ok},
	}
}

// unknownCommand quotes a command as Redis does: 128 bytes of its name, and
// arguments until there are 128 bytes of them.
func unknownCommand(args [][]byte) error {
	b := append([]byte("ERR unknown command '"), args[0][:min(len(args[0]), 128)]...)
	b = append(b, "', with args beginning with: "...)
	room := 128
	for _, a := range args[1:] {
		if room <= 0 {
			break
		}
		a = a[:min(len(a), room)]
		b = append(append(append(b, '\''), a...), "' "...)
		room -= len(a) + 3
	}
	return replyError(b)
}

func unknownSubcommand(cmd *command, name []byte) error {
	return replyError("ERR unknown subcommand '" + string(name[:min(len(name), 128)]) + "'. Try " + upper(cmd.name) + " HELP.")
}

func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 0x20
		}
	}
	return string(b)
}

// crossProtocol closes the connection of a web browser that was tricked into
// sending a request here.
func (c *conn) crossProtocol(name []byte) bool {
	if !fold(name, "post") && !fold(name, "host:") {
		return false
	}
	c.s.opts.Logger.Warn("redis: possible cross-protocol attack, connection closed", "client", c.remote)
	c.settle()
	c.closing = true
	return true
}

func runPing(c *conn, k *call) {
	switch len(k.args) {
	case 1:
		c.w.simple("PONG")
	case 2:
		c.w.bulk(k.args[1])
	default:
		c.w.error("ERR wrong number of arguments for 'ping' command")
	}
}

func runReset(c *conn, _ *call) {
	c.leaveMulti()
	if c.info.monitor.Swap(false) {
		c.s.monitors.Add(-1)
	}
	c.w.resp3 = false
	c.info.resp3.Store(false)
	c.mode = replyOn
	c.info.mu.Lock()
	c.info.mu.name = ""
	c.info.mu.Unlock()
	c.setAuthenticated(!c.s.config.passwordSet())
	c.w.simple("RESET")
}

func (c *conn) setAuthenticated(yes bool) {
	c.authenticated = yes
	c.parser.unauth = !yes
}

// passwordFits compares in time that does not depend on either password.
func passwordFits(given, want []byte) bool {
	a, b := sha256.Sum256(given), sha256.Sum256(want)
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// login checks a user and password; text is the error, empty if they are right.
func (c *conn) login(user, password []byte) (problem string) {
	want, set := c.s.config.password()
	isDefault := string(user) == "default"
	if !passwordFits(password, want) && set || !isDefault {
		c.s.opts.Logger.Info("redis: wrong password", "client", c.remote)
		return string(errWrongPass)
	}
	c.setAuthenticated(true)
	return ""
}

func runAuth(c *conn, k *call) {
	user, password := []byte("default"), k.args[len(k.args)-1]
	switch len(k.args) {
	case 2:
		if !c.s.config.passwordSet() {
			c.w.error("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
			return
		}
	case 3:
		user = k.args[1]
	default:
		c.w.error(string(errSyntax))
		return
	}
	if problem := c.login(user, password); problem != "" {
		c.w.error(problem)
		return
	}
	c.w.ok()
}

// runHello: HELLO [protover [AUTH user password] [SETNAME name]].
func runHello(c *conn, k *call) {
	version := int64(0)
	if len(k.args) > 1 {
		var ok bool
		if version, ok = parseInt(k.args[1]); !ok {
			c.w.error("ERR Protocol version is not an integer or out of range")
			return
		}
		if version != 2 && version != 3 {
			c.w.error("NOPROTO unsupported protocol version")
			return
		}
	}
	var name []byte
	for i := 2; i < len(k.args); i++ {
		switch a := k.args[i]; {
		case fold(a, "auth") && i+2 < len(k.args):
			if problem := c.login(k.args[i+1], k.args[i+2]); problem != "" {
				c.w.error(problem)
				return
			}
			i += 2
		case fold(a, "setname") && i+1 < len(k.args):
			i++
			if name = k.args[i]; !plainName(name) {
				c.w.error(errClientName)
				return
			}
		default:
			c.w.error("ERR Syntax error in HELLO option '" + string(a) + "'")
			return
		}
	}
	if !c.authenticated {
		c.w.error("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
		return
	}
	if name != nil {
		c.setName(name)
	}
	if version != 0 {
		c.w.resp3 = version == 3
		c.info.resp3.Store(version == 3)
	}
	w := &c.w
	w.dict(7)
	w.bulkString("server")
	w.bulkString("redis")
	w.bulkString("version")
	w.bulkString(Version)
	w.bulkString("proto")
	w.int(map[bool]int64{true: 3, false: 2}[w.resp3])
	w.bulkString("id")
	w.int(int64(c.id))
	w.bulkString("mode")
	w.bulkString("cluster")
	w.bulkString("role")
	w.bulkString("master")
	w.bulkString("modules")
	w.array(0)
}

// sleep stops this connection, and no other, for a while.
func (c *conn) sleep(d time.Duration) { c.s.pause(min(d, sleepMax)) }

// sleepMax bounds DEBUG SLEEP, so that a connection cannot be lost in it.
const sleepMax = time.Minute
