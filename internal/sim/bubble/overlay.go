package bubble

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrUnknownRelease says that the standard library is not one whose scheduler
// the overlay can seed. Worlds still run on it, but no two runs are alike.
var ErrUnknownRelease = errors.New("this Go release is not known to the simulation: seeds run, but cannot be replayed")

// overlay is a changed standard library.
type overlay struct {
	list    string // the file that the go command takes
	unknown error  // why seeds do not replay over it, if so
}

// writeOverlay writes the changed files of the standard library below dir, and
// the map of them, to which more may add.
func writeOverlay(goroot, dir, more string) (*overlay, error) {
	files, unknown := recognise(goroot)
	v := &overlay{list: filepath.Join(dir, "overlay.json"), unknown: unknown}
	replace := map[string]string{}
	if more != "" {
		text, err := os.ReadFile(more)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &struct{ Replace *map[string]string }{&replace}); err != nil {
			return nil, fmt.Errorf("overlay %s: %w", more, err)
		}
	}
	for _, o := range files {
		source := filepath.Join(goroot, "src", filepath.FromSlash(o.path))
		text, err := os.ReadFile(source)
		if err != nil {
			return nil, err
		}
		if text, err = o.apply(text); err != nil {
			return nil, err
		}
		target := filepath.Join(dir, strings.ReplaceAll(o.path, "/", "_"))
		if err := os.WriteFile(target, text, 0o644); err != nil {
			return nil, err
		}
		replace[source] = target
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	return v, os.WriteFile(v.list, list, 0o644)
}

// recognise finds the release whose files these are, to the last bit. Of another
// one only that is changed without which no world can run.
func recognise(goroot string) ([]original, error) {
	var differs string
	for _, r := range releases {
		differs = ""
		for _, o := range r.files {
			text, err := os.ReadFile(filepath.Join(goroot, "src", filepath.FromSlash(o.path)))
			if err != nil {
				return least, fmt.Errorf("%w (%w)", ErrUnknownRelease, err)
			}
			if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != o.sha256 {
				differs = fmt.Sprintf("%s is not that of %s", o.path, r.version)
				break
			}
		}
		if differs == "" {
			return r.files, nil
		}
	}
	return least, fmt.Errorf("%w (%s)", ErrUnknownRelease, differs)
}

// apply makes the edits, each at the one place where its text stands. No line
// moves, so that positions in stacks stay true.
func (o original) apply(text []byte) ([]byte, error) {
	for _, e := range o.edits {
		if n := bytes.Count(text, []byte(e.old)); n != 1 {
			return nil, fmt.Errorf("%s has %d places like %q, not one: look the edits over for this Go release", o.path, n, e.old)
		}
		if strings.Count(e.old, "\n") != strings.Count(e.new, "\n") {
			return nil, fmt.Errorf("BUG: the edit of %s at %q moves lines", o.path, e.old)
		}
		text = bytes.Replace(text, []byte(e.old), []byte(e.new), 1)
	}
	return append(text, o.after...), nil
}
