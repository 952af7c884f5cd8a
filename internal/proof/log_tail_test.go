package proof

import (
	"bufio"
	"context"
	"crypto/sha256"
	bin "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/logs"
)

// The test binary, started anew with tailEnv, is a process that tails a log and
// writes what it was given to its standard output, a line for each LSN. It ends
// behind the LSN that it is told on its standard input.
const tailEnv = "BRAID_PROOF_TAIL"

// tailOrder is what tailEnv holds, in JSON.
type tailOrder struct {
	Addrs []string
	Log   string
}

// tailLine is one line of what a tailing process writes.
type tailLine struct {
	LSN   client.LSN `json:",omitempty"` // a record, or a batch
	Count int        `json:",omitempty"` // payloads
	Sum   []byte     `json:",omitempty"` // of them, in order
	Gap   string     `json:",omitempty"`
	End   *tailEnd   `json:",omitempty"`
}

// tailEnd is the last line.
type tailEnd struct {
	Fault   string
	Hash    string // as reading.hash
	Records int
	Bytes   int64
	Gaps    map[string]int
}

// lineSum adds up the payloads of one LSN.
type lineSum struct {
	count int
	hash  hash.Hash
	size  [4]byte
}

func newLineSum() *lineSum { return &lineSum{hash: sha256.New()} }

func (s *lineSum) add(payload []byte) {
	s.count++
	bin.LittleEndian.PutUint32(s.size[:], uint32(len(payload)))
	s.hash.Write(s.size[:])
	s.hash.Write(payload)
}

// tailProcess is the main function of a tailing process.
func tailProcess(in io.Reader, out io.Writer) int {
	var o tailOrder
	if err := json.Unmarshal([]byte(os.Getenv(tailEnv)), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	told, tell := context.WithCancel(context.Background())
	var until client.LSN // once told
	go func() {
		line, err := bufio.NewReader(in).ReadString('\n')
		if _, e := fmt.Sscan(line, (*uint64)(&until)); err != nil || e != nil {
			os.Exit(3) // the test is gone
		}
		tell()
	}()
	w := bufio.NewWriter(out)
	end, err := tailUntil(o, told, &until, json.NewEncoder(w))
	if err != nil {
		end.Fault = err.Error()
	}
	if errors.Join(json.NewEncoder(w).Encode(tailLine{End: end}), w.Flush()) != nil {
		return 1
	}
	return 0
}

// tailUntil reads until told is over, and then up to until, at which there must not
// be a batch.
func tailUntil(o tailOrder, told context.Context, until *client.LSN, out *json.Encoder) (*tailEnd, error) {
	ctx := context.Background()
	end := new(tailEnd)
	cl, err := client.Connect(ctx, o.Addrs, client.Options{Park: 20 * time.Second})
	if err != nil {
		return end, err
	}
	defer cl.Close()
	l, err := cl.Log(ctx, o.Log)
	if err != nil {
		return end, err
	}
	r := l.NewReader(client.ReaderOptions{Window: 65536, BufferBytes: 64 << 20})
	defer r.Close()
	all := newReading(oldest)
	defer func() {
		end.Hash, end.Records, end.Bytes, end.Gaps = all.hash(), all.records, all.bytes, all.gaps
	}()
	last := logs.LSNMax
	for all.next <= last {
		e, err := r.Next(told)
		if err != nil && told.Err() != nil {
			told, last = ctx, *until
			continue
		}
		if err != nil {
			return end, fmt.Errorf("at %s: %w\n%+v", all.next, err, r.State())
		}
		if all.take(e); all.fault != nil {
			return end, all.fault
		}
		if err := all.write(out); err != nil {
			return end, err
		}
	}
	all.flush()
	return end, all.write(out)
}

// write hands out the lines so far.
func (r *reading) write(out *json.Encoder) error {
	for _, l := range r.lines {
		if err := out.Encode(l); err != nil {
			return err
		}
	}
	r.lines = r.lines[:0]
	return nil
}

// A tailer is a tailing process, seen from the test.
type tailer struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser

	mu    sync.Mutex
	lines []tailLine
	end   *tailEnd
	over  chan struct{}
}

// startTailer starts a process that tails a log.
func startTailer(t testing.TB, c *cluster, log string) *tailer {
	t.Helper()
	order, err := json.Marshal(tailOrder{Addrs: c.clientAddrs(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	w := &tailer{t: t, cmd: exec.Command(os.Args[0]), over: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), tailEnv+"="+string(order))
	w.cmd.Stderr = os.Stderr
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go w.read(out)
	t.Cleanup(func() {
		w.cmd.Process.Kill()
		<-w.over
		w.cmd.Wait()
	})
	return w
}

func (w *tailer) read(out io.Reader) {
	defer close(w.over)
	d := json.NewDecoder(bufio.NewReaderSize(out, 1<<20))
	for {
		var l tailLine
		if d.Decode(&l) != nil {
			return
		}
		w.mu.Lock()
		if w.lines = append(w.lines, l); l.End != nil {
			w.end = l.End
		}
		w.mu.Unlock()
	}
}

// finish tells the process where to stop, waits for it, and gives all it wrote.
func (w *tailer) finish(until client.LSN, limit time.Duration) ([]tailLine, *tailEnd) {
	w.t.Helper()
	if _, err := fmt.Fprintln(w.in, uint64(until)); err != nil {
		w.t.Fatalf("the tailing process is gone: %v", err)
	}
	select {
	case <-w.over:
	case <-time.After(limit):
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t.Fatalf("the tailing process did not reach %s; it wrote %d lines", until, len(w.lines))
	}
	if w.end == nil {
		w.t.Fatal("the tailing process ended without a last line")
	}
	if w.end.Fault != "" {
		w.t.Fatalf("the tailing process: %s", w.end.Fault)
	}
	return w.lines, w.end
}
