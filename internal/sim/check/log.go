package check

import "fmt"

// LogOp is an append to a log. Nobody else appends the same payload.
type LogOp struct {
	Op
	Payload string
	LSN     uint64 // where it was acknowledged
}

// LogRecord is a record as it was read.
type LogRecord struct {
	LSN     uint64
	Payload string
}

// Log checks a log that was read to its end: every acknowledged record is there at
// its LSN, none twice, none that was refused or that nobody appended, and what was
// over before another append began stands before that.
func Log(ops []*LogOp, read []LogRecord) error {
	tried := make(map[string]*LogOp, len(ops))
	for _, o := range ops {
		tried[o.Payload] = o
	}
	at := make(map[string]uint64, len(read))
	var last uint64
	for _, r := range read {
		o, was := tried[r.Payload], at[r.Payload]
		switch {
		case r.LSN <= last:
			return fmt.Errorf("%q is read at %d, after %d", r.Payload, r.LSN, last)
		case was != 0:
			return fmt.Errorf("%q is in the log twice, at %d and at %d", r.Payload, was, r.LSN)
		case o == nil:
			return fmt.Errorf("%q is at %d, and nobody appended it", r.Payload, r.LSN)
		case o.Outcome == None:
			return fmt.Errorf("%q is at %d, and client %d was told at %s that it failed", r.Payload, r.LSN, o.Client, o.Return)
		}
		last, at[r.Payload] = r.LSN, r.LSN
	}
	highest := make(map[int]*LogOp) // of each client
	for _, o := range ops {
		if o.Outcome != OK {
			continue
		}
		if at[o.Payload] != o.LSN {
			return fmt.Errorf("%q was acknowledged to client %d at %s as %d, and is at %d", o.Payload, o.Client, o.Return, o.LSN, at[o.Payload])
		}
		if h := highest[o.Client]; h != nil && h.before(&o.Op) && h.LSN >= o.LSN {
			return fmt.Errorf("client %d appended %q at %d, and then %q at %d", o.Client, h.Payload, h.LSN, o.Payload, o.LSN)
		}
		highest[o.Client] = o
	}
	return nil
}

// SameLog checks that what was read of a log at two times agrees as far as both go.
func SameLog(a, b []LogRecord) error {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Errorf("record %d is %v to one reader and %v to another", i, a[i], b[i])
		}
	}
	return nil
}
