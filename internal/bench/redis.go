package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// RedisLoad sends commands to Redis ports as stock clients under load do: a fixed
// number of connections, several commands under way on each, a connection whose
// oldest command is overdue closed and made anew, and what was refused or lost sent
// again, after a pause, up to three times.
type RedisLoad struct {
	conns   []*redisConn
	depth   int
	next    atomic.Uint64
	retries atomic.Uint64
	end     chan struct{}
	running sync.WaitGroup
}

const (
	redisRetries    = 3
	redisBackoffMin = 8 * time.Millisecond
	redisBackoffMax = 512 * time.Millisecond
	redisSweep      = 50 * time.Millisecond
	redisDial       = 2 * time.Second
)

// redisOp is one command through all of its attempts.
type redisOp struct {
	command  []byte
	deadline time.Time
	attempts int
	done     func(error)
}

// redisConn is one connection, through all of its lives.
type redisConn struct {
	load *RedisLoad
	addr string
	wake chan struct{}

	mu      sync.Mutex
	conn    net.Conn // nil while it is being made
	waiting []*redisOp
	out     []byte
}

// DialRedis makes connections, spread over the addresses.
func DialRedis(addrs []string, conns, depth int) (*RedisLoad, error) {
	if len(addrs) == 0 {
		return nil, errors.New("no node has a Redis port")
	}
	r := &RedisLoad{depth: depth, end: make(chan struct{})}
	for i := range conns {
		c := &redisConn{load: r, addr: addrs[i%len(addrs)], wake: make(chan struct{}, 1)}
		conn, err := net.DialTimeout("tcp", c.addr, redisDial)
		if err != nil {
			r.Close()
			return nil, fmt.Errorf("connect to the Redis port: %w", err)
		}
		r.conns = append(r.conns, c)
		c.use(conn)
	}
	r.running.Go(r.sweep)
	return r, nil
}

// Retries counts commands that were sent again.
func (r *RedisLoad) Retries() uint64 { return r.retries.Load() }

// Close ends all connections; what is under way fails.
func (r *RedisLoad) Close() {
	close(r.end)
	for _, c := range r.conns {
		c.lose(nil)
	}
	r.running.Wait()
}

// RedisCommand encodes a command.
func RedisCommand(args ...[]byte) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, a := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b
}

// Start sends a command; done is called once.
func (r *RedisLoad) Start(command []byte, deadline time.Time, done func(error)) {
	r.send(&redisOp{command: command, deadline: deadline, done: done})
}

var errNoConnection = errors.New("no connection is free")

func (r *RedisLoad) send(op *redisOp) {
	op.attempts++
	for range r.conns {
		c := r.conns[r.next.Add(1)%uint64(len(r.conns))]
		if c.add(op) {
			return
		}
	}
	r.again(op, errNoConnection)
}

// again sends a command once more after a pause, if there is time.
func (r *RedisLoad) again(op *redisOp, err error) {
	d := min(redisBackoffMin<<(op.attempts-1), redisBackoffMax)
	d = d/2 + rand.N(d/2)
	select {
	case <-r.end:
		op.done(err)
		return
	default:
	}
	if op.attempts > redisRetries || time.Now().Add(d).After(op.deadline) {
		op.done(err)
		return
	}
	r.retries.Add(1)
	time.AfterFunc(d, func() { r.send(op) })
}

// add puts a command into the pipeline, if it has room.
func (c *redisConn) add(op *redisOp) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil || len(c.waiting) >= c.load.depth {
		return false
	}
	c.waiting = append(c.waiting, op)
	c.out = append(c.out, op.command...)
	c.rouse()
	return true
}

func (c *redisConn) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// use begins a life of the connection.
func (c *redisConn) use(conn net.Conn) {
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	c.load.running.Go(func() { c.write(conn) })
	c.load.running.Go(func() { c.read(conn) })
	select {
	case <-c.load.end: // Close may have looked before there was anything to close
		c.lose(conn)
	default:
	}
}

func (c *redisConn) write(conn net.Conn) {
	var spare []byte
	for {
		select {
		case <-c.wake:
		case <-c.load.end:
			return
		}
		c.mu.Lock()
		if c.conn != conn {
			c.mu.Unlock()
			c.rouse() // it was for the next life's
			return
		}
		b := c.out
		c.out = spare[:0]
		c.mu.Unlock()
		if _, err := conn.Write(b); err != nil {
			c.lose(conn)
			return
		}
		spare = b
	}
}

func (c *redisConn) read(conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		err := readReply(in)
		if err != nil && !errors.As(err, new(redisError)) {
			c.lose(conn)
			return
		}
		c.mu.Lock()
		if c.conn != conn || len(c.waiting) == 0 {
			c.mu.Unlock()
			return
		}
		op := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.mu.Unlock()
		if errors.Is(err, ErrRefused) {
			c.load.again(op, err)
			continue
		}
		op.done(err)
	}
}

// lose ends a life of the connection: what waits is sent again elsewhere, and a
// new connection is made.
func (c *redisConn) lose(conn net.Conn) {
	c.mu.Lock()
	if c.conn == nil || conn != nil && c.conn != conn {
		c.mu.Unlock()
		return
	}
	c.conn.Close()
	lost := c.waiting
	c.conn, c.waiting, c.out = nil, nil, nil
	c.mu.Unlock()
	now := time.Now()
	for _, op := range lost {
		if now.Before(op.deadline) {
			c.load.again(op, ErrUnknown)
		} else {
			op.done(ErrUnknown)
		}
	}
	select {
	case <-c.load.end:
	default:
		c.load.running.Go(c.redial)
	}
}

// redial makes the connection anew.
func (c *redisConn) redial() {
	for {
		conn, err := net.DialTimeout("tcp", c.addr, redisDial)
		if err == nil {
			c.use(conn)
			return
		}
		select {
		case <-time.After(redisSweep):
		case <-c.load.end:
			return
		}
	}
}

// sweep closes connections whose oldest command is overdue.
func (r *RedisLoad) sweep() {
	tick := time.NewTicker(redisSweep)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.end:
			return
		}
		now := time.Now()
		for _, c := range r.conns {
			c.mu.Lock()
			conn := c.conn
			late := conn != nil && len(c.waiting) > 0 && now.After(c.waiting[0].deadline)
			c.mu.Unlock()
			if late {
				c.lose(conn)
			}
		}
	}
}

// redisError is an error reply.
type redisError string

func (e redisError) Error() string { return string(e) }

// Is says that TRYAGAIN is a promise that nothing was done, and that an unknown
// outcome is one.
func (e redisError) Is(target error) bool {
	return target == ErrRefused && strings.HasPrefix(string(e), "TRYAGAIN ") ||
		target == ErrUnknown && strings.HasPrefix(string(e), "UNKNOWNOUTCOME ")
}

// readReply reads a reply of SET or GET: a line, or a string.
func readReply(in *bufio.Reader) error {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	line = bytes.TrimRight(line, "\r\n")
	switch {
	case len(line) == 0:
		return io.ErrUnexpectedEOF
	case line[0] == '-':
		return redisError(line[1:])
	case line[0] == '$':
		n, err := strconv.Atoi(string(line[1:]))
		if err != nil || n < 0 {
			return err
		}
		_, err = in.Discard(n + 2)
		return err
	}
	return nil
}
