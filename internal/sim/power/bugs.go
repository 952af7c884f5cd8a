package main

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

//go:embed bugs/*.bug
var bugFiles embed.FS

// bug is one mistake, as its file tells it:
//
//	id: L10
//	name: a seal is answered before it is durable
//	wing: logs
//	class: seal not persisted
//	tiers: A B C
//	rooms: logs/store
//	since: logs/store TestSoAndSo, where a test was written because none saw it
//	story: What was done, and what comes of it, in a sentence or two. A line that
//	  begins with two blanks goes on with the one before.
//
//	@@ internal/logs/store/seal.go
//	 lines that stay begin with a blank,
//	-those that go with a minus,
//	+those that come with a plus.
//
// The lines of a block are whole lines of the file; those that stay and go, in
// their order, are what must occur in it exactly once.
type bug struct {
	id, name, wing, class, story string
	since                        string   // a test that was written because nobody saw the bug; may be empty
	tiers                        []string // A, B, C; beyond: A, with more faults than are promised to be survived; model: a room's model test
	rooms                        []string // whose tests ought to see it, below internal/
	blocks                       []block
}

// block is one place that is changed.
type block struct {
	file     string // slash-separated, from the root
	old, new string
}

var (
	wings     = []string{"tables", "logs", "journal"}
	tierNames = []string{"A", "beyond", "B", "C", "model"}
)

var (
	errFormat  = errors.New("malformed bug")
	everything = regexp.MustCompile("")
)

// loadBugs reads the bugs that match, in order of their ids.
func loadBugs(match *regexp.Regexp) ([]*bug, error) {
	names, err := fs.Glob(bugFiles, "bugs/*.bug")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out []*bug
	for _, name := range names {
		text, err := bugFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		b, err := parseBug(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if want := path.Base(strings.TrimSuffix(name, ".bug")); b.id != want {
			return nil, fmt.Errorf("%s: %w: its id is %q", name, errFormat, b.id)
		}
		if match.MatchString(b.id) || match.MatchString(b.name) {
			out = append(out, b)
		}
	}
	return out, nil
}

// parseBug reads one file.
func parseBug(text string) (*bug, error) {
	head, rest, found := strings.Cut(text, "\n\n")
	if !found {
		return nil, fmt.Errorf("%w: no empty line behind the head", errFormat)
	}
	b := &bug{}
	if err := b.parseHead(head); err != nil {
		return nil, err
	}
	if err := b.parseBlocks(rest); err != nil {
		return nil, err
	}
	return b, b.validate()
}

func (b *bug) parseHead(head string) error {
	fields := map[string]*string{"id": &b.id, "name": &b.name, "wing": &b.wing, "class": &b.class, "story": &b.story, "since": &b.since}
	lists := map[string]*[]string{"tiers": &b.tiers, "rooms": &b.rooms}
	for _, line := range strings.Split(strings.ReplaceAll(head, "\n  ", " "), "\n") {
		key, value, found := strings.Cut(line, ": ")
		if !found {
			return fmt.Errorf("%w: %q in the head", errFormat, line)
		}
		switch {
		case fields[key] != nil && *fields[key] == "":
			*fields[key] = strings.TrimSpace(value)
		case lists[key] != nil && *lists[key] == nil:
			*lists[key] = strings.Fields(value)
		default:
			return fmt.Errorf("%w: %q is unknown, or given twice", errFormat, key)
		}
	}
	return nil
}

func (b *bug) parseBlocks(text string) error {
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if file, found := strings.CutPrefix(line, "@@ "); found {
			b.blocks = append(b.blocks, block{file: strings.TrimSpace(file)})
			continue
		}
		if len(b.blocks) == 0 || line == "" {
			return fmt.Errorf("%w: %q outside of a block", errFormat, line)
		}
		k := &b.blocks[len(b.blocks)-1]
		kind, body := line[0], line[1:]+"\n"
		switch kind {
		case ' ':
			k.old, k.new = k.old+body, k.new+body
		case '-':
			k.old += body
		case '+':
			k.new += body
		default:
			return fmt.Errorf("%w: a block's line begins with %q", errFormat, kind)
		}
	}
	return nil
}

func (b *bug) validate() error {
	switch {
	case b.id == "" || b.name == "" || b.class == "" || b.story == "" || len(b.tiers) == 0 || len(b.rooms) == 0:
		return fmt.Errorf("%w: something is missing in the head", errFormat)
	case !slices.Contains(wings, b.wing):
		return fmt.Errorf("%w: wing %q", errFormat, b.wing)
	case slices.ContainsFunc(b.tiers, func(t string) bool { return !slices.Contains(tierNames, t) }):
		return fmt.Errorf("%w: tiers %q", errFormat, b.tiers)
	case len(b.blocks) == 0:
		return fmt.Errorf("%w: nothing is changed", errFormat)
	}
	for _, k := range b.blocks {
		if k.old == k.new || k.old == "" || !fs.ValidPath(k.file) || !strings.HasSuffix(k.file, ".go") || strings.HasSuffix(k.file, "_test.go") {
			return fmt.Errorf("%w: block of %q", errFormat, k.file)
		}
	}
	return nil
}

// apply gives the files that the bug changes, with it in them (P1).
func (b *bug) apply(tree fs.FS) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, k := range b.blocks {
		text, have := out[k.file]
		if !have {
			var err error
			if text, err = fs.ReadFile(tree, k.file); err != nil {
				return nil, fmt.Errorf("%s: %w", b.id, err)
			}
		}
		at, n := findLines(string(text), k.old)
		if n != 1 {
			return nil, fmt.Errorf("%s: the old lines occur %d times in %s; choose others that say the same:\n%s", b.id, n, k.file, k.old)
		}
		out[k.file] = []byte(string(text[:at]) + k.new + string(text[at+len(k.old):]))
	}
	return out, nil
}

// findLines counts where lines occur, beginning at the beginning of a line, and
// gives the first place.
func findLines(text, lines string) (first, n int) {
	for at := 0; ; at++ {
		i := strings.Index(text[at:], lines)
		if i < 0 {
			return first, n
		}
		at += i
		if at == 0 || text[at-1] == '\n' {
			if n++; n == 1 {
				first = at
			}
		}
	}
}

// packages are the packages that the bug changes.
func (b *bug) packages() []string {
	var out []string
	for _, k := range b.blocks {
		if p := "./" + path.Dir(k.file); !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func printList(w io.Writer, bugs []*bug) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tWING\tCLASS\tNAME\tTIERS\tROOMS")
	for _, b := range bugs {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", b.id, b.wing, b.class, b.name, strings.Join(b.tiers, " "), strings.Join(b.rooms, " "))
	}
	_ = t.Flush() // of what the terminal takes
}
