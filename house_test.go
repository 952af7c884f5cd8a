// Package braid holds the laws of the house as tests: which room may import
// which, what a core may not call, what every package must say of itself, and
// that the documents name functions that exist.
package braid

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
)

const module = "github.com/braiddb/braid/"

// may is the floor plan: what each room may import of this module, outside of
// tests. A room that is not listed may not exist. Leaves may be imported by
// everyone who is allowed anything at all.
var may = map[string]string{
	"internal/catalog":          "",
	"internal/hlc":              "",
	"internal/wire":             "internal/catalog internal/hlc",
	"internal/placement":        "internal/catalog internal/wire internal/logs",
	"internal/journal":          "",
	"internal/manifest":         "",
	"internal/compactions":      "",
	"internal/rpc":              "internal/catalog internal/hlc internal/wire",
	"internal/multiraft":        "internal/catalog internal/hlc internal/wire internal/journal internal/sim/sometimes",
	"internal/tables/docdb":     "internal/catalog internal/hlc internal/wire internal/manifest internal/compactions",
	"internal/tables/tablet":    "internal/catalog internal/hlc internal/wire internal/multiraft internal/tables/docdb internal/sim/sometimes",
	"internal/master":           "internal/catalog internal/hlc internal/wire internal/placement internal/multiraft",
	"client":                    "internal/catalog internal/hlc internal/wire internal/rpc internal/placement internal/logs internal/logs/reader internal/logs/checker",
	"internal/protocol/redis":   "client internal/catalog",
	"internal/gossip":           "internal/catalog internal/hlc internal/wire internal/logs",
	"internal/logs":             "internal/catalog internal/wire",
	"internal/logs/sequencer":   "internal/catalog internal/hlc internal/wire internal/logs internal/placement internal/sim/sometimes",
	"internal/logs/recovery":    "internal/catalog internal/hlc internal/wire internal/logs internal/placement internal/sim/sometimes",
	"internal/logs/store":       "internal/catalog internal/hlc internal/wire internal/logs internal/placement internal/journal internal/manifest internal/compactions internal/sim/sometimes",
	"internal/logs/reader":      "internal/catalog internal/hlc internal/wire internal/logs internal/placement",
	"internal/logs/epochstore":  "internal/catalog internal/wire internal/logs internal/logs/sequencer client",
	"internal/logs/checker":     "internal/catalog internal/wire internal/logs internal/placement",
	"internal/protocol/rest":    "client internal/catalog",
	"internal/admin":            "",
	"internal/admin/query":      "",
	"internal/node":             "*",
	"internal/sim":              "",
	"internal/sim/check":        "",
	"internal/sim/simfs":        "",
	"internal/sim/sometimes":    "",
	"internal/sim/logs":         "*",
	"internal/sim/tables":       "*",
	"internal/sim/run":          "*",
	"internal/sim/fuzz":         "",
	"internal/sim/bubble":       "internal/sim/bubble/world",
	"internal/sim/bubble/lan":   "",
	"internal/sim/bubble/world": "*",
	"internal/sim/bubble/run":   "internal/sim/bubble internal/sim/bubble/world",
	"internal/sim/power":        "internal/sim",
	"internal/sim/processes":    "*",
	"internal/proof":            "*",
	"internal/proof/cluster":    "*",
	"cmd/braid":                 "internal/node internal/admin internal/bench client internal/catalog",
	"internal/bench":            "client internal/catalog",
}

// cores are the packages (or the files of a package) that are deterministic
// state machines: they start no goroutine, read no clock and roll no die.
var cores = []string{
	"internal/multiraft/core*.go",
	"internal/placement/*.go",
	"internal/gossip/core*.go",
	"internal/logs/*.go",
	"internal/logs/sequencer/core*.go",
	"internal/logs/sequencer/append.go",
	"internal/logs/recovery/core*.go",
	"internal/logs/reader/core*.go",
	"internal/master/core*.go",
	"internal/master/bootstrap*.go",
}

type goFile struct {
	path string // slash-separated, from the root
	ast  *ast.File
}

// sources parses every hand-written Go file of the module.
func sources(t *testing.T) (*token.FileSet, []goFile) {
	t.Helper()
	fset := token.NewFileSet()
	var files []goFile
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != "." && (strings.HasPrefix(name, ".") || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, ".pb.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, goFile{filepath.ToSlash(p), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fset, files
}

func isTest(p string) bool { return strings.HasSuffix(p, "_test.go") }

func TestRoomsImportOnlyWhatTheFloorPlanAllows(t *testing.T) {
	_, files := sources(t)
	for _, f := range files {
		room := path.Dir(f.path)
		if room == "." || isTest(f.path) {
			continue
		}
		allowed, known := may[room]
		if !known {
			t.Errorf("%s: room %s is not on the floor plan", f.path, room)
			continue
		}
		for _, imp := range f.ast.Imports {
			name := strings.Trim(imp.Path.Value, `"`)
			target, ours := strings.CutPrefix(name, module)
			if !ours || allowed == "*" {
				continue
			}
			if !contains(strings.Fields(allowed), target) {
				t.Errorf("%s: %s may not import %s", f.path, room, target)
			}
		}
	}
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	_, files := sources(t)
	said := map[string]bool{}
	for _, f := range files {
		if isTest(f.path) {
			continue
		}
		dir := path.Dir(f.path)
		said[dir] = said[dir] || (f.ast.Doc != nil && len(f.ast.Doc.Text()) > 40)
	}
	for dir, ok := range said {
		if !ok {
			t.Errorf("package %s has no package comment", dir)
		}
	}
}

func TestNoRoomIsNamedAfterNothing(t *testing.T) {
	_, files := sources(t)
	for _, f := range files {
		switch f.ast.Name.Name {
		case "util", "utils", "common", "base", "helpers", "types", "model", "manager", "misc":
			t.Errorf("%s: a package named %s says nothing", f.path, f.ast.Name.Name)
		}
	}
}

// TestCoresAreDeterministic looks for what would make a core's next step depend
// on anything but its inputs.
func TestCoresAreDeterministic(t *testing.T) {
	fset, files := sources(t)
	checked := 0
	for _, f := range files {
		if isTest(f.path) || !isCore(f.path) {
			continue
		}
		checked++
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a core starts a goroutine", fset.Position(n.Pos()))
			case *ast.CallExpr:
				sel, ok := n.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				pkg, ok := sel.X.(*ast.Ident)
				if !ok {
					return true
				}
				call := pkg.Name + "." + sel.Sel.Name
				if forbidden(call) {
					t.Errorf("%s: a core calls %s", fset.Position(n.Pos()), call)
				}
			}
			return true
		})
	}
	if checked == 0 {
		t.Fatal("no core was found: the patterns are out of date")
	}
}

func isCore(p string) bool {
	for _, pattern := range cores {
		if ok, _ := path.Match(pattern, p); ok {
			return true
		}
	}
	return false
}

// forbidden names what no core calls: clocks, timers, and the process-wide dice.
func forbidden(call string) bool {
	switch call {
	case "time.Now", "time.Since", "time.Until", "time.After", "time.AfterFunc", "time.NewTimer", "time.NewTicker",
		"time.Tick", "time.Sleep", "crand.Read":
		return true
	}
	fn, ok := strings.CutPrefix(call, "rand.")
	return ok && !contains([]string{"New", "NewPCG", "NewChaCha8", "NewSource", "NewZipf"}, fn)
}

func TestNoSleepInTests(t *testing.T) {
	fset, files := sources(t)
	for _, f := range files {
		if !isTest(f.path) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" {
					t.Errorf("%s: a test waits for a condition, it does not sleep", fset.Position(n.Pos()))
				}
			}
			return true
		})
	}
}

// functionLinesMax is a ratchet: functions longer than this are listed below
// with their length, and may only shrink.
const functionLinesMax = 100

var longFunctions = map[string]int{}

func TestFunctionsStayReadable(t *testing.T) {
	fset, files := sources(t)
	for _, f := range files {
		if isTest(f.path) {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
			id := path.Dir(f.path) + "." + fn.Name.Name
			if limit := max(functionLinesMax, longFunctions[id]); lines > limit {
				t.Errorf("%s is %d lines long, the limit is %d", id, lines, limit)
			}
		}
	}
}

// codeSpan finds `room.Name` and `Name()` in the documents' walks.
var codeSpan = regexp.MustCompile("`([a-z]+)\\.(?:\\(?\\*?([A-Za-z]\\w*)\\)?\\.)?([A-Za-z]\\w*)`")

// TestDocumentsNameWhatExists checks that each `room.Function` or
// `room.Type.Method` in ARCHITECTURE.md is in the code.
func TestDocumentsNameWhatExists(t *testing.T) {
	_, files := sources(t)
	exists := map[string]bool{}
	rooms := map[string]bool{}
	for _, f := range files {
		room := f.ast.Name.Name
		rooms[room] = true
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					exists[room+"."+d.Name.Name] = true
					continue
				}
				exists[fmt.Sprintf("%s.%s.%s", room, receiver(d), d.Name.Name)] = true
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						exists[room+"."+s.Name.Name] = true
					case *ast.ValueSpec:
						for _, n := range s.Names {
							exists[room+"."+n.Name] = true
						}
					}
				}
			}
		}
	}
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	var missing []string
	for _, m := range codeSpan.FindAllStringSubmatch(string(text), -1) {
		if !rooms[m[1]] {
			continue
		}
		found++
		name := m[1] + "." + m[3]
		if m[2] != "" {
			name = m[1] + "." + m[2] + "." + m[3]
		}
		if !exists[name] {
			missing = append(missing, name)
		}
	}
	sort.Strings(missing)
	for _, m := range missing {
		t.Errorf("ARCHITECTURE.md names %s, which does not exist", m)
	}
	if found < 20 {
		t.Errorf("ARCHITECTURE.md names only %d functions; the walks should name every step", found)
	}
}

func receiver(d *ast.FuncDecl) string {
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if idx, ok := t.(*ast.IndexExpr); ok {
		t = idx.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name
	}
	return "?"
}
