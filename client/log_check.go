package client

import (
	"context"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/checker"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// ReplicationReport is what a check of a log's copies found.
type ReplicationReport = checker.Report

// ReplicationProblem is what is wrong with a range of LSNs.
type ReplicationProblem = checker.Problem

// CheckOptions say what CheckReplication looks at. The zero value is all that was
// released.
type CheckOptions struct {
	From, Until LSN
	// Settle is for how long what is found is looked at again: releases, and what
	// recovery leaves to be purged, take a moment to come around. Default: not at all.
	Settle time.Duration
	// Progress, if given, is told now and then how far it has come.
	Progress func(CheckProgress)
}

// CheckProgress is how far a check has come.
type CheckProgress struct {
	At, Until       LSN // everything below At was judged
	Records, Copies uint64
}

// settleEvery is the pause before what was found is looked at again, checkTries how
// often a shard is asked for a page before it is held for silent.
const (
	settleEvery = time.Second
	checkTries  = 3
)

// CheckReplication looks whether every released record of the log has the copies that
// its epoch demands. It reads the headers of all copies, page by page, in the memory
// of a page for each shard. Shards that cannot be asked are listed in the report, and
// what they may have is not held for missing. With an error nothing was judged to the end.
func (l *Log) CheckReplication(ctx context.Context, o CheckOptions) (*ReplicationReport, error) {
	if o.Until == logs.LSNInvalid {
		state, err := l.sequencer(ctx, logs.StateCheckSeal, 0)
		if err != nil {
			return nil, err
		}
		if o.Until = LSN(state.LastReleased); state.Recovering {
			return nil, l.questionError("check replication", wire.LogStatus_LOG_STATUS_AGAIN, nil, "earlier epochs are being recovered; ask again")
		}
	}
	clock := l.client.opts.Clock
	over := clock.Now().Add(o.Settle)
	report, err := l.checkOnce(ctx, o)
	for err == nil && !report.Clean() && clock.Now().Before(over) {
		if !l.client.sleep(ctx, settleEvery) {
			return nil, newError(wire.Code_CODE_CANCELED, ctx.Err(), "given up")
		}
		// Below the epoch of the first problem all was well, unless somebody was not heard.
		again := o
		if len(report.Silent) == 0 && len(report.Problems) > 0 {
			again.From = max(o.From, logs.MakeLSN(report.Problems[0].From.Epoch(), 0))
		}
		var r *ReplicationReport
		if r, err = l.checkOnce(ctx, again); err == nil {
			report.Found, report.Problems, report.Silent = r.Found, r.Problems, r.Silent
			report.Trim, report.Damaged = max(report.Trim, r.Trim), r.Damaged
		}
	}
	return report, err
}

func (l *Log) checkOnce(ctx context.Context, o CheckOptions) (*ReplicationReport, error) {
	entries, _, err := l.metadata(ctx, o.Until.Epoch(), o.Until.Epoch() > 0)
	if err != nil {
		return nil, err
	}
	ck := checker.New(checker.Config{Log: l.id, Epochs: entries, From: o.From, To: o.Until})
	for {
		want := ck.Want()
		if len(want) == 0 {
			return ck.Report(), nil
		}
		pages := make(chan func(), len(want))
		for _, req := range want {
			l.client.running.Add(1)
			go func() {
				defer l.client.running.Done()
				resp := l.page(ctx, req)
				pages <- func() { ck.Answer(logs.ShardID(req.Shard), resp) }
			}()
		}
		for range want {
			(<-pages)()
		}
		if ctx.Err() != nil || l.client.ctx.Err() != nil {
			return nil, newError(wire.Code_CODE_CANCELED, ctx.Err(), "the check was given up at %s", ck.At())
		}
		if o.Progress != nil {
			r := ck.Report()
			o.Progress(CheckProgress{At: ck.At(), Until: o.Until, Records: r.Records, Copies: r.Copies})
		}
	}
}

// page asks a shard for one page, nil where it does not answer.
func (l *Log) page(ctx context.Context, req *wire.RecordsRequest) *wire.RecordsResponse {
	for try := 0; ; try++ {
		resp := new(wire.RecordsResponse)
		answer := make(chan error, 1)
		l.ask(logs.ShardID(req.Shard).Node(), rpc.MethodRecords, req, resp, l.client.opts.Clock.Now().Add(2*l.client.opts.Attempt), func(err error) { answer <- err })
		select {
		case err := <-answer:
			if err == nil && resp.Status == wire.LogStatus_LOG_STATUS_OK {
				return resp
			}
		case <-ctx.Done():
			return nil
		case <-l.client.ctx.Done():
			return nil
		}
		if try+1 == checkTries || !l.client.sleep(ctx, l.client.backoff(try)) {
			return nil
		}
	}
}
