package reader

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestConversations plays the files of testdata: events in, effects out. A file is
// run with -rewrite to record it anew; the difference is to be read.
//
//	new from=e1n1 until=e1n9 [all] [full] [nopayload] [filter] [window=10] [bytes=1000]
//	metadata through=2 1:1,2,3/2 2:3,4/2      since:nodes/copies
//	metadata error | metadata end
//	started N1 [released=e1n5] [status=AGAIN]
//	answer N1 [released=e1n5] [version=1] [status=NO_STREAM] DELIVERY...
//	   e1n1  e1n1=text  e1n1:hole  :bridge  :begin  :damaged  :batch     a record
//	   none/trim/checksum/filtered/under(e1n1-e1n5)                      a gap
//	fail N1                    the call under way fails
//	status N1 down             up, down, lost, emptied
//	take e1n4                  the application has everything below
//	wait ms                    time passes
//	health
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d conversations: %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			x := &talk{t: t, now: time.Second}
			datadriven.RunTest(t, f, x.command)
		})
	}
}

type talk struct {
	t       *testing.T
	core    *Core
	now     time.Duration
	calls   map[logs.ShardID]uint64
	reading map[logs.ShardID]bool // the call is a Next
	streams uint64
	bytes   map[LSN]int
	out     []string
}

func (x *talk) lsn(s string) LSN {
	l, err := logs.ParseLSN(s)
	if err != nil {
		x.t.Fatal(err)
	}
	return l
}

func node(s string) logs.ShardID {
	n, _ := strconv.Atoi(strings.TrimPrefix(s, "N"))
	return logs.MakeShard(catalog.NodeID(n), 0)
}

func (x *talk) command(t *testing.T, d *datadriven.TestData) string {
	x.out = nil
	// Several commands may stand in one block, a line each.
	lines := append([]string{d.Cmd + " " + args(d)}, strings.Split(d.Input, "\n")...)
	for _, line := range lines {
		if f := strings.Fields(line); len(f) > 0 {
			x.one(f[0], f[1:])
		}
	}
	if len(x.out) == 0 {
		return "ok"
	}
	return strings.Join(x.out, "\n")
}

func args(d *datadriven.TestData) string {
	var s []string
	for _, a := range d.CmdArgs {
		s = append(s, a.String())
	}
	return strings.Join(s, " ")
}

func (x *talk) one(cmd string, args []string) {
	value := func(key, otherwise string) string {
		for _, a := range args {
			if k, v, ok := strings.Cut(a, "="); ok && k == key {
				return v
			}
		}
		return otherwise
	}
	has := func(word string) bool {
		for _, a := range args {
			if a == word {
				return true
			}
		}
		return false
	}
	switch cmd {
	case "new":
		cfg := Config{Log: 7, From: x.lsn(value("from", "e1n1")), Until: x.lsn(value("until", "max")), SingleCopy: !has("all"),
			FullReadSet: has("full"), WithoutPayload: has("nopayload")}
		if has("filter") {
			cfg.Filter, cfg.FilterKey1 = logs.FilterEquality, []byte("k")
		}
		window, _ := strconv.Atoi(value("window", "100"))
		cfg.Window = uint64(window)
		cfg.BufferBytes, _ = strconv.Atoi(value("bytes", "0"))
		x.core = New(cfg)
		x.calls, x.reading, x.bytes = map[logs.ShardID]uint64{}, map[logs.ShardID]bool{}, map[LSN]int{}
		x.step(Begin{})
	case "metadata":
		x.metadata(args, value, has)
	case "started":
		x.streams++
		resp := &wire.ReadStartResponse{Stream: x.streams, FilterVersion: x.core.mode.version, LastReleased: uint64(x.lsn(value("released", "0")))}
		if s := value("status", ""); s != "" {
			resp = &wire.ReadStartResponse{Status: wire.LogStatus(wire.LogStatus_value["LOG_STATUS_"+s])}
		}
		x.step(Started{Shard: node(args[0]), Call: x.calls[node(args[0])], Resp: resp})
	case "answer":
		x.answer(args, value)
	case "fail":
		if n := node(args[0]); x.reading[n] {
			x.step(Answered{Shard: n, Call: x.calls[n], Err: errors.New("connection lost")})
		} else {
			x.step(Started{Shard: n, Call: x.calls[n], Err: errors.New("connection lost")})
		}
	case "status":
		status := map[string]ShardStatus{"up": ShardUp, "down": ShardDown, "lost": ShardLost, "emptied": ShardEmptied}[args[1]]
		x.step(Shard{Shard: node(args[0]), Status: status})
	case "take":
		next, bytes := x.lsn(args[0]), 0
		for lsn, n := range x.bytes {
			if lsn < next {
				bytes += n
				delete(x.bytes, lsn)
			}
		}
		x.step(Taken{Next: next, Bytes: bytes})
	case "wait":
		ms, _ := strconv.Atoi(args[0])
		x.now += time.Duration(ms) * time.Millisecond
		x.step(Wake{})
	case "health":
		h := x.core.Health()
		x.out = append(x.out, fmt.Sprintf("%s silent %v err %v", h.State, h.Silent, h.Err))
	default:
		x.t.Fatalf("no command %q", cmd)
	}
}

func (x *talk) metadata(args []string, value func(k, d string) string, has func(string) bool) {
	switch {
	case has("error"):
		x.step(Metadata{Err: errors.New("nobody answers")})
		return
	case has("end"):
		x.step(Metadata{End: logs.GapNotInConfig})
		return
	}
	through, _ := strconv.Atoi(value("through", "1"))
	ev := Metadata{Through: logs.Epoch(through)}
	for _, a := range args {
		since, rest, ok := strings.Cut(a, ":")
		if !ok {
			continue
		}
		nodes, copies, _ := strings.Cut(rest, "/")
		e := &wire.EpochMetadata{Replication: &catalog.Replication{}}
		n, _ := strconv.Atoi(since)
		e.EffectiveSince = uint32(n)
		n, _ = strconv.Atoi(copies)
		e.Replication.Node = uint32(n)
		for _, s := range strings.Split(nodes, ",") {
			e.Nodeset = append(e.Nodeset, uint64(node(s)))
		}
		ev.Entries = append(ev.Entries, e)
	}
	x.step(ev)
}

func (x *talk) answer(args []string, value func(k, d string) string) {
	resp := &wire.ReadNextResponse{FilterVersion: x.core.mode.version, LastReleased: uint64(x.lsn(value("released", "0")))}
	if v := value("version", ""); v != "" {
		n, _ := strconv.Atoi(v)
		resp.FilterVersion = uint64(n)
	}
	if s := value("status", ""); s != "" {
		resp.Status = wire.LogStatus(wire.LogStatus_value["LOG_STATUS_"+s])
	}
	for _, a := range args[1:] {
		if d := x.delivery(a); d != nil {
			resp.Deliveries = append(resp.Deliveries, d)
		}
	}
	x.step(Answered{Shard: node(args[0]), Call: x.calls[node(args[0])], Resp: resp})
}

func (x *talk) delivery(a string) *wire.Delivery {
	kinds := map[string]uint32{"none": logs.ServerGapNoRecords, "trim": logs.ServerGapTrim, "checksum": logs.ServerGapChecksum,
		"filtered": logs.ServerGapFilteredOut, "under": logs.ServerGapUnderReplicated}
	if kind, rest, ok := strings.Cut(strings.TrimSuffix(a, ")"), "("); ok {
		from, to, ok := strings.Cut(rest, "-")
		if !ok {
			to = from
		}
		return &wire.Delivery{Gap: kinds[kind], GapFrom: uint64(x.lsn(from)), GapTo: uint64(x.lsn(to))}
	}
	if !strings.HasPrefix(a, "e") {
		return nil
	}
	at, payload, _ := strings.Cut(a, "=")
	at, flag, _ := strings.Cut(at, ":")
	lsn := x.lsn(at)
	r := &wire.LogRecord{Log: 7, Lsn: uint64(lsn), Wave: 1, Count: 1, CountBefore: uint64(lsn.ESN()) - 1, Payload: []byte(payload)}
	switch flag {
	case "hole":
		r.Flags, r.Count = logs.FlagHole, 0
	case "bridge":
		r.Flags, r.Count = logs.FlagHole|logs.FlagBridge, 0
	case "begin":
		r.Flags = logs.FlagEpochBegin
	case "batch":
		var b logs.BatchBuilder
		for _, p := range strings.Split(payload, ",") {
			b.Add([]byte(p))
		}
		r.Flags, r.Count, r.Payload = logs.FlagBatch, uint32(b.Count()), b.AppendTo(nil, catalog.Compression_COMPRESSION_NONE)
	}
	r.Checksum = logs.Checksum(r.Payload)
	if flag == "damaged" {
		r.Checksum++
	}
	return &wire.Delivery{Record: r, CountBase: 1000, CountKnown: true}
}

func (x *talk) step(ev Event) {
	out := x.core.Step(x.now, ev)
	say := func(format string, args ...any) { x.out = append(x.out, fmt.Sprintf(format, args...)) }
	for _, it := range out.Items {
		say("%s", describe(it))
		x.bytes[it.LSN] = it.Bytes
	}
	if out.AskMetadata != 0 {
		say("ask metadata of epoch %d, released %v", out.AskMetadata, out.Released)
	}
	for _, s := range out.Stops {
		say("%s STOP", s.Shard)
	}
	for _, s := range out.Starts {
		x.calls[s.Shard], x.reading[s.Shard] = s.Call, false
		mode := "all"
		if s.Req.Flags&logs.ReadSingleCopy != 0 {
			mode = "single copy"
		}
		line := fmt.Sprintf("%s START v%d from %s until %s high %s %s", s.Shard, s.Req.FilterVersion, LSN(s.Req.From), LSN(s.Req.Until), LSN(s.Req.WindowHigh), mode)
		if s.Req.Stream != 0 {
			line += " same stream"
		}
		for _, o := range s.Req.FilteredOut {
			line += " without " + logs.ShardID(o).String()
		}
		say("%s", line)
	}
	for _, n := range out.Nexts {
		x.calls[n.Shard], x.reading[n.Shard] = n.Call, true
		say("%s NEXT high %s", n.Shard, LSN(n.Req.WindowHigh))
	}
	if out.Done {
		say("done")
	}
	if out.Wake != 0 {
		say("wake in %s", out.Wake-x.now)
	}
}

func describe(it Item) string {
	if it.Record == nil {
		return fmt.Sprintf("gap %s [%s, %s]", it.Gap, it.LSN, it.To)
	}
	s := fmt.Sprintf("record %s", it.LSN)
	for i, p := range it.Payloads {
		s += fmt.Sprintf(" %d:%q", i, p)
	}
	if it.OffsetKnown {
		s += fmt.Sprintf(" offset %d", it.Offset)
	}
	return s
}
