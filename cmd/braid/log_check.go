package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/braiddb/braid/client"
)

type logCheckCmd struct {
	lookFlags
	Name   string        `arg:"" help:"/events/clicks, /events/clicks#3, or a log's id."`
	From   string        `help:"The first LSN to be checked." default:"oldest" placeholder:"LSN"`
	Until  string        `help:"The last one. Default: all that readers are served." placeholder:"LSN"`
	Settle time.Duration `help:"How long something must be wrong to be told of: what a failover left takes a moment to be put in order." default:"10s"`
}

// Help shows typical calls.
func (logCheckCmd) Help() string {
	return `Every copy's header is read, of every record that readers are served: does it lie on as
many nodes, racks and zones as the log's replication asks for, do its copies agree? Ends with
code 1 if something is wrong, or if a node could not be asked: what that one may have is not
held for missing. Progress is told on stderr.

Examples:
  braid log check /events/clicks
  braid log check /events/clicks#3 --from e5n1 --format json`
}

// Ends of a check that is not clean.
var (
	errUnreplicated = errors.New("records of the log do not have the copies that they should have: see above")
	errUnheard      = errors.New("not all nodes could be asked: nothing wrong was found on the others")
)

// checkReport is a client.ReplicationReport for people and programs.
type checkReport struct {
	Log      uint64         `json:"log"`
	Until    string         `json:"until"`
	Trimmed  string         `json:"trimmed_up_to"`
	Records  uint64         `json:"records"`
	Copies   uint64         `json:"copies"`
	Damaged  uint64         `json:"damaged_copies"`
	Silent   []string       `json:"silent"`
	Problems []checkProblem `json:"problems"`
}

type checkProblem struct {
	From     string   `json:"from"`
	To       string   `json:"to"`
	Findings []string `json:"findings"`
	Copies   string   `json:"copies,omitempty"`
}

// Run checks the log.
func (c logCheckCmd) Run() error {
	o := client.CheckOptions{Settle: c.Settle}
	for _, at := range []struct {
		flag, text string
		lsn        *client.LSN
	}{{"--from", c.From, &o.From}, {"--until", c.Until, &o.Until}} {
		lsn, err := client.ParseLSN(at.text)
		if err != nil && at.text != "" {
			return &usageError{fmt.Errorf("%s: %w", at.flag, err)}
		}
		*at.lsn = lsn
	}
	told := time.Now()
	o.Progress = func(p client.CheckProgress) {
		if time.Since(told) > 2*time.Second {
			told = time.Now()
			fmt.Fprintf(os.Stderr, "braid: at %s of %s: %d records, %d copies\n", p.At, p.Until, p.Records, p.Copies)
		}
	}
	return c.withLog(c.Name, func(stop, _ context.Context, log *client.Log) error {
		r, err := log.CheckReplication(stop, o)
		if err != nil {
			return err
		}
		if err := c.show(reportOf(r)); err != nil {
			return err
		}
		switch {
		case len(r.Problems) > 0:
			return errUnreplicated
		case len(r.Silent) > 0:
			return errUnheard
		}
		return nil
	})
}

// reportOf is the report in JSON and as a table.
func reportOf(r *client.ReplicationReport) (*checkReport, [][]string) {
	out := &checkReport{
		Log: uint64(r.Log), Until: lsnText(r.To), Trimmed: lsnText(r.Trim), Records: r.Records, Copies: r.Copies, Damaged: r.Damaged,
		Silent: []string{}, Problems: []checkProblem{},
	}
	for _, s := range r.Silent {
		out.Silent = append(out.Silent, s.String())
	}
	rows := [][]string{
		{"log", id(out.Log)}, {"until", out.Until}, {"trimmed up to", out.Trimmed}, {"LSNs", id(out.Records)}, {"copies", id(out.Copies)},
		{"damaged copies", id(out.Damaged)}, {"could not be asked", strings.Join(out.Silent, " ")},
	}
	if len(out.Silent) == 0 {
		rows = rows[:len(rows)-1]
	}
	for _, p := range r.Problems {
		out.Problems = append(out.Problems, checkProblem{p.From.String(), p.To.String(), strings.Split(p.Findings.String(), "|"), p.Copies})
		rows = append(rows, []string{"problem", p.String()})
	}
	return out, append(rows, []string{"problems", strconv.Itoa(len(out.Problems))})
}
