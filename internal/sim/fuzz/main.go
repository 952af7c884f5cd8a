// Command fuzz runs every fuzz target of the module for the same time, one
// after another, and says how many inputs each took and whether one failed.
//
//	go run ./internal/sim/fuzz -each 10m
//	go run ./internal/sim/fuzz -each 30s -match journal -out fuzz.json
//
// It finds the targets itself, so a new one takes part without being named
// anywhere. An input that fails is kept by the go command under the package's
// testdata/fuzz, where `go test` runs it from then on.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// target is a fuzz function.
type target struct{ pkg, name string }

// result is what a target did. Executions and Interesting are the go command's
// own counts; Interesting includes the corpus that was there.
type result struct {
	Package     string
	Target      string
	Seconds     float64
	Executions  uint64
	Interesting uint64
	Failed      bool
	Commit      string
	output      string // of a target that failed
}

func main() {
	each := flag.Duration("each", 10*time.Minute, "time per target")
	match := flag.String("match", "", "only targets whose package.Name matches this expression")
	parallel := flag.Int("parallel", 0, "workers of a target [one per processor]")
	out := flag.String("out", "", "append the results to this file, a JSON object a line")
	flag.Parse()
	if err := run(*each, *match, *parallel, *out); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func run(each time.Duration, match string, parallel int, out string) error {
	pattern, err := regexp.Compile(match)
	if err != nil {
		return fmt.Errorf("-match: %w", err)
	}
	targets, err := find(pattern)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return fmt.Errorf("no target matches %q", match)
	}
	fmt.Printf("%d targets, %s each: about %s\n", len(targets), each, time.Duration(len(targets))*each)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt) // the go command of the moment gets it too
	commit := head()
	var results []result
	for _, t := range targets {
		r := fuzz(t, each, parallel)
		r.Commit = commit
		results = append(results, r)
		fmt.Printf("%-60s %12d executions %6d interesting %s\n", r.Package+"."+r.Target, r.Executions, r.Interesting, verdict(r))
		if err := keep(out, r); err != nil {
			return err
		}
		select {
		case <-stop:
			return errors.New("interrupted")
		default:
		}
	}
	return report(results)
}

// find lists the fuzz targets of the module.
func find(pattern *regexp.Regexp) ([]target, error) {
	cmd := exec.Command("go", "test", "-list", "^Fuzz", "./...")
	cmd.Stderr = os.Stderr
	listed, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the targets: %w", err)
	}
	var found []target
	var names []string
	for line := range strings.Lines(string(listed)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 1 && strings.HasPrefix(f[0], "Fuzz"):
			names = append(names, f[0])
		case len(f) > 1 && f[0] == "ok":
			for _, n := range names {
				if pattern.MatchString(f[1] + "." + n) {
					found = append(found, target{f[1], n})
				}
			}
			names = nil
		}
	}
	return found, nil
}

// progress is the go command's line about a target under way.
var progress = regexp.MustCompile(`^fuzz: elapsed: \S+, execs: (\d+) .*\(total: (\d+)\)`)

// fuzz runs one target for a time.
func fuzz(t target, each time.Duration, parallel int) result {
	args := []string{"test", "-run", "^$", "-fuzz", "^" + t.name + "$", "-fuzztime", each.String()}
	if parallel > 0 {
		args = append(args, "-parallel", strconv.Itoa(parallel))
	}
	cmd := exec.Command("go", append(args, t.pkg)...)
	r := result{Package: t.pkg, Target: t.name}
	began := time.Now()
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		cmd.Stderr = cmd.Stdout
		err = cmd.Start()
	}
	if err != nil {
		r.Failed, r.output = true, err.Error()
		return r
	}
	var all strings.Builder
	lines := bufio.NewScanner(pipe)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if m := progress.FindStringSubmatch(lines.Text()); m != nil {
			r.Executions, _ = strconv.ParseUint(m[1], 10, 64)
			r.Interesting, _ = strconv.ParseUint(m[2], 10, 64)
			continue
		}
		all.WriteString(lines.Text() + "\n")
	}
	err = errors.Join(lines.Err(), cmd.Wait())
	r.Seconds = time.Since(began).Seconds()
	// A run without an execution proved nothing, whatever the go command says.
	if err != nil || r.Executions == 0 {
		r.Failed, r.output = true, all.String()
	}
	return r
}

func verdict(r result) string {
	if r.Failed {
		return "FAILED"
	}
	return "ok"
}

// keep appends a result to a file, if one is asked for.
func keep(path string, r result) error {
	if path == "" {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// report prints the table and what failed.
func report(results []result) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nTARGET\tSECONDS\tEXECUTIONS\tINTERESTING\t")
	failed := 0
	for _, r := range results {
		fmt.Fprintf(w, "%s.%s\t%.0f\t%d\t%d\t%s\n", r.Package, r.Target, r.Seconds, r.Executions, r.Interesting, verdict(r))
		if r.Failed {
			failed++
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		if r.Failed {
			fmt.Printf("\n%s.%s:\n%s", r.Package, r.Target, r.output)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d targets failed", failed, len(results))
	}
	return nil
}

// head names the commit that was fuzzed.
func head() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
