package redis

import (
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Server: INFO TIME ROLE WAIT LASTSAVE MONITOR DEBUG SLEEP, DEBUGSLEEP, LATENCY.
//
//   - INFO names Redis's fields where there is something true to say, and more in
//     the sections that the node adds.
//   - WAIT answers at once how many replicas, besides the leader, are known to hold
//     all writes of this connection durably: a write is answered only when a
//     majority holds it, and which others hold it by now is not asked.
//   - MONITOR shows the commands that come to this node.
//   - LASTSAVE is now: everything answered is on disk.
func serverCommands() []*command {
	const g = "server"
	return []*command{
		{name: "info", arity: -1, flags: loading | stale, group: g, since: "1.0.0", summary: "Returns information and statistics about the server.", run: runInfo},
		{name: "time", arity: 1, flags: loading | stale | fast, group: g, since: "2.6.0", summary: "Returns the server time.", run: func(c *conn, _ *call) {
			now := c.s.opts.Clock()
			c.w.array(2)
			c.w.bulkString(strconv.FormatInt(now.Unix(), 10))
			c.w.bulkString(strconv.Itoa(now.Nanosecond() / 1000))
		}},
		{name: "lastsave", arity: 1, flags: loading | stale | fast, group: g, since: "1.0.0", summary: "Returns the Unix timestamp of the last successful save to disk.", run: func(c *conn, _ *call) { c.w.int(c.s.opts.Clock().Unix()) }},
		{name: "role", arity: 1, flags: noscript | loading | stale | fast, group: g, since: "2.8.12", summary: "Returns the replication role.", run: func(c *conn, _ *call) {
			c.w.array(3)
			c.w.bulkString("master")
			c.w.int(0)
			c.w.array(0)
		}},
		{name: "wait", arity: 3, flags: noMulti, group: "generic", since: "3.0.0", summary: "Blocks until the asynchronous replication of all preceding write commands sent by the connection is completed.", run: runWait},
		{name: "monitor", arity: 1, flags: admin | noscript | loading | stale | noMulti, group: g, since: "1.0.0", summary: "Listens for all requests received by the server in real-time.", run: runMonitor},
		{name: "debugsleep", arity: 2, flags: admin | noMulti, group: g, since: "1.0.0", summary: "Makes this connection wait, in milliseconds (at most a minute).", run: func(c *conn, k *call) {
			ms, ok := parseInt(k.args[1])
			if !ok || ms < 0 {
				c.w.error(string(errNotPositive))
				return
			}
			c.sleep(time.Duration(min(ms, int64(sleepMax/time.Millisecond))) * time.Millisecond)
			c.w.ok()
		}},
		{name: "debug", arity: -2, flags: admin | noscript | loading | stale, group: g, since: "1.0.0", summary: "A container for debugging commands.", subs: []*command{
			{name: "debug|sleep", arity: 3, flags: admin | noscript | noMulti, group: g, since: "1.0.0", summary: "Makes this connection wait, in seconds (at most a minute).", run: func(c *conn, k *call) {
				f, ok := parseFloat(k.args[2])
				if !ok || f < 0 {
					c.w.error(string(errNotFloat))
					return
				}
				c.sleep(time.Duration(min(f, sleepMax.Seconds()) * float64(time.Second)))
				c.w.ok()
			}},
		}},
		{name: "latency", arity: -2, flags: admin | noscript | loading | stale, group: g, since: "2.8.13", summary: "A container for latency diagnostics commands.", subs: []*command{
			{name: "latency|latest", arity: 2, flags: admin | noscript | loading | stale, group: g, since: "2.8.13", summary: "Returns the latest latency samples for all events. None are kept: see the console's metrics.", run: func(c *conn, _ *call) { c.w.array(0) }},
			{name: "latency|history", arity: 3, flags: admin | noscript | loading | stale, group: g, since: "2.8.13", summary: "Returns timestamp-latency samples for an event. None are kept: see the console's metrics.", run: func(c *conn, _ *call) { c.w.array(0) }},
			{name: "latency|reset", arity: -2, flags: admin | noscript | loading | stale, group: g, since: "2.8.13", summary: "Resets the latency data for one or more events.", run: func(c *conn, _ *call) { c.w.int(0) }},
		}},
	}
}

// runWait: WAIT numreplicas timeout.
func runWait(c *conn, k *call) {
	if _, ok := parseInt(k.args[1]); !ok {
		c.w.error(string(errNotInteger))
		return
	}
	timeout, ok := parseInt(k.args[2])
	if !ok {
		c.w.error(string(errTimeout))
		return
	}
	if timeout < 0 {
		c.w.error("ERR timeout is negative")
		return
	}
	if c.copies == 0 {
		// Nothing was written: what a write would at least be answered with.
		tablets, err := c.s.table.Tablets(c.s.ctx)
		if err != nil {
			c.w.error(errorLine(failure(err)))
			return
		}
		least := -1
		for _, t := range tablets {
			voters := 0
			for _, r := range t.Replicas {
				if !r.Learner {
					voters++
				}
			}
			if least < 0 || voters/2 < least {
				least = voters / 2
			}
		}
		c.w.int(int64(max(least, 0)))
		return
	}
	c.w.int(int64(c.copies) - 1)
}

func runInfo(c *conn, k *call) {
	wanted := map[string]bool{}
	all := len(k.args) == 1
	for _, a := range k.args[1:] {
		name := strings.ToLower(string(a))
		wanted[name] = true
		if name == "all" || name == "everything" || name == "default" {
			all = true
		}
		wanted["commandstats"] = wanted["commandstats"] || name == "all" || name == "everything"
	}
	c.w.verbatim(c.s.infoText(c.now, func(section string, standard bool) bool {
		return wanted[section] || all && standard
	}))
}

// infoText writes the sections that are wanted.
func (s *Server) infoText(now time.Time, wanted func(section string, standard bool) bool) string {
	sections := s.infoSections(now)
	if s.opts.Info != nil {
		for _, extra := range s.opts.Info() {
			sections = mergeInfo(sections, extra)
		}
	}
	var b strings.Builder
	for _, sec := range sections {
		if !wanted(strings.ToLower(sec.Name), sec.Name != "Commandstats") {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("# " + sec.Name + "\r\n")
		for _, f := range sec.Fields {
			b.WriteString(f.Name + ":" + f.Value + "\r\n")
		}
	}
	return b.String()
}

// mergeInfo replaces or appends the fields of a section, or appends the section.
func mergeInfo(sections []InfoSection, extra InfoSection) []InfoSection {
	for i := range sections {
		sec := &sections[i]
		if !strings.EqualFold(sec.Name, extra.Name) {
			continue
		}
	fields:
		for _, f := range extra.Fields {
			for j := range sec.Fields {
				if sec.Fields[j].Name == f.Name {
					sec.Fields[j] = f
					continue fields
				}
			}
			sec.Fields = append(sec.Fields, f)
		}
		return sections
	}
	return append(sections, extra)
}

func (s *Server) infoSections(now time.Time) []InfoSection {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	u := func(v uint64) string { return strconv.FormatUint(v, 10) }
	uptime := int64(now.Sub(s.started) / time.Second)
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	calls := uint64(0)
	var commands []InfoField
	for _, st := range s.metrics.Commands() {
		calls += st.Calls
		perCall := 0.0
		if st.Calls > 0 {
			perCall = float64(st.Total.Microseconds()) / float64(st.Calls)
		}
		commands = append(commands, InfoField{"cmdstat_" + st.Name, "calls=" + u(st.Calls) + ",usec=" + n(st.Total.Microseconds()) +
			",usec_per_call=" + strconv.FormatFloat(perCall, 'f', 2, 64) + ",rejected_calls=" + u(st.Rejected) + ",failed_calls=" + u(st.Failed)})
	}
	m := &s.metrics
	s.mu.Lock()
	open := len(s.mu.conns)
	s.mu.Unlock()
	return []InfoSection{
		{"Server", []InfoField{
			{"redis_version", Version}, {"braid_version", s.opts.BraidVersion}, {"redis_mode", "cluster"},
			{"os", runtime.GOOS + " " + runtime.GOARCH}, {"arch_bits", strconv.Itoa(strconv.IntSize)}, {"go_version", runtime.Version()},
			{"run_id", nodeID(s.opts.NodeID)}, {"cluster_id", s.opts.ClusterID},
			{"server_time_usec", n(now.UnixMicro())}, {"uptime_in_seconds", n(uptime)}, {"uptime_in_days", n(uptime / 86400)},
		}},
		{"Clients", []InfoField{
			{"connected_clients", strconv.Itoa(open)}, {"maxclients", strconv.Itoa(s.config.maxClients())},
			{"blocked_clients", "0"}, {"monitor_clients", strconv.Itoa(int(s.monitors.Load()))},
		}},
		{"Memory", []InfoField{
			{"used_memory", u(mem.HeapAlloc)}, {"used_memory_rss", u(mem.Sys)}, {"mem_query_buffers", n(s.buffers.Load())},
			{"maxmemory", "0"}, {"maxmemory_policy", "noeviction"},
		}},
		{"Persistence", []InfoField{{"loading", "0"}, {"aof_enabled", "1"}, {"rdb_bgsave_in_progress", "0"}, {"aof_rewrite_in_progress", "0"}}},
		{"Stats", []InfoField{
			{"total_connections_received", u(m.Connections.Load())}, {"total_commands_processed", u(calls)},
			{"total_net_input_bytes", u(m.BytesIn.Load())}, {"total_net_output_bytes", u(m.BytesOut.Load())},
			{"rejected_connections", u(m.Rejected.Load())}, {"total_error_replies", u(m.Errors.Load())},
			{"client_output_buffer_limit_disconnections", u(m.SlowReaders.Load())}, {"protocol_errors", u(m.ProtocolErrors.Load())},
		}},
		{"Replication", []InfoField{{"role", "master"}, {"connected_slaves", "0"}}},
		{"CPU", []InfoField{{"num_goroutines", strconv.Itoa(runtime.NumGoroutine())}}},
		{"Cluster", []InfoField{{"cluster_enabled", "1"}}},
		{"Keyspace", nil},
		{"Commandstats", commands},
	}
}

// runMonitor makes the connection one that watches all others.
func runMonitor(c *conn, _ *call) {
	if !c.info.monitor.Swap(true) {
		c.s.monitors.Add(1)
	}
	c.w.ok()
}

// feedMonitors shows a command to those who watch. A monitor that does not read
// is disconnected by its output limit.
func (s *Server) feedMonitors(from *conn, args [][]byte) {
	line := append([]byte{'+'}, strconv.FormatInt(from.now.Unix(), 10)...)
	micros := strconv.Itoa(from.now.Nanosecond() / 1000)
	line = append(line, '.')
	line = append(append(line, "000000"[:6-len(micros)]...), micros...)
	line = append(append(append(line, " [0 "...), from.remote...), ']')
	for _, a := range args {
		line = append(line, ' ')
		line = appendQuoted(line, a)
	}
	line = append(line, '\r', '\n')
	for _, c := range s.connections() {
		if !c.info.monitor.Load() {
			continue
		}
		if _, err := c.box.write(append([]byte(nil), line...)); err != nil {
			c.kill()
		}
	}
}

// appendQuoted writes an argument as Redis prints it.
func appendQuoted(dst, a []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range a {
		switch {
		case c == '\\' || c == '"':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c == '\a':
			dst = append(dst, '\\', 'a')
		case c == '\b':
			dst = append(dst, '\\', 'b')
		case c < ' ' || c > '~':
			dst = append(dst, '\\', 'x', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
