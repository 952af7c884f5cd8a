package redis

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

func TestWaitClaimsOnlyWhatIsKnown(t *testing.T) {
	nodes := []client.NodeInfo{{ID: 1}, {ID: 2}, {ID: 3}}
	_, addr := serve(t, newShelf(t, 2, nodes...), Options{})
	c := newTalk(t, addr)
	if got := c.say(t, "WAIT 2 100"); got != ":1\r\n" {
		t.Errorf("three copies, nothing written: %q", got)
	}
	c.say(t, "MSET a 1 b 2 c 3")
	if got := c.say(t, "WAIT 2 100"); got != ":1\r\n" {
		t.Errorf("three copies, a majority wrote: %q", got)
	}
	_, addr = serve(t, newShelf(t, 2, nodes[0]), Options{})
	alone := newTalk(t, addr)
	alone.say(t, "SET a 1")
	if got := alone.say(t, "WAIT 0 0"); got != ":0\r\n" {
		t.Errorf("one copy: %q", got)
	}
}

func TestMonitor(t *testing.T) {
	_, addr := serve(t, newShelf(t, 1), Options{})
	watcher, c := newTalk(t, addr), newTalk(t, addr)
	if got := watcher.say(t, "MONITOR"); got != "+OK\r\n" {
		t.Fatal(got)
	}
	c.say(t, "AUTH default secret") // not to be seen
	c.say(t, `SET k "a\x00\n\""`)
	line, err := watcher.r.ReadString('\n')
	if err != nil || !strings.HasSuffix(line, `"SET" "k" "a\x00\n\""`+"\r\n") || !strings.Contains(line, c.c.LocalAddr().String()) {
		t.Errorf("%q, %v", line, err)
	}
	if err := watcher.c.Close(); err != nil {
		t.Fatal(err)
	}
	c.say(t, "PING")
}

func TestClientListAndKill(t *testing.T) {
	_, addr := serve(t, newShelf(t, 1), Options{})
	a, b := newTalk(t, addr), newTalk(t, addr)
	a.say(t, "CLIENT SETNAME alpha")
	a.say(t, "CLIENT SETINFO LIB-NAME lib")
	b.say(t, "HELLO 3 SETNAME beta")
	list := a.say(t, "CLIENT LIST")
	if !strings.Contains(list, "name=alpha") || !strings.Contains(list, "name=beta") || !strings.Contains(list, "lib-name=lib") ||
		!strings.Contains(list, "resp=3") || strings.Count(list, "\n") != 4 {
		t.Errorf("list %q", list)
	}
	if info := b.say(t, "CLIENT INFO"); !strings.Contains(info, "name=beta") || strings.Contains(info, "alpha") {
		t.Errorf("info %q", info)
	}
	if got := a.say(t, "CLIENT KILL ADDR "+b.c.LocalAddr().String()); got != ":1\r\n" {
		t.Errorf("kill %q", got)
	}
	if _, err := b.r.ReadByte(); err == nil {
		t.Error("the killed client still hears something")
	}
	if got := a.say(t, "CLIENT KILL "+a.c.LocalAddr().String()); got != "+OK\r\n" {
		t.Errorf("killing oneself answers %q", got)
	}
	if _, err := a.r.ReadByte(); err != io.EOF {
		t.Errorf("and then: %v", err)
	}
}

func TestConfigSet(t *testing.T) {
	_, addr := serve(t, newShelf(t, 1), Options{})
	c := newTalk(t, addr)
	for _, x := range [][2]string{
		{"CONFIG SET requirepass secret maxclients 77", "+OK\r\n"},
		{"CONFIG GET maxclients", "*2\r\n$10\r\nmaxclients\r\n$2\r\n77\r\n"},
		{"CONFIG SET requirepass other databases 9", "-ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config\r\n"},
		{"CONFIG GET requirepass", "*2\r\n$11\r\nrequirepass\r\n$6\r\nsecret\r\n"},
		{"PING", "+PONG\r\n"},
		{"RESET", "+RESET\r\n"},
		{"PING", "-NOAUTH Authentication required.\r\n"},
		{"AUTH other", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"},
		{"AUTH secret", "+OK\r\n"},
	} {
		if got := c.say(t, x[0]); got != x[1] {
			t.Errorf("%s: %q", x[0], got)
		}
	}
	if got := newTalk(t, addr).say(t, "GET k"); got != "-NOAUTH Authentication required.\r\n" {
		t.Errorf("a new connection: %q", got)
	}
}

func TestIdleClientsAreDisconnected(t *testing.T) {
	_, addr := serve(t, newShelf(t, 1), Options{})
	c := newTalk(t, addr)
	c.say(t, "CONFIG SET timeout 1")
	idle := newTalk(t, addr)
	idle.say(t, "PING")
	if _, err := idle.r.ReadByte(); err != io.EOF {
		t.Errorf("an idle client sees %v", err)
	}
}

// Close answers what was read, and leaves nothing running.
func TestCloseFinishesWhatIsUnderWay(t *testing.T) {
	table := newShelf(t, 1)
	entered, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	table.hook = func([]*client.Op) error {
		once.Do(func() {
			close(entered)
			<-leave
		})
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(table, Options{})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	busy, idle := newTalk(t, l.Addr().String()), newTalk(t, l.Addr().String())
	idle.say(t, "PING")
	if _, err := io.WriteString(busy.c, "SET k v\r\nGET k\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	if _, err := idle.r.ReadByte(); err != io.EOF {
		t.Errorf("the idle client sees %v", err)
	}
	select {
	case <-closed:
		t.Error("Close did not wait")
	default:
	}
	close(leave)
	for _, want := range []string{"+OK\r\n", "$1\r\nv\r\n"} {
		if got, err := readReply(busy.r); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := <-served; err != ErrServerClosed {
		t.Error(err)
	}
	if err := s.Serve(l); err != ErrServerClosed {
		t.Error(err)
	}
}

// Connections that are no sockets work too: the simulation's.
func TestConnectionsThatAreNoSockets(t *testing.T) {
	s := NewServer(newShelf(t, 2), Options{})
	defer s.Close()
	ours, theirs := net.Pipe()
	s.accept(addressed{theirs})
	if err := ours.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c := &talk{ours, bufio.NewReader(ours)}
	for i := range 100 {
		if got := c.say(t, fmt.Sprintf("SET k%d v", i)); got != "+OK\r\n" {
			t.Fatal(got)
		}
	}
	if got := c.say(t, "DBSIZE"); got != ":100\r\n" {
		t.Error(got)
	}
	if err := ours.Close(); err != nil {
		t.Fatal(err)
	}
}

// addressed hides what kind of connection it is.
type addressed struct{ net.Conn }

func TestInfoAndCommand(t *testing.T) {
	s, addr := serve(t, newShelf(t, 1), Options{BraidVersion: "v9", Info: func() []InfoSection {
		return []InfoSection{{"Server", []InfoField{{"os", "theirs"}, {"more", "1"}}}, {"Braid", []InfoField{{"tablets", "12"}}}}
	}})
	c := newTalk(t, addr)
	info := c.say(t, "INFO")
	for _, want := range []string{"# Server\r\n", "redis_version:7.0.15\r\n", "braid_version:v9\r\n", "os:theirs\r\nar", "more:1\r\n", "# Braid\r\ntablets:12\r\n", "cluster_enabled:1\r\n"} {
		if !strings.Contains(info, want) {
			t.Errorf("INFO lacks %q:\n%s", want, info)
		}
	}
	if one := c.say(t, "INFO braid"); !strings.Contains(one, "tablets:12") || strings.Contains(one, "# Server") {
		t.Errorf("INFO braid: %q", one)
	}
	if stats := c.say(t, "INFO commandstats"); !strings.Contains(stats, "cmdstat_info:calls=2,") {
		t.Errorf("INFO commandstats: %q", stats)
	}
	if got := c.say(t, "COMMAND COUNT"); got != fmt.Sprintf(":%d\r\n", len(s.commands.all)) {
		t.Errorf("COMMAND COUNT %q", got)
	}
	for _, cmd := range s.commands.all {
		if cmd.summary == "" || cmd.since == "" || cmd.group == "" || cmd.arity == 0 {
			t.Errorf("command %s is not described", cmd.name)
		}
		if cmd.flags&(write|readonly) != 0 && cmd.keys == noKeys && cmd.keysOf == nil && cmd.flags&noMulti == 0 {
			t.Errorf("command %s reads or writes, but has no keys", cmd.name)
		}
	}
	if docs := c.say(t, "COMMAND DOCS get client|id"); !strings.Contains(docs, "Returns the string value of a key.") {
		t.Errorf("COMMAND DOCS: %q", docs)
	}
}

func TestMatchGlob(t *testing.T) {
	for _, x := range []struct {
		pattern, s string
		want       bool
	}{
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"a*c", "abbc", true}, {"a*c", "abb", false}, {"a?c", "abc", true},
		{"[a-c]x", "bx", true}, {"[^a-c]x", "bx", false}, {"[c-a]", "b", true}, {`\*`, "*", true}, {`\*`, "a", false},
		{"**a**", "xay", true}, {"[abc", "b", true}, {"[", "[", false}, {"a*b*c*d", "a1b2c3d", true}, {"a*b*c*d", "a1b2c3", false},
	} {
		if got := matchGlob(x.pattern, x.s); got != x.want {
			t.Errorf("%q on %q: %v", x.pattern, x.s, got)
		}
	}
}
