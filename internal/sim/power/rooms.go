package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// roomLimit is how long the tests of a room may take before they count as stuck.
const roomLimit = 150 * time.Second

// testRooms runs the tests of the rooms that own what a bug changes. They exist
// without the simulation, so they are a column of their own: what only they find
// tells nothing of the simulation, and what they do not find is a hole in them.
func (h *bench) testRooms(bugs []*bug) error {
	record, err := readRecord(h.s.out)
	if err != nil {
		return err
	}
	ready := map[string]bool{}
	for _, b := range bugs {
		e := record.entry(b)
		e.Rooms = nil
		for _, room := range b.rooms {
			if !ready[room] {
				if err := h.makeGreen(room); err != nil {
					return err
				}
				ready[room] = true
			}
			f, err := h.testRoom(b, room)
			if err != nil {
				return err
			}
			e.Rooms = append(e.Rooms, f)
			fmt.Printf("%-4s %-16s %-6s %5.0f s  %s %s\n", b.id, room, found(f.Found), f.Seconds, f.Test, f.Message)
		}
		if err := record.write(h.s.out); err != nil {
			return err
		}
	}
	return nil
}

func found(yes bool) string {
	if yes {
		return "found"
	}
	return "MISSED"
}

// redMost is how many tests of a room may be red without a bug.
const redMost = 4

// makeGreen runs a room's tests without a bug (P3). A test that is red twice is left
// out for the bugs, and said so: what it would have said is not known.
func (h *bench) makeGreen(room string) error {
	was := ""
	for range 2 * redMost {
		f, err := h.testRoom(nil, room)
		if err != nil || !f.Found {
			return err
		}
		fmt.Printf("%s without a bug: %s: %s\n", room, f.Test, f.Message)
		if f.Test == "" {
			return fmt.Errorf("%s is red without a bug: %s", room, f.Message)
		}
		if f.Test == was {
			fmt.Printf("%s: %s is left out\n", room, f.Test)
			h.leftOut[room] = append(h.leftOut[room], f.Test)
		}
		was = f.Test
	}
	return fmt.Errorf("%s is red without a bug, without %q too", room, h.leftOut[room])
}

// testRoom runs a room's tests with a bug, or without one.
func (h *bench) testRoom(b *bug, room string) (finding, error) {
	overlay, err := h.overlay(b)
	if err != nil {
		return finding{}, err
	}
	args := []string{"test", overlay, "-vet=off", "-count=1", "-failfast", "-p=1", "-timeout=" + roomLimit.String()}
	if out := h.leftOut[room]; len(out) > 0 {
		args = append(args, "-skip=^("+strings.Join(out, "|")+")$")
	}
	o, err := h.command(roomLimit+patience, "go", append(args, "./internal/"+room)...)
	if err != nil {
		return finding{}, err
	}
	if o.late { // the tests end themselves: it never came to that
		return finding{}, fmt.Errorf("%s: go test did not end in %.0f s:\n%s", room, o.seconds, o.text)
	}
	f := finding{Commit: h.commit, Finder: room, Found: o.failed, Seconds: o.seconds, LeftOut: h.leftOut[room]}
	if !f.Found {
		return f, nil
	}
	if strings.Contains(o.text, "[build failed]") || strings.Contains(o.text, "[setup failed]") {
		return f, fmt.Errorf("%s: the tests do not build:\n%s", room, o.text) // P2
	}
	f.Test, f.Message = firstFailure(o.text)
	return f, nil
}

var (
	failLine   = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	runLine    = regexp.MustCompile(`(?m)^\s*(Test\w+)(?:/\S*)? \(\d`)
	panicLine  = regexp.MustCompile(`(?m)^(?:panic|fatal error): (.*)$`)
	saidLine   = regexp.MustCompile(`(?m)^\s+\w+\.go:\d+:\s+(\S.*)$`)
	framesTest = regexp.MustCompile(`(?m)\.(Test\w+)\(`)
)

// firstFailure is which test failed first and what it said.
func firstFailure(text string) (test, message string) {
	said := text
	for _, at := range failLine.FindAllStringSubmatchIndex(text, -1) {
		if name := text[at[2]:at[3]]; test == "" || !strings.Contains(name, "/") && strings.Contains(test, "/") {
			test, said = name, text[at[1]:]
		}
	}
	if m := panicLine.FindStringSubmatch(text); m != nil {
		for _, names := range []*regexp.Regexp{framesTest, runLine} {
			if n := names.FindStringSubmatch(text); test == "" && n != nil {
				test = n[1]
			}
		}
		return test, shorten("panic: " + m[1])
	}
	if m := saidLine.FindStringSubmatch(said); m != nil {
		message = m[1]
	}
	return test, shorten(message)
}

// shorten keeps a message to one line that fits a table.
func shorten(s string) string {
	const most = 200
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + " …"
	}
	return s
}

// foundByRoom says which tests found a bug.
func (e *entry) foundByRoom() (tests []string) {
	for _, f := range e.Rooms {
		what := f.Test
		if what == "" { // it took the whole process with it
			what = f.Message
		}
		if name := f.Finder + " " + what; f.Found && !slices.Contains(tests, name) {
			tests = append(tests, name)
		}
	}
	return tests
}
