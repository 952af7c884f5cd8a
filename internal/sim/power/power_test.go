package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryBugApplies keeps the bugs alive while the code under them changes (P1).
// Who moves the lines that a bug stands on chooses others for it, that say the same.
func TestEveryBugApplies(t *testing.T) {
	bugs, err := loadBugs(everything)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join("..", "..", "..")
	perWing := map[string]int{}
	names := map[string]string{}
	for _, b := range bugs {
		files, err := b.apply(os.DirFS(root))
		if err != nil {
			t.Error(err)
		}
		if len(files) == 0 {
			t.Errorf("%s changes nothing", b.id)
		}
		for _, room := range b.rooms {
			if _, err := os.Stat(filepath.Join(root, "internal", filepath.FromSlash(room))); err != nil {
				t.Errorf("%s: room %s: %v", b.id, room, err)
			}
		}
		if other := names[b.name]; other != "" {
			t.Errorf("%s and %s are both called %q", other, b.id, b.name)
		}
		names[b.name] = b.id
		perWing[b.wing]++
	}
	for wing, least := range map[string]int{"tables": 12, "logs": 12, "journal": 6} {
		if perWing[wing] < least {
			t.Errorf("%d bugs of wing %s, at least %d are wanted", perWing[wing], wing, least)
		}
	}
}

const sample = `id: X01
name: one
wing: logs
class: of its kind
tiers: A model
rooms: journal
story: It was done
  so.

@@ a/b.go
 	keep
-	go
+	come
+	too
@@ a/b.go
-	last
+	least
`

func TestABugIsReadAndApplied(t *testing.T) {
	b, err := parseBug(sample)
	if err != nil {
		t.Fatal(err)
	}
	if b.story != "It was done so." || len(b.blocks) != 2 || len(b.tiers) != 2 {
		t.Fatalf("read as %+v", b)
	}
	tree := t.TempDir()
	write := func(text string) {
		if err := os.MkdirAll(filepath.Join(tree, "a"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, "a", "b.go"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("begin\n\tkeep\n\tgo\n\t\tgo\n\tlast\n")
	files, err := b.apply(os.DirFS(tree))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(files["a/b.go"]), "begin\n\tkeep\n\tcome\n\ttoo\n\t\tgo\n\tleast\n"; got != want {
		t.Errorf("applied:\n%s\nnot:\n%s", got, want)
	}
	write("\tkeep\n\tgo\n\tlast\n\tlast\n")
	if _, err := b.apply(os.DirFS(tree)); err == nil || !strings.Contains(err.Error(), "2 times") {
		t.Errorf("lines that occur twice are taken: %v", err)
	}
	write("\tkeep\n\tlast\n")
	if _, err := b.apply(os.DirFS(tree)); err == nil || !strings.Contains(err.Error(), "0 times") {
		t.Errorf("lines that are not there are taken: %v", err)
	}
}

func TestWhatIsNoBugIsRefused(t *testing.T) {
	for what, change := range map[string][2]string{
		"no empty line":    {"\n\n", "\n"},
		"unknown field":    {"class:", "sort:"},
		"unknown wing":     {"wing: logs", "wing: left"},
		"unknown tier":     {"A model", "A D"},
		"a field twice":    {"name: one", "name: one\nname: two"},
		"a strange line":   {"+	come", "?	come"},
		"nothing changes":  {"+	come\n+	too\n", "+	go\n"},
		"a test's file":    {"@@ a/b.go\n-", "@@ a/b_test.go\n-"},
		"above the root":   {"@@ a/b.go\n-", "@@ ../b.go\n-"},
		"no story":         {"story: It was done\n  so.\n", ""},
		"outside of block": {"@@ a/b.go\n 	keep\n-	go\n+	come\n+	too\n@@ a/b.go\n", ""},
	} {
		text := strings.Replace(sample, change[0], change[1], 1)
		if text == sample {
			t.Errorf("%s: the sample does not have %q", what, change[0])
		}
		if _, err := parseBug(text); !errors.Is(err, errFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTheFirstFailureIsTold(t *testing.T) {
	for _, c := range []struct{ text, test, message string }{
		{"--- FAIL: TestModel (0.1s)\n    --- FAIL: TestModel/seed_3 (0.1s)\n        model_test.go:12: entry  5 is gone\nFAIL\n", "TestModel", "entry 5 is gone"},
		{"panic: BUG: R1\n\ngoroutine 7 [running]:\nx/y.TestSim(0xc0)\n\t/x\n", "TestSim", "panic: BUG: R1"},
		{"panic: test timed out after 4m0s\n\trunning tests:\n\t\tTestHost (3m2s)\n", "TestHost", "panic: test timed out after 4m0s"},
	} {
		if test, message := firstFailure(c.text); test != c.test || message != c.message {
			t.Errorf("%q is told as %q, %q", c.text, test, message)
		}
	}
}

func TestWhatARunnerSaysIsRead(t *testing.T) {
	var a, b report
	if err := json.Unmarshal([]byte(`{"Wings":[{"Wing":"tables","Seeds":7},{"Wing":"logs","Seeds":2,"Failures":[{"Seed":3,"Error":"lost\n it"}]}]}`), &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{"Seeds":5,"Failures":[{"Seed":4,"Problems":["a","b"]}]}`), &b); err != nil {
		t.Fatal(err)
	}
	var f finding
	if f.take(append(a.Wings, a)...); !f.Found || f.Seeds != 9 || f.Seed != 3 || f.Message != "lost it" {
		t.Errorf("tier A is read as %+v", f)
	}
	f = finding{}
	if f.take(append(b.Wings, b)...); !f.Found || f.Seeds != 5 || f.Seed != 4 || f.Message != "a b" {
		t.Errorf("tier B is read as %+v", f)
	}
}

func TestARecordKeepsWhatWasNotLookedAt(t *testing.T) {
	at := filepath.Join(t.TempDir(), "d", "r.json")
	b, err := parseBug(sample)
	if err != nil {
		t.Fatal(err)
	}
	r := &record{}
	e := r.entry(b)
	e.Rooms = []finding{{Finder: "journal", Found: true, Test: "TestModel"}}
	e.put(finding{Finder: "A", Seeds: 10})
	e.put(finding{Finder: "model", Found: true, Seed: 3, Seeds: 4})
	e.put(finding{Finder: "A", Found: true, Seed: 7, Seeds: 9, Message: "lost"})
	if err := r.write(at); err != nil {
		t.Fatal(err)
	}
	back := &record{}
	back.entry(b).put(finding{Finder: "A", Seeds: 1})
	if err := back.merge(at, []*bug{b}); err != nil {
		t.Fatal(err)
	}
	got := back.entry(b)
	if len(back.Bugs) != 1 || len(got.Tiers) != 2 || got.Tiers[0].Seed != 7 || len(got.Rooms) != 1 {
		t.Fatalf("read back as %+v", got)
	}
	if text, hit := got.foundBySimulation(); !hit || !strings.Contains(text, "A: lost (9 seeds") {
		t.Errorf("told as %q", text)
	}
}
