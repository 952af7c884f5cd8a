package rest

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/braiddb/braid/client"
)

// query is the parameters of a request: each is known to its route, and given once.
type query map[string]string

// parseQuery reads what follows the question mark. What is misspelt is refused: a
// condition that is left out because nobody knew it would do harm.
func parseQuery(raw, allowed string) (query, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, invalid("the parameters are malformed: %v", err)
	}
	q := make(query, len(values))
	for name, list := range values {
		switch {
		case !knows(allowed, name) && allowed == "":
			return nil, invalid("parameter %q: none is known here", name)
		case !knows(allowed, name):
			return nil, invalid("parameter %q is not known here; there are %s", name, allowed)
		case len(list) > 1:
			return nil, invalid("parameter %q is given %d times", name, len(list))
		}
		q[name] = list[0]
	}
	return q, nil
}

func knows(allowed, name string) bool {
	for _, a := range strings.Fields(allowed) {
		if a == name {
			return true
		}
	}
	return false
}

// flag is a parameter that is true, false or not given; given alone it is true.
func (q query) flag(name string) (bool, error) {
	v, ok := q[name]
	if !ok {
		return false, nil
	}
	switch v {
	case "", "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, invalid("%s=%s: say true or false", name, v)
}

// number is a parameter that is a whole number from least on; 0 where it is not given.
func (q query) number(name string, least uint64) (uint64, error) {
	v, ok := q[name]
	if !ok {
		return 0, nil
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil || n < least {
		return 0, invalid("%s=%s: a whole number from %d on is wanted", name, v, least)
	}
	return n, nil
}

// span is a parameter like 5s or 300ms, 0 where it is not given.
func (q query) span(name string, most time.Duration) (time.Duration, error) {
	v, ok := q[name]
	if !ok {
		return 0, nil
	}
	d, err := time.ParseDuration(v)
	switch {
	case err != nil || d < 0:
		return 0, invalid("%s=%s: a time like 5s or 300ms is wanted", name, v)
	case d > most:
		return 0, invalid("%s=%s: at most %v", name, v, most)
	}
	return d, nil
}

// bytes is a parameter that is any bytes, nil where it is not given.
func (q query) bytes(name string) ([]byte, error) {
	v, ok := q[name]
	if !ok {
		return nil, nil
	}
	return key(name, []byte(v))
}

// keyBytesMax bounds find and filter keys.
const keyBytesMax = 4096

func key(name string, k []byte) ([]byte, error) {
	if len(k) > keyBytesMax {
		return nil, tooLarge(keyBytesMax, "%s has %d bytes, at most %d", name, len(k), keyBytesMax)
	}
	return k, nil
}

// lsn is a parameter that is an LSN, and whether it is given.
func (q query) lsn(name string) (client.LSN, bool, error) {
	v, ok := q[name]
	if !ok {
		return 0, false, nil
	}
	lsn, err := parseLSN(v)
	if err != nil {
		return 0, false, invalid("%s=%s: %v", name, v, err)
	}
	return lsn, true, nil
}

const lsnMax = ^client.LSN(0)

// parseLSN reads e5n8, or the same as a number.
func parseLSN(s string) (client.LSN, error) {
	if rest, ok := strings.CutPrefix(s, "e"); ok {
		if e, n, ok := strings.Cut(rest, "n"); ok {
			epoch, err1 := strconv.ParseUint(e, 10, 32)
			esn, err2 := strconv.ParseUint(n, 10, 32)
			if err1 == nil && err2 == nil {
				return client.LSN(epoch<<32 | esn), nil
			}
		}
	} else if v, err := strconv.ParseUint(s, 10, 64); err == nil {
		return client.LSN(v), nil
	}
	return 0, fmt.Errorf("%q is not an LSN: write e5n8, or a number", s)
}

// lsnText prints e5n8, also what is no record's.
func lsnText(l client.LSN) string { return fmt.Sprintf("e%dn%d", uint32(l>>32), uint32(l)) }

// position is a place in a log: before the payload of a record that has this batch
// offset, or, where that is 0, before all of it.
type position struct {
	lsn    client.LSN
	offset int
}

// batchOffsetMax bounds the offsets that are believed: a record has no more payloads.
const batchOffsetMax = 1 << 20

func (p position) String() string {
	if p.offset == 0 {
		return lsnText(p.lsn)
	}
	return lsnText(p.lsn) + "." + strconv.Itoa(p.offset)
}

// behind is the position after an LSN.
func behind(lsn client.LSN) position {
	if lsn == lsnMax {
		return position{lsn: lsnMax}
	}
	return position{lsn: lsn + 1}
}

func parsePosition(s string) (position, error) {
	text, offset, given := strings.Cut(s, ".")
	lsn, err := parseLSN(text)
	if err != nil {
		return position{}, err
	}
	p := position{lsn: max(lsn, lsnOldest)}
	if given {
		n, err := strconv.ParseUint(offset, 10, 32)
		if err != nil || n > batchOffsetMax {
			return position{}, fmt.Errorf("what follows the point is the place of a payload in a record, from 0 to %d", batchOffsetMax)
		}
		p.offset = int(n)
	}
	return p, nil
}

const lsnOldest client.LSN = 1

// parseTime reads RFC 3339. The plus of an offset comes as a blank from who did not
// escape it.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, strings.Replace(s, " ", "+", 1))
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a time: write 2026-01-31T12:00:00Z", s)
	}
	return t, nil
}
