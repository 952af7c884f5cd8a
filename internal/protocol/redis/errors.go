package redis

import (
	"errors"

	"github.com/braiddb/braid/client"
)

// replyError is an error as the client reads it, prefix included.
type replyError string

func (e replyError) Error() string { return string(e) }

// Texts as Redis has them.
const (
	errSyntax      replyError = "ERR syntax error"
	errNotInteger  replyError = "ERR value is not an integer or out of range"
	errNotFloat    replyError = "ERR value is not a valid float"
	errNotPositive replyError = "ERR value is out of range, must be positive"
	errNoKey       replyError = "ERR no such key"
	errCrossSlot   replyError = "CROSSSLOT Keys in request don't hash to the same slot"
	errNoAuth      replyError = "NOAUTH Authentication required."
	errTooLong     replyError = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
	errOffset      replyError = "ERR offset is out of range"
	errWrongPass   replyError = "WRONGPASS invalid username-password pair or user is disabled."
	errTimeout     replyError = "ERR timeout is not an integer or out of range"
	errExecAbort   replyError = "EXECABORT Transaction discarded because of previous errors."
	errOnlyDB0     replyError = "ERR only database 0 exists"
	errTooBigQuery replyError = "ERR command exceeds the limits of a value or of a query (see CONFIG GET proto-max-bulk-len and client-query-buffer-limit)"
)

// codeTexts is the one table from what a tablet or the client answers to what a
// Redis client reads. TRYAGAIN is a promise that nothing happened: stock clients
// repeat the command on it. Codes that are not here are internal errors.
var codeTexts = map[client.Code]string{
	// What the operation itself found.
	client.CodeWrongType:     "WRONGTYPE Operation against a key holding the wrong kind of value",
	client.CodeNotAnInteger:  string(errNotInteger),
	client.CodeNotAFloat:     string(errNotFloat),
	client.CodeOverflow:      "ERR increment or decrement would overflow",
	client.CodeNoSuchKey:     string(errNoKey),
	client.CodeOutOfRange:    "ERR index out of range",
	client.CodeSyntax:        string(errSyntax),
	client.CodeAlreadyExists: "BUSYKEY Target key name already exists.",
	client.CodeTooLarge:      string(errTooLong) + ", or what the command moves at once does: take it in parts",

	// No effect, and worth another try.
	client.CodeUnavailable:    "TRYAGAIN no leader was found in time for this key's tablet; nothing was done",
	client.CodeNotLeader:      "TRYAGAIN the leader of this key's tablet is changing; nothing was done",
	client.CodeNotReady:       "TRYAGAIN the leader of this key's tablet is not ready; nothing was done",
	client.CodeTabletNotFound: "TRYAGAIN this key's tablet has moved; nothing was done",
	client.CodeSchemaMismatch: "TRYAGAIN the table's schema has changed; nothing was done",
	client.CodeTimeout:        "TRYAGAIN the time allowed ran out; nothing was done",
	client.CodeOverloaded:     "TRYAGAIN too much waits at the leader of this key's tablet; nothing was done",
	client.CodeClockSkew:      "TRYAGAIN clocks differ by more than is allowed; nothing was done",
	client.CodeSnapshotTooOld: "TRYAGAIN what was to be read has been cleared away; nothing was done",
	client.CodeCorrupt:        "TRYAGAIN the data is damaged where it is led, repair is under way; nothing was done",
	client.CodeCanceled:       "TRYAGAIN the node is stopping; nothing was done",

	// No effect, and another try will not help by itself.
	client.CodeDiskFull: "MISCONF the disk of the leader of this key's tablet is full; nothing was done",

	// It is not known whether there was an effect.
	client.CodeUnknownOutcome: "UNKNOWNOUTCOME the command was sent but its answer was lost: it may or may not take effect",
	client.CodeRequestExpired: "UNKNOWNOUTCOME the command was repeated for so long that its first outcome is forgotten: it may or may not have taken effect",
}

// failure makes a result of an error of the client, so that whatever went wrong
// is rendered in one place.
func failure(err error) *client.Result {
	var e *client.Error
	switch {
	case errors.As(err, &e):
		if s, ok := codeTexts[e.Code]; ok {
			return &client.Result{Kind: client.KindError, Code: e.Code, Message: s}
		}
		return &client.Result{Kind: client.KindError, Code: e.Code, Message: "ERR " + e.Error()}
	case errors.Is(err, client.ErrCrossTablet):
		return refusal(errCrossSlot)
	}
	return &client.Result{Kind: client.KindError, Code: client.CodeInternal, Message: "ERR " + err.Error()}
}

// refusal is the result of a command that was refused here.
func refusal(e error) *client.Result {
	return &client.Result{Kind: client.KindError, Code: client.CodeInvalid, Message: e.Error()}
}

// broken is the result of a command whose answer makes no sense.
func broken(what string) *client.Result {
	return &client.Result{Kind: client.KindError, Code: client.CodeInternal, Message: "ERR internal error: " + what}
}

// errorLine is what the client reads of an error result: the words of whoever
// refused, where they are Redis's, else those of its code.
func errorLine(r *client.Result) string {
	if startsWithPrefix(r.Message) {
		return r.Message
	}
	if s, ok := codeTexts[r.Code]; ok {
		return s
	}
	return "ERR internal error: " + r.Code.String() + " " + r.Message
}

// startsWithPrefix reports whether s begins as error lines do: with a word of
// capital letters.
func startsWithPrefix(s string) bool {
	n := 0
	for n < len(s) && 'A' <= s[n] && s[n] <= 'Z' {
		n++
	}
	return n > 1 && n < len(s) && s[n] == ' '
}
