package cluster

import (
	bits "encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// FailSyncs attaches strace to the node: of each of its threads the first sync from
// now on fails with EIO, as on a disk that is about to die. The word of it goes to a
// file. detach lets go of the node, if it still lives.
func (p *Process) FailSyncs(file string) (detach func(), err error) {
	pid := p.Pid()
	if pid == 0 {
		return nil, fmt.Errorf("node %d does not run", p.Index)
	}
	cmd := exec.Command("strace", "-f", "-qq", "-ttt", "-o", file, "-e", "trace=fsync,fdatasync",
		"-e", "inject=fsync,fdatasync:error=EIO:when=1", "-p", strconv.Itoa(pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // detaches
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("strace: %w", err)
	}
	return func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}, nil
}

// FirstFailedSync reads from strace's file when the first injected error was given,
// in seconds of the Unix epoch; 0: none yet.
func FirstFailedSync(file string) float64 {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "(INJECTED)") {
			continue
		}
		for _, word := range strings.Fields(line) {
			if at, err := strconv.ParseFloat(word, 64); err == nil && at > 1e9 {
				return at
			}
		}
	}
	return 0
}

// A Group is one group of a stopped node's journal, as it lies on its disk.
type Group struct {
	File         string
	At           int64
	Bytes        int64 // from its first to the last of its last record
	Number       uint64
	Records      uint32
	FirstPayload int64 // where in the file
}

// End is where the next group begins.
func (g Group) End() int64 { return g.At + (g.Bytes+511)/512*512 }

// JournalGroups finds the groups of a stopped node's journal that are of its present
// use, in order of their numbers. docs/formats/journal.md has the layout.
func (p *Process) JournalGroups() ([]Group, error) {
	files, err := filepath.Glob(filepath.Join(p.Dir, "journal", "*.journal"))
	if err != nil {
		return nil, err
	}
	var out []Group
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		generation, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(file), ".journal"), 16, 64)
		if err != nil {
			return nil, err
		}
		for at := 512; at+512 <= len(b); {
			h := b[at:]
			if string(h[:4]) != "BRJG" || bits.LittleEndian.Uint64(h[40:]) != generation || bits.LittleEndian.Uint64(h[48:]) != uint64(at) {
				at += 512
				continue
			}
			g := Group{File: file, At: int64(at), Bytes: int64(bits.LittleEndian.Uint64(h[24:])), Number: bits.LittleEndian.Uint64(h[32:]),
				Records: bits.LittleEndian.Uint32(h[12:]), FirstPayload: int64(at) + 104 + 16*int64(bits.LittleEndian.Uint32(h[16:])) + 40}
			out = append(out, g)
			at += max(512, int(g.Bytes+511)/512*512)
		}
	}
	slices.SortFunc(out, func(a, b Group) int { return int(int64(a.Number) - int64(b.Number)) })
	return out, nil
}

// TearTail makes a stopped node's journal end as one does that was being written:
// behind its last group stands the beginning of another. With lose above 0 the last
// groups, which may have been acknowledged, are torn too: a disk that lied.
func (p *Process) TearTail(lose int) error {
	all, err := p.JournalGroups()
	if err != nil {
		return err
	}
	if len(all) <= lose {
		return fmt.Errorf("only %d groups in the journal of node %d", len(all), p.Index)
	}
	for _, g := range all[len(all)-lose:] {
		torn := append([]byte("BRJG and what was there"), make([]byte, g.End()-g.At-23)...)
		if err := overwrite(g.File, g.At, torn); err != nil {
			return err
		}
	}
	last := all[len(all)-1]
	return overwrite(last.File, last.End(), []byte("BRJG and what never came"))
}

// Flip inverts n bytes of a file from a place on.
func Flip(file string, at, n int64) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	part := b[at : at+n]
	for i := range part {
		part[i] ^= 0xff
	}
	return overwrite(file, at, part)
}

func overwrite(file string, at int64, with []byte) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(with, at)
	return errors.Join(err, f.Close())
}
