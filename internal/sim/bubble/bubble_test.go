package bubble

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestSeedsReplay runs worlds of whole nodes, each twice, and demands that each is
// the same both times, that no two are alike, and that each has done something.
func TestSeedsReplay(t *testing.T) {
	b, err := Build("")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Unknown != nil {
		t.Log(b.Unknown)
	}
	seen := map[string]uint64{}
	for seed := uint64(1); seed <= 3; seed++ {
		res, err := b.Twice(context.Background(), seed)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range res.Problems {
			t.Errorf("seed %d: %s", seed, p)
		}
		if res.Known < 200 || res.Faults < 3 || res.Virtual.Seconds() < 12 {
			t.Errorf("seed %d hardly did anything: %+v", seed, res)
		}
		if other, alike := seen[res.Hash]; alike {
			t.Errorf("seeds %d and %d are alike", other, seed)
		}
		seen[res.Hash] = seed
		t.Logf("seed %d: %s, %d operations, %d faults, %v of virtual time", seed, res.Hash, res.Known, res.Faults, res.Virtual)
	}
}

// TestASeedIsTheSameEverywhere runs a world from programs in two places, and looks that
// the program does not know where its sources were.
func TestASeedIsTheSameEverywhere(t *testing.T) {
	b, err := Build("")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Unknown != nil {
		t.Skip(b.Unknown)
	}
	program, err := os.ReadFile(b.path)
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(program, []byte(here)) {
		t.Errorf("the program has the name of %s in it", here)
	}
	hashes := map[string]string{}
	for _, temp := range []string{t.TempDir(), filepath.Join(t.TempDir(), "a/temporary/directory/below")} {
		dir, err := place(temp, os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		there := &Binary{dir: dir, path: filepath.Join(dir, "world.test")}
		if err := os.WriteFile(there.path, program, 0o755); err != nil {
			t.Fatal(err)
		}
		res, err := there.Run(context.Background(), 1, "")
		if err != nil {
			t.Fatal(err)
		}
		hashes[res.Hash] = dir
	}
	if len(hashes) != 1 {
		t.Errorf("one seed, two traces: %v", hashes)
	}
	if dir, err := place("/"+strings.Repeat("x", placeLength), 1); err == nil {
		t.Errorf("%s is a place", dir)
	}
}

// library makes a directory like GOROOT with the files that the edits are about.
func library(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, r := range releases {
		for _, o := range r.files {
			text, err := os.ReadFile(filepath.Join(runtime.GOROOT(), "src", o.path))
			if err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(root, "src", o.path)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

// TestAnUnknownReleaseIsSaidToBe changes one byte of the library: only that edit is
// made without which nothing runs, and the reason is given.
func TestAnUnknownReleaseIsSaidToBe(t *testing.T) {
	root := library(t)
	name := filepath.Join(root, "src/runtime/select.go")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	v, err := writeOverlay(root, dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(v.unknown, ErrUnknownRelease) || !strings.Contains(v.unknown.Error(), "runtime/select.go") {
		t.Errorf("it is said: %v", v.unknown)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) != 1 {
		t.Errorf("%v were changed (%v)", files, err)
	}
}

// TestAnEditWithoutItsPlaceIsRefused does not guess.
func TestAnEditWithoutItsPlaceIsRefused(t *testing.T) {
	o := original{path: "x.go", edits: []edit{{"a\n", "b\n"}}}
	for _, text := range []string{"", "a\na\n"} {
		if _, err := o.apply([]byte(text)); err == nil {
			t.Errorf("%q was edited", text)
		}
	}
	if _, err := (original{path: "x.go", edits: []edit{{"a\n", "b\n\n"}}}).apply([]byte("a\n")); err == nil {
		t.Error("an edit moved lines")
	}
	got, err := original{path: "x.go", edits: o.edits, after: "end"}.apply([]byte("xa\n"))
	if err != nil || string(got) != "xb\nend" {
		t.Errorf("%q, %v", got, err)
	}
}
