package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/braiddb/braid/client"
)

type logAppendCmd struct {
	lookFlags
	framing
	Name        string        `arg:"" help:"/events/clicks, /events/clicks#3, or a log's id."`
	Unbatched   bool          `help:"Each record by itself, under an LSN of its own."`
	Window      int           `help:"With --unbatched: records on their way at a time." default:"1000"`
	BatchTime   time.Duration `help:"The longest that a record waits for others." default:"5ms"`
	BatchBytes  bytesFlag     `help:"A batch of this size is sent at once." default:"128KiB" placeholder:"BYTES"`
	Patience    time.Duration `help:"Give up when this long nothing more was stored." default:"20s"`
	Compression string        `help:"Of batches: none, lz4 or zstd." enum:"none,lz4,zstd" default:"lz4"`
}

// Help shows typical calls.
func (logAppendCmd) Help() string {
	return `Records are in the log each once and in the order of the input, whatever fails on the way.

Examples:
  braid log append /events/clicks < clicks.txt
  tar c . | braid log append /backup --delimiter ''
  producer | braid log append /frames --length-prefixed`
}

// poured says what became of the input.
type poured struct {
	Records int    `json:"records"`
	Bytes   int64  `json:"bytes"`
	First   string `json:"first,omitempty"` // LSN
	Last    string `json:"last,omitempty"`
}

// Run appends standard input.
func (c logAppendCmd) Run() error {
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	ctx, done := context.WithTimeout(stop, c.Timeout)
	defer done()
	if c.Patience <= 0 {
		return &usageError{fmt.Errorf("--patience %s: it must be more than nothing", c.Patience)}
	}
	cl, err := c.connectWith(ctx, client.Options{AppendTimeout: c.Patience})
	if err != nil {
		return err
	}
	defer cl.Close()
	log, err := cl.Log(ctx, c.Name)
	if err != nil {
		return asUsage(err)
	}
	info, err := cl.LogInfo(ctx, c.Name)
	if err != nil {
		return err
	}
	in, err := newFrameReader(os.Stdin, c.framing, int(info.Attributes.GetMaxPayloadBytes()))
	if err != nil {
		return err
	}
	t := newTally()
	err = c.pour(stop, in, log, t)
	sum := t.sum()
	rows := [][]string{{"RECORDS", "BYTES", "FIRST", "LAST"}, {fmt.Sprint(sum.Records), fmt.Sprint(sum.Bytes), sum.First, sum.Last}}
	return errors.Join(err, c.show(sum, rows))
}

// pour appends record after record, and returns when each has its outcome.
func (c logAppendCmd) pour(stop context.Context, in *frameReader, log *client.Log, t *tally) error {
	take, settle := c.unbatched(log, t)
	if !c.Unbatched {
		take, settle = c.batched(log, t)
	}
	chunks, free := make(chan *chunk), make(chan *chunk, 2)
	free <- new(chunk)
	free <- new(chunk)
	var failed error
	go func() { // reading blocks, and a signal must not wait for it
		defer close(chunks)
		for c := range free {
			err := c.fill(in)
			if len(c.ends) > 0 {
				chunks <- c
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					failed = err
				}
				return
			}
		}
	}()
	for {
		select {
		case <-stop.Done():
			return errors.Join(errors.New("interrupted: what follows was not read"), settle())
		case c, more := <-chunks:
			if !more {
				return errors.Join(failed, settle())
			}
			for record := range c.records() {
				if err := take(stop, record); err != nil {
					return errors.Join(err, settle())
				}
			}
			if err := t.failure(); err != nil {
				return errors.Join(err, settle())
			}
			free <- c
		}
	}
}

// chunk is records that were read together: handing each over by itself would
// cost more than appending it.
type chunk struct {
	bytes []byte
	ends  []int
}

// chunkBytes is when a chunk is handed over though more could be read.
const chunkBytes = 256 << 10

// fill reads records as long as that does not block.
func (c *chunk) fill(in *frameReader) error {
	c.bytes, c.ends = c.bytes[:0], c.ends[:0]
	for {
		record, err := in.next()
		if err != nil {
			return err
		}
		c.bytes = append(c.bytes, record...)
		c.ends = append(c.ends, len(c.bytes))
		if len(c.bytes) >= chunkBytes || len(c.ends) >= 4096 || in.in.Buffered() == 0 {
			return nil
		}
	}
}

func (c *chunk) records() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		from := 0
		for _, end := range c.ends {
			if !yield(c.bytes[from:end:end]) {
				return
			}
			from = end
		}
	}
}

// lost is the end of waiting: what was not answered may be in the log.
func (c logAppendCmd) lost() error {
	return fmt.Errorf("nothing more was stored for %s (--patience): what has no answer may be in the log or not; is the cluster well? try: braid status", c.Patience)
}

// batched gives records to a writer that never changes their order.
func (c logAppendCmd) batched(log *client.Log, t *tally) (take func(context.Context, []byte) error, settle func() error) {
	compression := map[string]client.Compression{"none": client.CompressionNone, "lz4": client.CompressionLZ4, "zstd": client.CompressionZstd}[c.Compression]
	w := log.BufferedWriter(client.BufferedWriterOptions{
		Mode: client.Stream, Time: c.BatchTime, Bytes: int(c.BatchBytes), Compression: &compression,
	})
	take = func(ctx context.Context, record []byte) error {
		size := len(record)
		for {
			err := w.Append(record, func(lsn client.LSN, _ int, err error) { t.done(size, lsn, err) })
			if !errors.Is(err, client.ErrOverloaded) {
				if err == nil {
					t.began()
				}
				return err
			}
			if err := c.awaitRoom(ctx, t); err != nil {
				return err
			}
		}
	}
	return take, func() error {
		for t.running() > 0 { // Close would not notice that some are stored
			w.Flush()
			if err := c.awaitRoom(context.Background(), t); err != nil {
				over, cancel := context.WithCancel(context.Background())
				cancel() // Close says what it would wait for
				return errors.Join(err, w.Close(over), t.failure())
			}
		}
		return errors.Join(w.Close(context.Background()), t.failure())
	}
}

// unbatched appends each record by itself, up to --window at a time.
func (c logAppendCmd) unbatched(log *client.Log, t *tally) (take func(context.Context, []byte) error, settle func() error) {
	take = func(ctx context.Context, record []byte) error {
		for t.running() >= max(1, c.Window) {
			if err := t.awaitRoom(ctx); err != nil {
				return err
			}
		}
		own := append([]byte(nil), record...)
		t.began()
		log.AppendAsync(own, func(lsn client.LSN, err error) { t.done(len(own), lsn, err) })
		return nil
	}
	return take, func() error {
		for t.running() > 0 {
			<-t.room // each ends by itself, within --patience
		}
		return t.failure()
	}
}

// tally counts what was begun and what became of it.
type tally struct {
	room chan struct{} // holds one when something has ended since it was looked at

	mu          sync.Mutex
	begun, over int
	stored      int
	bytes       int64
	first, last client.LSN
	failed      error // the first
}

func newTally() *tally { return &tally{room: make(chan struct{}, 1)} }

func (t *tally) began() {
	t.mu.Lock()
	t.begun++
	t.mu.Unlock()
}

func (t *tally) done(size int, lsn client.LSN, err error) {
	t.mu.Lock()
	t.over++
	if err != nil {
		if t.failed == nil {
			t.failed = err
		}
	} else {
		t.stored++
		t.bytes += int64(size)
		if t.first == 0 || lsn < t.first {
			t.first = lsn
		}
		t.last = max(t.last, lsn)
	}
	t.mu.Unlock()
	select {
	case t.room <- struct{}{}:
	default:
	}
}

func (t *tally) running() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.begun - t.over
}

func (t *tally) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// awaitRoom waits until something has ended, for as long as it is worth it.
func (c logAppendCmd) awaitRoom(ctx context.Context, t *tally) error {
	soon, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	if err := t.awaitRoom(soon); err == nil || ctx.Err() != nil {
		return err
	}
	return c.lost()
}

// awaitRoom waits until something has ended.
func (t *tally) awaitRoom(ctx context.Context) error {
	select {
	case <-t.room:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *tally) sum() poured {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := poured{Records: t.stored, Bytes: t.bytes}
	if t.stored > 0 {
		a.First, a.Last = t.first.String(), t.last.String()
	}
	return a
}
