package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Process is one `braid start` [C2].
type Process struct {
	Index      int    // from 1
	Host       string // 127.0.0.x
	NodePort   int
	ClientPort int
	RedisPort  int
	WebPort    int
	Dir        string
	Log        string // the file
	Args       []string

	binary string
	linked bool // other nodes reach it through its links
	mu     sync.Mutex
	cmd    *exec.Cmd     // nil: it was ended on purpose, or never started
	end    chan struct{} // closed when the present cmd has ended
}

// RedisAddr is where Redis clients reach the node.
func (p *Process) RedisAddr() string { return net.JoinHostPort(p.Host, strconv.Itoa(p.RedisPort)) }

// ClientAddr is where braid clients reach it.
func (p *Process) ClientAddr() string { return net.JoinHostPort(p.Host, strconv.Itoa(p.ClientPort)) }

// WebAddr is where it serves HTTP.
func (p *Process) WebAddr() string { return net.JoinHostPort(p.Host, strconv.Itoa(p.WebPort)) }

// NodeAddr is where other nodes reach it.
func (p *Process) NodeAddr() string {
	host := p.Host
	if p.linked {
		host = p.ProxyHost()
	}
	return net.JoinHostPort(host, strconv.Itoa(p.NodePort))
}

// ProxyHost is the address at which other nodes reach it through its links.
func (p *Process) ProxyHost() string { return fmt.Sprintf("127.0.1.%d", p.Index) }

// Start begins a life. The process must not be running.
func (p *Process) Start() error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.binary, p.Args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // [C1]
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("node %d: %w", p.Index, err)
	}
	end := make(chan struct{})
	go func() { cmd.Wait(); close(end) }()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.end = cmd, end
	return nil
}

// Ended is closed when the present life is over, and says whether there is one.
func (p *Process) Ended() (end <-chan struct{}, started bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end, p.cmd != nil
}

// ExitCode is what an ended life ended with.
func (p *Process) ExitCode() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.ProcessState.ExitCode()
}

// Pid is the number of the running process, 0 if there is none.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Signal sends s to the running process.
func (p *Process) Signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		p.cmd.Process.Signal(s)
	}
}

// take gives the present life to who ends it.
func (p *Process) take() (cmd *exec.Cmd, end chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd, p.cmd = p.cmd, nil
	return cmd, p.end
}

// Kill ends the process as kill -9 does, and waits until it is gone.
func (p *Process) Kill() {
	if cmd, end := p.take(); cmd != nil {
		cmd.Process.Kill()
		<-end
	}
}

// Terminate sends SIGTERM and waits for the process to end by itself, well.
func (p *Process) Terminate(limit time.Duration) error {
	cmd, end := p.take()
	if cmd == nil {
		return nil
	}
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-end:
	case <-time.After(limit):
		cmd.Process.Kill()
		<-end
		return fmt.Errorf("node %d did not end within %s of SIGTERM", p.Index, limit)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("node %d ended with code %d after SIGTERM\n%s", p.Index, code, p.Tail())
	}
	return nil
}

// Tail is the end of what the node has logged.
func (p *Process) Tail() string {
	b, _ := os.ReadFile(p.Log)
	return string(b[max(0, len(b)-4000):])
}

// Ready says what keeps the node from serving, nil if nothing.
func (p *Process) Ready() error {
	c := http.Client{Timeout: time.Second}
	defer c.CloseIdleConnections()
	r, err := c.Get("http://" + p.WebAddr() + "/readyz")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(body)))
	}
	return nil
}
