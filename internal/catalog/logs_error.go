package catalog

import "fmt"

// LogErrorKind says what is wrong with a change of the log part of a catalog.
type LogErrorKind uint8

// The kinds, with the ancestor's names.
const (
	LogInvalid           LogErrorKind = iota + 1 // INVALID: a path or a number that makes no sense
	LogExists                                    // EXISTS
	LogNotFound                                  // NOTFOUND
	LogNotDirectory                              // NOTDIR: a group where a directory is needed, or the reverse
	LogNotEmpty                                  // NOTEMPTY
	LogIDClash                                   // ID_CLASH: ids that were given out before
	LogInvalidAttributes                         // INVALID_ATTRIBUTES
	LogChanged                                   // the group is not of the version that was asked for
)

// LogError is why a change of the log part of a catalog was refused.
type LogError struct {
	Kind   LogErrorKind
	Path   string
	Detail string
}

// Error says what is wrong with what.
func (e *LogError) Error() string { return fmt.Sprintf("log %q: %s", e.Path, e.Detail) }

// Is makes errors.Is compare kinds.
func (e *LogError) Is(target error) bool {
	t, ok := target.(*LogError)
	return ok && t.Kind == e.Kind
}

func logError(kind LogErrorKind, path, format string, args ...any) *LogError {
	return &LogError{Kind: kind, Path: path, Detail: fmt.Sprintf(format, args...)}
}
