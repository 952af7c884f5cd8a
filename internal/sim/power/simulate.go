package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The simulation's runner, and what is read of what it writes.
const runnerPackage = "./internal/sim/run"

type report struct {
	Wings []struct {
		Wing     string
		Seeds    uint64
		Failures []struct {
			Seed  uint64
			Error string
		}
	}
}

// model is a room's own test against a model, with crashes, which draws what it
// does from a seed. It stands in where no tier hosts what a bug changes, and the
// record says so.
type model struct{ test, seedFlag string }

var models = map[string]model{
	"journal":      {"^TestModel$", "-seed"},
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
	green := map[string]bool{}
	for _, b := range bugs {
		for _, find := range h.finders(b) {
			if !green[find.name] {
				f, err := find.look(nil, min(greenFor, h.s.limit))
				if err != nil {
					return err
				}
				if f.Found {
					return fmt.Errorf("%s is red without a bug, so that nothing counts: seed %d: %s", find.name, f.Seed, f.Message) // P3
				}
				green[find.name] = true
				fmt.Printf("%s: green without a bug: %d seeds, %.0f s\n", find.name, f.Seeds, f.Seconds)
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

// finder is a way to look for a bug.
type finder struct {
	name string
	look func(b *bug, limit time.Duration) (finding, error)
}

// finders are the ways to look for a bug that exist today: of its tiers, A in the
// bug's wing, and the model tests of its rooms.
func (h *bench) finders(b *bug) (out []finder) {
	if slices.Contains(b.tiers, "A") {
		out = append(out, finder{"A " + b.wing, func(b2 *bug, limit time.Duration) (finding, error) { return h.tierA(b2, b.wing, limit) }})
	}
	if slices.Contains(b.tiers, "model") {
		for _, room := range b.rooms {
			if _, have := models[room]; have {
				out = append(out, finder{"model " + room, func(b2 *bug, limit time.Duration) (finding, error) { return h.modelTest(b2, room, limit) }})
			}
		}
	}
	return out
}

// tierA builds the runner with a bug, or without one, and lets it run seeds of a
// wing until one fails.
func (h *bench) tierA(b *bug, wing string, limit time.Duration) (finding, error) {
	program, err := h.build(b, "go", "build", runnerPackage)
	if err != nil {
		return finding{}, err
	}
	at := filepath.Join(h.dir, "report.json")
	if err := os.RemoveAll(at); err != nil {
		return finding{}, err
	}
	o, err := h.command(limit+patience, program, "-wing", wing, "-for", limit.String(), "-stop", "1", "-shrink", "0", "-twice", "0", "-quiet", "-json", at)
	if err != nil {
		return finding{}, err
	}
	f := finding{Commit: h.commit, Finder: "A " + wing, Seconds: o.seconds}
	text, err := os.ReadFile(at)
	if errors.Is(err, os.ErrNotExist) { // it ended, or was ended, before it could write
		f.Found = true
		if f.Message = "a seed did not end"; !o.late {
			if _, f.Message = firstFailure(o.text); f.Message == "" {
				return f, fmt.Errorf("%s: %s", runnerPackage, o.text) // P2
			}
		}
		return f, nil
	}
	var r report
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return f, err
	}
	for _, w := range r.Wings {
		f.Seeds += w.Seeds
		if len(w.Failures) > 0 && !f.Found {
			f.Found, f.Seed, f.Message = true, w.Failures[0].Seed, shorten(w.Failures[0].Error)
		}
	}
	return f, nil
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
