package world

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
)

// appends is a workload on one log: writers that append, one reader that follows,
// and what they were told.
type appends struct {
	w       *World
	path    string
	log     *client.Log // the checker's own
	mu      sync.Mutex
	acked   map[string]client.LSN // by payload
	failed  map[string]bool       // known not to be there
	last    client.LSN            // the highest that was acknowledged
	read    []string              // what the reader has read, in order
	next    client.LSN            // where it goes on
	stopped bool                  // the reader has ended
}

func newAppends(w *World, path string) *appends {
	return &appends{w: w, path: path, acked: map[string]client.LSN{}, failed: map[string]bool{}, next: logs.LSNOldest}
}

// work appends one record after the other; their LSNs ascend.
func (a *appends) work(l *client.Log, id int) {
	rng := rand.New(rand.NewPCG(a.w.seed, uint64(3000+id)))
	var last client.LSN
	for n := 0; a.w.loading(); n++ {
		payload := fmt.Sprintf("w%d.%d", id, n)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		lsn, err := l.Append(ctx, []byte(payload))
		cancel()
		a.w.trace.Add("append %s %s: %s %v", a.path, payload, lsn, err)
		a.outcome(payload, lsn, err)
		if err == nil && lsn <= last {
			a.w.wrong("%s: writer %d got %s after %s", a.path, id, lsn, last)
		}
		last = max(last, lsn)
		a.w.rest(rng, err)
	}
}

// outcome notes how an append ended.
func (a *appends) outcome(payload string, lsn client.LSN, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var refusal *client.LogError
	switch {
	case err == nil:
		a.acked[payload] = lsn
		a.last = max(a.last, lsn)
	case errors.As(err, &refusal) && refusal.OutcomeKnown:
		a.failed[payload] = true
	}
}

// follow reads the log from its beginning as it grows, until the reader is told
// that all has come.
func (a *appends) follow(l *client.Log) {
	rd := l.NewReader(client.ReaderOptions{})
	defer rd.Close()
	for !a.w.finished() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		e, err := rd.Next(ctx)
		cancel()
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				a.w.trace.Add("%s: reader: %v", a.path, err)
				time.Sleep(100 * time.Millisecond)
			}
			continue
		}
		a.take(e)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
}

// take checks that entries tile the log, and that no gap says that data was lost.
func (a *appends) take(e client.Entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	from, to := e.Record.LSN, e.Record.LSN
	if e.IsGap() {
		from, to = e.Gap.From, e.Gap.To
		if t := e.Gap.Type; t != client.GapBridge && t != client.GapHole {
			a.w.wrong("%s: the reader was given %s", a.path, e.Gap)
		}
	} else {
		a.read = append(a.read, fmt.Sprintf("%s %s", e.Record.LSN, e.Record.Payload))
	}
	if from != a.next || to < from {
		a.w.wrong("%s: the reader was given [%s, %s] where %s was to follow", a.path, from, to, a.next)
	}
	a.next = to + 1
	a.w.trace.Add("read %s [%s, %s] %s", a.path, from, to, e.Record.Payload)
}

// check reads the log once more and compares: every acknowledged record is there
// at its LSN, none twice, none that failed, and the follower saw the same.
func (a *appends) check() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	until, err := a.log.Append(ctx, []byte("end"))
	if err != nil {
		a.w.wrong("%s: the last append: %v", a.path, err)
		return
	}
	read, ok := a.readTo(ctx, until)
	if !ok {
		return
	}
	at := map[string]string{}
	for _, r := range read {
		var lsn, payload string
		fmt.Sscan(r, &lsn, &payload)
		if other, twice := at[payload]; twice {
			a.w.wrong("%s: %q is in the log twice: %s and %s", a.path, payload, other, lsn)
		}
		if at[payload] = lsn; a.failed[payload] {
			a.w.wrong("%s: %q failed, and is at %s", a.path, payload, lsn)
		}
	}
	for p, lsn := range a.acked {
		if at[p] != lsn.String() {
			a.w.wrong("%s: %q was acknowledged at %s, and is at %q", a.path, p, lsn, at[p])
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.w.known += len(a.acked)
	for i, r := range a.read {
		if i < len(read) && read[i] != r {
			a.w.wrong("%s: record %d was read as %q first, and as %q at the end", a.path, i, r, read[i])
			return
		}
	}
}

// readTo gives all records up to an LSN. Entries tile the range.
func (a *appends) readTo(ctx context.Context, until client.LSN) (read []string, ok bool) {
	rd := a.log.NewReader(client.ReaderOptions{Until: until})
	defer rd.Close()
	next := logs.LSNOldest
	for {
		e, err := rd.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			a.w.wrong("%s: reading up to %s, at %s: %v", a.path, until, next, err)
			return nil, false
		}
		from, to := e.Record.LSN, e.Record.LSN
		if e.IsGap() {
			from, to = e.Gap.From, e.Gap.To
			if t := e.Gap.Type; t != client.GapBridge && t != client.GapHole {
				a.w.wrong("%s: reading gives %s", a.path, e.Gap)
			}
		} else {
			read = append(read, fmt.Sprintf("%s %s", e.Record.LSN, e.Record.Payload))
		}
		if from != next {
			a.w.wrong("%s: reading gives %s where %s was to follow", a.path, from, next)
		}
		next = to + 1
	}
	if next != until+1 {
		a.w.wrong("%s: reading ended before %s, not after %s", a.path, next, until)
	}
	return read, true
}
