package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/bench"
)

// openLogs makes the logs, if they are not there.
func (c benchCmd) openLogs(ctx context.Context, cl *client.Client) ([]*client.Log, error) {
	_, err := cl.CreateLogs(ctx, c.Log, c.Logs, client.LogParents(), client.LogIfNotExists(),
		client.LogReplication(&client.Replication{Node: c.Copies}))
	if err != nil {
		return nil, err
	}
	logs := make([]*client.Log, c.Logs)
	for i := range logs {
		name := c.Log
		if c.Logs > 1 {
			name = fmt.Sprintf("%s#%d", c.Log, i)
		}
		if logs[i], err = cl.Log(ctx, name); err != nil {
			return nil, err
		}
	}
	return logs, nil
}

// runLogs puts the load on the logs.
func (c benchCmd) runLogs(ctx context.Context, cl *client.Client, o bench.Options) (bench.Result, error) {
	logs, err := c.openLogs(ctx, cl)
	if err != nil {
		return bench.Result{}, err
	}
	if c.Workload == "tail" {
		t, err := newTailed(ctx, logs)
		if err != nil {
			return bench.Result{}, err
		}
		defer t.close()
		return bench.RunLogs(ctx, t, o)
	}
	if c.Batched {
		b := batched{}
		for _, l := range logs {
			w := l.BufferedWriter(client.BufferedWriterOptions{})
			defer w.Close(context.WithoutCancel(ctx))
			b.writers = append(b.writers, w)
		}
		return bench.RunLogs(ctx, b, o)
	}
	return bench.RunLogs(ctx, appended(logs), o)
}

// appended appends each payload as a record of its own.
type appended []*client.Log

// Append waits until the record is stored.
func (a appended) Append(ctx context.Context, log int, payload []byte) error {
	_, err := a[log].Append(ctx, payload)
	return err
}

// batched gives payloads to buffered writers.
type batched struct{ writers []*client.BufferedWriter }

// Append waits until the payload's batch is stored.
func (b batched) Append(ctx context.Context, log int, payload []byte) error {
	done := make(chan error, 1)
	if err := b.writers[log].Append(payload, func(_ client.LSN, _ int, err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tailed measures from an append's begin until a reader of this process has the
// record.
type tailed struct {
	logs   []*client.Log
	cancel context.CancelFunc
	read   sync.WaitGroup

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan struct{}
	err     error
}

func newTailed(ctx context.Context, logs []*client.Log) (*tailed, error) {
	ctx, cancel := context.WithCancel(ctx)
	t := &tailed{logs: logs, cancel: cancel, waiting: map[uint64]chan struct{}{}}
	for _, l := range logs {
		tail, err := l.Tail(ctx) // before the first append, lest the reader begin behind it
		if err != nil {
			t.close()
			return nil, err
		}
		r := l.NewReader(client.ReaderOptions{From: tail + 1})
		t.read.Go(func() { t.follow(ctx, r) })
	}
	return t, nil
}

func (t *tailed) follow(ctx context.Context, r *client.Reader) {
	defer r.Close()
	for {
		e, err := r.Next(ctx)
		if err != nil {
			t.mu.Lock()
			t.err = err
			t.mu.Unlock()
			return
		}
		if e.IsGap() || len(e.Record.Payload) < 8 {
			continue
		}
		id := binary.BigEndian.Uint64(e.Record.Payload)
		t.mu.Lock()
		if w := t.waiting[id]; w != nil {
			close(w)
			delete(t.waiting, id)
		}
		t.mu.Unlock()
	}
}

// tailTime bounds how long an appended record may take to reach its reader.
const tailTime = 30 * time.Second

// Append waits until the reader has the record.
func (t *tailed) Append(ctx context.Context, log int, payload []byte) error {
	arrived := make(chan struct{})
	t.mu.Lock()
	t.next++
	id := t.next
	t.waiting[id] = arrived
	err := t.err
	t.mu.Unlock()
	if err != nil {
		return err
	}
	marked := make([]byte, max(8, len(payload)))
	copy(marked, payload)
	binary.BigEndian.PutUint64(marked, id)
	if _, err := t.logs[log].Append(ctx, marked); err != nil {
		return err
	}
	late := time.NewTimer(tailTime)
	defer late.Stop()
	select {
	case <-arrived:
		return nil
	case <-late.C:
		return fmt.Errorf("a record did not reach its reader within %s of being stored", tailTime)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *tailed) close() {
	t.cancel()
	t.read.Wait()
}
