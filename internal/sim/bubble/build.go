package bubble

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// worlds is the package whose test binary runs worlds.
const worlds = "github.com/braiddb/braid/internal/sim/bubble/world"

// Binary is a program that runs one world per process.
type Binary struct {
	dir, path string
	// Unknown says why a seed does not run the same way each time, if so.
	Unknown error
}

// Build makes the program, over the seeded standard library if this
// release of Go is known, and over one that is hardly changed if not. All that
// it depends on is compiled anew for that, once: the go command keeps it. more may
// name an overlay of files of the project.
func Build(more string) (_ *Binary, err error) {
	goroot, err := command("go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	// A name of one length: a program's own path lies in its memory.
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("braid-bubble-%010d", os.Getpid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	v, err := writeOverlay(strings.TrimSpace(goroot), dir, more)
	if err != nil {
		return nil, err
	}
	b := &Binary{dir: dir, path: filepath.Join(dir, "world.test"), Unknown: v.unknown}
	tags := "overlay,replay"
	if v.unknown != nil {
		tags = "overlay"
	}
	if _, err := command("go", "test", "-c", "-o", b.path, "-ldflags=-w", "-overlay", v.list, "-tags", tags, worlds); err != nil {
		return nil, fmt.Errorf("build the worlds: %w", err)
	}
	return b, nil
}

// Close removes the program.
func (b *Binary) Close() error { return os.RemoveAll(b.dir) }

// command runs a program and gives what it says.
func command(name string, args ...string) (string, error) {
	var out, bad bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = &out, &bad
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, bad.Bytes())
	}
	return out.String(), nil
}
