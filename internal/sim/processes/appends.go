package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/sim/check"
)

// appends is a workload on one log: writers or producers, a reader that follows, and
// what they were told.
type appends struct {
	r    *round
	path string
	log  *client.Log // the checker's own
	mu   sync.Mutex
	ops  []*check.LogOp
	read []check.LogRecord // by the follower
	next client.LSN        // where it goes on
}

// note adds an append whose outcome came.
func (a *appends) note(id int, payload string, call time.Duration, lsn client.LSN, err error) {
	o := &check.LogOp{Op: check.Op{Client: id, Call: call, Return: a.r.timeline.now()}, Payload: payload, LSN: uint64(lsn)}
	var refusal *client.LogError
	switch {
	case err == nil:
		o.Outcome = check.OK
	case errors.As(err, &refusal) && refusal.OutcomeKnown:
		o.Outcome = check.None
	}
	a.r.add("%s w%d %q: %s %v", a.path, id, payload, lsn, err)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ops = append(a.ops, o)
}

// one appends a record.
func (a *appends) one(ctx context.Context, l *client.Log, id int, payload string) error {
	call := a.r.timeline.now()
	lsn, err := l.Append(ctx, []byte(payload))
	a.note(id, payload, call, lsn, err)
	return err
}

// work appends one record after the other.
func (a *appends) work(ctx context.Context, l *client.Log, id int) {
	rng := rand.New(rand.NewPCG(a.r.seed, uint64(3000+id)))
	for n := 0; ctx.Err() == nil; n++ {
		op, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := a.one(op, l, id, fmt.Sprintf("w%d.%d", id, n))
		cancel()
		rest(ctx, rng, err)
	}
}

// produce appends under sequences of its own, and sends each again until it is known
// to be there: as itself, or as told by Last.
func (a *appends) produce(ctx context.Context, l *client.Log, id int) {
	rng := rand.New(rand.NewPCG(a.r.seed, uint64(4000+id)))
	p := l.Producer(uint64(id))
	for seq := uint64(1); ctx.Err() == nil; seq++ {
		payload, call := fmt.Sprintf("p%d.%d", id, seq), a.r.timeline.now()
		var lsn client.LSN
		var err error
		for {
			op, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			lsn, err = p.Append(op, seq, []byte(payload))
			cancel()
			if err == nil || errors.Is(err, client.ErrSequenceStale) || errors.Is(err, client.ErrSequenceGap) || ctx.Err() != nil {
				break
			}
			a.r.add("%s p%d.%d again: %v", a.path, id, seq, err)
			rest(ctx, rng, err)
		}
		if errors.Is(err, client.ErrSequenceGap) {
			a.r.wrong("%s: producer %d: sequence %d after all before it were acknowledged: %v", a.path, id, seq, err)
		}
		if err != nil { // an earlier attempt may have been the one
			err = fmt.Errorf("not known: %v", err)
		}
		if a.note(id, payload, call, lsn, err); err != nil && ctx.Err() == nil {
			return
		}
		rest(ctx, rng, nil)
	}
}

// takeEntry checks that an entry follows the one before and that no gap says that
// data was lost, and gives where the next one begins.
func (a *appends) takeEntry(who string, next client.LSN, e client.Entry, read *[]check.LogRecord) client.LSN {
	from, to := e.Record.LSN, e.Record.LSN
	if e.IsGap() {
		from, to = e.Gap.From, e.Gap.To
		if t := e.Gap.Type; t != client.GapBridge && t != client.GapHole {
			a.r.wrong("%s: %s was given %s", a.path, who, e.Gap)
		}
	} else {
		*read = append(*read, check.LogRecord{LSN: uint64(from), Payload: string(e.Record.Payload)})
	}
	if from != next || to < from {
		a.r.wrong("%s: %s was given [%s, %s] where %s was to follow", a.path, who, from, to, next)
	}
	return to + 1
}

// follow reads the log from its beginning as it grows.
func (a *appends) follow(ctx context.Context, l *client.Log) {
	rd := l.NewReader(client.ReaderOptions{})
	defer rd.Close()
	for next := logs.LSNOldest; ctx.Err() == nil; {
		e, err := rd.Next(ctx)
		if err != nil {
			a.r.add("%s: the follower: %v", a.path, err)
			pause(ctx, 100*time.Millisecond)
			continue
		}
		a.mu.Lock()
		next = a.takeEntry("the follower", next, e, &a.read)
		a.next = next
		a.mu.Unlock()
	}
}

// judge reads the log once more, by another client, and compares.
func (a *appends) judge(ctx context.Context) {
	until, ok := a.last(ctx)
	if !ok {
		return
	}
	cl, err := a.r.connect()
	if err != nil {
		a.r.wrong("%s: %v", a.path, err)
		return
	}
	l, err := cl.Log(ctx, a.path)
	if err != nil {
		a.r.wrong("%s: %v", a.path, err)
		return
	}
	rd := l.NewReader(client.ReaderOptions{Until: until})
	defer rd.Close()
	var read []check.LogRecord
	next := logs.LSNOldest
	for {
		e, err := rd.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			a.r.wrong("%s: reading up to %s, at %s: %v", a.path, until, next, err)
			return
		}
		next = a.takeEntry("the last reader", next, e, &read)
	}
	if next != until+1 {
		a.r.wrong("%s: reading ended before %s, not after %s", a.path, next, until)
	}
	if !a.r.eventually(ctx, convergeTime, func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.next > until }) {
		a.r.wrong("%s: the follower is at %s, and not behind %s", a.path, a.next, until)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.ops {
		if o.Outcome == check.OK {
			a.r.counted("appends", 1, 0)
		} else if o.Outcome == check.Unknown {
			a.r.counted("appends", 0, 1)
		}
	}
	if err := errors.Join(check.Log(a.ops, read), check.SameLog(a.read, read)); err != nil {
		a.r.wrong("%s: %v", a.path, err)
	}
	a.judgeCopies(ctx, until)
}

// last appends the log's last record. In the producers' log that must not be a
// producer's: their sequences are their own.
func (a *appends) last(ctx context.Context) (client.LSN, bool) {
	if err := a.one(ctx, a.log, 98, "end"); err != nil {
		a.r.wrong("%s: the last append: %v", a.path, err)
		return 0, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return client.LSN(a.ops[len(a.ops)-1].LSN), true
}

// judgeCopies runs the replication checker until it finds nothing: releases and
// purges take their time to come around.
func (a *appends) judgeCopies(ctx context.Context, until client.LSN) {
	var said string
	if a.r.eventually(ctx, convergeTime, func() bool {
		report, err := a.log.CheckReplication(ctx, client.CheckOptions{Until: until})
		if err != nil {
			said = err.Error()
			return false
		}
		said = fmt.Sprintf("%d records, %d copies, silent %v, %.5v", report.Records, report.Copies, report.Silent, report.Problems[:min(3, len(report.Problems))])
		return report.Clean() && report.Records > 0
	}) {
		return
	}
	a.r.wrong("%s: replication up to %s: %s", a.path, until, said)
}
