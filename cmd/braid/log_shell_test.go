package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/node"
)

// The test binary, started anew with shellEnv set, is the command itself.
const shellEnv = "BRAID_SHELL_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(shellEnv) != "" {
		_ = os.Unsetenv(shellEnv)
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// shell runs commands against a cluster of one.
type shell struct {
	t    *testing.T
	addr string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	deps := node.RealDeps(slog.New(slog.NewTextHandler(io.Discard, nil)), func(err error) { t.Errorf("fatal: %v", err) })
	deps.FS = vfs.NewMem()
	n, err := node.Start(t.Context(), node.Config{
		Data: "/data", Memory: 128 << 20, JournalBytes: 64 << 20, NodePort: -1, ClientPort: -1, RedisPort: -1, ConsolePort: -1,
	}, deps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	s := &shell{t, n.Addrs().Client}
	s.ok("", "log", "alter", "/", "--set", "replication=node:1") // there is one node
	return s
}

func (s *shell) command(args ...string) *exec.Cmd {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), shellEnv+"=1", "BRAID_ADDR="+s.addr, "BRAID_TIMEOUT=20s")
	return cmd
}

// run gives what a command writes and its exit code.
func (s *shell) run(stdin string, args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	cmd := s.command(append(args, "--addr", s.addr)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (s *shell) ok(stdin string, args ...string) string {
	s.t.Helper()
	out, errs, code := s.run(stdin, args...)
	if code != 0 {
		s.t.Fatalf("braid %s: exit %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

// fails runs a command that is to end with a code and to say something.
func (s *shell) fails(code int, says, stdin string, args ...string) {
	s.t.Helper()
	_, errs, got := s.run(stdin, args...)
	if got != code || !strings.Contains(errs, says) {
		s.t.Errorf("braid %s: exit %d: %s\nwant exit %d and %q", strings.Join(args, " "), got, errs, code, says)
	}
}

func TestLogsFromTheShell(t *testing.T) {
	s := newShell(t)
	t.Run("administration", func(t *testing.T) { (&shell{t, s.addr}).administration() })
	t.Run("byte for byte", func(t *testing.T) { (&shell{t, s.addr}).byteForByte() })
	t.Run("positions", func(t *testing.T) { (&shell{t, s.addr}).positions() })
	t.Run("following", func(t *testing.T) { (&shell{t, s.addr}).following() })
	t.Run("removed under a tail", func(t *testing.T) { (&shell{t, s.addr}).removed() })
	t.Run("check", func(t *testing.T) { (&shell{t, s.addr}).check() })
	t.Run("refusals", func(t *testing.T) { (&shell{t, s.addr}).refusals() })
}

func (s *shell) administration() {
	s.ok("", "log", "create", "/a", "--directory", "--set", "backlog=7d")
	s.ok("", "log", "create", "/a/b/c", "-p", "--logs", "3", "--set", "max_payload_bytes=2MiB", "--set", "sticky_copysets=false")
	s.ok("", "log", "create", "/a/b/c", "--if-not-exists")
	s.ok("", "log", "alter", "/a/b/c", "--inherit", "sticky_copysets", "--set", "backlog=1h")
	s.ok("", "log", "alter", "/a/b/c", "--logs", "5")
	s.ok("", "log", "rename", "/a/b/c", "/a/c")
	s.ok("", "log", "remove", "/a/b")
	var list []logRow
	if err := json.Unmarshal([]byte(s.ok("", "logs", "/a", "--format", "json")), &list); err != nil {
		s.t.Fatal(err)
	}
	if len(list) != 2 || list[0].Path != "/a" || list[1].Path != "/a/c" || list[1].Logs != 5 {
		s.t.Fatalf("%+v", list)
	}
	c := list[1]
	for name, want := range map[string]string{
		"backlog": "1h0m0s by /a/c", "max_payload_bytes": "2MiB by /a/c", "sticky_copysets": "true by built-in", "replication": "node:1 by /",
	} {
		if got := c.Attributes[name] + " by " + c.Inheritance[name]; got != want {
			s.t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	var info logReport
	if err := json.Unmarshal([]byte(s.ok("", "log", "info", "a/c#4", "--format", "json")), &info); err != nil {
		s.t.Fatal(err)
	}
	if info.Path != "/a/c" || info.Sequencer == nil || info.Sequencer.Epoch == 0 || info.Sequencer.Window != 1000 || info.Tail == nil ||
		len(info.Sequencer.Epochs) != 1 || len(info.Problems) != 0 {
		s.t.Errorf("%+v", info)
	}
	s.ok("", "log", "remove", "--recursive", "/a")
	if out := s.ok("", "log", "list", "--attributes"); !strings.Contains(out, "max_writes_in_flight") {
		s.t.Error(out)
	}
}

// byteForByte appends what no text is and reads it again.
func (s *shell) byteForByte() {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 3<<20)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	lines := string(noise) + "\n\n\nlast\n" // some 12,000 lines, empty ones among them
	for _, c := range []struct {
		name, in string
		flags    []string
		append   []string
	}{
		{"lines", lines, nil, nil},
		{"zstd", lines, nil, []string{"--compression", "zstd", "--batch-bytes", "16KiB"}},
		{"unbatched", lines[:100_000] + "\n", nil, []string{"--unbatched", "--window", "100"}},
		{"zeros", lines + "\x00", []string{"--delimiter", `\0`}, nil},
		{"whole", lines[:1<<20], []string{"--delimiter", ""}, nil},
	} {
		s.ok("", "log", "create", "/bytes-"+c.name)
		s.ok(c.in, append(append([]string{"log", "append", "/bytes-" + c.name}, c.flags...), c.append...)...)
		for range 2 {
			if out := s.ok("", append([]string{"log", "tail", "/bytes-" + c.name, "--no-follow"}, c.flags...)...); out != c.in {
				s.t.Fatalf("%s: %d bytes came out as %d", c.name, len(c.in), len(out))
			}
		}
	}
	framed := s.ok("", "log", "tail", "/bytes-lines", "--no-follow", "--length-prefixed")
	s.ok("", "log", "create", "/bytes-framed")
	s.ok(framed, "log", "append", "/bytes-framed", "--length-prefixed")
	if out := s.ok("", "log", "tail", "/bytes-framed", "--no-follow"); out != lines {
		s.t.Errorf("behind lengths: %d bytes came out as %d", len(lines), len(out))
	}
}

func (s *shell) positions() {
	s.ok("", "log", "create", "/positions")
	if out := s.ok("", "log", "tail", "/positions", "--no-follow"); out != "" {
		s.t.Errorf("an empty log: %q", out)
	}
	s.ok("a\nb\nc\nd\n", "log", "append", "/positions", "--unbatched", "--window", "1")
	for from, want := range map[string]string{"oldest": "a\nb\nc\nd\n", "e1n3": "c\nd\n", "end": "", "1h": "a\nb\nc\nd\n", "max": ""} {
		if out := s.ok("", "log", "tail", "/positions", "--no-follow", "--from", from); out != want {
			s.t.Errorf("from %s: %q, want %q", from, out, want)
		}
	}
	if out := s.ok("", "log", "tail", "/positions", "--from", "oldest", "--count", "2"); out != "a\nb\n" {
		s.t.Errorf("two records: %q", out)
	}
	var r tailRecord
	if err := json.Unmarshal([]byte(s.ok("", "log", "tail", "/positions", "--from", "e1n2", "--count", "1", "--format", "json")), &r); err != nil {
		s.t.Fatal(err)
	}
	if r.LSN != "e1n2" || r.Text == nil || *r.Text != "b" || r.Offset == nil || *r.Offset != 1 || time.Since(r.Time) > time.Minute {
		s.t.Errorf("in JSON: %+v", r)
	}
	if out := s.ok("", "log", "find", "/positions", "0s"); out != "e1n5\n" {
		s.t.Errorf("find now: %q", out)
	}
	s.ok("", "log", "trim", "/positions", "e1n2")
	out, errs, code := s.run("", "log", "tail", "/positions", "--no-follow", "--gaps")
	if out != "c\nd\n" || code != 0 || !strings.Contains(errs, "TRIM") {
		s.t.Errorf("after a trim: %q, exit %d, %q", out, code, errs)
	}
}

// following reads with one process what another appends, until a signal.
func (s *shell) following() {
	s.ok("before\n", "log", "create", "/following")
	s.ok("before\n", "log", "append", "/following")
	file := filepath.Join(s.t.TempDir(), "out")
	out, err := os.Create(file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	cmd := s.command("log", "tail", "/following", "--addr", s.addr, "--from", "oldest")
	cmd.Stdout = out
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	want := "before\n"
	for _, more := range []string{"one\n", "two\nthree\n"} {
		s.ok(more, "log", "append", "/following")
		want += more
		for begin := time.Now(); ; {
			got, err := os.ReadFile(file)
			if err != nil {
				s.t.Fatal(err)
			}
			if string(got) == want {
				break
			}
			if time.Since(begin) > 20*time.Second {
				s.t.Fatalf("it has written %q, not %q; %s", got, want, errs.String())
			}
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			s.t.Errorf("after a signal: %v, %s", err, errs.String())
		}
	case <-time.After(20 * time.Second):
		s.t.Error("a signal does not end it")
	}
}

// check looks at a log whose copies are all there, in a table and in JSON.
func (s *shell) check() {
	s.ok("", "log", "create", "/checked")
	s.ok("a\nb\nc\n", "log", "append", "/checked", "--unbatched", "--window", "1")
	var r checkReport
	if err := json.Unmarshal([]byte(s.ok("", "log", "check", "/checked", "--format", "json")), &r); err != nil {
		s.t.Fatal(err)
	}
	if r.Records != 3 || r.Copies != 3 || r.Until != "e1n3" || len(r.Problems) != 0 || len(r.Silent) != 0 {
		s.t.Errorf("%+v", r)
	}
	if out := s.ok("", "log", "check", "/checked", "--from", "e1n2"); !strings.Contains(out, "problems   0") && !strings.Contains(out, "problems         0") {
		s.t.Error(out)
	}
	// Of what was never appended no copy is there.
	s.fails(1, "do not have the copies", "", "log", "check", "/checked", "--until", "e1n5", "--settle", "0s")
	s.fails(2, "--from", "", "log", "check", "/checked", "--from", "here")
}

// removed removes a log while another process reads it, which is told.
func (s *shell) removed() {
	s.ok("", "log", "create", "/removed")
	s.ok("one\n", "log", "append", "/removed")
	cmd := s.command("log", "tail", "/removed", "--addr", s.addr, "--from", "oldest", "--gaps")
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	line := make([]byte, 4)
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "one\n" {
		s.t.Fatalf("%q, %v, %s", line, err, errs.String())
	}
	s.ok("", "log", "remove", "/removed")
	late := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), "NOTINCONFIG") || !strings.Contains(errs.String(), "no such log any more") {
		s.t.Errorf("it ended with %v: %s", err, errs.String())
	}
}

func (s *shell) refusals() {
	s.ok("", "log", "create", "/refusals", "--logs", "2")
	s.fails(1, "already exists", "", "log", "create", "/refusals")
	s.fails(1, "not found", "", "log", "create", "/no/where")
	s.fails(1, "not a directory", "", "log", "create", "/refusals/below")
	s.fails(1, "log ids taken", "", "log", "create", "/clash", "--first-id", "1")
	s.fails(2, "invalid attributes", "", "log", "create", "/x", "--set", "replication=node:2,rack:3")
	s.fails(2, "memory is refused", "", "log", "create", "/x", "--set", "durability=memory")
	s.fails(2, "is no attribute", "", "log", "create", "/x", "--set", "colour=red")
	s.fails(2, "not for directories", "", "log", "create", "/x", "--directory", "--logs", "3")
	s.fails(2, "nothing to alter", "", "log", "alter", "/refusals")
	s.fails(2, "/refusals#1", "", "log", "append", "/refusals")
	s.fails(1, "not found", "", "log", "append", "/none")
	s.fails(1, "not found", "", "log", "tail", "/none")
	s.fails(2, "neither oldest", "", "log", "tail", "/refusals#0", "--from", "yesterday")
	s.fails(2, "not understood", "", "log", "tail", "/refusals#0", "--delimiter", `\q`)
	s.fails(2, "one of them", "", "log", "find", "/refusals#0")
	s.fails(1, "trim past the tail", "", "log", "trim", "/refusals#0", "e9n9")
	s.ok("", "log", "create", "/small", "--set", "max_payload_bytes=10")
	s.fails(1, "record 2 has more than the 10 bytes", "ten bytes!\neleven byte\n", "log", "append", "/small")
	s.fails(2, "more than nothing", "", "log", "append", "/small", "--patience", "0s")
	s.ok("", "log", "create", "/two", "--set", "replication=node:2") // there is one node
	s.fails(1, "nothing more was stored for 300ms", "waits\n", "log", "append", "/two", "--patience", "300ms")
	s.fails(1, "", "waits\n", "log", "append", "/two", "--patience", "300ms", "--unbatched")
	if out := s.ok("", "log", "tail", "/small", "--no-follow"); out != "ten bytes!\n" {
		s.t.Errorf("before what was refused: %q", out)
	}
}
