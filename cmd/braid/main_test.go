package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/alecthomas/kong"
)

// parse reads a command line as run does, and gives what start would be told.
func parse(t *testing.T, args ...string) (startCmd, error) {
	t.Helper()
	var c cli
	parser, err := kong.New(&c, kong.DefaultEnvars("BRAID"), kong.Configuration(loadYAML))
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(args)
	return c.Start, err
}

// TestFlagsBeatVariablesBeatTheFile sets one value in all three places and takes
// them away one by one.
func TestFlagsBeatVariablesBeatTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "braid.yaml")
	text := "data: /from/file\nredis-port: 1001\nmemory: 100MiB\npark: 1s\njoin: [10.0.0.1, 10.0.0.2]\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BRAID_REDIS_PORT", "1002")
	t.Setenv("BRAID_MEMORY", "200MiB")
	c, err := parse(t, "--config", file, "start", "--redis-port", "1003")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		what      string
		got, want any
	}{
		{"flag, variable and file: the flag", c.RedisPort, 1003},
		{"variable and file: the variable", int64(c.Memory), int64(200 << 20)},
		{"file alone", c.Park.String(), "1s"},
		{"file alone, a required flag", c.Data, "/from/file"},
		{"file alone, a list", strings.Join(c.Join, "+"), "10.0.0.1+10.0.0.2"},
		{"none: the default", c.ClientPort, 7200},
	} {
		if row.got != row.want {
			t.Errorf("%s: got %v, want %v", row.what, row.got, row.want)
		}
	}
}

// TestNodesOfOneMachineShareItsProcessors, and only those.
func TestNodesOfOneMachineShareItsProcessors(t *testing.T) {
	for _, row := range []struct {
		all  int
		join string
		want int
	}{
		{8, "", 8},
		{8, "127.0.0.1", 8},
		{2, "127.0.0.1 127.0.0.2 127.0.0.3", 1},
		{8, "127.0.0.1 127.0.0.2 127.0.0.3", 2},
		{9, "127.0.0.1:7100 [::1] [::1]:7102", 3},
		{8, "127.0.0.1 127.0.0.2 10.0.0.3", 8},
		{8, "10.0.0.1 10.0.0.2 10.0.0.3", 8},
		{8, "a.example b.example c.example", 8},
	} {
		if got := processorShare(row.all, strings.Fields(row.join)); got != row.want {
			t.Errorf("of %d processors, joining %q: %d, want %d", row.all, row.join, got, row.want)
		}
	}
}

func TestMemoryHasRoomForWhatTheCollectorDoesNotCount(t *testing.T) {
	const mib = 1 << 20
	for _, row := range []struct{ memory, outside, want int64 }{
		{512, 0, 448}, {512, 32, 448}, {512, 130, 350}, {512, 500, 128}, {16, 0, 4},
	} {
		if got := collectorLimit(row.memory*mib, row.outside*mib); got != row.want*mib {
			t.Errorf("of %d MiB, with %d that it does not count, the collector has %d MiB, not %d", row.memory, row.outside, got/mib, row.want)
		}
	}
}

// TestWhatTheCollectorDoesNotCountIsSeen maps memory that is not Go's, and touches it.
func TestWhatTheCollectorDoesNotCountIsSeen(t *testing.T) {
	before, err := outsideBytes()
	if err != nil {
		t.Fatal(err)
	}
	const size = 256 << 20
	m, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(m)
	for i := 0; i < size; i += os.Getpagesize() {
		m[i] = 1
	}
	after, err := outsideBytes()
	if err != nil {
		t.Fatal(err)
	}
	if grown := after - before; grown < size*3/4 || grown > size*5/4 {
		t.Errorf("%d MiB more are seen after %d were mapped", grown>>20, size>>20)
	}
}

// TestTheFileIsChecked refuses files that would be misread.
func TestTheFileIsChecked(t *testing.T) {
	for _, row := range []struct{ what, text, want string }{
		{"a key that is no flag", "data: d\nmemroy: 1GiB\n", `"memroy" is not a setting`},
		{"a value of the wrong kind", "data: d\nredis-port: many\n", "--redis-port"},
		{"not YAML", "data: [d\n", "configuration file"},
	} {
		file := filepath.Join(t.TempDir(), "braid.yaml")
		if err := os.WriteFile(file, []byte(row.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := parse(t, "--config", file, "start"); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want an error with %q", row.what, err, row.want)
		}
	}
}

// TestHelpOfEveryCommandHasAnExample looks at what a user sees of each command,
// hidden ones aside.
func TestHelpOfEveryCommandHasAnExample(t *testing.T) {
	var c cli
	parser, err := kong.New(&c, kong.Name("braid"))
	if err != nil {
		t.Fatal(err)
	}
	if len(parser.Model.Children) < 9 {
		t.Fatalf("only %d commands", len(parser.Model.Children))
	}
	for _, n := range parser.Model.Children {
		out, code := captured(t, n.Name, "--help")
		if code != 0 {
			t.Errorf("braid %s --help ends with %d", n.Name, code)
		}
		_, example, ok := strings.Cut(out, "Example")
		if !ok || !strings.Contains(example, "braid "+n.Name) {
			t.Errorf("braid %s --help shows no example of it:\n%s", n.Name, out)
		}
	}
}

// captured runs a command line and gives its standard output and exit code.
func captured(t *testing.T, args ...string) (string, int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stdout
	os.Stdout = w
	text := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	code := run(args)
	os.Stdout = old
	w.Close()
	return <-text, code
}
