package world

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/braiddb/braid/internal/sim/bubble/lan"
)

// redis is a plain client of one Redis port: one connection, no retries, and no
// state outside of the bubble.
type redis struct {
	host    *lan.Host
	addr    string
	timeout time.Duration
	conn    net.Conn
	in      *bufio.Reader
}

// refusal is an error that the server answered.
type refusal string

func (r refusal) Error() string { return string(r) }

// errNotSent says that a command was surely not received.
type errNotSent struct{ error }

// null is the answer that says that there is nothing.
var null = errors.New("null")

// do sends a command and waits for its answer: a string, an int64, or a list.
func (r *redis) do(args ...string) (any, error) {
	if r.conn == nil {
		ctx, cancel := context.WithTimeout(context.Background(), r.timeout)
		defer cancel()
		c, err := r.host.Dial(ctx, r.addr)
		if err != nil {
			return nil, errNotSent{err}
		}
		r.conn, r.in = c, bufio.NewReader(c)
	}
	out := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, a := range args {
		out = fmt.Appendf(out, "$%d\r\n%s\r\n", len(a), a)
	}
	r.conn.SetDeadline(time.Now().Add(r.timeout))
	if _, err := r.conn.Write(out); err != nil {
		r.close()
		return nil, err
	}
	v, err := r.answer()
	var said refusal
	if err != nil && err != null && !errors.As(err, &said) {
		r.close()
	}
	return v, err
}

func (r *redis) answer() (any, error) {
	line, err := r.in.ReadString('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 3 {
		return nil, fmt.Errorf("answer %q", line)
	}
	rest := line[1 : len(line)-2]
	switch line[0] {
	case '+':
		return rest, nil
	case '-':
		return nil, refusal(rest)
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	case '$', '*':
		n, err := strconv.Atoi(rest)
		switch {
		case err != nil:
			return nil, err
		case n < 0:
			return nil, null
		case line[0] == '$':
			b := make([]byte, n+2)
			_, err := io.ReadFull(r.in, b)
			return string(b[:n]), err
		}
		list := make([]any, n)
		for i := range list {
			if list[i], err = r.answer(); err != nil && err != null {
				return nil, err
			}
		}
		return list, nil
	case '_':
		return nil, null
	}
	return nil, fmt.Errorf("answer %q", line)
}

func (r *redis) close() {
	if r.conn != nil {
		r.conn.Close()
		r.conn = nil
	}
}
