package recovery

import (
	"errors"
	"fmt"
	"math/rand/v2"
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

// TestConversations plays the files of testdata: calls out, answers in. A file is
// run with -rewrite to record it anew; the difference is to be read.
//
//	shards n=4 [copies=2] [racks=2]    storage shards, empty; R; the replication property over racks
//	epoch next=3 [clean=0] [since=1] [tail=e1n4 count=4] [nodeset=(1,2,3)]
//	                                   what the epoch store has; metadata from epoch `since` on
//	metadata since=1 nodeset=(1,2) on=(1,2,3)   a record of the metadata log
//	put at=e1n2 on=(1,2) [wave=1] [seal=2] [hole] [bridge] [stream] [good=1] [count=1] [before=0] [text=x] [set=(1,2)]
//	                                   copies; of recovery where seal is given
//	lost on=1                          the end of its journal: all up to the epoch that reigns is in doubt
//	taken at=e1n2 on=1 set=(1,2)       a copy that others have, taken back; then nothing is in doubt
//	good epoch=1 n=3 on=(1,2)          they know that e1n3 is fully stored, with all before
//	damage at=e1n2 on=1    trim at=e1n2 on=1   doubt on=1   sure on=1   torn epoch=1 on=1   readonly on=1   writable on=1   empty on=1
//	down on=1   up on=1   lose on=1    answers fail; come again; what it had is gone for good
//	seal on=1 epoch=5                  by somebody newer
//	recover own=3                      begins, and is answered until nothing is left
//	   [name=a] [hold=(STORE)]         calls of these kinds are kept
//	release [name=a] [n=1]             held calls are answered, the first n
//	wait ms=100 [name=a]               time passes
//	conflict                           the epoch store was changed by somebody else
//	purge on=3 to=2                    a shard makes epochs clean up to one
//	dump                               what is on the shards
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d conversations: %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			x := &talk{t: t, named: map[string]*talker{}}
			datadriven.RunTest(t, f, x.command)
		})
	}
}

type talk struct {
	t      *testing.T
	now    time.Duration
	view   *fakeView
	r      *catalog.Replication
	record *wire.EpochRecord
	named  map[string]*talker
	out    strings.Builder
}

// talker is one core under way.
type talker struct {
	core interface {
		step(time.Duration, event) effects
	}
	own  *fakeShard // of a purge
	hold []string
	kept []call
	out  []call // not answered yet
	wake time.Duration
}

var errDown = errors.New("unreachable")

const talkLog = logs.LogID(7)

func (x *talk) say(format string, args ...any) { fmt.Fprintf(&x.out, format+"\n", args...) }

func (x *talk) command(t *testing.T, d *datadriven.TestData) string {
	x.t = t
	x.out.Reset()
	switch d.Cmd {
	case "shards":
		x.shards(d)
	case "epoch", "metadata":
		x.epochs(d)
	case "put":
		x.put(d)
	case "taken":
		x.put(d)
		for _, f := range x.places(d, "on") {
			f.sure = f.doubtTo
		}
	case "recover":
		x.recover(d)
	case "purge":
		x.purge(d)
	case "release":
		k := x.talker(d)
		n := len(k.kept)
		if d.HasArg("n") {
			d.ScanArgs(t, "n", &n)
		}
		calls := k.kept[:n:n]
		k.kept, k.hold = k.kept[n:], nil
		k.out = append(k.out, calls...)
		x.settle(k)
	case "wait":
		var ms int
		d.ScanArgs(t, "ms", &ms)
		x.wait(x.talker(d), time.Duration(ms)*time.Millisecond)
	case "conflict":
		x.record = &wire.EpochRecord{Version: x.record.Version + 1, Metadata: x.record.Metadata, LastCleanEpoch: x.record.LastCleanEpoch, Tail: x.record.Tail}
	case "dump":
		for _, f := range x.view.shards {
			if !f.gone {
				x.say("%s", f.dump())
			}
		}
	default:
		x.change(d)
	}
	return x.out.String()
}

func (x *talk) shards(d *datadriven.TestData) {
	n, copies, racks := 0, 2, 0
	d.ScanArgs(x.t, "n", &n)
	d.MaybeScanArgs(x.t, "copies", &copies)
	d.MaybeScanArgs(x.t, "racks", &racks)
	x.r = &catalog.Replication{Node: uint32(copies), Rack: uint32(racks)}
	x.view = &fakeView{readOnly: map[logs.ShardID]bool{}, empty: map[logs.ShardID]bool{}}
	for i := range n {
		x.view.shards = append(x.view.shards, newFakeShard(logs.MakeShard(catalog.NodeID(i+1), 0)))
	}
}

// meta makes metadata for the nodes named, or all of them; odd ones are in one
// rack, even ones in another.
func (x *talk) meta(d *datadriven.TestData, since int) *wire.EpochMetadata {
	m := &wire.EpochMetadata{EffectiveSince: uint32(since), Replication: x.r}
	for i, f := range x.view.shards {
		if len(x.places(d, "nodeset")) == 0 || contains(x.places(d, "nodeset"), f) {
			m.Nodeset = append(m.Nodeset, uint64(f.id))
			m.Locations = append(m.Locations, fmt.Sprintf("r/z/k%d", i%2))
		}
	}
	return m
}

func contains(fs []*fakeShard, f *fakeShard) bool {
	for _, o := range fs {
		if o == f {
			return true
		}
	}
	return false
}

func (x *talk) epochs(d *datadriven.TestData) {
	since := 1
	d.MaybeScanArgs(x.t, "since", &since)
	if d.Cmd == "metadata" {
		for _, f := range x.places(d, "on") {
			f.metadata = append(f.metadata, x.meta(d, since))
		}
		return
	}
	next, clean, count, version := 0, 0, 0, 10
	d.ScanArgs(x.t, "next", &next)
	d.MaybeScanArgs(x.t, "clean", &clean)
	d.MaybeScanArgs(x.t, "count", &count)
	d.MaybeScanArgs(x.t, "version", &version)
	m := x.meta(d, since)
	m.Epoch = uint32(next)
	x.record = &wire.EpochRecord{Version: uint64(version), Metadata: m, LastCleanEpoch: uint32(clean)}
	if d.HasArg("tail") {
		x.record.Tail = &wire.TailRecord{Log: uint64(talkLog), Lsn: uint64(x.lsn(d, "tail")), TimestampMs: 1000, Count: uint64(count)}
	}
}

func (x *talk) lsn(d *datadriven.TestData, key string) logs.LSN {
	var s string
	d.ScanArgs(x.t, key, &s)
	l, err := logs.ParseLSN(s)
	if err != nil {
		x.t.Fatal(err)
	}
	return l
}

// places finds shards by their nodes' numbers.
func (x *talk) places(d *datadriven.TestData, key string) (out []*fakeShard) {
	for _, a := range d.CmdArgs {
		if a.Key != key {
			continue
		}
		for _, v := range a.Vals {
			n, err := strconv.Atoi(v)
			if err != nil {
				x.t.Fatal(err)
			}
			out = append(out, x.view.shards[n-1])
		}
	}
	return out
}

func (x *talk) put(d *datadriven.TestData) {
	wave, seal, good, count, before, text := 1, 0, 0, 1, -1, ""
	for key, to := range map[string]*int{"wave": &wave, "seal": &seal, "good": &good, "count": &count, "before": &before} {
		d.MaybeScanArgs(x.t, key, to)
	}
	lsn := x.lsn(d, "at")
	if before < 0 {
		before = int(lsn.ESN()) - 1
	}
	text = lsn.String()
	d.MaybeScanArgs(x.t, "text", &text)
	r := &wire.LogRecord{Log: uint64(talkLog), Lsn: uint64(lsn), Wave: uint32(wave), TimestampMs: 1000 + int64(lsn.ESN()),
		Count: uint32(count), CountBefore: uint64(before), Payload: []byte(text), LastKnownGood: uint32(good)}
	if seal > 0 {
		r.Wave, r.Flags = uint32(seal), logs.FlagWrittenByRecovery
	}
	for flag, bit := range map[string]uint32{"hole": logs.FlagHole, "bridge": logs.FlagHole | logs.FlagBridge} {
		if d.HasArg(flag) {
			r.Flags, r.Payload, r.Count = r.Flags|bit, nil, 0
		}
	}
	if d.HasArg("stream") {
		r.Flags |= logs.FlagStream
	}
	set := x.places(d, "set")
	if len(set) == 0 {
		set = x.places(d, "on")
	}
	for _, f := range set {
		r.Copyset = append(r.Copyset, uint64(f.id))
	}
	for _, f := range x.places(d, "on") {
		f.copies[lsn] = append(f.copies[lsn], r)
		f.good[lsn.Epoch()] = max(f.good[lsn.Epoch()], logs.ESN(good))
	}
}

// change is what happens to shards.
func (x *talk) change(d *datadriven.TestData) {
	for _, f := range x.places(d, "on") {
		switch d.Cmd {
		case "down":
			f.up, f.unnoticed = false, false
		case "cut":
			f.up, f.unnoticed = false, true
		case "up":
			f.up, f.unnoticed = true, false
		case "lose":
			f.up, f.gone = false, true
		case "readonly":
			x.view.readOnly[f.id] = true
		case "writable":
			delete(x.view.readOnly, f.id)
		case "empty":
			x.view.empty[f.id] = true
		case "doubt":
			f.doubt = true
		case "sure":
			f.doubt = false
		case "torn":
			var e int
			d.ScanArgs(x.t, "epoch", &e)
			f.torn[logs.Epoch(e)] = true
		case "lost":
			f.lose(0)
			f.fence(logs.Epoch(x.record.Metadata.Epoch))
		case "damage":
			f.damaged[x.lsn(d, "at")] = true
		case "trim":
			f.trim = x.lsn(d, "at")
		case "good":
			var e, n int
			d.ScanArgs(x.t, "epoch", &e)
			d.ScanArgs(x.t, "n", &n)
			f.good[logs.Epoch(e)] = logs.ESN(n)
		case "seal":
			var e int
			d.ScanArgs(x.t, "epoch", &e)
			f.hard = logs.Epoch(e)
		default:
			x.t.Fatalf("%s: unknown", d.Cmd)
		}
	}
}

func (x *talk) talker(d *datadriven.TestData) *talker {
	name := "a"
	d.MaybeScanArgs(x.t, "name", &name)
	if x.named[name] == nil {
		x.named[name] = &talker{}
	}
	return x.named[name]
}

var talkConfig = Config{}.withDefaults()

func (x *talk) recover(d *datadriven.TestData) {
	var own int
	d.ScanArgs(x.t, "own", &own)
	k := x.talker(d)
	k.hold = nil
	for _, a := range d.CmdArgs {
		if a.Key == "hold" {
			k.hold = a.Vals
		}
	}
	k.core = newLogRecovery(&talkConfig, &honest, rand.New(rand.NewPCG(1, 1)), x.view, 9, Args{Log: talkLog, UpTo: logs.Epoch(own - 1),
		Own: logs.Epoch(own), Metadata: []*wire.EpochMetadata{x.record.Metadata}, Record: x.record})
	x.step(k, event{kind: evStart})
	x.settle(k)
}

func (x *talk) purge(d *datadriven.TestData) {
	var to int
	d.ScanArgs(x.t, "to", &to)
	f := x.places(d, "on")[0]
	k := x.talker(d)
	k.own = f
	k.core = newPurge(&talkConfig, x.view, f.id.Node(), f.id, talkLog, f.clean, logs.Epoch(to))
	x.step(k, event{kind: evStart})
	x.settle(k)
}

func (x *talk) step(k *talker, ev event) {
	fx := k.core.step(x.now, ev)
	if fx.result != nil {
		r := fx.result
		x.say("= %s tail=%s count=%d base=%d %s", strings.TrimPrefix(r.Status.String(), "LOG_STATUS_"), logs.LSN(r.Tail.GetLsn()), r.Tail.GetCount(), r.CountBase, r.Message)
	}
	if fx.done {
		x.say("= purged")
	}
	k.wake = fx.wake
	k.out = append(k.out, fx.calls...)
}

// settle answers calls in the order in which they were made.
func (x *talk) settle(k *talker) {
	for len(k.out) > 0 {
		c := k.out[0]
		k.out = k.out[1:]
		name := sayCall(c)
		held := false
		for _, h := range k.hold {
			held = held || strings.HasPrefix(name, h)
		}
		if held {
			x.say("%s (kept)", name)
			k.kept = append(k.kept, c)
			continue
		}
		ev := x.answer(k, c)
		x.say("%s -> %s", name, sayAnswer(ev))
		x.step(k, ev)
	}
}

func (x *talk) answer(k *talker, c call) event {
	switch c.kind {
	case callRead:
		return event{kind: evAnswer, of: bare(c), record: x.record}
	case callSwap:
		if c.expect != x.record.Version {
			return event{kind: evAnswer, of: bare(c), err: errors.New("conflict")}
		}
		x.record = c.next
		return event{kind: evAnswer, of: bare(c), record: x.record}
	case callDelete, callMark:
		return k.own.answer(c)
	}
	if f := x.view.find(c.shard); f.up {
		return f.answer(c)
	}
	return event{kind: evAnswer, of: bare(c), err: errDown}
}

func (x *talk) wait(k *talker, d time.Duration) {
	end := x.now + d
	for k.wake > 0 && k.wake <= end {
		x.now = max(x.now, k.wake)
		x.step(k, event{kind: evTimer})
		x.settle(k)
	}
	x.now = end
}

func sayCall(c call) string {
	to := fmt.Sprintf("N%d", c.shard.Node())
	switch c.kind {
	case callMetadata:
		return "METADATA " + to
	case callSeal:
		return fmt.Sprintf("SEAL %s up to %d", to, c.seal.Epoch)
	case callDigest:
		return fmt.Sprintf("DIGEST %s from e%dn%d seal=%d", to, c.digest.Epoch, c.digest.From, c.digest.SealEpoch)
	case callStore:
		amend := ""
		if c.store.Amend {
			amend = "amend "
		}
		return fmt.Sprintf("STORE %s %s %s%s", to, logs.LSN(c.store.Record.Lsn), amend, say(c.store.Record))
	case callClean:
		r := c.clean
		return fmt.Sprintf("CLEAN %s e%d good=%d last=%d tail=%s/%d base=%d count=%d absent=%v", to, r.Epoch, r.LastKnownGood, r.Last,
			logs.LSN(r.Tail.GetLsn()), r.Tail.GetCount(), r.CountBase, r.Count, nodes(r.Absent))
	case callRead:
		return "READ epoch store"
	case callSwap:
		return fmt.Sprintf("SWAP epoch store %d: clean=%d tail=%s/%d", c.expect, c.next.LastCleanEpoch, logs.LSN(c.next.Tail.GetLsn()), c.next.Tail.GetCount())
	case callDecisions:
		return fmt.Sprintf("DECISIONS %s e%d-e%d", to, c.decisions.From, c.decisions.To)
	case callDelete:
		return fmt.Sprintf("DELETE %s-%s", c.from, c.to)
	case callMark:
		return fmt.Sprintf("MARK e%d clean, decided by seal %d", c.epoch, c.mark.SealEpoch)
	}
	return "?"
}

func nodes(ids []uint64) (out []catalog.NodeID) {
	for _, id := range ids {
		out = append(out, logs.ShardID(id).Node())
	}
	return out
}

func sayAnswer(ev event) string {
	status := func(s wire.LogStatus) string { return strings.TrimPrefix(s.String(), "LOG_STATUS_") }
	switch {
	case ev.err != nil:
		return ev.err.Error()
	case ev.seal != nil:
		out := status(ev.seal.Status)
		for _, e := range ev.seal.Epochs {
			out += fmt.Sprintf(" e%d:good=%d,max=%d", e.Epoch, e.LastKnownGood, e.MaxSeen)
		}
		return out
	case ev.digest != nil:
		out := status(ev.digest.Status)
		for _, r := range ev.digest.Records {
			out += fmt.Sprintf(" %s=%s", logs.LSN(r.Lsn), say(r))
		}
		if len(ev.digest.Damaged) > 0 {
			out += fmt.Sprintf(" damaged=%v", ev.digest.Damaged)
		}
		return out
	case ev.stored != nil:
		return status(ev.stored.Status)
	case ev.clean != nil:
		return status(ev.clean.Status)
	case ev.decisions != nil:
		out := "OK"
		for _, r := range ev.decisions.Epochs {
			out += fmt.Sprintf(" e%d:good=%d,seal=%d", r.Epoch, r.LastKnownGood, r.SealEpoch)
		}
		return out
	case ev.metadata != nil:
		out := "OK"
		for _, m := range ev.metadata.Metadata {
			out += fmt.Sprintf(" since e%d %v", m.EffectiveSince, nodes(m.Nodeset))
		}
		return out
	}
	return "OK"
}
