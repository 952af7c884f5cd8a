package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	defaultRecord = "docs/track-record/power.json"
	document      = "docs/TRACK_RECORD.md"
	tableBegin    = "<!-- begin: go run ./internal/sim/power -doc -->"
	tableEnd      = "<!-- end -->"
)

// record is what is known of all bugs, as it is committed.
type record struct {
	Bugs []*entry
}

// entry is what is known of one bug. A run replaces what it looked at and leaves
// the rest.
type entry struct {
	ID    string
	Name  string
	Wing  string
	Class string
	Rooms []finding `json:",omitempty"`
	Tiers []finding `json:",omitempty"`
}

// finding is one look for a bug: by the tests of a room, or by a tier of the
// simulation.
type finding struct {
	Finder  string // the room, or the tier and its workload
	Found   bool
	Commit  string
	Test    string `json:",omitempty"` // that failed
	Message string `json:",omitempty"`
	Seed    uint64 `json:",omitempty"` // that found it
	Seeds   uint64 `json:",omitempty"` // that were run
	Seconds float64
	LeftOut []string `json:",omitempty"` // tests that are red without the bug
}

func readRecord(path string) (*record, error) {
	r := &record{}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// merge takes in what another run recorded.
func (r *record) merge(path string, bugs []*bug) error {
	other, err := readRecord(path)
	if err != nil {
		return err
	}
	for _, b := range bugs {
		from, to := other.entry(b), r.entry(b)
		if len(from.Rooms) > 0 {
			to.Rooms = from.Rooms
		}
		for _, f := range from.Tiers {
			to.put(f)
		}
	}
	return nil
}

// entry finds a bug's, or makes it. The bug's file has the last word on what it is.
func (r *record) entry(b *bug) *entry {
	i, found := slices.BinarySearchFunc(r.Bugs, b.id, func(e *entry, id string) int { return cmp.Compare(e.ID, id) })
	if !found {
		r.Bugs = slices.Insert(r.Bugs, i, &entry{ID: b.id})
	}
	e := r.Bugs[i]
	e.Name, e.Wing, e.Class = b.name, b.wing, b.class
	return e
}

// put replaces what a finder said before.
func (e *entry) put(f finding) {
	if i := slices.IndexFunc(e.Tiers, func(o finding) bool { return o.Finder == f.Finder }); i >= 0 {
		e.Tiers[i] = f
		return
	}
	e.Tiers = append(e.Tiers, f)
}

func (r *record) write(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// writeDocument puts the table into the track record, between its marks.
func writeDocument(path string) error {
	r, err := readRecord(path)
	if err != nil {
		return err
	}
	bugs, err := loadBugs(everything)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	begin, end := bytes.Index(text, []byte(tableBegin)), bytes.Index(text, []byte(tableEnd))
	if begin < 0 || end < begin {
		return fmt.Errorf("%s has no place for the table: %q before %q", document, tableBegin, tableEnd)
	}
	var out bytes.Buffer
	out.Write(text[:begin+len(tableBegin)])
	out.WriteString("\n\n")
	r.table(&out, bugs)
	out.Write(text[end:])
	return os.WriteFile(document, out.Bytes(), 0o644)
}

// table is a row for each bug.
func (r *record) table(out *bytes.Buffer, bugs []*bug) {
	rooms, since, sims, looked := 0, 0, 0, 0
	var rows bytes.Buffer
	for _, b := range bugs {
		e := r.entry(b)
		tests := e.foundByRoom()
		if len(tests) > 0 {
			rooms++
		} else if b.since != "" {
			since++
		}
		sim, hit := e.foundBySimulation()
		if hit {
			sims++
		}
		if len(e.Tiers) > 0 {
			looked++
		}
		fmt.Fprintf(&rows, "| %s | **%s**: %s | %s | %s | %s |\n", b.id, cell(b.name), cell(b.story), cell(b.class), cell(strings.Join(orMissed(b, tests, e.Rooms), "; ")), cell(sim))
	}
	fmt.Fprintf(out, "%d bugs. The tests of the rooms that own the code found %d; tests were written for %d that they had missed. Of the %d that the simulation was run on it found %d.\n\n",
		len(bugs), rooms, since, looked, sims)
	out.WriteString("| id | what was done, and what comes of it | class | found by the room's tests | found by the simulation |\n|---|---|---|---|---|\n")
	out.Write(rows.Bytes())
	out.WriteString("\n")
}

// orMissed says that nothing was found, or that nobody looked.
func orMissed(b *bug, tests []string, looks []finding) []string {
	switch {
	case len(tests) > 0:
		return tests
	case b.since != "":
		return []string{"**no**; " + b.since + " was written for it, and does"}
	case len(looks) > 0:
		return []string{"**no**"}
	}
	return []string{"not run"}
}

// foundBySimulation is the cell of the last column.
func (e *entry) foundBySimulation() (text string, hit bool) {
	if len(e.Tiers) == 0 {
		return "not run", false
	}
	var parts []string
	for _, f := range e.Tiers {
		if f.Found {
			hit = true
			parts = append(parts, fmt.Sprintf("%s: %s (%d seeds, %.0f s, seed %d)", f.Finder, f.Message, f.Seeds, f.Seconds, f.Seed))
		} else {
			parts = append(parts, fmt.Sprintf("%s: **no** (%d seeds, %.0f s)", f.Finder, f.Seeds, f.Seconds))
		}
	}
	return strings.Join(parts, "; "), hit
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
