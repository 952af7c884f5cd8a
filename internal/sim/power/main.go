// Command power measures what the simulation is worth: it puts known mistakes
// into the production code, one at a time, and looks who notices.
//
//	go run ./internal/sim/power -list
//	go run ./internal/sim/power -check
//	go run ./internal/sim/power -rooms -match 'J..' -out docs/track-record/power.json
//	go run ./internal/sim/power -for 10m -out docs/track-record/power.json
//	go run ./internal/sim/power -merge other.json -doc
//
//	bugs/L10.bug ──▶ the files of a commit, with the mistake ──▶ go build -overlay
//	                                                               │
//	                 docs/track-record/power.json                  ├─▶ go test of the rooms
//	                 docs/TRACK_RECORD.md  ◀── found, or not ◀─────┼─▶ the simulation, tier A
//	                                                               └─▶ a room's model test
//
// A bug is a file of data: what it is called, what kind of mistake, its story, who
// ought to see it, and for each place the lines that stand there and the lines that
// stand there instead (bugs.go has the format). They were chosen by somebody who
// wrote no checker of the simulation, and frozen before the first campaign; what is
// added later says so in its story.
//
// Nothing is changed on disk: the go command is given patched copies by an overlay,
// and works on the files of one commit, written out beside the tree (-worktree takes
// the tree itself). Before anything is counted the same command runs without a bug
// and must be green.
//
// Invariants:
//
//	P1. The old lines of every bug occur exactly once in the tree, so that a bug
//	    cannot silently become none. A test checks it with every change.
//	P2. A bug that does not compile, or whose tests cannot be run, is an error of
//	    this command and never "found".
//	P3. Without a bug the finder is green, or nothing that it finds counts.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"time"
)

// settings are the command's flags.
type settings struct {
	match    *regexp.Regexp
	finders  *regexp.Regexp
	limit    time.Duration // of each bug in the simulation
	out      string
	with     []string // a command that every go command runs under
	worktree bool
	revision string
}

func main() {
	list := flag.Bool("list", false, "list the bugs")
	check := flag.Bool("check", false, "see that every bug applies and compiles")
	rooms := flag.Bool("rooms", false, "run the tests of the rooms that own the code")
	limit := flag.Duration("for", 0, "run the simulation for at most this long on each bug")
	doc := flag.Bool("doc", false, "write the table of docs/TRACK_RECORD.md anew")
	match := flag.String("match", "", "only bugs whose id or name matches this expression")
	out := flag.String("out", defaultRecord, "the record of what was found; results are merged into it")
	finders := flag.String("finders", "", "with -for, only finders whose name matches: A tables, A logs, B, model journal, ...")
	merge := flag.String("merge", "", "take in what another run recorded, in this file")
	with := flag.String("with", "", "run every go command under this one, such as nice")
	worktree := flag.Bool("worktree", false, "use the files as they are, not those of the commit")
	revision := flag.String("commit", "HEAD", "the commit whose files are used")
	flag.Parse()
	pattern, err := regexp.Compile(*match)
	ways, bad := regexp.Compile(*finders)
	if err = errors.Join(err, bad); err == nil {
		s := &settings{match: pattern, finders: ways, limit: *limit, out: *out, with: strings.Fields(*with), worktree: *worktree, revision: *revision}
		if *merge != "" {
			err = mergeRecord(s, *merge)
		}
		if err == nil && (*merge == "" || *doc) {
			err = run(s, *list, *check, *rooms, *doc)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "power:", err)
		os.Exit(1)
	}
}

// mergeRecord puts another record's findings into this one.
func mergeRecord(s *settings, from string) error {
	bugs, err := loadBugs(s.match)
	if err != nil {
		return err
	}
	r, err := readRecord(s.out)
	if err == nil {
		err = r.merge(from, bugs)
	}
	if err != nil {
		return err
	}
	return r.write(s.out)
}

// run does what was asked for, in the order in which it makes sense.
func run(s *settings, list, check, rooms, doc bool) error {
	bugs, err := loadBugs(s.match)
	if err != nil {
		return err
	}
	if len(bugs) == 0 {
		return errors.New("no bug matches")
	}
	if list {
		printList(os.Stdout, bugs)
	}
	if !check && !rooms && s.limit == 0 {
		if doc {
			return writeDocument(s.out)
		}
		if !list {
			return errors.New("nothing to do: give -list, -check, -rooms, -for or -doc")
		}
		return nil
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt) // the go command of the moment gets it too
	bench, err := newBench(s)
	if err != nil {
		return err
	}
	defer bench.clear()
	for _, step := range []struct {
		wanted bool
		do     func([]*bug) error
	}{{check, bench.check}, {rooms, bench.testRooms}, {s.limit > 0, bench.simulate}} {
		if !step.wanted {
			continue
		}
		if err := step.do(bugs); err != nil {
			return err
		}
	}
	if rooms || s.limit > 0 {
		return writeDocument(s.out)
	}
	return nil
}
