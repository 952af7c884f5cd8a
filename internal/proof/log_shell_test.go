package proof

import (
	"bytes"
	bits "encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// A shell runs the command against a cluster.
type shell struct {
	t    testing.TB
	addr string // of its nodes, joined by commas
}

func (s shell) command(args ...string) *exec.Cmd {
	cmd := exec.Command(braidBinary(s.t), args...)
	cmd.Env = append(os.Environ(), "BRAID_ADDR="+s.addr)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a command that must do well, and gives what it writes.
func (s shell) run(stdin []byte, args ...string) []byte {
	s.t.Helper()
	var out, errs bytes.Buffer
	cmd := s.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("braid %s: %v: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.Bytes()
}

// A running command is one that a test goes on beside.
type running struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  syncBuffer
	errs syncBuffer
	end  chan error
}

func (s shell) start(args ...string) *running {
	s.t.Helper()
	r := &running{t: s.t, name: strings.Join(args, " "), cmd: s.command(args...), end: make(chan error, 1)}
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.errs
	var err error
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	over := make(chan struct{})
	go func() { r.end <- r.cmd.Wait(); close(over) }()
	s.t.Cleanup(func() { r.cmd.Process.Kill(); <-over })
	return r
}

// wait demands that the command does well within a time.
func (r *running) wait(limit time.Duration) {
	r.t.Helper()
	select {
	case err := <-r.end:
		if err != nil {
			r.t.Fatalf("braid %s: %v: %s", r.name, err, r.errs.String())
		}
	case <-time.After(limit):
		r.t.Fatalf("braid %s does not end: %s", r.name, r.errs.String())
	}
}

// A stream is what one process appends to a log of its own, and another tails.
type stream struct {
	name     string
	flags    []string
	in       []byte
	appender *running
	tail     *running
}

// shellStreams cuts the same bytes up in three ways. Each input ends as what is
// written for its last record does.
func shellStreams(text []byte) []*stream {
	var framed []byte
	for line := range bytes.Lines(text) {
		framed = bits.BigEndian.AppendUint32(framed, uint32(len(line)))
		framed = append(framed, line...)
	}
	return []*stream{
		{name: "/shell/lines", in: text},
		{name: "/shell/braces", flags: []string{"--delimiter", `}\n`}, in: append(bytes.Clone(text), "}\n"...)},
		{name: "/shell/framed", flags: []string{"--length-prefixed"}, in: framed},
	}
}

// sourceText is files of the Go source one after the other, with what is no text
// between them.
func sourceText(t testing.TB, bytes int) (text []byte) {
	t.Helper()
	root, files := sourceFiles(t)
	for i := 0; len(text) < bytes && i < len(files); i++ {
		data, err := os.ReadFile(filepath.Join(root, files[i]))
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, data...)
		if i%50 == 0 {
			text = append(text, noise(uint64(i), 3000)...)
			text = append(text, "\n\n\n"...)
		}
	}
	return append(text, '\n')
}

// TestShellThroughAFailover appends to three logs from the shell, each cut up in
// another way, while other processes tail them. In the middle the node that numbers
// one of the logs is killed. What comes out is byte for byte what went in, at the tails
// and when it is read again from the beginning, from an LSN and from a time.
func TestShellThroughAFailover(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{})
	cl := connect(t, c)
	sh := shell{t, strings.Join(c.clientAddrs(), ",")}
	streams := shellStreams(sourceText(t, 6<<20))
	for _, s := range streams {
		sh.run(nil, "log", "create", s.name, "--parents", "--set", "max_payload_bytes=2MiB")
		s.tail = sh.start(append([]string{"log", "tail", s.name, "--from", "oldest"}, s.flags...)...)
		s.appender = sh.start(append([]string{"log", "append", s.name}, s.flags...)...)
	}
	feed := func(part func(in []byte) []byte) {
		t.Helper()
		ended := make(chan error, len(streams))
		for _, s := range streams {
			go func() { _, err := s.appender.in.Write(part(s.in)); ended <- err }()
		}
		for range streams {
			if err := <-ended; err != nil {
				t.Fatalf("an append reads no more: %v", err)
			}
		}
	}
	feed(func(in []byte) []byte { return in[:len(in)/2] })
	first := streams[0]
	if !eventually(20*time.Second, func() bool { return first.tail.out.Len() > len(first.in)/8 }) {
		t.Fatalf("the tail has written %d bytes: %s", first.tail.out.Len(), first.tail.errs.String())
	}
	killed := c.nodes[c.sequencerOf(cl, openLog(t, cl, first.name))]
	killed.Kill()
	t.Logf("killed node %d when %d of %d bytes had been tailed", killed.Index, first.tail.out.Len(), len(first.in))
	feed(func(in []byte) []byte { return in[len(in)/2:] })
	for _, s := range streams {
		s.appender.in.Close()
		s.appender.wait(60 * time.Second)
	}
	killed.start()
	for _, s := range streams {
		if !eventually(30*time.Second, func() bool { return s.tail.out.Len() >= len(s.in) }) {
			t.Fatalf("the tail of %s has written %d bytes of %d: %s", s.name, s.tail.out.Len(), len(s.in), s.tail.errs.String())
		}
		s.tail.cmd.Process.Signal(syscall.SIGINT)
		s.tail.wait(10 * time.Second)
		sameBytes(t, s.name+", tailed", s.tail.out.Bytes(), s.in)
		sameBytes(t, s.name+", read again", sh.run(nil, append([]string{"log", "tail", s.name, "--no-follow"}, s.flags...)...), s.in)
	}
	fromInside(t, sh, openLog(t, cl, first.name), first.in)
	c.waitReady()
	for _, s := range streams {
		sh.run(nil, "log", "check", s.name, "--timeout", "20s") // ends with 1 if anything is amiss
	}
}

// fromInside reads a log from a record in its middle, and from a time behind its end.
func fromInside(t *testing.T, sh shell, l *client.Log, in []byte) {
	t.Helper()
	var at client.LSN
	before := 0 // bytes of the lines before it
	all := 0
	tail := tailOf(t, l)
	readRange(t, l, oldest, tail, 30*time.Second, func(e client.Entry) {
		if e.IsGap() {
			return
		}
		if at == 0 && all > len(in)/2 && e.Record.BatchOffset == 0 {
			at, before = e.Record.LSN, all
		}
		all += len(e.Record.Payload) + 1
	})
	sameBytes(t, "from "+at.String(), sh.run(nil, "log", "tail", l.Name(), "--no-follow", "--from", at.String()), in[before:])
	now := time.Now()
	if !eventually(time.Second, func() bool { return time.Since(now) > 10*time.Millisecond }) {
		t.Fatal("time stands still")
	}
	sh.run([]byte("late\n\xff\n"), "log", "append", l.Name())
	from := now.UTC().Format(time.RFC3339Nano)
	sameBytes(t, "from "+from, sh.run(nil, "log", "tail", l.Name(), "--no-follow", "--from", from), []byte("late\n\xff\n"))
}

// sameBytes compares what came out with what went in.
func sameBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	show := func(b []byte) string { return fmt.Sprintf("%.60q", b[at:]) }
	t.Errorf("%s: %d bytes came out, %d went in; from byte %d on they are %s, not %s", what, len(got), len(want), at, show(got), show(want))
}

// demoLogs appends a part of the Go source to a log of the demo's cluster from the
// shell, and tails it there.
func demoLogs(t *testing.T, sh shell) {
	t.Helper()
	text := sourceText(t, 1<<30) // every line
	sh.run(nil, "log", "create", "/demo/lines", "--parents", "--set", "max_payload_bytes=2MiB")
	tail := sh.start("log", "tail", "/demo/lines", "--from", "oldest")
	begin := time.Now()
	sh.run(text, "log", "append", "/demo/lines")
	took := time.Since(begin)
	if !eventually(30*time.Second, func() bool { return tail.out.Len() >= len(text) }) {
		t.Fatalf("the tail has written %d bytes of %d: %s", tail.out.Len(), len(text), tail.errs.String())
	}
	t.Logf("%d bytes, %d lines appended in %v, tailed %v later", len(text), bytes.Count(text, []byte{'\n'}), took, time.Since(begin)-took)
	tail.cmd.Process.Signal(syscall.SIGINT)
	tail.wait(10 * time.Second)
	sameBytes(t, "tailed", tail.out.Bytes(), text)
	sameBytes(t, "read again", sh.run(nil, "log", "tail", "/demo/lines", "--no-follow"), text)
	sh.run(nil, "log", "check", "/demo/lines", "--timeout", "20s")
}
