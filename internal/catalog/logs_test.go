package catalog

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// with sets attributes from text.
func with(t testing.TB, pairs ...string) *LogAttributes {
	t.Helper()
	a := new(LogAttributes)
	for _, p := range pairs {
		name, value, _ := strings.Cut(p, "=")
		d, err := LogAttributeNamed(name)
		if err == nil {
			err = d.Parse(a, value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func kindOf(err error) LogErrorKind {
	var e *LogError
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

// tree makes logs by paths, such as "/a/ backlog=7d" or "/a/b 4 replication=node:3".
func tree(t testing.TB, lines ...string) *Logs {
	t.Helper()
	l := NewLogs(&Catalog{})
	for i, line := range lines {
		f := strings.Fields(line)
		path, dir := strings.CutSuffix(f[0], "/")
		count := uint64(1)
		f = f[1:]
		if len(f) > 0 {
			if n, err := fmt.Sscan(f[0], &count); n == 1 && err == nil {
				f = f[1:]
			}
		}
		var err error
		switch at := uint64(i + 1); {
		case path == "":
			l, _, err = l.Alter(at, LogAlteration{Path: "/", Set: with(t, f...)})
		case dir:
			l, err = l.MakeDirectory(at, path, with(t, f...), false)
		default:
			l, _, err = l.MakeGroup(at, NewLogGroup{Path: path, Logs: count, Attributes: with(t, f...)})
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return l
}

func text(l *Logs) string {
	c := &Catalog{}
	l.Into(c)
	return Text(c)
}

func TestNearestLevelSetsAnAttribute(t *testing.T) {
	l := tree(t, "/ backlog=7d max_payload_bytes=2MiB", "/a/ backlog=1d", "/a/b/ replication=node:3", "/a/b/c 2 max_writes_in_flight=10", "/d")
	want := map[string]string{
		"replication": "node:3 /a/b", "backlog": "1d /a", "max_payload_bytes": "2MiB /",
		"max_writes_in_flight": "10 /a/b/c", "sticky_copysets": "true built-in", "durability": "fsync built-in",
	}
	sources, err := l.Sources("/a/b/c")
	if err != nil || len(sources) != len(AllLogAttributes()) {
		t.Fatal(sources, err)
	}
	for _, s := range sources {
		if w, ok := want[s.Name]; ok && w != s.Value+" "+s.From {
			t.Errorf("%s is %s from %s, not %s", s.Name, s.Value, s.From, w)
		}
	}
	c, _ := l.Group("/a/b/c")
	a, ok := l.Attributes(c.LastLog)
	if !ok || a.Replication.Copies() != 3 || a.GetBacklogMs() != 24*3600*1000 || a.GetMaxWritesInFlight() != 10 {
		t.Errorf("attributes of %d: %v", c.LastLog, a)
	}
	d, _ := l.Group("/d")
	root, _ := l.AttributesAt("/")
	if a, _ := l.Attributes(d.FirstLog); a != root {
		t.Error("a group without attributes of its own does not share its directory's")
	}
	if _, ok := l.Attributes(d.LastLog + 1); ok {
		t.Error("attributes of a log that does not exist")
	}
}

func TestAlterationsReachWhatInherits(t *testing.T) {
	l := tree(t, "/a/", "/a/b", "/a/c backlog=1d")
	at := func(l *Logs, path string) int64 {
		a, err := l.AttributesAt(path)
		if err != nil {
			t.Fatal(err)
		}
		return a.GetBacklogMs() / 1000 / 3600
	}
	next, _, err := l.Alter(10, LogAlteration{Path: "/a", Set: with(t, "backlog=5h")})
	if err != nil || at(next, "/a/b") != 5 || at(next, "/a/c") != 24 || at(next, "/") != 0 || at(l, "/a/b") != 0 {
		t.Error(err, text(next))
	}
	next, g, err := next.Alter(11, LogAlteration{Path: "/a/c", Inherit: []string{"backlog"}, IfVersion: 3})
	if err != nil || at(next, "/a/c") != 5 || g.Version != 11 || g.Attributes != nil {
		t.Error(err, text(next))
	}
	if next, _, err = next.Rename(12, "/a/b", "/b", false); err != nil || at(next, "/b") != 0 {
		t.Error(err, text(next))
	}
}

func TestRefusals(t *testing.T) {
	l := tree(t, "/a/", "/a/b 4", "/a/e/", "/g")
	set := func(path string, pairs ...string) error {
		a := new(LogAttributes)
		for _, p := range pairs {
			name, value, _ := strings.Cut(p, "=")
			d, err := LogAttributeNamed(name)
			if err != nil {
				return err
			}
			if err := d.Parse(a, value); err != nil {
				return err
			}
		}
		_, _, err := l.Alter(9, LogAlteration{Path: path, Set: a})
		return err
	}
	group := func(path string, first, count uint64) error {
		_, _, err := l.MakeGroup(9, NewLogGroup{Path: path, FirstLog: first, Logs: count})
		return err
	}
	rename := func(from, to string) error { _, _, err := l.Rename(9, from, to, false); return err }
	remove := func(path string, recursive bool) error { _, err := l.Remove(9, path, recursive, 0); return err }
	resize := func(path string, n, version uint64) error { _, _, err := l.Resize(9, path, n, version); return err }
	onAppend := func(path string) error { _, _, err := l.CreateOnAppend(9, path); return err }
	resolve := func(s string) error {
		n, err := ParseLogName(s)
		if err == nil {
			_, err = l.Resolve(n)
		}
		return err
	}
	for _, c := range []struct {
		what string
		err  error
		kind LogErrorKind
		says string
	}{
		{"group over group", group("/a/b", 0, 1), LogExists, "exists"},
		{"group over directory", group("/a", 0, 1), LogExists, "exists"},
		{"group in group", group("/a/b/c", 0, 1), LogNotDirectory, "/a/b"},
		{"group in nothing", group("/x/y", 0, 1), LogNotFound, `"x"`},
		{"ids of another", group("/h", 2, 1), LogIDClash, "/a/b"},
		{"ids beyond the end", group("/h", LogIDMax, 2), LogInvalid, "highest"},
		{"too many", group("/h", 0, 1<<40), LogInvalid, "logs"},
		{"empty path", group("", 0, 1), LogInvalid, "empty"},
		{"empty name", group("/a//b", 0, 1), LogInvalid, "empty"},
		{"dots", group("/a/..", 0, 1), LogInvalid, "not a name"},
		{"hash", group("/a/b#1", 0, 1), LogInvalid, "#"},
		{"bare number", group("17", 0, 1), LogInvalid, "/17"},
		{"rename of nothing", rename("/x", "/y"), LogNotFound, `"x"`},
		{"rename over something", rename("/g", "/a"), LogExists, "exists"},
		{"rename below itself", rename("/a", "/a/e/f"), LogInvalid, "below itself"},
		{"rename of the root", rename("/", "/z"), LogInvalid, "root"},
		{"remove of a full directory", remove("/a", false), LogNotEmpty, "recursively"},
		{"remove of the root", remove("/", true), LogInvalid, "root"},
		{"remove of nothing", remove("/a/x", true), LogNotFound, `"x"`},
		{"resize of a directory", resize("/a", 2, 0), LogNotDirectory, "directory"},
		{"resize to nothing", resize("/a/b", 0, 0), LogInvalid, "1 to"},
		{"resize of what has changed", resize("/a/b", 2, 1), LogChanged, "version 2"},
		{"append where it is not allowed", onAppend("/a/new"), LogNotFound, "create_on_append"},
		{"append to a directory", onAppend("/a"), LogNotDirectory, "directory"},
		{"which of four", resolve("a/b"), LogInvalid, "/a/b#3"},
		{"a fifth of four", resolve("a/b#4"), LogNotFound, "4 logs"},
		{"log 0", resolve("0"), LogInvalid, "1 to"},
		{"log 99", resolve("99"), LogNotFound, "no log"},
		{"number", resolve("/a/b#x"), LogInvalid, "number"},
		{"nothing to copy to", set("/g", "replication="), LogInvalidAttributes, "SCOPE:COUNT"},
		{"no copies", set("/g", "replication=node:0"), LogInvalidAttributes, "no copies"},
		{"racks beyond nodes", set("/g", "replication=node:2,rack:3"), LogInvalidAttributes, "raise node to 3"},
		{"copies", set("/g", "replication=node:200"), LogInvalidAttributes, "127"},
		{"nodeset below copies", set("/g", "replication=node:5", "nodeset_size=4"), LogInvalidAttributes, "5 copies"},
		{"window", set("/g", "max_writes_in_flight=1"), LogInvalidAttributes, "between 2"},
		{"payload", set("/g", "max_payload_bytes=33MiB"), LogInvalidAttributes, "max_payload_bytes"},
		{"batch beyond payload", set("/g", "max_payload_bytes=64KiB", "sequencer_batching_bytes=65KiB"), LogInvalidAttributes, "one record"},
		{"no batching time", set("/g", "sequencer_batching_time=0s"), LogInvalidAttributes, "sequencer_batching_time"},
		{"backlog", set("/g", "backlog=-1h"), LogInvalidAttributes, "forever"},
		{"durability", set("/g", "durability=memory"), LogInvalidAttributes, "memory is refused"},
		{"durability async", set("/a", "durability=async"), LogInvalidAttributes, "async is refused"},
		{"create on append of a group", set("/g", "create_on_append=true"), LogInvalidAttributes, "directories"},
		{"affinity", set("/g", "sequencer_affinity=a/b/c/d"), LogInvalidAttributes, "region/zone/rack"},
		{"no such attribute", set("/g", "shadow=1"), LogInvalidAttributes, "sticky_copysets"},
	} {
		if kindOf(c.err) != c.kind || !strings.Contains(fmt.Sprint(c.err), c.says) {
			t.Errorf("%s: %v (kind %d), want kind %d and %q", c.what, c.err, kindOf(c.err), c.kind, c.says)
		}
	}
	if err := set("/g", "max_payload_bytes=64KiB"); err != nil {
		t.Errorf("a smaller payload contradicts a batch size that nobody set: %v", err)
	}
}

func TestADirectoryContradictsWhatIsBelow(t *testing.T) {
	l := tree(t, "/a/", "/a/b nodeset_size=3")
	_, _, err := l.Alter(9, LogAlteration{Path: "/", Set: with(t, "replication=node:4")})
	if kindOf(err) != LogInvalidAttributes || !strings.Contains(err.Error(), "/a/b") {
		t.Errorf("4 copies on 3 shards: %v", err)
	}
	l = tree(t, "/a/ replication=node:4", "/b nodeset_size=3")
	if _, _, err = l.Rename(9, "/b", "/a/b", false); kindOf(err) != LogInvalidAttributes {
		t.Errorf("moved below 4 copies: %v", err)
	}
}

func TestCreateOnAppend(t *testing.T) {
	l := tree(t, "/a/ create_on_append=true", "/a/b 2")
	next, g, err := l.CreateOnAppend(7, "a/x/y")
	if err != nil || g.Version != 7 || g.Logs() != 1 || g.FirstLog != 3 {
		t.Fatal(g, err)
	}
	if again, found, err := next.CreateOnAppend(8, "/a/x/y"); err != nil || again != nil || found != g {
		t.Error(again, found, err)
	}
	if _, err := next.Directory("/a/x"); err != nil {
		t.Error(err)
	}
}

func TestIdsAreNeverGivenOutTwice(t *testing.T) {
	l := tree(t, "/a 4", "/b")
	l, a, err := l.Resize(5, "/a", 6, 1)
	if err != nil || fmt.Sprint(slices.Collect(a.Ranges())) != "[{1 4} {6 7}]" || a.Log(4) != 6 {
		t.Fatal(a, err)
	}
	if l, a, _ = l.Resize(6, "/a", 7, 0); fmt.Sprint(slices.Collect(a.Ranges())) != "[{1 4} {6 8}]" {
		t.Error(a)
	}
	if l, a, _ = l.Resize(7, "/a", 3, 0); fmt.Sprint(slices.Collect(a.Ranges())) != "[{1 3}]" {
		t.Error(a)
	}
	if g, _ := l.GroupOf(7); g != nil {
		t.Error("log 7 was taken away and is still there", g)
	}
	if _, _, err := l.MakeGroup(8, NewLogGroup{Path: "/c", FirstLog: 7}); kindOf(err) != LogIDClash || !strings.Contains(err.Error(), "passed over before") {
		t.Error(err)
	}
	if _, a, _ = l.Resize(8, "/a", 4, 0); fmt.Sprint(slices.Collect(a.Ranges())) != "[{1 3} {9 9}]" {
		t.Error(a)
	}
	_, c, err := l.MakeGroup(8, NewLogGroup{Path: "/c", FirstLog: 100, Logs: 2})
	if err != nil || c.LastLog != 101 {
		t.Error(c, err)
	}
}

func TestNamesOfLogs(t *testing.T) {
	l := tree(t, "/a/", "/a/b 4", "/c")
	for name, want := range map[string]uint64{"a/b#0": 1, "/a/b#3": 4, "/c": 5, "c#0": 5, "2": 2} {
		n, err := ParseLogName(name)
		if err != nil {
			t.Fatal(err)
		}
		id, err := l.Resolve(n)
		if err != nil || id != want {
			t.Errorf("%s is log %d (%v), not %d", name, id, err, want)
		}
		back, ok := l.Name(id)
		if again, err := l.Resolve(back); !ok || err != nil || again != id {
			t.Errorf("log %d is named %s, which is log %d", id, back, again)
		}
	}
}

// TestRandomChangesKeepTheInvariants makes changes at random. After each, the
// catalog is valid when it is looked at as a whole, what is indexed is what an
// index made from nothing holds, an id is never with another group than it ever
// was, and what was refused has changed nothing.
func TestRandomChangesKeepTheInvariants(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := &wanderer{t: t, rng: rng, l: NewLogs(&Catalog{}), owner: map[uint64]uint64{}}
		for at := uint64(1); at < 120; at++ {
			w.step(at)
		}
		if w.done < 12 || w.refused < 12 {
			t.Fatalf("seed %d: %d changes, %d refused", seed, w.done, w.refused)
		}
	}
}

type wanderer struct {
	t             *testing.T
	rng           *rand.Rand
	l             *Logs
	owner         map[uint64]uint64 // log -> the group that it was first seen in
	done, refused int
}

func (w *wanderer) path() string {
	var names []string
	for range 1 + w.rng.IntN(3) {
		names = append(names, string(rune('a'+w.rng.IntN(3))))
	}
	return joinLogPath(names)
}

func (w *wanderer) attributes() *LogAttributes {
	choices := []string{"replication=node:3", "replication=node:4,rack:2", "nodeset_size=3", "nodeset_size=6", "backlog=1h", "create_on_append=true", "max_writes_in_flight=3"}
	a := new(LogAttributes)
	for range w.rng.IntN(3) {
		name, value, _ := strings.Cut(choices[w.rng.IntN(len(choices))], "=")
		d, _ := LogAttributeNamed(name)
		if err := d.Parse(a, value); err != nil {
			w.t.Fatal(err)
		}
	}
	return a
}

func (w *wanderer) change(at uint64) (next *Logs, err error) {
	path := w.path()
	switch w.rng.IntN(9) {
	case 0, 1:
		return w.l.MakeDirectory(at, path, w.attributes(), w.rng.IntN(2) == 0)
	case 2, 3:
		g := NewLogGroup{Path: path, Attributes: w.attributes(), Logs: uint64(w.rng.IntN(4)), Parents: w.rng.IntN(2) == 0}
		if w.rng.IntN(4) == 0 {
			g.FirstLog = uint64(1 + w.rng.IntN(60))
		}
		next, _, err = w.l.MakeGroup(at, g)
	case 4:
		c := LogAlteration{Path: path, Set: w.attributes()}
		if w.rng.IntN(3) == 0 {
			c.Path = "/"
		}
		if d := logAttributes[w.rng.IntN(len(logAttributes))]; !d.IsSet(c.Set) {
			c.Inherit = []string{d.Name}
		}
		next, _, err = w.l.Alter(at, c)
	case 5:
		next, _, err = w.l.Rename(at, path, w.path(), w.rng.IntN(2) == 0)
	case 6:
		return w.l.Remove(at, path, w.rng.IntN(3) == 0, 0)
	case 7:
		next, _, err = w.l.Resize(at, path, uint64(w.rng.IntN(6)), 0)
	case 8:
		next, _, err = w.l.CreateOnAppend(at, path)
	}
	return next, err
}

func (w *wanderer) step(at uint64) {
	before := text(w.l)
	next, err := w.change(at)
	if text(w.l) != before {
		w.t.Fatalf("a change altered the version before it:\n%s\n%s", before, text(w.l))
	}
	if err != nil {
		if kindOf(err) == 0 {
			w.t.Fatalf("not a LogError: %v", err)
		}
		w.refused++
		return
	}
	if next == nil {
		return // it was there
	}
	w.done++
	w.l = next
	c := &Catalog{}
	next.Into(c)
	if err := validateLogs(c); err != nil {
		w.t.Fatalf("%v\n%s", err, Text(c))
	}
	if a, b := dump(next), dump(NewLogs(c)); a != b {
		w.t.Fatalf("the index holds\n%s\nan index from nothing\n%s", a, b)
	}
	for _, g := range c.LogGroups {
		for r := range g.Ranges() {
			for log := r.First; log <= r.Last; log++ {
				if was, ok := w.owner[log]; ok && was != g.Id {
					w.t.Fatalf("log %d was of group %d and is of %d", log, was, g.Id)
				}
				w.owner[log] = g.Id
			}
		}
	}
}

// dump prints all that can be looked up.
func dump(l *Logs) string {
	var sb strings.Builder
	if err := l.Walk("/", func(e LogEntry) bool {
		fmt.Fprintln(&sb, e.Path)
		sources, _ := l.Sources(e.Path)
		for _, s := range sources {
			fmt.Fprintln(&sb, s)
		}
		if e.Group != nil {
			for n := range e.Group.Logs() {
				id := e.Group.Log(n)
				g, number := l.GroupOf(id)
				a, _ := l.Attributes(id)
				fmt.Fprintln(&sb, id, g.GetId(), number, n, a.EqualVT(e.Attributes))
			}
		}
		return true
	}); err != nil {
		return err.Error()
	}
	return sb.String()
}

// TestBrokenLogPartsAreFound plants what each invariant forbids.
func TestBrokenLogPartsAreFound(t *testing.T) {
	base := func() *Catalog {
		c := &Catalog{}
		tree(t, "/a/", "/a/b 4", "/c").Into(c)
		return c.CloneVT()
	}
	for name, plant := range map[string]struct {
		invariant string
		do        func(*Catalog)
	}{
		"no root":             {"C7", func(c *Catalog) { c.LogDirectories = c.LogDirectories[1:] }},
		"orphan":              {"C7", func(c *Catalog) { c.LogGroups[0].Parent = 77 }},
		"a group as a parent": {"C7", func(c *Catalog) { c.LogGroups[0].Parent = c.LogGroups[1].Id }},
		"same name":           {"C7", func(c *Catalog) { c.LogGroups[1].Name = "a" }},
		"bad name":            {"C7", func(c *Catalog) { c.LogGroups[1].Name = "x#y" }},
		"cycle":               {"C7", func(c *Catalog) { c.LogDirectories[1].Parent = c.LogDirectories[1].Id }},
		"id too high":         {"C7", func(c *Catalog) { c.NextLogItemId-- }},
		"same id":             {"C7", func(c *Catalog) { c.LogGroups[0].Id = c.LogGroups[1].Id }},
		"overlap":             {"C8", func(c *Catalog) { c.LogGroups[1].FirstLog = 4 }},
		"beyond next":         {"C8", func(c *Catalog) { c.NextLogId-- }},
		"upside down":         {"C8", func(c *Catalog) { c.LogGroups[0].LastLog = 0 }},
		"descending ranges":   {"C8", func(c *Catalog) { c.LogGroups[1].More = []*LogRange{{First: 1, Last: 1}} }},
		"window of one":       {"C9", func(c *Catalog) { c.LogDefaults = &LogAttributes{MaxWritesInFlight: new(uint32(1))} }},
		"memory": {"C9", func(c *Catalog) {
			c.LogGroups[0].Attributes = &LogAttributes{Durability: new(Durability_DURABILITY_MEMORY)}
		}},
		"create in a group": {"C9", func(c *Catalog) { c.LogGroups[0].Attributes = &LogAttributes{CreateOnAppend: new(true)} }},
	} {
		c := base()
		if err := validateLogs(c); err != nil {
			t.Fatal(err)
		}
		plant.do(c)
		var bad *InvalidError
		if err := validateLogs(c); !errors.As(err, &bad) || bad.Invariant != plant.invariant {
			t.Errorf("%s: %v, want %s", name, err, plant.invariant)
		}
	}
}

func FuzzLogNames(f *testing.F) {
	for _, s := range []string{"/a/b", "a/b#3", "17", "", "/", "//", "a//b", "#", "a#", "a#-1", "../x", "/a\x00", "/\xff", "18446744073709551616", strings.Repeat("/x", 40)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseLogName(s)
		if err != nil {
			if kindOf(err) != LogInvalid {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		again, err := ParseLogName(n.String())
		if err != nil || again != n {
			t.Fatalf("%q is %+v, printed %q, read %+v: %v", s, n, n, again, err)
		}
		if n.ID == 0 {
			if clean, err := CleanLogPath(n.Path); err != nil || clean != n.Path {
				t.Fatalf("%q is not canonical: %q, %v", n.Path, clean, err)
			}
		}
	})
}

func FuzzLogAttributes(f *testing.F) {
	for _, d := range logAttributes {
		f.Add(d.Name, d.Format(builtInLogAttributes()))
	}
	f.Add("replication", "node:3, rack:2")
	f.Add("backlog", "9223372036854775807d")
	f.Fuzz(func(t *testing.T, name, value string) {
		d, err := LogAttributeNamed(name)
		if err != nil {
			return
		}
		a := new(LogAttributes)
		if err := d.Parse(a, value); err != nil {
			return
		}
		b := new(LogAttributes)
		if err := d.Parse(b, d.Format(a)); err != nil || !a.EqualVT(b) {
			t.Fatalf("%s: %q is %v, printed %q, read %v: %v", name, value, a, d.Format(a), b, err)
		}
	})
}

func TestBuiltInAttributesAreValidAndComplete(t *testing.T) {
	if err := checkLogAttributes(nil); err != nil {
		t.Error(err)
	}
	names := map[string]bool{}
	for _, d := range logAttributes {
		if !d.IsSet(complete(nil)) {
			t.Errorf("%s has no built-in value", d.Name)
		}
		names[d.Name] = true
	}
	fields := (&LogAttributes{}).ProtoReflect().Descriptor().Fields()
	if fields.Len() != len(names) {
		t.Errorf("%d attributes are described, the message has %d: %v", len(names), fields.Len(), slices.Sorted(maps.Keys(names)))
	}
}

func BenchmarkLogs(b *testing.B) {
	l := NewLogs(&Catalog{})
	var err error
	if l, err = l.MakeDirectory(1, "/t", nil, false); err != nil {
		b.Fatal(err)
	}
	b.Run("make", func(b *testing.B) {
		for at := uint64(2); b.Loop(); at++ {
			if l, _, err = l.MakeGroup(at, NewLogGroup{Path: fmt.Sprintf("/t/%d-%d", b.N, at)}); err != nil {
				b.Fatal(err)
			}
		}
	})
	for l.nextLog < 100_000 {
		if l, _, err = l.MakeGroup(2, NewLogGroup{Path: fmt.Sprintf("/t/x%d", l.nextLog)}); err != nil {
			b.Fatal(err)
		}
	}
	c := &Catalog{}
	l.Into(c)
	b.Run("attributes-of-100000", func(b *testing.B) {
		b.ReportAllocs()
		for i := uint64(0); b.Loop(); i++ {
			if _, ok := l.Attributes(1 + i*7919%99_000); !ok {
				b.Fatal("not found")
			}
		}
	})
	b.Run("index-100000", func(b *testing.B) {
		for b.Loop() {
			NewLogs(c)
		}
	})
	b.Run("validate-100000", func(b *testing.B) {
		for b.Loop() {
			if err := validateLogs(c); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("into-100000", func(b *testing.B) {
		for b.Loop() {
			l.Into(&Catalog{})
		}
	})
}
