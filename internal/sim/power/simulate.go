package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/braiddb/braid/internal/sim"
)

// The runners of the tiers.
const (
	runnerA = "./internal/sim/run"
	runnerB = "./internal/sim/bubble/run"
)

// report is what is read of what a runner writes: A's has wings, B's is one.
type report struct {
	Wings []report
	Seeds uint64
	CPU   sim.Duration // A's: of the processors

	Failures []struct {
		Seed     uint64
		Error    string
		Problems []string
	}
}

// errNoFinder says that this commit has no such runner, or that no wing.
var errNoFinder = errors.New("there is no such finder")

// model is a room's own test against a model, with crashes, which draws what it
// does from a seed. It stands in where no tier hosts what a bug changes, and the
// record says so.
type model struct{ test, seedFlag string }

var models = map[string]model{
	"journal":      {"^(TestModel|TestDamageIsNeverSilent)$", "-seed"},
	"tables/docdb": {"^TestMetamorphic$", "-docdb.seed"},
}

// greenFor is how long the simulation runs without a bug before anything counts.
const greenFor = time.Minute

// simulate runs the simulation on every bug, for as long as it may take.
func (h *bench) simulate(bugs []*bug) error {
	record, err := readRecord(h.s.out)
	if err != nil {
		return err
	}
	green := map[string]bool{} // false: it does not exist, or is red
	for _, b := range bugs {
		for _, find := range h.finders(b) {
			if !h.s.finders.MatchString(find.name) {
				continue
			}
			if _, known := green[find.name]; !known {
				if green[find.name], err = h.isGreen(find); err != nil {
					return err
				}
			}
			if !green[find.name] {
				continue
			}
			f, err := find.look(b, h.s.limit)
			if err != nil {
				return err
			}
			record.entry(b).put(f)
			fmt.Printf("%-4s %-16s %-6s %6d seeds %5.0f s  seed %d: %s\n", b.id, f.Finder, found(f.Found), f.Seeds, f.Seconds, f.Seed, f.Message)
			if err := record.write(h.s.out); err != nil {
				return err
			}
		}
	}
	return nil
}

// isGreen runs a finder without a bug for a while (P3).
func (h *bench) isGreen(find finder) (bool, error) {
	f, err := find.look(nil, min(greenFor, h.s.limit))
	switch {
	case errors.Is(err, errNoFinder):
		fmt.Printf("%s: %v\n", find.name, err)
		return false, nil
	case err != nil:
		return false, err
	case f.Found:
		fmt.Printf("%s is red without a bug, so that what it says does not count: seed %d: %s\n", find.name, f.Seed, f.Message)
		return false, nil
	}
	fmt.Printf("%s: green without a bug: %d seeds, %.0f s\n", find.name, f.Seeds, f.Seconds)
	return true, nil
}

// finder is a way to look for a bug.
type finder struct {
	name string
	look func(b *bug, limit time.Duration) (finding, error)
}

// finders are the ways to look for a bug: of its tiers, A in the bug's wing, within
// what is promised and beyond it, B, and the model tests of its rooms. Tier C takes
// hours, and no bugs.
func (h *bench) finders(b *bug) (out []finder) {
	for _, tier := range b.tiers {
		switch tier {
		case "A":
			wing := b.wing
			out = append(out, finder{"A " + wing, func(b *bug, limit time.Duration) (finding, error) { return h.tierA(b, limit, wing) }})
		case "beyond":
			wing := b.wing
			out = append(out, finder{"A " + wing + " beyond", func(b *bug, limit time.Duration) (finding, error) { return h.tierA(b, limit, wing, "-beyond") }})
		case "B":
			out = append(out, finder{"B", h.tierB})
		case "model":
			for _, room := range b.rooms {
				if _, have := models[room]; have {
					out = append(out, finder{"model " + room, func(b *bug, limit time.Duration) (finding, error) { return h.modelTest(b, room, limit) }})
				}
			}
		}
	}
	return out
}

// tierA builds the runner with a bug, or without one, and lets it run seeds of a
// wing until one fails.
func (h *bench) tierA(b *bug, limit time.Duration, wing string, more ...string) (finding, error) {
	program, err := h.build(b, "go", "build", runnerA)
	if err != nil {
		return finding{}, err
	}
	name := "A " + wing
	for _, m := range more {
		name += " " + strings.TrimPrefix(m, "-")
	}
	return h.campaign(limit, name, program, append([]string{"-wing", wing, "-twice", "0", "-shrink", "0", "-quiet"}, more...)...)
}

// tierB hands the bug to the runner, which builds whole nodes itself.
func (h *bench) tierB(b *bug, limit time.Duration) (finding, error) {
	program, err := h.build(nil, "go", "build", runnerB)
	if err != nil {
		return finding{}, err
	}
	overlay, err := h.overlay(b)
	if err != nil {
		return finding{}, err
	}
	return h.campaign(limit, "B", program, overlay, "-once", "-parallel", "1")
}

// campaign runs seeds of a tier until one fails, and reads what it wrote.
func (h *bench) campaign(limit time.Duration, name, program string, args ...string) (finding, error) {
	at := filepath.Join(h.dir, "report.json")
	if err := os.RemoveAll(at); err != nil {
		return finding{}, err
	}
	o, err := h.command(limit+patience, program, append(args, "-for", limit.String(), "-stop", "1", "-json", at)...)
	if err != nil {
		return finding{}, err
	}
	f := finding{Commit: h.commit, Finder: name, Seconds: o.seconds}
	text, err := os.ReadFile(at)
	switch {
	case errors.Is(err, os.ErrNotExist) && strings.Contains(o.text, "there is no wing"):
		return f, errNoFinder
	case errors.Is(err, os.ErrNotExist): // it ended, or was ended, before it could write
		f.Found = true
		if f.Message = "a seed did not end"; !o.late {
			if _, f.Message = firstFailure(o.text); f.Message == "" {
				return f, fmt.Errorf("%s: %s", name, o.text) // P2
			}
		}
		return f, nil
	case err != nil:
		return f, err
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		return f, fmt.Errorf("%s: %w", at, err)
	}
	f.take(append(r.Wings, r)...)
	if len(r.Wings) == 1 {
		f.Seconds = time.Duration(r.Wings[0].CPU).Seconds() // whatever else the machine does
	}
	if f.Seeds == 0 {
		return f, fmt.Errorf("%s ran no seed: %s", name, o.text) // P2
	}
	return f, nil
}

// take reads a runner's words.
func (f *finding) take(reports ...report) {
	for _, r := range reports {
		f.Seeds += r.Seeds
		if len(r.Failures) > 0 && !f.Found {
			x := r.Failures[0]
			f.Found, f.Seed, f.Message = true, x.Seed, shorten(strings.Join(append(x.Problems, x.Error), " "))
		}
	}
}

// modelTest runs a room's model test, seed after seed, until one fails.
func (h *bench) modelTest(b *bug, room string, limit time.Duration) (finding, error) {
	m := models[room]
	program, err := h.build(b, "go", "test", "-c", "./internal/"+room)
	if err != nil {
		return finding{}, err
	}
	f := finding{Commit: h.commit, Finder: "model " + room}
	for seed := uint64(1); f.Seconds < limit.Seconds(); seed++ {
		left := limit - time.Duration(f.Seconds*float64(time.Second))
		o, err := h.command(max(left, time.Minute), program, "-test.run", m.test, "-test.count=1", m.seedFlag+"="+strconv.FormatUint(seed, 10))
		if err != nil {
			return f, err
		}
		f.Seconds += o.seconds
		if o.late && f.Seconds >= limit.Seconds() && !o.failed {
			return f, nil
		}
		f.Seeds++
		if o.failed {
			f.Found, f.Seed = true, seed
			if f.Test, f.Message = firstFailure(o.text); f.Test == "" && f.Message == "" {
				return f, fmt.Errorf("%s: %s", room, o.text) // P2
			}
			return f, nil
		}
	}
	return f, nil
}

// build makes a program of the module with a bug in it.
func (h *bench) build(b *bug, name string, args ...string) (string, error) {
	overlay, err := h.overlay(b)
	if err != nil {
		return "", err
	}
	what := "none"
	if b != nil {
		what = b.id
	}
	last := len(args) - 1
	if _, err := os.Stat(filepath.Join(h.root, args[last])); errors.Is(err, os.ErrNotExist) {
		return "", errNoFinder
	}
	program := filepath.Join(h.dir, what+"-"+strings.ReplaceAll(strings.TrimPrefix(args[last], "./"), "/", "-"))
	line := append(append([]string(nil), args[:last]...), overlay, "-p=1", "-o", program, args[last])
	o, err := h.command(patience, name, line...)
	switch {
	case err != nil:
		return "", err
	case o.failed || o.late:
		return "", fmt.Errorf("%s does not build:\n%s", what, o.text) // P2
	}
	return program, nil
}
