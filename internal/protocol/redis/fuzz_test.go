package redis

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a parser gives out is the same however the bytes arrive, is within the
// limits, and costs memory in proportion to what arrived.
func FuzzParser(f *testing.F) {
	for _, s := range []string{
		"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "SET k \"a\\x00b\" 'c'\r\n", "*1\r\n$99999999\r\n", "*0\r\n\r\n*-1\r\nPING\n", "$3\r\nfoo\r\n",
		"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2000\r\n" + strings.Repeat("x", 2000) + "\r\n*1\r\n$4\r\nPING\r\n", "*1048577\r\n", "*1048576\r\n$0\r\n\r\n",
	} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, raw []byte, piece int) {
		const valueMax, queryMax = 1 << 10, 1 << 11
		run := func(piece int) (commands []string, problem error) {
			p := newParser(valueMax, queryMax)
			for in := raw; ; {
				args, ok, err := p.next(nil)
				switch {
				case err == errTooBig:
					commands = append(commands, "too big")
					continue
				case err != nil:
					return commands, err
				case ok:
					total := 0
					for _, a := range args {
						if total += len(a); len(a) > valueMax && len(a) > lineBytesMax {
							t.Fatalf("an argument of %d bytes", len(a))
						}
					}
					if len(args) == 0 || total > max(queryMax, lineBytesMax) {
						t.Fatalf("%d arguments of %d bytes", len(args), total)
					}
					commands = append(commands, string(bytes.Join(args, []byte{0xff})))
					continue
				}
				if len(in) == 0 {
					return commands, nil
				}
				p.rewind(false)
				n := copy(p.free(), in[:min(piece, len(in))])
				p.fill(n)
				in = in[n:]
				if cap(p.buf) > 4*len(raw)+2*readBytesChunk {
					t.Fatalf("%d bytes of buffer for %d of input", cap(p.buf), len(raw))
				}
			}
		}
		whole, problem1 := run(len(raw) + 1)
		pieces, problem2 := run(1 + max(piece, -piece)&0xfff)
		if strings.Join(whole, "\n") != strings.Join(pieces, "\n") {
			t.Fatalf("whole: %q\npieces: %q", whole, pieces)
		}
		if (problem1 == nil) != (problem2 == nil) {
			t.Fatalf("whole: %v, pieces: %v", problem1, problem2)
		}
	})
}

// A connection that is sent anything answers well-formed replies and ends; the
// server goes on.
func FuzzConnection(f *testing.F) {
	files, err := filepath.Glob("testdata/conversations/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		for i := 0; i+12 < len(lines); i += 12 {
			f.Add([]byte(strings.Join(lines[i:i+12], "\r\n") + "\r\n"))
		}
	}
	f.Add([]byte("HELLO 3\r\nMULTI\r\nCLIENT REPLY SKIP\r\nHGETALL h\r\nEXEC\r\nCOMMAND\r\nCOMMAND DOCS\r\nINFO everything\r\nCLIENT LIST\r\nCLUSTER SHARDS\r\nCLUSTER SLOTS\r\nTSADD t 1 a 2 b\r\nTSRANGEBYTIME t -inf (5\r\n"))
	table := newShelf(f, 3)
	table.inline = true
	s := NewServer(table, Options{ValueBytesMax: 1 << 12, QueryBytesMax: 1 << 14, OutputBytesMax: 64 << 20})
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, raw []byte) {
		if bytes.Contains(bytes.ToLower(raw), []byte("sleep")) || bytes.Contains(bytes.ToLower(raw), []byte("config")) {
			return // waits as it should, changes the server for those after it
		}
		nc := &recorder{in: bytes.NewReader(raw)}
		newConn(s, nc, 1).serve()
		for r := bufio.NewReader(&nc.out); ; {
			if _, err := readReply(r); err == io.EOF {
				return
			} else if err != nil {
				t.Fatalf("malformed replies: %v in %q", err, nc.out.String())
			}
		}
	})
}

// recorder is a connection that reads from memory and keeps what is written.
type recorder struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (r *recorder) Read(b []byte) (int, error)       { return r.in.Read(b[:min(len(b), 100)]) }
func (r *recorder) Write(b []byte) (int, error)      { return r.out.Write(b) }
func (r *recorder) Close() error                     { return nil }
func (r *recorder) SetDeadline(time.Time) error      { return nil }
func (r *recorder) SetReadDeadline(time.Time) error  { return nil }
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }
func (r *recorder) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (r *recorder) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
