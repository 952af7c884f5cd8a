package sequencer

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
	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestConversations plays the files of testdata with one core on node 1: events
// in, effects out. A file is run with -rewrite to record it anew; the difference
// is to be read.
//
//	start nodes=3 [copies=2] [window=8] [batching] [sticky]   the cluster, all of it alive
//	append a b [retry] [after=e1n2] [producer=7 seq=1 first=1] [seen=2] [stay] [tail=e1n2] [explicit|stream]
//	                          seq is that of the first; the others count up
//	store empty | has next=3 clean=1 [written] [copies=2] | lost | conflict | silent
//	                          the epoch store's answer to the oldest question
//	seals [epoch=4 by=2]      all shards that were asked for seals or metadata answer
//	stored e1n1 [from=2] [as=NO_SPACE] [wave=1] [seal=3 by=2] [soft] [meta]
//	                          a shard's answer; without from, all of the wave's
//	recovered [tail=e1n5 count=5] [by=2 seal=3]
//	found [e1n2=1 ...] [on=2] [clean=1] [partial=23|again=23] [silent=1] [flags=512]
//	                          every shard asked for a producer answers: LSN=sequence
//	wait ms=100               time passes, timer by timer
//	dead node=2 | alive node=2
//	state                     what there is to see
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d conversations: %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			x := &talk{t: t, cfg: Config{ReleaseAll: time.Hour, SealCheckFor: 50 * time.Millisecond}.withDefaults()}
			datadriven.RunTest(t, f, x.command)
		})
	}
}

const talkLog = 5

type talk struct {
	t       *testing.T
	cfg     Config
	now     time.Duration
	core    *core
	view    *logs.Cluster
	attrs   *catalog.LogAttributes
	out     []string
	reads   []storeRead
	swaps   []storeSwap
	recover []recoverStart
	calls   []shardCall
	waves   map[string]*wire.LogRecord // by LSN: the last one sent
	timer   time.Duration
}

func (x *talk) say(format string, args ...any) { x.out = append(x.out, fmt.Sprintf(format, args...)) }

// args of a command line: values by name, and bare words.
func talkArgs(t *testing.T, d *datadriven.TestData) (map[string]string, []string) {
	named, bare := make(map[string]string), []string{}
	for _, a := range d.CmdArgs {
		if len(a.Vals) == 0 {
			bare = append(bare, a.Key)
			named[a.Key] = ""
		} else {
			named[a.Key] = a.Vals[0]
		}
	}
	return named, bare
}

func (x *talk) lsn(s string) logs.LSN {
	if s == "" {
		return 0
	}
	l, err := logs.ParseLSN(s)
	if err != nil {
		x.t.Fatal(err)
	}
	return l
}

func (x *talk) number(s string) int {
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		x.t.Fatal(err)
	}
	return n
}

func (x *talk) command(t *testing.T, d *datadriven.TestData) string {
	x.out = nil
	arg, bare := talkArgs(t, d)
	has := func(name string) bool { _, is := arg[name]; return is }
	switch d.Cmd {
	case "start":
		x.start(x.number(arg["nodes"]), arg)
	case "append":
		var ev []event
		for _, word := range bare {
			if word == "retry" || word == "stay" || word == "explicit" || word == "stream" {
				continue
			}
			p := x.pending(word, arg, has)
			if p.req.Producer != 0 {
				p.req.Sequence += uint64(len(ev))
			}
			ev = append(ev, event{kind: evAppend, append: p})
		}
		x.step(ev...)
	case "store":
		x.answerStore(bare[0], arg, has)
	case "seals":
		x.answerShards(func(q shardCall) any {
			if q.metadata != nil {
				r := &wire.ReadMetadataResponse{}
				if since := x.number(arg["has"]); since > 0 {
					r.Metadata = []*wire.EpochMetadata{{EffectiveSince: uint32(since)}}
				}
				return r
			}
			return &wire.CheckSealResponse{SealEpoch: uint32(x.number(arg["epoch"])), SealedBy: uint64(x.number(arg["by"]))}
		})
	case "found":
		x.answerShards(func(q shardCall) any {
			r := &wire.ProducerLookupResponse{LastCleanEpoch: uint32(logs.EpochMax)}
			switch node := fmt.Sprint(q.shard.Node()); {
			case strings.Contains(arg["silent"], node):
				return nil
			case strings.Contains(arg["partial"], node):
				r.Status = wire.LogStatus_LOG_STATUS_PARTIAL
			case strings.Contains(arg["again"], node):
				r.Status = wire.LogStatus_LOG_STATUS_AGAIN
			}
			if has("clean") {
				r.LastCleanEpoch = uint32(x.number(arg["clean"]))
			}
			if n := x.number(arg["on"]); n != 0 && catalog.NodeID(n) != q.shard.Node() {
				return r
			}
			for k, v := range arg {
				if k == "clean" || k == "on" || k == "partial" || k == "again" || k == "silent" || k == "flags" {
					continue
				}
				r.Entries = append(r.Entries, &wire.ProducerEntry{Lsn: uint64(x.lsn(k)), Sequence: uint64(x.number(v)), Wave: 1, Flags: uint32(x.number(arg["flags"]))})
			}
			return r
		})
	case "stored":
		x.stored(bare[0], arg, has)
	case "recovered":
		x.recovered(arg, has)
	case "wait":
		x.wait(time.Duration(x.number(arg["ms"])) * time.Millisecond)
	case "dead", "alive":
		x.live(catalog.NodeID(x.number(arg["node"])), d.Cmd == "alive")
	case "state":
		x.state()
	default:
		t.Fatalf("unknown command %q", d.Cmd)
	}
	if len(x.out) == 0 {
		return "ok\n"
	}
	return strings.Join(x.out, "\n") + "\n"
}

func (x *talk) start(nodes int, arg map[string]string) {
	x.attrs = proto.Clone(defaultAttributes).(*catalog.LogAttributes)
	if n := x.number(arg["copies"]); n > 0 {
		x.attrs.Replication = &catalog.Replication{Node: uint32(n)}
	}
	if n := x.number(arg["window"]); n > 0 {
		x.attrs.MaxWritesInFlight = proto.Uint32(uint32(n))
	}
	if n := x.number(arg["esns"]); n > 0 {
		x.cfg.ESNMax = logs.ESN(n)
	}
	_, batching := arg["batching"]
	x.attrs.SequencerBatching = proto.Bool(batching)
	x.view = &logs.Cluster{Version: 1, Self: 1}
	for i := range nodes {
		x.view.Nodes = append(x.view.Nodes, logs.ClusterNode{ID: catalog.NodeID(i + 1), Incarnation: 1, Alive: true, Sequencer: i == 0, SequencerWeight: 1,
			Storage: true, Writable: true, StorageWeight: 1})
	}
	x.waves = make(map[string]*wire.LogRecord)
	d := &Deps{Self: 1, Incarnation: 1, Cluster: func() *logs.Cluster { return x.view },
		Attributes: func(logs.LogID) (*catalog.LogAttributes, bool) { return x.attrs, true }}
	x.core = newCore(&x.cfg, d, &Metrics{}, &share{}, rand.New(rand.NewPCG(1, 2)))
}

func (x *talk) pending(word string, arg map[string]string, has func(string) bool) pending {
	req := request(talkLog, word)
	req.Producer, req.Sequence = uint64(x.number(arg["producer"])), uint64(x.number(arg["seq"]))
	req.FirstRunning = max(1, uint64(x.number(arg["first"])))
	req.After, req.SeenEpoch = uint64(x.lsn(arg["after"])), uint32(x.number(arg["seen"]))
	for name, flag := range map[string]uint32{"retry": logs.AppendRetry, "stay": logs.AppendNoRedirect | logs.AppendReactivateIfPreempted,
		"explicit": logs.AppendProducer, "stream": logs.AppendStream, "tail": logs.AppendConditional} {
		if has(name) {
			req.Flags |= flag
		}
	}
	req.ExpectTail = uint64(x.lsn(arg["tail"]))
	return pending{req: req, count: 1, reply: func(r *wire.AppendResponse) { x.say("%s: %s", word, answerText(r)) }}
}

func answerText(r *wire.AppendResponse) string {
	s := strings.TrimPrefix(r.Status.String(), "LOG_STATUS_")
	if r.Lsn != 0 {
		s += " " + logs.LSN(r.Lsn).String()
	}
	if r.Redirect != 0 {
		s += fmt.Sprintf(" redirect N%d", r.Redirect)
	}
	if r.StoredAs != 0 {
		s += " maybe " + logs.LSN(r.StoredAs).String()
	}
	if r.Status == wire.LogStatus_LOG_STATUS_CONDITION_FAILED {
		s += " tail " + logs.LSN(r.Tail).String()
	}
	if r.Sequence != 0 {
		s += fmt.Sprintf(" last %d", r.Sequence)
	}
	if r.Message != "" {
		s += " (" + r.Message + ")"
	}
	return s
}

func (x *talk) step(ev ...event) { x.print(x.core.step(x.now, 1_000_000+x.now.Milliseconds(), ev)) }

// print says what a turn asks for, and keeps what wants an answer.
func (x *talk) print(fx *effects) {
	for _, b := range fx.batches {
		for _, st := range b.parcel.batch.Stores {
			x.say("%s", x.storeText(b.node, st))
		}
		for _, r := range b.parcel.batch.Releases {
			x.say("-> N%d RELEASE %s, LNG %d of epoch %d%s", b.node, logs.LSN(r.Released), r.LastKnownGood, r.Epoch, map[bool]string{true: ", to be confirmed"}[r.Confirm])
		}
	}
	for _, a := range fx.answers {
		a.reply(a.resp)
	}
	for _, r := range fx.reads {
		x.reads = append(x.reads, r)
		x.say("epoch store: read")
	}
	for _, s := range fx.swaps {
		x.swaps = append(x.swaps, s)
		m := s.next.Metadata
		x.say("epoch store: %d -> %d: next epoch %d, nodeset %v since %d, written %v", s.expect, s.next.Version, m.Epoch, nodesetOf(m), m.EffectiveSince, m.Written)
	}
	for _, r := range fx.recoveries {
		x.recover = append(x.recover, r)
		x.say("recover up to epoch %d", r.args.UpTo)
	}
	for _, q := range fx.calls {
		x.calls = append(x.calls, q)
		switch {
		case q.seal != nil:
			x.say("-> %s CHECK_SEAL", q.shard)
		case q.lookup != nil:
			x.say("-> %s LOOKUP producer %d in (%s, %s]", q.shard, q.lookup.Producer, logs.LSN(q.lookup.After), logs.LSN(q.lookup.To))
		default:
			x.say("-> %s READ_METADATA", q.shard)
		}
	}
	for _, n := range fx.notices {
		x.say("! %s epoch %d: %s", n.What, n.Epoch, n.Message)
	}
	x.timer = fx.timer
}

func (x *talk) storeText(to catalog.NodeID, st *wire.Store) string {
	r := st.Record
	key := logs.LSN(r.Lsn).String()
	what := fmt.Sprintf("%q", r.Payload)
	if logs.LogID(r.Log).IsMetadata() {
		key, what = "meta", "metadata"
	}
	x.waves[key] = r
	if st.Amend {
		what = "amend"
	}
	if b, err := logs.OpenBatch(r.Payload); r.Flags&logs.FlagBatch != 0 && err == nil {
		what = "batch"
		for _, p := range b.All() {
			what += fmt.Sprintf(" %q", p)
		}
	}
	if st.Draining {
		what += " draining"
	}
	var ids []logs.ShardID
	for _, s := range r.Copyset {
		ids = append(ids, logs.ShardID(s))
	}
	return fmt.Sprintf("-> N%d STORE %s wave %d on %v, LNG %d: %s", to, logs.LSN(r.Lsn), r.Wave, ids, r.LastKnownGood, what)
}

func (x *talk) answerStore(how string, arg map[string]string, has func(string) bool) {
	if len(x.reads) > 0 && how != "lost" && how != "conflict" && how != "done" {
		r := x.reads[0]
		x.reads = x.reads[1:]
		e := event{kind: evRead, log: r.log, token: r.token}
		switch how {
		case "silent":
			e.err = errors.New("no answer")
		case "has":
			m := &wire.EpochMetadata{Epoch: uint32(x.number(arg["next"])), EffectiveSince: 1, Written: has("written"), Replication: x.attrs.Replication}
			if n := x.number(arg["copies"]); n > 0 {
				m.Replication = &catalog.Replication{Node: uint32(n)}
			}
			for _, n := range x.view.Nodes {
				m.Nodeset, m.Weights, m.Locations = append(m.Nodeset, uint64(logs.MakeShard(n.ID, 0))), append(m.Weights, 1), append(m.Locations, "")
			}
			e.record = &wire.EpochRecord{Version: 7, Log: talkLog, Metadata: m, LastCleanEpoch: uint32(x.number(arg["clean"])), WriterNode: uint64(x.number(arg["by"]))}
		}
		x.step(e)
		return
	}
	s := x.swaps[0]
	x.swaps = x.swaps[1:]
	e := event{kind: evSwapped, log: s.log, token: s.token}
	switch how {
	case "lost":
		e.err = errors.New("no answer")
	case "conflict":
		e.err = ErrConflict
	}
	x.step(e)
}

func (x *talk) answerShards(answer func(shardCall) any) {
	calls := x.calls
	x.calls = nil
	for _, q := range calls {
		if a := answer(q); a != nil {
			x.step(event{kind: evAnswered, token: q.token, answer: a})
		} else {
			x.calls = append(x.calls, q) // it may yet
		}
	}
}

func (x *talk) stored(lsn string, arg map[string]string, has func(string) bool) {
	r := x.waves[lsn]
	if r == nil {
		x.t.Fatalf("%s was not sent", lsn)
	}
	st := wire.LogStatus(wire.LogStatus_value["LOG_STATUS_"+arg["as"]])
	for _, id := range r.Copyset {
		shard := logs.ShardID(id)
		if n := x.number(arg["from"]); n != 0 && catalog.NodeID(n) != shard.Node() {
			continue
		}
		one := &wire.Stored{Log: r.Log, Lsn: r.Lsn, Wave: r.Wave, Cookie: id, Status: st, SealEpoch: uint32(x.number(arg["seal"])),
			SealedBy: uint64(x.number(arg["by"])), Soft: has("soft")}
		if n := x.number(arg["wave"]); n != 0 {
			one.Wave = uint32(n)
		}
		x.step(event{kind: evStored, batch: &wire.LogBatch{FromNode: uint64(shard.Node()), Stored: []*wire.Stored{one}}})
	}
}

func (x *talk) recovered(arg map[string]string, has func(string) bool) {
	r := x.recover[0]
	x.recover = x.recover[1:]
	res := &RecoveryResult{CountBase: uint64(x.number(arg["count"]))}
	if has("tail") {
		res.Tail = &wire.TailRecord{Log: talkLog, Lsn: uint64(x.lsn(arg["tail"])), Count: res.CountBase}
	}
	if has("by") {
		res.Status, res.PreemptedBy, res.SealEpoch = preempt, catalog.NodeID(x.number(arg["by"])), logs.Epoch(x.number(arg["seal"]))
	}
	x.step(event{kind: evRecovered, log: talkLog, token: r.token, result: res})
}

// wait lets time pass from one wish of the core to the next.
func (x *talk) wait(d time.Duration) {
	until := x.now + d
	for x.timer != 0 && x.timer <= until {
		x.now = max(x.now, x.timer)
		before := len(x.out)
		x.step(event{kind: evTimer})
		if len(x.out) > before {
			x.out = append(x.out[:before], append([]string{fmt.Sprintf("at %v:", x.now)}, x.out[before:]...)...)
		}
	}
	x.now = until
}

func (x *talk) live(id catalog.NodeID, alive bool) {
	next := *x.view
	next.Nodes = append([]logs.ClusterNode(nil), x.view.Nodes...)
	next.Version++
	for i := range next.Nodes {
		if next.Nodes[i].ID == id {
			next.Nodes[i].Alive = alive
		}
	}
	x.view = &next
	x.step(event{kind: evCluster})
}

func (x *talk) state() {
	for _, r := range x.core.rows() {
		x.say("%s epoch %d next %s LNG %d released %s in flight %d buffered %d held %d draining %d recovering %v %s", r.State, r.Epoch, r.Next, r.LastKnownGood,
			r.LastReleased, r.InFlight, r.Buffered, r.Held, r.Draining, r.Recovering, r.Trouble)
	}
	for _, r := range x.core.shardRows() {
		x.say("%s %s for %v, probing %v", r.Shard, r.Ban, r.For, r.Probing)
	}
}
