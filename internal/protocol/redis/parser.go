package redis

import (
	"bytes"
	"errors"
	"fmt"
)

// Bounds of the protocol itself, as in Redis.
const (
	lineBytesMax   = 64 << 10  // an inline request, or a count with its line end
	argsMax        = 1 << 20   // arguments of a command
	skipBytesMax   = 512 << 20 // an argument longer than this is not even skipped
	unauthArgsMax  = 10        // before AUTH
	unauthBulkMax  = 16 << 10  // before AUTH
	readBytesMin   = 4 << 10   // first input buffer of a connection
	readBytesChunk = 64 << 10  // most that is asked of one read beyond what a command needs
)

// protocolError says what is malformed. The connection cannot go on after it,
// for where the next command begins is not known.
type protocolError string

func (e protocolError) Error() string { return "Protocol error: " + string(e) }

// errTooBig is the answer to one command that was longer than the limits allow.
// It was read past without being kept, so the connection goes on.
var errTooBig = errors.New("command exceeds the limits")

// span is where an argument lies in the buffer, so that the buffer may move
// while a command arrives.
type span struct{ from, to int }

// parser cuts a byte stream into commands. It is fed in pieces of any size and
// never looks at a byte twice but to find the end of a line.
//
//	buf: | commands given out | unfinished command | free |
//	     0                    start     pos        len    cap
//
// Arguments that it gives out alias buf. They stay as they are until rewind is
// called: filling only appends, growing copies to a new array.
type parser struct {
	bulkMax  int  // longest argument kept
	queryMax int  // longest sum of a command's arguments kept
	unauth   bool // small limits, until the client has said who it is

	buf   []byte
	start int // where the unfinished command begins
	pos   int // the next byte to look at

	want  int // size that recent reads would have filled
	small int // reads in a row that filled little of the buffer

	argc  int    // arguments still to come, 0 between commands
	bulk  int    // length of the argument that comes, -1: its header comes first
	spans []span // of the arguments that are there
	kept  int    // bytes in spans
	over  bool   // the command exceeds a limit and is skipped
	skip  int    // bytes to skip
}

func newParser(bulkMax, queryMax int) parser {
	return parser{bulkMax: bulkMax, queryMax: queryMax, bulk: -1}
}

// next gives the arguments of the next command, appended to args, or ok false
// when more input is needed. After errTooBig it may be called again, after a
// protocolError not.
func (p *parser) next(args [][]byte) (_ [][]byte, ok bool, err error) {
	for p.argc == 0 {
		if p.pos == len(p.buf) {
			return args, false, nil
		}
		if p.buf[p.pos] != '*' {
			args, ok, err = p.inline(args)
			if len(args) > 0 || !ok || err != nil {
				return args, ok, err
			}
			continue // an empty line
		}
		n, ok, err := p.header("mbulk")
		if !ok || err != nil {
			return args, false, err
		}
		if n > argsMax {
			return args, false, protocolError("invalid multibulk length")
		}
		if p.unauth && n > unauthArgsMax {
			return args, false, protocolError("unauthenticated multibulk length")
		}
		if n <= 0 {
			p.start = p.pos
			continue
		}
		p.argc, p.bulk = int(n), -1
	}
	for p.argc > 0 {
		if ok, err := p.argument(); !ok {
			return args, false, err
		}
	}
	return p.finish(args)
}

// argument reads one argument of a multibulk command.
func (p *parser) argument() (ok bool, err error) {
	if p.bulk < 0 && p.skip == 0 {
		if p.pos == len(p.buf) {
			return false, nil
		}
		if c := p.buf[p.pos]; c != '$' {
			return false, protocolError(fmt.Sprintf("expected '$', got '%c'", printable(c)))
		}
		n, ok, err := p.header("bulk")
		if !ok || err != nil {
			return false, err
		}
		if n < 0 || n > skipBytesMax {
			return false, protocolError("invalid bulk length")
		}
		if p.unauth && n > unauthBulkMax {
			return false, protocolError("unauthenticated bulk length")
		}
		p.bulk = int(n)
		if p.over || p.bulk > p.bulkMax || p.kept+p.bulk > p.queryMax {
			p.over, p.skip, p.spans = true, p.bulk+2, p.spans[:0]
		}
	}
	if p.over {
		n := min(p.skip, len(p.buf)-p.pos)
		p.skip -= n
		p.pos += n
		p.start = p.pos
		if p.skip > 0 {
			return false, nil
		}
	} else {
		end := p.pos + p.bulk
		if len(p.buf) < end+2 {
			return false, nil
		}
		if p.buf[end] != '\r' || p.buf[end+1] != '\n' {
			return false, protocolError("expected CRLF after an argument")
		}
		p.spans = append(p.spans, span{p.pos, end})
		p.kept += p.bulk
		p.pos = end + 2
	}
	p.bulk = -1
	p.argc--
	return true, nil
}

// finish gives out the command whose last argument has been read.
func (p *parser) finish(args [][]byte) ([][]byte, bool, error) {
	over := p.over
	for _, s := range p.spans {
		args = append(args, p.buf[s.from:s.to:s.to])
	}
	if cap(p.spans) > 4096 {
		p.spans = nil
	}
	p.spans, p.kept, p.over, p.start = p.spans[:0], 0, false, p.pos
	if over {
		return args, false, errTooBig
	}
	return args, true, nil
}

// header reads "*<n>\r\n" or "$<n>\r\n" at pos.
func (p *parser) header(what string) (n int64, ok bool, err error) {
	// The usual short count, without a search for the line's end.
	if rest := p.buf[p.pos:]; len(rest) >= 4 && rest[2] == '\r' && rest[3] == '\n' && rest[1]-'0' <= 9 {
		p.pos += 4
		return int64(rest[1] - '0'), true, nil
	}
	line, ok := p.line()
	if !ok {
		if len(p.buf)-p.pos > lineBytesMax {
			return 0, false, protocolError("too big " + what + " count string")
		}
		return 0, false, nil
	}
	if n, ok = parseInt(line[1:]); !ok {
		if what == "mbulk" {
			return 0, false, protocolError("invalid multibulk length")
		}
		return 0, false, protocolError("invalid bulk length")
	}
	return n, true, nil
}

// line takes a line, without its end, off the buffer.
func (p *parser) line() ([]byte, bool) {
	rest := p.buf[p.pos:]
	if len(rest) > lineBytesMax+2 {
		rest = rest[:lineBytesMax+2]
	}
	n := bytes.IndexByte(rest, '\n')
	if n < 0 {
		return nil, false
	}
	p.pos += n + 1
	if n > 0 && rest[n-1] == '\r' {
		n--
	}
	return rest[:n], true
}

// inline reads a command written as words on a line, as a person at a terminal does.
func (p *parser) inline(args [][]byte) ([][]byte, bool, error) {
	line, ok := p.line()
	if !ok {
		if len(p.buf)-p.pos > lineBytesMax {
			return args, false, protocolError("too big inline request")
		}
		return args, false, nil
	}
	p.start = p.pos
	words, ok := splitWords(args, line)
	if !ok {
		return args, false, protocolError("unbalanced quotes in request")
	}
	return words, true, nil
}

// free gives room for the next read. Growing it doubles at most, or reaches what
// the unfinished command is known to need, so memory follows what was received.
func (p *parser) free() []byte {
	if len(p.buf) == cap(p.buf) || p.bulk >= 0 && p.pos+p.bulk+2 > cap(p.buf) {
		p.grow()
	}
	return p.buf[len(p.buf):cap(p.buf)]
}

func (p *parser) grow() {
	have := len(p.buf) - p.start
	size := max(2*have, readBytesMin)
	if need := p.pos - p.start + p.bulk + 2; p.bulk >= 0 && !p.over {
		// The argument under way is known; leave no more room than it takes, but
		// do not believe a length before a good part of it has come.
		size = min(max(need, readBytesMin), max(2*have, readBytesChunk))
	}
	if p.over {
		size = readBytesChunk
	}
	if size <= cap(p.buf) && len(p.buf) < cap(p.buf) {
		return
	}
	buf := make([]byte, have, max(size, have+readBytesMin))
	copy(buf, p.buf[p.start:])
	p.moved(buf)
}

// fill says that n bytes were read into free. A client that fills the buffer, with
// a pipeline, gets a larger one, so that one read takes more commands that can be
// on their way together; after many small reads it is given back.
func (p *parser) fill(n int) {
	room := cap(p.buf) - len(p.buf)
	p.buf = p.buf[:len(p.buf)+n]
	switch {
	case n == room && cap(p.buf) < readBytesChunk:
		p.want, p.small = 2*cap(p.buf), 0
	case n > readBytesMin/2:
		p.small = 0
	default:
		p.small++
	}
}

// smallReadsMax is how many small reads in a row make a buffer small again.
const smallReadsMax = 64

// rewind reclaims the room of the commands given out. With keep the arguments of
// those may still be looked at by others: then the buffer is left to them.
func (p *parser) rewind(keep bool) {
	have := len(p.buf) - p.start
	if p.small > smallReadsMax {
		p.want, p.small = readBytesMin, 0
		keep = keep || cap(p.buf) > readBytesMin
	}
	switch {
	case keep || p.want > cap(p.buf) || cap(p.buf) > readBytesChunk && have == 0:
		buf := make([]byte, have, max(readBytesMin, min(p.want, readBytesChunk), have))
		copy(buf, p.buf[p.start:])
		p.moved(buf)
	case p.start > 0:
		copy(p.buf, p.buf[p.start:])
		p.moved(p.buf[:have])
	}
}

// moved makes buf, whose first byte is that at start, the buffer.
func (p *parser) moved(buf []byte) {
	for i := range p.spans {
		p.spans[i].from -= p.start
		p.spans[i].to -= p.start
	}
	p.buf, p.pos, p.start = buf, p.pos-p.start, 0
}

// printable keeps control characters out of error lines.
func printable(c byte) byte {
	if c < ' ' || c > '~' {
		return '?'
	}
	return c
}

// splitWords splits a line as Redis does: words between blanks, "double quotes"
// with escapes, 'single quotes' with \' only. False: a quote is not closed, or
// is closed in the middle of a word.
func splitWords(words [][]byte, line []byte) ([][]byte, bool) {
	for i := 0; ; {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i == len(line) {
			return words, true
		}
		word, n, ok := oneWord(line[i:])
		if !ok {
			return nil, false
		}
		words = append(words, word)
		i += n
	}
}

// oneWord reads the word that s begins with, and says how long it was.
func oneWord(s []byte) (word []byte, n int, ok bool) {
	word = []byte{}
	for n < len(s) && !isSpace(s[n]) {
		quote := s[n]
		if quote != '"' && quote != '\'' {
			word = append(word, quote)
			n++
			continue
		}
		n++
		for {
			if n == len(s) {
				return nil, 0, false
			}
			if s[n] == quote {
				n++
				if n < len(s) && !isSpace(s[n]) {
					return nil, 0, false
				}
				return word, n, true
			}
			c, w := unquote(s[n:], quote)
			word = append(word, c)
			n += w
		}
	}
	return word, n, true
}

// unquote reads one character of a quoted word, and says how long it was.
func unquote(s []byte, quote byte) (c byte, n int) {
	if s[0] != '\\' || len(s) < 2 {
		return s[0], 1
	}
	if quote == '\'' {
		if s[1] == '\'' {
			return '\'', 2
		}
		return '\\', 1
	}
	if s[1] == 'x' && len(s) >= 4 && unhex(s[2]) >= 0 && unhex(s[3]) >= 0 {
		return byte(unhex(s[2])<<4 | unhex(s[3])), 4
	}
	switch s[1] {
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'b':
		return '\b', 2
	case 'a':
		return '\a', 2
	}
	return s[1], 2
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func isSpace(c byte) bool {
	return c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == '\v' || c == '\f' || c == 0
}
