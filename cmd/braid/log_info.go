package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/braiddb/braid/client"
)

type logInfoCmd struct {
	lookFlags
	Name string `arg:"" help:"A log, a group, a directory, or a log's id."`
}

// Help shows typical calls.
func (logInfoCmd) Help() string {
	return "Examples:\n  braid log info /events/clicks\n  braid log info /events/clicks#3 --format json"
}

// logReport is all that is to be known of a log.
type logReport struct {
	Path       string              `json:"path"`
	Log        uint64              `json:"log,omitempty"`
	Logs       int                 `json:"logs,omitempty"`
	IDs        string              `json:"ids,omitempty"`
	Version    uint64              `json:"version,omitempty"`
	Attributes []client.LogSource  `json:"attributes"`
	Sequencer  *logSequencerReport `json:"sequencer,omitempty"`
	Tail       *logTailReport      `json:"tail,omitempty"`
	TrimPoint  string              `json:"trim_point,omitempty"`
	Bytes      *uint64             `json:"bytes,omitempty"`
	Problems   []string            `json:"problems,omitempty"`
}

type logSequencerReport struct {
	State         string           `json:"state"`
	Epoch         uint32           `json:"epoch"`
	Next          string           `json:"next"`
	Released      string           `json:"released"`
	LastKnownGood string           `json:"last_known_good"`
	InFlight      int              `json:"in_flight"`
	Window        uint32           `json:"window"`
	Bytes         uint64           `json:"bytes_in_flight"`
	Recovering    bool             `json:"recovering"`
	Epochs        []logEpochReport `json:"epochs"`
}

type logEpochReport struct {
	Since   uint32   `json:"since_epoch"`
	Copies  string   `json:"replication"`
	Nodeset []string `json:"nodeset"`
}

type logTailReport struct {
	LSN     string    `json:"lsn"`
	Time    time.Time `json:"timestamp"`
	Records uint64    `json:"records"`
}

// Run describes it.
func (c logInfoCmd) Run() error {
	return c.administer(func(ctx context.Context, cl *client.Client) error {
		info, err := cl.LogInfo(ctx, c.Name)
		if err != nil {
			return err
		}
		r := &logReport{Path: info.Path, Logs: info.Logs, IDs: rangesText(info.Ranges), Version: info.Version}
		if r.Attributes, err = cl.LogSources(ctx, info.Path); err != nil {
			return err
		}
		if log, err := cl.Log(ctx, c.Name); !info.Directory && err == nil { // one log of the group is meant
			r.Log = uint64(log.ID())
			r.examine(ctx, log, info)
		}
		return c.show(r, r.rows())
	})
}

// examine asks those who serve the log. What does not answer is a problem that is
// told of, not a failure: one looks at a log when something is wrong.
func (r *logReport) examine(ctx context.Context, log *client.Log, info client.LogInfo) {
	problem := func(what string, err error) bool {
		if err != nil {
			r.Problems = append(r.Problems, what+": "+err.Error())
		}
		return err != nil
	}
	seq, err := log.Sequencer(ctx)
	if !problem("sequencer", err) {
		r.Sequencer = &logSequencerReport{
			State: seq.State, Epoch: seq.Epoch, Next: seq.Next.String(), Released: lsnText(seq.Released), LastKnownGood: lsnText(seq.LastKnownGood),
			InFlight: seq.InFlight, Window: info.Attributes.GetMaxWritesInFlight(), Bytes: seq.BytesInFlight, Recovering: seq.Recovering,
		}
		for _, e := range seq.Epochs {
			row := logEpochReport{Since: e.Since, Copies: replicationText(e.Replication)}
			for _, s := range e.Shards {
				row.Nodeset = append(row.Nodeset, s.String())
			}
			r.Sequencer.Epochs = append(r.Sequencer.Epochs, row)
		}
		tail, err := log.TailAttributes(ctx)
		if !problem("tail", err) {
			r.Tail = &logTailReport{LSN: lsnText(tail.LSN), Time: tail.Timestamp.UTC(), Records: tail.Count}
		}
	}
	head, err := log.HeadAttributes(ctx)
	if !problem("trim point", err) {
		r.TrimPoint = lsnText(head.TrimPoint)
	}
	if size, err := log.DataSize(ctx, time.Time{}, time.Time{}); !problem("size", err) {
		r.Bytes = &size
	}
}

// lsnText prints an LSN of something that there may not be yet.
func lsnText(l client.LSN) string {
	if l < 1<<32 {
		return "none"
	}
	return l.String()
}

func replicationText(r *client.Replication) string {
	var parts []string
	for _, s := range []struct {
		scope string
		n     uint32
	}{{"node", r.GetNode()}, {"rack", r.GetRack()}, {"zone", r.GetZone()}, {"region", r.GetRegion()}} {
		if s.n > 0 {
			parts = append(parts, fmt.Sprintf("%s:%d", s.scope, s.n))
		}
	}
	return strings.Join(parts, ",")
}

// rows is the report as a table.
func (r *logReport) rows() [][]string {
	rows := [][]string{{"path", r.Path}}
	add := func(name, value string) { rows = append(rows, []string{name, value}) }
	if r.Log != 0 {
		add("log", id(r.Log))
	}
	if r.Logs > 0 {
		add("logs", fmt.Sprintf("%d (%s)", r.Logs, r.IDs))
	}
	if s := r.Sequencer; s != nil {
		add("sequencer", fmt.Sprintf("%s, epoch %d", s.State, s.Epoch))
		add("next", s.Next)
		add("released", s.Released)
		add("last known good", s.LastKnownGood)
		add("in flight", fmt.Sprintf("%d of %d, %d bytes", s.InFlight, s.Window, s.Bytes))
		if s.Recovering {
			add("recovery", "of earlier epochs under way")
		}
		for _, e := range s.Epochs {
			add(fmt.Sprintf("since epoch %d", e.Since), fmt.Sprintf("%s on %s", e.Copies, strings.Join(e.Nodeset, " ")))
		}
	}
	if t := r.Tail; t != nil {
		add("tail", fmt.Sprintf("%s, %d records", t.LSN, t.Records))
	}
	if r.TrimPoint != "" {
		add("trimmed up to", r.TrimPoint)
	}
	if r.Bytes != nil {
		add("bytes, about", strconv.FormatUint(*r.Bytes, 10))
	}
	for _, s := range r.Attributes {
		add(s.Name, fmt.Sprintf("%s (%s)", s.Value, s.From))
	}
	for _, p := range r.Problems {
		add("problem", p)
	}
	return rows
}

type logTrimCmd struct {
	lookFlags
	Name string `arg:"" help:"/events/clicks, /events/clicks#3, or a log's id."`
	To   string `arg:"" help:"The last LSN to go, or a time: all before it go."`
}

// Help shows typical calls.
func (logTrimCmd) Help() string {
	return "What is trimmed is gone for ever.\n\nExamples:\n  braid log trim /events/clicks e5n8\n  braid log trim /events/clicks 48h"
}

// Run trims the log.
func (c logTrimCmd) Run() error {
	return c.administer(func(ctx context.Context, cl *client.Client) error {
		log, err := openLog(ctx, cl, c.Name)
		if err != nil {
			return err
		}
		to, err := client.ParseLSN(c.To)
		if err != nil {
			at, ok := parseTime(c.To, time.Now())
			if !ok {
				return &usageError{fmt.Errorf("%q is neither an LSN such as e5n8 nor a time such as 2026-01-31T12:00:00Z or 48h", c.To)}
			}
			first, err := log.FindTime(ctx, at, false)
			if err != nil && !errors.Is(err, client.ErrPartial) {
				return err
			}
			to = first - 1
		}
		if err := log.Trim(ctx, to); err != nil {
			return err
		}
		return c.show(map[string]string{"trimmed_up_to": to.String()}, [][]string{{"trimmed up to " + to.String()}})
	})
}

type logFindCmd struct {
	lookFlags
	Name        string `arg:"" help:"/events/clicks, /events/clicks#3, or a log's id."`
	Time        string `arg:"" optional:"" help:"Such as 2026-01-31T12:00:00Z, or 15m ago."`
	Key         string `help:"The find key that records were appended with, instead of a time."`
	Approximate bool   `help:"Cheaper, and maybe minutes early."`
}

// Help shows typical calls.
func (logFindCmd) Help() string {
	return "Examples:\n  braid log find /events/clicks 15m\n  braid log find /events/clicks 2026-01-31T12:00:00Z\n  braid log find /events/clicks --key user:17"
}

// Run finds the LSN.
func (c logFindCmd) Run() error {
	if (c.Time == "") == (c.Key == "") {
		return &usageError{errors.New("pass a time or --key, one of them")}
	}
	at, ok := parseTime(c.Time, time.Now())
	if c.Time != "" && !ok {
		return &usageError{fmt.Errorf("%q is not a time: write 2026-01-31T12:00:00Z, or 15m for how long ago", c.Time)}
	}
	return c.administer(func(ctx context.Context, cl *client.Client) error {
		log, err := openLog(ctx, cl, c.Name)
		if err != nil {
			return err
		}
		if c.Key != "" {
			low, high, err := log.FindKey(ctx, []byte(c.Key), c.Approximate)
			if err != nil {
				return err
			}
			return c.show(map[string]string{"after": low.String(), "first": high.String()}, [][]string{{high.String()}})
		}
		lsn, err := log.FindTime(ctx, at, c.Approximate)
		if err != nil {
			return err
		}
		return c.show(map[string]string{"lsn": lsn.String()}, [][]string{{lsn.String()}})
	})
}
