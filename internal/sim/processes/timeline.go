package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/proof/cluster"
)

// timeline is all that clients and the nemesis said, each line with its time.
type timeline struct {
	begin time.Time
	mu    sync.Mutex
	lines []line
}

type line struct {
	at   time.Duration
	text string
}

func (t *timeline) now() time.Duration { return time.Since(t.begin) }

func (t *timeline) add(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line{t.now(), fmt.Sprintf(format, args...)})
}

// write puts everything into one file, in order, with what the nodes logged.
func (t *timeline) write(file string, nodes []*cluster.Process) error {
	t.mu.Lock()
	lines := slices.Clone(t.lines)
	t.mu.Unlock()
	for _, p := range nodes {
		text, err := os.ReadFile(p.Log)
		if err != nil {
			return err
		}
		at := time.Duration(0) // of the line before, for those without a time
		for l := range strings.Lines(string(text)) {
			l = strings.TrimSuffix(l, "\n")
			if rest, ok := strings.CutPrefix(l, "time="); ok {
				stamp, words, _ := strings.Cut(rest, " ")
				if when, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
					at, l = when.Sub(t.begin), words
				}
			}
			lines = append(lines, line{at, fmt.Sprintf("n%d log %s", p.Index, l)})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return int(a.at - b.at) })
	var out strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&out, "%10.6f %s\n", l.at.Seconds(), l.text)
	}
	return os.WriteFile(file, []byte(out.String()), 0o644)
}
