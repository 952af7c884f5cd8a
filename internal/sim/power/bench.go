package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// bench is where bugs are tried: the files of one commit, and a place for patched
// copies.
type bench struct {
	s      *settings
	root   string // of the module that is built
	dir    string // of what this run writes
	commit string

	leftOut map[string][]string // by room: tests that are red without a bug
}

// newBench writes the commit's files out, unless the tree itself is to be used.
func newBench(s *settings) (*bench, error) {
	here, err := output("", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	h := &bench{s: s, root: here, leftOut: map[string][]string{}}
	if h.commit, err = output(here, "git", "rev-parse", "--short=12", s.revision); err != nil {
		return nil, err
	}
	if h.dir, err = os.MkdirTemp("", "braid-power-"); err != nil {
		return nil, err
	}
	if s.worktree {
		h.commit += "+"
		return h, nil
	}
	// A path that depends on the commit alone lets runs of it share the build cache.
	h.root = filepath.Join(os.TempDir(), "braid-power-"+h.commit)
	if err := writeOut(here, h.commit, h.root); err != nil {
		return nil, errors.Join(err, os.RemoveAll(h.dir))
	}
	return h, nil
}

// writeOut writes a commit's files to a directory, if they are not there.
func writeOut(repo, commit, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "braid-power-files-")
	if err != nil {
		return err
	}
	archive := exec.Command("git", "archive", "--format=tar", commit)
	archive.Dir = repo
	unpack := exec.Command("tar", "-x", "-C", fresh)
	var trouble bytes.Buffer
	archive.Stderr, unpack.Stderr = &trouble, &trouble
	if unpack.Stdin, err = archive.StdoutPipe(); err != nil {
		return err
	}
	err = errors.Join(unpack.Start(), archive.Run(), unpack.Wait())
	if err == nil {
		err = os.Rename(fresh, dir)
	}
	if err != nil {
		return fmt.Errorf("write out %s: %w\n%s", commit, errors.Join(err, os.RemoveAll(fresh)), trouble.String())
	}
	return nil
}

func (h *bench) clear() {
	if err := os.RemoveAll(h.dir); err != nil {
		fmt.Fprintln(os.Stderr, "power:", err)
	}
}

// overlay writes the files of a bug and gives the go command's argument for it.
func (h *bench) overlay(b *bug) (string, error) {
	if b == nil {
		return "-overlay=", nil
	}
	files, err := b.apply(os.DirFS(h.root))
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, text := range files {
		to := filepath.Join(h.dir, b.id, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(to, text, 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(h.root, filepath.FromSlash(name))] = to
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	at := filepath.Join(h.dir, b.id+".json")
	return "-overlay=" + at, os.WriteFile(at, list, 0o644)
}

// patience is how much longer than its own limit a command may take: to build, and to
// wait for its turn where it runs under another.
const patience = 20 * time.Minute

// outcome is how a command ended.
type outcome struct {
	text    string
	failed  bool
	late    bool // it was stopped because its time was over
	seconds float64
}

// command runs a command in the module, under the one that was asked for.
func (h *bench) command(limit time.Duration, name string, args ...string) (outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	line := append(append(append([]string(nil), h.s.with...), name), args...)
	c := exec.CommandContext(ctx, line[0], line[1:]...)
	c.Dir = h.root
	c.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	began := time.Now()
	err := c.Run()
	o := outcome{text: out.String(), seconds: time.Since(began).Seconds(), late: ctx.Err() != nil}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		o.failed = true
	case err != nil && !o.late:
		return o, fmt.Errorf("%s: %w", strings.Join(line, " "), err)
	}
	return o, nil
}

// check sees that every bug applies and compiles (P1, P2).
func (h *bench) check(bugs []*bug) error {
	var bad error
	for _, b := range bugs {
		overlay, err := h.overlay(b)
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		o, err := h.command(patience, "go", append([]string{"build", overlay}, b.packages()...)...)
		switch {
		case err != nil:
			return err
		case o.failed:
			bad = errors.Join(bad, fmt.Errorf("%s does not compile:\n%s", b.id, o.text))
		default:
			fmt.Printf("%-4s compiles  %s\n", b.id, b.name)
		}
	}
	return bad
}

func output(dir, name string, args ...string) (string, error) {
	c := exec.Command(name, args...)
	c.Dir = dir
	text, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(text)), nil
}
