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
	dir, err := place(os.TempDir(), os.Getpid())
	if err != nil {
		return nil, err
	}
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
	// Not a byte of it may follow from where the sources are, or of which commit: what
	// lies elsewhere in the program has another hash, and maps by types grow otherwise.
	if _, err := command("go", "test", "-c", "-o", b.path, "-trimpath", "-buildvcs=false", "-ldflags=-w", "-overlay", v.list, "-tags", tags, worlds); err != nil {
		return nil, fmt.Errorf("build the worlds: %w", err)
	}
	return b, nil
}

// placeLength is how long the name of a program's directory is. A process reads its own
// path into its memory when it begins, and what it allocates later lies behind that.
const placeLength = 128

// place names a directory below temp for the program that a process builds: as long a
// name everywhere.
func place(temp string, pid int) (string, error) {
	const name = "braid-bubble-"
	digits := placeLength - len(filepath.Join(temp, name))
	if digits < 10 {
		return "", fmt.Errorf("the name of %s is too long: seeds are the same only where programs have paths of %d bytes", temp, placeLength)
	}
	return filepath.Join(temp, fmt.Sprintf("%s%0*d", name, digits, pid)), nil
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
