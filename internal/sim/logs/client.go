package logs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/wire"
)

// clientClock is the world's time, as clients have it.
type clientClock struct{ c *cluster }

// Now is the time.
func (k clientClock) Now() time.Time { return time.Unix(0, int64(k.c.w.Now())) }

// AfterFunc calls f after d.
func (k clientClock) AfterFunc(d time.Duration, f func()) func() bool {
	over := false
	k.c.w.After(d, "client", func() {
		if !over {
			over = true
			f()
		}
	})
	return func() bool {
		was := !over
		over = true
		return was
	}
}

// wires is a client's transport.
type wires struct{ c *cluster }

var errNoTables = errors.New("sim: there are no tables here")

// Self is no node.
func (wires) Self() catalog.NodeID { return 0 }

// StartWrite is for tables.
func (wires) StartWrite(_ catalog.NodeID, _ *wire.WriteRequest, _ time.Time, done func(*wire.WriteResponse, error)) {
	done(nil, errNoTables)
}

// StartRead is for tables.
func (wires) StartRead(_ catalog.NodeID, _ *wire.ReadRequest, _ time.Time, done func(*wire.ReadResponse, error)) {
	done(nil, errNoTables)
}

// Locations is for tables.
func (wires) Locations(context.Context, *wire.LocationsRequest) (*wire.LocationsResponse, error) {
	return nil, errNoTables
}

// Catalog gives the list of logs.
func (x wires) Catalog(context.Context, *wire.CatalogRequest) (*wire.CatalogResponse, error) {
	out := &catalog.Catalog{Nodes: x.c.nodes}
	x.c.tree.Into(out)
	return &wire.CatalogResponse{Catalog: out, LogVersion: x.c.tree.Version()}, nil
}

// StartLog sends a request to a node, or to any.
func (x wires) StartLog(node catalog.NodeID, m rpc.Method, req, resp rpc.Message, deadline time.Time, done func(error)) {
	x.c.request(node, m, req, resp, deadline.Sub(clientClock{x.c}.Now()), done)
}

// request is a client's request to a node, 0 for any; done is called once.
func (c *cluster) request(node catalog.NodeID, method rpc.Method, req, resp rpc.Message, limit time.Duration, done func(error)) {
	w := c.w
	if node == 0 {
		node = catalog.NodeID(1 + w.Dice().IntN(len(c.members)))
	}
	p, over := c.members[node-1], false
	var late sim.Timer
	end := func(err error) {
		if !over {
			over = true
			late.Stop()
			done(err)
		}
	}
	if (!p.n.Alive() || !w.Net.Reaches(0, p.n.ID)) && w.OneIn(2) {
		w.After(w.Between(0, 5*time.Millisecond), "unreachable", func() { end(fmt.Errorf("node %d: %w", node, rpc.ErrUnreachable)) })
		return
	}
	if w.TracingMessages() {
		tell := done
		told := traced(w, "a client", node, method, req, func(_ rpc.Message, err error) { tell(err) })
		done = func(err error) { told(resp, err) }
	}
	late = w.After(limit, "late", func() { end(rpc.ErrDeadline) })
	raw, arrived := c.encode(req), false
	w.Net.ToNode(p.n.ID, method.String(), len(raw), func() {
		if arrived {
			return // a connection doubles nothing
		}
		arrived = true
		p.answer(method, raw, func(out []byte) {
			w.Net.ToClient(p.n.ID, "answer", func() {
				if !over && c.decode(out, resp) {
					end(nil)
				}
			})
		})
	})
}

// The kinds of producers.
const (
	plain       = iota // the client's own sequences
	explicit           // sequences of the caller's own, sent again until they are answered
	conditional        // if nothing was appended meanwhile
	producerKinds
)

// producer appends to one log.
type producer struct {
	c      *cluster
	t      *truth
	id     int
	kind   int
	hasty  bool // a plain one that wants its answers before its order
	cl     *client.Client
	log    *client.Log
	own    *client.LogProducer
	n      uint64 // appends
	sent   []sending
	begun  int // how often one began
	flying int
	tail   logs.LSN       // conditional: what is expected
	known  logs.LSN       // the highest that it was told of
	home   catalog.NodeID // conditional: who took the last, 0: to be found
	made   uint32         // AppendNoRedirect if it had to be made to
}

func newProducer(c *cluster, t *truth, id int) *producer {
	w := c.w
	p := &producer{c: c, t: t, id: id, kind: plain}
	if w.OneIn(2) {
		p.kind = w.Dice().IntN(producerKinds)
	}
	p.hasty = w.Dice().Int64N(100) < w.Opt.Knob("hasty")
	o := client.Options{Clock: clientClock{c}, Rand: rand.New(rand.NewPCG(w.Dice().Uint64(), w.Dice().Uint64())), ID: [16]byte{byte(id), 1},
		Attempt: c.ms("tryMs"), AppendTimeout: c.ms("patienceMs")}
	p.cl = client.New(wires{c}, o)
	var err error
	if p.log, err = p.cl.Log(context.Background(), fmt.Sprintf("/log%d", t.id)); err != nil {
		w.Fail("log %d is not found: %w", t.id, err)
		return p
	}
	p.own = p.log.Producer(uint64(1000 + id))
	for range w.Opt.Knob("pipeline") {
		p.begin(w.Between(0, 2*time.Second))
	}
	return p
}

// rest thinks until the next append. Faults may have left little time for appends:
// when they are over, what is due of them is caught up with.
func (p *producer) rest(payload string) {
	p.flying--
	delete(p.t.open, payload)
	think := 2 * p.c.ms("thinkMs")
	if p.behind() {
		think /= 10
	}
	p.begin(p.c.w.Between(0, think) + p.c.lull())
}

// behind says that the faults are over and appends are still due.
func (p *producer) behind() bool { return p.c.w.Calm() && p.c.ops < opsMin }

// begin has the next append begin after d, or, where appends come in crowds, with the
// next crowd. Of a crowd of conditional ones a single one could be taken.
func (p *producer) begin(d time.Duration) {
	w := p.c.w
	if every := p.c.ms("crowdMs"); every > 0 && p.kind != conditional && !p.behind() {
		d += every - (w.Now()+d)%every + w.Between(0, time.Millisecond)
	}
	w.After(d, "producer", p.work)
}

// work begins an append.
func (p *producer) work() {
	if p.c.stage >= stageStop {
		return
	}
	p.n++
	p.flying++
	payload := fmt.Sprintf("p%d.%d", p.id, p.n)
	p.t.begins(payload, p.known)
	switch p.kind {
	case explicit:
		p.t.open[payload] = true
		p.explicit(p.n, payload)
	case conditional:
		p.conditional(p.n, payload)
	default:
		p.sends(p.n, payload)
		p.log.AppendAsync(p.pad(payload), func(lsn logs.LSN, err error) {
			p.judge(payload, lsn, err)
			p.rest(payload)
		}, p.options()...)
	}
}

// lull is how long nobody appends from now on: in some seeds the load comes in bursts,
// and logs are quiet between them.
func (c *cluster) lull() time.Duration {
	period := c.ms("burstMs")
	if period == 0 || c.w.Calm() || c.w.Now()%period < period/2 {
		return 0
	}
	return period - c.w.Now()%period
}

func (p *producer) pad(payload string) []byte {
	if most := int(p.c.w.Opt.Knob("payload")); most > 0 {
		payload += " " + strings.Repeat("x", p.c.w.Dice().IntN(most))
	}
	return []byte(payload)
}

// acknowledged is a success.
func (p *producer) acknowledged(payload string, lsn logs.LSN) {
	p.known = max(p.known, lsn)
	p.t.acknowledged(payload, lsn)
}

// judge takes down what a client was told.
func (p *producer) judge(payload string, lsn logs.LSN, err error) {
	w, t := p.c.w, p.t
	var e *client.LogError
	switch {
	case err == nil:
		p.acknowledged(payload, lsn)
	case errors.As(err, &e) && e.OutcomeKnown:
		w.Sometimes("append: refused")
		t.refused[payload] = true
		if at, ok := t.where[payload]; ok {
			w.Fail("log %d: %q is at %s, and its client is told that it is not in the log: %w", t.id, payload, at, err)
		}
	case errors.As(err, &e) && e.Status == wire.LogStatus_LOG_STATUS_TRIMMED:
		w.Sometimes("append: trimmed before it was answered")
	default:
		w.Sometimes("append: unknown outcome")
	}
	if w.Tracing() {
		w.Tracef("producer %d: %s at %s: %v", p.id, payload, lsn, err)
	}
}

// explicit sends a sequence until it is answered for good: then it is in the log.
func (p *producer) explicit(sequence uint64, payload string) {
	p.sends(sequence, payload)
	p.own.AppendAsync(sequence, p.pad(payload), func(lsn logs.LSN, err error) {
		var e *client.LogError
		switch {
		case err == nil:
			p.acknowledged(payload, lsn)
			p.rest(payload)
		case errors.As(err, &e) && e.Status == wire.LogStatus_LOG_STATUS_SEQUENCE_STALE:
			p.c.w.Sometimes("append: stale")
			p.rest(payload)
		case p.c.stage >= stageStop && p.c.beyond():
			p.c.w.Sometimes("append: given up in the end")
			p.rest(payload)
		default:
			wait := p.c.w.Between(0, time.Second)
			if p.behind() {
				wait /= 10
			}
			p.c.w.After(wait, "again", func() { p.explicit(sequence, payload) })
		}
	})
}

// conditional appends if the tail is still what it was, once.
func (p *producer) conditional(sequence uint64, payload string) {
	c := p.c
	body := p.pad(payload)
	req := &wire.AppendRequest{Log: uint64(p.t.id), Payload: body, Checksum: logs.Checksum(body), Count: 1, Flags: logs.AppendConditional,
		SeenEpoch: uint32(p.tail.Epoch()), Producer: uint64(1<<32 + p.id), Sequence: sequence, FirstRunning: sequence, ExpectTail: uint64(p.tail), After: uint64(p.tail)}
	node := p.home // as a client's router does
	req.Flags |= p.made
	if m := c.someone(); m != nil && node == 0 {
		node, _ = placement.SequencerNode(m.gossip.View(), p.t.id, "")
	}
	p.home, p.made = 0, 0
	p.offer(node, req, payload, 0)
}

func (p *producer) offer(node catalog.NodeID, req *wire.AppendRequest, payload string, hops int) {
	c, resp := p.c, new(wire.AppendResponse)
	c.request(node, rpc.MethodAppend, req, resp, c.ms("tryMs"), func(err error) {
		if c.w.Tracing() {
			c.w.Tracef("producer %d: %s if the tail is %s: %v at %s, epoch %d, redirect %d, tail %s, %q: %v", p.id, payload, logs.LSN(req.ExpectTail),
				resp.Status, logs.LSN(resp.Lsn), resp.Epoch, resp.Redirect, logs.LSN(resp.Tail), resp.Message, err)
		}
		switch {
		case err != nil:
			c.w.Sometimes("append: unknown outcome")
		case resp.Status == wire.LogStatus_LOG_STATUS_OK:
			c.w.Sometimes("append: conditional done")
			p.home, p.made = node, req.Flags&logs.AppendNoRedirect
			p.acknowledged(payload, logs.LSN(resp.Lsn))
			p.t.conditions = append(p.t.conditions, span{from: logs.LSN(req.ExpectTail), to: logs.LSN(resp.Lsn)})
			p.tail = logs.LSN(resp.Lsn)
		case resp.Status == wire.LogStatus_LOG_STATUS_CONDITION_FAILED:
			c.w.Sometimes("append: conditional lost")
			p.home, p.made = node, req.Flags&logs.AppendNoRedirect
			p.t.refused[payload] = true
			p.tail = logs.LSN(resp.Tail)
			p.known = max(p.known, p.tail)
		case resp.Redirect != 0 && resp.StoredAs == 0 && hops < 4:
			if hops > 1 { // in circles: one has to take it
				req.Flags |= logs.AppendNoRedirect | logs.AppendReactivateIfPreempted
			}
			p.offer(catalog.NodeID(resp.Redirect), req, payload, hops+1)
			return
		case resp.Status == wire.LogStatus_LOG_STATUS_NEW_EPOCH && hops < 4 && resp.StoredAs == 0:
			req.SeenEpoch, req.After = resp.Epoch, max(req.After, resp.Tail) // it was encoded when it was sent
			p.offer(node, req, payload, hops+1)
			return
		}
		p.rest(payload)
	})
}
