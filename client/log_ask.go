package client

import (
	"context"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// askSequencer asks the sequencer of a log about itself, and asks on until one
// answers or the context, or Options.Park, ends.
func (c *Client) askSequencer(ctx context.Context, req *wire.SequencerStateRequest) (*wire.SequencerStateResponse, error) {
	log := LogID(req.Log)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.opts.Clock.AfterFunc(c.opts.Park, cancel)()
	r := &logRouter{log: log}
	begun := c.opts.Clock.Now()
	last := newLogError(log, wire.LogStatus_LOG_STATUS_NO_SEQUENCER, true, nil, "no node was asked in time")
	for pauses := 0; ; pauses++ {
		v, err := c.awaitView(ctx, pauses > 0)
		if err == nil {
			affinity := ""
			if a, ok := c.attributesOfLog(log); ok {
				affinity = a.GetSequencerAffinity()
			}
			for ok := r.begin(v, affinity, 0); ok; {
				resp, e := c.askState(ctx, r, req)
				switch {
				case e == nil:
					return resp, nil
				case resp == nil:
					ok = r.failed()
				case e.Status == wire.LogStatus_LOG_STATUS_NOT_FOUND && c.opts.Clock.Now().Sub(begun) < notFoundFor:
					// The node may not have heard of the log yet. Should time run out first,
					// nothing is known: who is told that there is no such log stops for good.
					ok = false
					e = newLogError(log, wire.LogStatus_LOG_STATUS_NO_SEQUENCER, true, nil, "node %d has not heard of the log", r.at)
				case !logs.Retriable(e.Status):
					return nil, e
				case resp.Redirect != 0:
					ok = r.redirected(NodeID(resp.Redirect), resp.Status == wire.LogStatus_LOG_STATUS_PREEMPTED)
				default:
					ok = false
				}
				last = e
			}
		}
		if !c.sleep(ctx, c.backoff(pauses)) {
			if last.cause == nil {
				last.cause = ctx.Err()
			}
			return nil, last
		}
	}
}

// askState asks one node. Without a response the node could not be asked.
func (c *Client) askState(ctx context.Context, r *logRouter, req *wire.SequencerStateRequest) (*wire.SequencerStateResponse, *LogError) {
	if c.logTransport == nil {
		return nil, newLogError(r.log, wire.LogStatus_LOG_STATUS_NO_SEQUENCER, true, nil, "this client's transport carries no requests about logs")
	}
	one := &wire.SequencerStateRequest{Log: req.Log, Flags: req.Flags, SeenEpoch: req.SeenEpoch, Producer: req.Producer}
	if r.flags&logs.AppendNoRedirect != 0 {
		one.Flags |= logs.StateNoRedirect
	}
	if r.flags&logs.AppendReactivateIfPreempted != 0 {
		one.Flags |= logs.StateReactivateIfPreempted
	}
	resp := new(wire.SequencerStateResponse)
	answers := make(chan error, 1)
	c.logTransport.StartLog(r.at, rpc.MethodSequencerState, one, resp, c.opts.Clock.Now().Add(c.opts.Attempt), func(err error) { answers <- err })
	select {
	case err := <-answers:
		switch {
		case err != nil:
			return nil, newLogError(r.log, wire.LogStatus_LOG_STATUS_NO_SEQUENCER, true, err, "node %d: %v", r.at, err)
		case resp.Status == wire.LogStatus_LOG_STATUS_OK:
			return resp, nil
		}
		return resp, newLogError(r.log, resp.Status, true, nil, "node %d: %s", r.at, resp.Message)
	case <-ctx.Done():
		return nil, newLogError(r.log, wire.LogStatus_LOG_STATUS_TIMED_OUT, true, ctx.Err(), "node %d did not answer in time", r.at)
	}
}
