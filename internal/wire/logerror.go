package wire

import (
	"errors"

	"github.com/braiddb/braid/internal/catalog"
)

var logErrorCodes = map[catalog.LogErrorKind]Code{
	catalog.LogExists:            Code_CODE_ALREADY_EXISTS,
	catalog.LogNotFound:          Code_CODE_NOT_FOUND,
	catalog.LogNotDirectory:      Code_CODE_NOT_DIRECTORY,
	catalog.LogNotEmpty:          Code_CODE_NOT_EMPTY,
	catalog.LogIDClash:           Code_CODE_ID_CLASH,
	catalog.LogInvalidAttributes: Code_CODE_INVALID_ATTRIBUTES,
	catalog.LogChanged:           Code_CODE_CONDITION_FAILED,
}

// LogErrorCode is the code of what the catalog says of log directories and
// groups; CODE_INVALID for what makes no sense.
func LogErrorCode(err error) Code {
	var e *catalog.LogError
	if errors.As(err, &e) {
		if code, ok := logErrorCodes[e.Kind]; ok {
			return code
		}
	}
	return Code_CODE_INVALID
}
