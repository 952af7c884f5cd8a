package proof

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// asked is how one bad request is answered on one surface.
type asked struct {
	row  string
	kind string   // of the error, as the surface has kinds
	says []string // what its text holds: what is wrong, and what to do
	do   func(t *testing.T) (kind, text string)
}

// TestLogBadInput gives a cluster what it must refuse, through the client, the
// shell, HTTP and messages that only a broken client sends: each refusal is of its
// own kind and says what to do, and nothing of it, and nothing else, is in the log.
func TestLogBadInput(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{})
	cl := connect(t, c)
	ctx := within(t, 120*time.Second)
	l := makeLog(t, cl, "/in/log")
	var lsns []client.LSN
	for i := range 20 {
		lsn, err := l.Append(ctx, fmt.Append(nil, i))
		if err != nil {
			t.Fatal(err)
		}
		lsns = append(lsns, lsn)
	}
	four := makeLog(t, cl, "/in/four", client.LogReplication(&client.Replication{Node: 4}))
	// On a slow machine not all nodes have met yet.
	if !eventually(30*time.Second, func() bool {
		_, err := four.Append(within(t, 3*time.Second), []byte("x"))
		return err != nil && strings.Contains(err.Error(), "add storage nodes")
	}) {
		t.Fatal("nobody says that four copies are not to be had")
	}
	in := &badInput{c: c, cl: cl, l: l, four: four, others: makeLog(t, cl, "/in/others"), lsns: lsns}
	t.Run("refused", func(t *testing.T) { in.refused(t) })
	readEdges(t, within(t, 60*time.Second), l, lsns) // the others may have waited for their turn
	c.checkReplication(cl, l)
}

// refused asks for all that is to be refused, and is over when all has been answered.
func (in *badInput) refused(t *testing.T) {
	for surface, list := range map[string][]asked{"client": in.client(), "shell": in.shell(), "http": in.http(), "rpc": in.rpc()} {
		for _, a := range list {
			t.Run(surface+"/"+a.row, func(t *testing.T) {
				t.Parallel()
				kind, text := a.do(t)
				if kind != a.kind {
					t.Errorf("it is answered with %s, want %s: %s", kind, a.kind, text)
				}
				for _, w := range a.says {
					if !strings.Contains(text, w) {
						t.Errorf("nothing is said of %q: %s", w, text)
					}
				}
			})
		}
	}
}

// badInput is what the tables of bad requests are about: a log with twenty records,
// and one whose replication three nodes cannot give.
type badInput struct {
	c       *cluster
	cl      *client.Client
	l, four *client.Log
	others  *client.Log // on which something is appended
	lsns    []client.LSN
}

const (
	tooBig = 1<<20 + 1 // one more than a log takes
	behind = "e77n1"   // where the log never was
)

// client is the table of the client library; the kind is the sentinel that matches.
func (in *badInput) client() []asked {
	cl, l, tail := in.cl, in.l, in.lsns[19]
	one := func(row string, is error, says []string, do func(ctx context.Context) error) asked {
		return asked{row, fmt.Sprint(is), says, func(t *testing.T) (string, string) {
			err := do(within(t, 20*time.Second))
			if err == nil || !errors.Is(err, is) {
				return fmt.Sprintf("%T", err), fmt.Sprint(err)
			}
			return fmt.Sprint(is), err.Error()
		}}
	}
	create := func(settings ...client.LogSetting) func(context.Context) error {
		return func(ctx context.Context) error { _, err := cl.CreateLogs(ctx, "/in/new", 1, settings...); return err }
	}
	named := func(name string) func(context.Context) error {
		return func(ctx context.Context) error { _, err := cl.Log(ctx, name); return err }
	}
	made := func(path string) func(context.Context) error {
		return func(ctx context.Context) error { _, err := cl.CreateLogs(ctx, path, 1); return err }
	}
	return []asked{
		one("payload too large", client.ErrTooLarge, []string{"1048577 bytes", "1048576", "max_payload_bytes"}, func(ctx context.Context) error {
			_, err := l.Append(ctx, make([]byte, tooBig))
			return err
		}),
		one("unknown log", client.ErrNotFound, []string{"/in/nowhere", "create_on_append"}, named("/in/nowhere")),
		one("unknown number", client.ErrNotFound, []string{"/in/log#7", "1 logs, numbered from 0"}, named("/in/log#7")),
		one("unknown id", client.ErrNotFound, []string{"99999", "no log has this id"}, named("99999")),
		one("trim past the tail", client.ErrPastTail, []string{tail.String(), "at most"}, func(ctx context.Context) error { return l.Trim(ctx, tail+1000) }),
		one("read past the tail", client.ErrTimeout, []string{(tail + 5).String(), "the log ends at " + tail.String()}, func(ctx context.Context) error {
			r := l.NewReader(client.ReaderOptions{From: tail + 5})
			defer r.Close()
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := r.Next(short)
			return err
		}),
		one("another tail", client.ErrConditionFailed, []string{"the tail is " + tail.String()}, func(ctx context.Context) error {
			_, err := l.AppendIf(ctx, in.lsns[3], []byte("x"))
			return err
		}),
		one("producer's gap", client.ErrSequenceGap, []string{"producer 9", "5"}, func(ctx context.Context) error {
			p := in.others.Producer(9)
			if _, err := p.Append(ctx, 5, []byte("x")); err != nil {
				return err
			}
			_, err := p.Append(ctx, 7, []byte("x"))
			return err
		}),
		one("impossible nodeset", errTooFewNodes, []string{"node:4", "3 storage nodes", "add storage nodes, or ask for fewer copies"}, func(ctx context.Context) error {
			short, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			_, err := in.four.Append(short, []byte("x"))
			return err
		}),
		one("racks above copies", client.ErrInvalidAttributes, []string{"rack:3", "raise node to"}, create(client.LogReplication(&client.Replication{Node: 2, Rack: 3}))),
		one("nodeset below copies", client.ErrInvalidAttributes, []string{"nodeset_size 2", "3 copies"}, create(client.LogReplication(&client.Replication{Node: 3}), client.LogNodesetSize(2))),
		one("no window", client.ErrInvalidAttributes, []string{"max_writes_in_flight", "between"}, create(client.LogWindow(0))),
		one("unknown attribute", client.ErrInvalidAttributes, []string{"colour", "there are replication"}, create(client.LogAttribute("colour", "red"))),
		one("word for a number", client.ErrInvalidAttributes, []string{`"many" is not a number`}, create(client.LogAttribute("nodeset_size", "many"))),
		one("empty word", client.ErrInvalid, []string{"between slashes is empty"}, made("/in//new")),
		one("same again", client.ErrAlreadyExists, []string{"/in/log", "exists"}, made("/in/log")),
		one("id again", client.ErrIDClash, []string{"the next id that is free"}, create(client.LogFirstID(l.ID()))),
		one("directory in use", client.ErrNotEmpty, []string{"remove it recursively, or them first"}, func(ctx context.Context) error { return cl.RemoveLog(ctx, "/in", false) }),
		one("table of an unknown log", client.ErrNotFound, []string{"historical_metadata", `"777"`, "no log has this id"}, func(ctx context.Context) error {
			_, err := cl.Query(ctx, "SELECT * FROM historical_metadata WHERE log_id = 777")
			return err
		}),
		one("copies of an unknown log", client.ErrNotFound, []string{"records", `"777"`}, func(ctx context.Context) error {
			_, err := cl.Query(ctx, "SELECT * FROM records WHERE log_id = 777")
			return err
		}),
	}
}

// shell is the table of the command; the kind is its exit code: 1 failed, 2 wrong usage.
func (in *badInput) shell() []asked {
	one := func(row string, code int, says []string, stdin string, args ...string) asked {
		return asked{row, fmt.Sprint(code), says, func(t *testing.T) (string, string) {
			cmd := exec.CommandContext(within(t, 30*time.Second), braidBinary(t), append(args, "--addr", strings.Join(in.c.clientAddrs(), ","))...)
			var errs bytes.Buffer
			cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &errs
			if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
				t.Fatal(err)
			}
			return fmt.Sprint(cmd.ProcessState.ExitCode()), errs.String()
		}}
	}
	tail := in.lsns[19].String()
	return []asked{
		one("payload too large", 1, []string{"record 1", "1048576 bytes", "raise max_payload_bytes"}, strings.Repeat("x", tooBig), "log", "append", "/in/log"),
		one("unknown log", 1, []string{"/in/nowhere", "create_on_append"}, "x", "log", "append", "/in/nowhere"),
		one("unknown log to read", 1, []string{"/in/nowhere"}, "", "log", "tail", "/in/nowhere", "--no-follow"),
		one("trim past the tail", 1, []string{"trim past the tail", tail, "at most"}, "", "log", "trim", "/in/log", behind),
		one("read past the tail", 1, []string{behind, tail, "without --no-follow"}, "", "log", "tail", "/in/log", "--no-follow", "--from", behind),
		one("malformed frames", 1, []string{"record"}, "\xff\xff\xff\xff\x01", "log", "append", "/in/log", "--length-prefixed"),
		one("impossible nodeset", 1, []string{"too few storage nodes", "add storage nodes, or ask for fewer copies"}, "x", "log", "append", "/in/four", "--unbatched", "--patience", "3s"),
		one("racks above copies", 2, []string{"rack:3", "raise node to"}, "", "log", "create", "/in/new", "--set", "replication=node:2,rack:3"),
		one("nodeset below copies", 2, []string{"nodeset_size 2", "3 copies"}, "", "log", "create", "/in/new", "--set", "replication=node:3", "--set", "nodeset_size=2"),
		one("table of an unknown log", 1, []string{"epoch_store", `"777"`}, "", "query", "SELECT * FROM epoch_store WHERE log_id = 777"),
	}
}

// http is the table of the console port; the kind is the code and the word of the error.
func (in *badInput) http() []asked {
	one := func(row string, code int, word string, says []string, method, path, body string) asked {
		return asked{row, fmt.Sprint(code, " ", word), says, func(t *testing.T) (string, string) {
			code, body := request(t, method, "http://"+in.c.nodes[1].WebAddr()+"/v1"+path, body)
			var answer struct {
				Error struct{ Status, Message string }
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(code, " ", answer.Error.Status), answer.Error.Message
		}}
	}
	tail := in.lsns[19].String()
	return []asked{
		one("payload too large", 413, "too_large", []string{"1048576 bytes", "max_payload_bytes"}, "POST", "/records/in/log", strings.Repeat("x", tooBig)),
		one("unknown log", 404, "not_found", []string{"/in/nowhere", "create_on_append"}, "POST", "/records/in/nowhere", "x"),
		one("unknown log to read", 404, "not_found", []string{"nowhere"}, "GET", "/records/in/nowhere", ""),
		one("unknown id", 404, "not_found", []string{"99999"}, "GET", "/tail/99999", ""),
		one("trim past the tail", 400, "past_tail", []string{behind, tail, "at most"}, "DELETE", "/records/in/log?until="+behind, ""),
		one("read past the tail", 400, "past_tail", []string{behind, tail, "wait="}, "GET", "/records/in/log?from="+behind, ""),
		one("impossible nodeset", 504, "under_replicated", []string{"add storage nodes, or ask for fewer copies"}, "POST", "/records/in/four?timeout=5s", "x"),
		one("racks above copies", 400, "invalid_attributes", []string{"raise node to"}, "PUT", "/logs/in/new", `{"attributes":{"replication":"node:2,rack:3"}}`),
		one("nodeset below copies", 400, "invalid_attributes", []string{"nodeset_size 2"}, "PUT", "/logs/in/new", `{"attributes":{"replication":"node:3","nodeset_size":2}}`),
		one("empty word", 400, "invalid", []string{"between slashes is empty"}, "PUT", "/logs/in//new", ""),
		one("unknown parameter", 400, "invalid", []string{`"format"`, "there are if_tail"}, "POST", "/records/in/log?format=x", "x"),
	}
}

// rpc is the table of messages that only a broken client, or another cluster's node,
// sends; the kind is the status.
func (in *badInput) rpc() []asked {
	one := func(row string, want wire.LogStatus, says []string, do func(ctx context.Context, to *rpc.Client) (wire.LogStatus, string, error)) asked {
		return asked{row, want.String(), says, func(t *testing.T) (string, string) {
			pool := rpc.NewPool(rpc.TCP{}, rpc.PoolOptions{Role: rpc.RoleClient})
			defer pool.Close()
			status, text, err := do(within(t, 20*time.Second), pool.To(in.c.nodes[in.c.sequencerOf(in.cl, in.l)].ClientAddr()))
			if err != nil {
				t.Fatal(err)
			}
			return status.String(), text
		}}
	}
	appended := func(row string, want wire.LogStatus, says []string, req *wire.AppendRequest) asked {
		return one(row, want, says, func(ctx context.Context, to *rpc.Client) (wire.LogStatus, string, error) {
			if req.Log == 0 {
				req.Log = uint64(in.l.ID())
			}
			resp := new(wire.AppendResponse)
			err := to.Call(ctx, rpc.MethodAppend, req, resp)
			return resp.Status, resp.Message, err
		})
	}
	junk, big := []byte("this is no batch"), make([]byte, tooBig)
	return []asked{
		appended("payload too large", wire.LogStatus_LOG_STATUS_TOO_LARGE, []string{"1048577", "1048576"}, &wire.AppendRequest{Payload: big, Checksum: logs.Checksum(big), Count: 1}),
		appended("unknown log", wire.LogStatus_LOG_STATUS_NOT_FOUND, []string{"no such log"}, &wire.AppendRequest{Log: 99999, Payload: junk, Checksum: logs.Checksum(junk), Count: 1, Flags: logs.AppendNoRedirect}),
		appended("malformed batch", wire.LogStatus_LOG_STATUS_BAD_PAYLOAD, []string{"batch"}, &wire.AppendRequest{Payload: junk, Checksum: logs.Checksum(junk), Count: 3, Flags: logs.AppendBatch}),
		appended("corrupted message", wire.LogStatus_LOG_STATUS_BAD_PAYLOAD, []string{"checksum"}, &wire.AppendRequest{Payload: junk, Checksum: logs.Checksum(junk) + 1, Count: 1}),
		appended("producer without id", wire.LogStatus_LOG_STATUS_INVALID, []string{"producer"}, &wire.AppendRequest{Payload: junk, Checksum: logs.Checksum(junk), Count: 1, Flags: logs.AppendProducer, Sequence: 1}),
		one("trim past the tail", wire.LogStatus_LOG_STATUS_TOO_LARGE, nil, func(ctx context.Context, _ *rpc.Client) (wire.LogStatus, string, error) {
			shards, resp := in.shardsOf(ctx), new(wire.TrimResponse)
			req := &wire.TrimRequest{Log: uint64(in.l.ID()), Lsn: 77 << 32, Shard: uint64(shards[0])}
			err := in.nodeOf(shards[0]).Call(ctx, rpc.MethodTrim, req, resp)
			return resp.Status, resp.Message, err
		}),
		{"wrong cluster", rpc.RefusalCluster.String(), []string{"another cluster", "cluster-of-others"}, func(t *testing.T) (string, string) {
			pool := rpc.NewPool(rpc.TCP{}, rpc.PoolOptions{Role: rpc.RoleNode, Cluster: func() string { return "cluster-of-others" }})
			defer pool.Close()
			addr := net.JoinHostPort(in.c.nodes[0].Host, strconv.Itoa(in.c.nodes[0].NodePort))
			err := pool.To(addr).Call(within(t, 3*time.Second), rpc.MethodTrim, &wire.TrimRequest{Log: 1, Lsn: 1}, new(wire.TrimResponse))
			var refused *rpc.HandshakeError
			if !errors.As(err, &refused) {
				return fmt.Sprintf("%T", err), fmt.Sprint(err)
			}
			return refused.Refusal.String(), err.Error()
		}},
	}
}

// shardsOf is where the log's records lie.
func (in *badInput) shardsOf(ctx context.Context) []logs.ShardID {
	epochs, err := in.l.Epochs(ctx)
	if err != nil {
		in.c.t.Fatal(err)
	}
	return epochs[0].Shards
}

// nodeOf is a connection to a shard's node.
func (in *badInput) nodeOf(shard logs.ShardID) *rpc.Client {
	pool := rpc.NewPool(rpc.TCP{}, rpc.PoolOptions{Role: rpc.RoleClient})
	in.c.t.Cleanup(func() { pool.Close() })
	return pool.To(clientAddrs(in.c.t, in.cl)[shard.Node()])
}

// readEdges reads what is trimmed and what is not there yet.
func readEdges(t *testing.T, ctx context.Context, l *client.Log, lsns []client.LSN) {
	t.Helper()
	if err := l.Trim(ctx, lsns[9]); err != nil {
		t.Fatal(err)
	}
	var got []string
	r := readRange(t, l, oldest, lsns[19], 20*time.Second, func(e client.Entry) {
		if !e.IsGap() {
			got = append(got, string(e.Record.Payload))
		}
	})
	if want := "[10 11 12 13 14 15 16 17 18 19]"; fmt.Sprint(got) != want || r.gaps["TRIM"] != 1 {
		t.Errorf("after the trim: %v, gaps %v", got, r.gaps)
	}
	tail := tailOf(t, l)
	past := l.NewReader(client.ReaderOptions{From: tail + 5, Until: tail + 6})
	defer past.Close()
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if e, err := past.Next(short); err == nil {
		t.Errorf("past the tail there is %+v", e)
	}
}
