package catalog

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of log ids and paths.
const (
	// LogIDMax is the highest id of a data log (logs.LogIDMax, which this package
	// may not import).
	LogIDMax uint64 = 1<<62 - 1000

	logNameLenMax = 255
	logPathLenMax = 2048
	logDepthMax   = 32
)

// LogName is how people name one log: by its path, by its path and its number in
// its group, or by its id.
//
//	/events/clicks     the only log of a group
//	/events/clicks#3   the fourth log of a group of several
//	17                 the log with this id
type LogName struct {
	Path     string // canonical; empty where ID is given
	Number   uint64 // counts from 0
	Numbered bool
	ID       uint64
}

// String prints a name so that ParseLogName reads it.
func (n LogName) String() string {
	switch {
	case n.ID != 0:
		return strconv.FormatUint(n.ID, 10)
	case n.Numbered:
		return n.Path + "#" + strconv.FormatUint(n.Number, 10)
	}
	return n.Path
}

// ParseLogName reads a name. The slash in front of a path may be left out, except
// where the path would be a bare number.
func ParseLogName(s string) (LogName, error) {
	if bareNumber(s) {
		id, err := strconv.ParseUint(s, 10, 64)
		if err != nil || id == 0 || id > LogIDMax {
			return LogName{}, logError(LogInvalid, s, "is not a log id: they go from 1 to %d", LogIDMax)
		}
		return LogName{ID: id}, nil
	}
	path, number, numbered := strings.Cut(s, "#")
	n := LogName{Numbered: numbered}
	if numbered {
		var err error
		if n.Number, err = strconv.ParseUint(number, 10, 63); err != nil || !bareNumber(number) {
			return LogName{}, logError(LogInvalid, s, "what follows # is the number of a log in its group, counted from 0")
		}
	}
	names, err := splitLogPath(path)
	if err != nil {
		return LogName{}, err
	}
	if len(names) == 0 {
		return LogName{}, logError(LogInvalid, s, "is a directory, not a log")
	}
	n.Path = joinLogPath(names)
	return n, nil
}

// CleanLogPath gives the canonical form of a path of a group or a directory:
// with a slash in front and none behind. The root is "/".
func CleanLogPath(path string) (string, error) {
	names, err := splitLogPath(path)
	if err != nil {
		return "", err
	}
	return joinLogPath(names), nil
}

func bareNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func joinLogPath(names []string) string { return "/" + strings.Join(names, "/") }

// splitLogPath cuts a path into names; the root has none.
func splitLogPath(path string) ([]string, error) {
	switch {
	case path == "/":
		return nil, nil
	case path == "":
		return nil, logError(LogInvalid, path, "a log's path is empty: write /name or /directory/name")
	case len(path) > logPathLenMax:
		return nil, logError(LogInvalid, path[:32]+"...", "a path has at most %d bytes, this one has %d", logPathLenMax, len(path))
	case bareNumber(path):
		return nil, logError(LogInvalid, path, "a bare number is a log id: write /%s for a path", path)
	}
	names := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(names) > logDepthMax {
		return nil, logError(LogInvalid, path, "%d levels, at most %d", len(names), logDepthMax)
	}
	for _, name := range names {
		if err := checkLogName(name); err != nil {
			return nil, logError(LogInvalid, path, "%v", err)
		}
	}
	return names, nil
}

// checkLogName says why a name cannot be that of a directory or a group.
func checkLogName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a name between slashes is empty")
	case len(name) > logNameLenMax:
		return fmt.Errorf("a name has at most %d bytes, one has %d", logNameLenMax, len(name))
	case name == "." || name == "..":
		return fmt.Errorf("%q is not a name", name)
	case !utf8.ValidString(name):
		return fmt.Errorf("name %q is not UTF-8", name)
	}
	for _, r := range name {
		if r == '/' || r == '#' || unicode.IsControl(r) {
			return fmt.Errorf("name %q holds %q, which no name may", name, r)
		}
	}
	return nil
}
