package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/braiddb/braid/client"
)

type logTailCmd struct {
	lookFlags
	framing
	Name     string `arg:"" help:"/events/clicks, /events/clicks#3, or a log's id."`
	From     string `help:"Where to begin: oldest, end, an LSN such as e5n8, or a time such as 2026-01-31T12:00:00Z or 15m (ago). Default: end; with --no-follow, oldest." placeholder:"LSN|TIME"`
	NoFollow bool   `help:"End behind the last record that is there now."`
	Count    int    `help:"End after so many records; 0: no end." default:"0"`
	Gaps     bool   `help:"Tell of every gap, on stderr; lost data is always told of."`
}

// Help shows typical calls.
func (logTailCmd) Help() string {
	return `Records are written byte for byte, each followed by the delimiter. If the log is removed
meanwhile the command fails, with code 1, within some 15 s.

Examples:
  braid log tail /events/clicks
  braid log tail /events/clicks --from oldest --no-follow > clicks.txt
  braid log tail /events/clicks --from 15m --format json
  braid log tail /frames --from e5n8 --length-prefixed | consumer`
}

// errDataLoss ends a tail that could not give everything.
var errDataLoss = errors.New("records that were in the log cannot be read any more: see above")

// errLogRemoved ends a tail whose log is gone.
var errLogRemoved = errors.New("the log was removed: there is no such log any more")

// Run writes records until a signal, or the end.
func (c logTailCmd) Run() error {
	out, err := newFrameWriter(os.Stdout, c.framing)
	if err != nil {
		return err
	}
	return c.withLog(c.Name, func(stop, soon context.Context, log *client.Log) error {
		options, empty, err := c.options(soon, log)
		if err != nil || empty {
			return err
		}
		r := log.NewReader(options)
		defer r.Close()
		t := &tailing{cmd: c, out: out, json: json.NewEncoder(out.out)}
		err = t.run(stop, r)
		return errors.Join(err, out.out.Flush())
	})
}

// withLog connects, and does something to a log that must be there. stop ends with a
// signal, soon also when the time for an answer is over.
func (f lookFlags) withLog(name string, do func(stop, soon context.Context, log *client.Log) error) error {
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	soon, done := context.WithTimeout(stop, f.Timeout)
	defer done()
	cl, err := f.connect(soon)
	if err != nil {
		return err
	}
	defer cl.Close()
	log, err := openLog(soon, cl, name)
	if err != nil {
		return err
	}
	return do(stop, soon, log)
}

// openLog finds a log that must be there.
func openLog(ctx context.Context, cl *client.Client, name string) (*client.Log, error) {
	info, err := cl.LogInfo(ctx, name)
	if err != nil {
		return nil, asUsage(err)
	}
	if info.Directory {
		return nil, &usageError{fmt.Errorf("%s is a directory: braid log list %s shows what is in it", name, info.Path)}
	}
	log, err := cl.Log(ctx, name)
	return log, asUsage(err)
}

// options says where reading begins and ends; empty, that there is nothing between.
func (c logTailCmd) options(ctx context.Context, log *client.Log) (o client.ReaderOptions, empty bool, err error) {
	from := c.From
	if from == "" {
		from = "end"
		if c.NoFollow {
			from = "oldest"
		}
	}
	if from == "end" {
		o.FromTail = true
	} else if lsn, err := client.ParseLSN(from); err == nil {
		o.From = lsn
	} else if at, ok := parseTime(from, time.Now()); ok {
		o.FromTime = at
	} else {
		return o, false, &usageError{fmt.Errorf("--from %q is neither oldest, end, an LSN such as e5n8, nor a time such as 2026-01-31T12:00:00Z or 15m", from)}
	}
	if !c.NoFollow {
		return o, false, nil
	}
	if o.Until, err = log.Tail(ctx); err != nil {
		return o, false, err
	}
	if o.From > o.Until+1 && o.From > client.LSNOldest && o.From != client.LSNMax {
		return o, false, fmt.Errorf("log %s: %s lies behind its end, %s: nothing was appended there yet; without --no-follow it is waited for", c.Name, o.From, o.Until)
	}
	return o, o.FromTail || o.Until < max(o.From, client.LSNOldest), nil
}

// parseTime reads a time, a date, or how long ago it was.
func parseTime(s string, now time.Time) (time.Time, bool) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), true
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// tailing writes what a reader gives.
type tailing struct {
	cmd     logTailCmd
	out     *frameWriter
	json    *json.Encoder
	written int
	lost    bool
}

// entryOrEnd is what the reading goroutine hands over.
type entryOrEnd struct {
	entry client.Entry
	err   error
}

// run writes entries. What was written is flushed whenever the reader has nothing
// more at hand: a pipe sees records at once, and a backlog costs few writes.
func (t *tailing) run(stop context.Context, r *client.Reader) error {
	ctx, cancel := context.WithCancel(stop)
	entries := make(chan entryOrEnd, 1024)
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	go func() {
		defer close(ended)
		for {
			e, err := r.Next(ctx)
			select {
			case entries <- entryOrEnd{e, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		var e entryOrEnd
		select {
		case e = <-entries:
		default:
			if err := t.out.out.Flush(); err != nil {
				return err
			}
			select {
			case e = <-entries:
			case <-stop.Done():
				return t.end(nil)
			}
		}
		if e.err != nil {
			if stop.Err() != nil || errors.Is(e.err, io.EOF) {
				e.err = nil
			}
			return t.end(e.err)
		}
		if over, err := t.take(e.entry); over || err != nil {
			return t.end(err)
		}
	}
}

func (t *tailing) end(err error) error {
	if err == nil && t.lost {
		return errDataLoss
	}
	return err
}

// take writes one entry, and reports whether it was the last one wanted.
func (t *tailing) take(e client.Entry) (over bool, err error) {
	if e.IsGap() {
		loss := e.Gap.Type == client.GapDataLoss
		t.lost = t.lost || loss
		if loss || t.cmd.Gaps {
			fmt.Fprintf(os.Stderr, "braid: gap: %s\n", e.Gap)
		}
		if e.Gap.Type == client.GapNotInConfig {
			return true, errLogRemoved
		}
		return false, nil
	}
	if t.cmd.Format == "json" {
		err = t.json.Encode(recordJSON(e.Record))
	} else {
		err = t.out.write(e.Record.Payload)
	}
	t.written++
	return t.written == t.cmd.Count, err
}

// tailRecord is a record in JSON. A payload that is no text is in base64.
type tailRecord struct {
	LSN    string    `json:"lsn"`
	Batch  int       `json:"batch_offset"`
	Offset *uint64   `json:"offset,omitempty"`
	Time   time.Time `json:"timestamp"`
	Text   *string   `json:"payload,omitempty"`
	Bytes  []byte    `json:"payload_base64,omitempty"`
}

func recordJSON(r client.Record) tailRecord {
	out := tailRecord{LSN: r.LSN.String(), Batch: r.BatchOffset, Time: r.Timestamp.UTC()}
	if r.OffsetKnown {
		out.Offset = &r.Offset
	}
	if utf8.Valid(r.Payload) {
		out.Text = new(string(r.Payload))
	} else {
		out.Bytes = r.Payload
	}
	return out
}
