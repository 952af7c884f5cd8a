package docdb

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/catalog"
)

// damage is where files of the store do not read. The store itself forgets it, and where
// it cuts a damaged file in two it may take what it cannot read for nothing; so it is
// noted, durably, before whoever met it goes on (R2).
type damage struct {
	mu     sync.Mutex
	ranges []keyRange
}

// keyRange is of whole hashes and groups.
type keyRange struct{ lower, upper []byte }

func (r keyRange) overlaps(o keyRange) bool {
	return bytes.Compare(r.lower, o.upper) < 0 && bytes.Compare(o.lower, r.upper) < 0
}

func (r keyRange) contains(o keyRange) bool {
	return bytes.Compare(r.lower, o.lower) <= 0 && bytes.Compare(o.upper, r.upper) <= 0
}

// everything is what a file may concern that does not say what it holds.
var everything = keyRange{[]byte{0, 0}, []byte{spaceProvisional + 1, 0}}

// A Held is what a replica has here: a tablet, or with an empty span a group's state alone.
type Held struct {
	Span  Span
	Group catalog.GroupID
}

// ranges are the group's state and, if there are any, the documents.
func (h Held) ranges() []keyRange {
	lower, upper := groupRange(h.Group, nil, nil)
	out := []keyRange{{lower, upper}}
	if h.Span != (Span{}) {
		lower, upper = h.Span.bounds()
		out = append(out, keyRange{lower, upper})
	}
	return out
}

func (h Held) overlaps(r keyRange) bool {
	return slices.ContainsFunc(h.ranges(), r.overlaps)
}

const (
	damageFile   = "DAMAGED"
	damagePrefix = "braid docdb damaged 1\n"
	damageMax    = 1 << 20
)

// loadDamage reads what earlier lives noted. A note that does not read is of everything.
func (e *Engine) loadDamage() error {
	f, err := e.fs.Open(e.fs.PathJoin(e.dir, damageFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("docdb: open %s: %w", damageFile, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, damageMax))
	if err != nil {
		return fmt.Errorf("docdb: read %s: %w", damageFile, err)
	}
	if e.damage.ranges, err = parseDamage(text); err != nil {
		e.o.Logger.Error("docdb: the note of damage is damaged", "error", err)
		e.damage.ranges = []keyRange{everything}
	}
	return nil
}

// appendDamage writes the note: a line of hexadecimal keys for each range, and a checksum.
func appendDamage(dst []byte, ranges []keyRange) []byte {
	dst = append(dst, damagePrefix...)
	for _, r := range ranges {
		dst = fmt.Appendf(dst, "%x %x\n", r.lower, r.upper)
	}
	return fmt.Appendf(dst, "sum %08x\n", crc32.Checksum(dst, castagnoli))
}

func parseDamage(text []byte) ([]keyRange, error) {
	body, ok := bytes.CutPrefix(text, []byte(damagePrefix))
	at := bytes.LastIndex(text, []byte("sum "))
	if !ok || at < 0 || string(text[at:]) != fmt.Sprintf("sum %08x\n", crc32.Checksum(text[:at], castagnoli)) {
		return nil, fmt.Errorf("%w: the note of %d bytes is not whole", ErrCorrupt, len(text))
	}
	var out []keyRange
	for line := range strings.Lines(string(body[:at-len(damagePrefix)])) {
		lower, upper, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		l, errL := hex.DecodeString(lower)
		u, errU := hex.DecodeString(upper)
		if errL != nil || errU != nil || bytes.Compare(l, u) >= 0 {
			return nil, fmt.Errorf("%w: %q is no range", ErrCorrupt, line)
		}
		out = append(out, keyRange{l, u})
	}
	return out, nil
}

// found is told by the store of a file that does not read, by whoever read it: a
// compaction, a flush, a request. It may be under the store's locks.
func (e *Engine) found(info pebble.DataCorruptionInfo) {
	r := everything
	if start, end := info.Bounds.Start, info.Bounds.End; len(start) > 0 && len(end.Key) > 0 {
		r.lower, _ = whole(start)
		l, u := whole(end.Key)
		if r.upper = u; bytes.Equal(l, end.Key) && !end.IsUpperBoundFor(comparer.Compare, end.Key) {
			r.upper = l
		}
	}
	e.damage.mu.Lock()
	defer e.damage.mu.Unlock()
	if slices.ContainsFunc(e.damage.ranges, func(o keyRange) bool { return o.contains(r) }) {
		return
	}
	e.o.Logger.Error("docdb: damaged file", "path", info.Path, "error", info.Details)
	e.damage.ranges = append(slices.DeleteFunc(e.damage.ranges, r.contains), r)
	if err := e.noteDamage(); err != nil {
		e.o.Logger.Error("docdb: damage could not be noted", "error", err)
	}
}

// noteDamage makes what is known durable. The mutex is held.
func (e *Engine) noteDamage() error {
	return e.writeFile(damageFile, appendDamage(nil, e.damage.ranges))
}

// whole is the range of the hash, or of the group, that a key belongs to.
func whole(key []byte) (lower, upper []byte) {
	switch {
	case key[0] == spaceDocument && len(key) >= docHeader:
		table, hash := catalog.TableID(binary.BigEndian.Uint32(key[1:])), binary.BigEndian.Uint64(key[5:])
		return Span{table, hash, hash + 1}.bounds()
	case key[0] == spaceGroup && len(key) >= 1+8:
		return groupRange(catalog.GroupID(binary.BigEndian.Uint64(key[1:])), nil, nil)
	}
	return []byte{key[0], 0}, []byte{key[0] + 1, 0}
}

// Sound reports whether nothing is known to be damaged.
func (e *Engine) Sound() bool {
	e.damage.mu.Lock()
	defer e.damage.mu.Unlock()
	return len(e.damage.ranges) == 0
}

// Damaged reports whether a file does not read that may hold something of this replica.
// What can be read of it is served; it is to be replaced.
func (e *Engine) Damaged(h Held) bool {
	e.damage.mu.Lock()
	defer e.damage.mu.Unlock()
	return slices.ContainsFunc(e.damage.ranges, h.overlaps)
}

// Mend removes damaged files where no replica that is here may have anything in them: all
// that lies where they do goes, durably. It is for the caller to keep replicas from being
// made meanwhile.
func (e *Engine) Mend(held []Held) error {
	e.damage.mu.Lock()
	ranges := slices.Clone(e.damage.ranges)
	e.damage.mu.Unlock()
	for _, r := range ranges {
		if slices.ContainsFunc(held, func(h Held) bool { return h.overlaps(r) }) {
			continue
		}
		if err := e.excise(r); err != nil {
			return fmt.Errorf("docdb: remove damaged files: %w", err)
		}
		e.damage.mu.Lock()
		e.damage.ranges = slices.DeleteFunc(e.damage.ranges, r.contains)
		err := e.noteDamage()
		e.damage.mu.Unlock()
		if err != nil {
			return err
		}
		e.o.Logger.Info("docdb: damaged files are removed")
	}
	return nil
}

// excise removes what lies in a range, files and all.
func (e *Engine) excise(r keyRange) error {
	err := e.alone(func() error {
		return e.db.Excise(context.Background(), pebble.KeyRange{Start: r.lower, End: r.upper})
	})
	e.iters.changed(e)
	return err
}

// erase removes a replica where its files are damaged: by tombstones, since cutting a file
// means reading it. They go with it when it is mended.
func (e *Engine) erase(h Held) error {
	b := e.db.NewBatch()
	defer b.Close()
	for _, r := range h.ranges() {
		if err := b.DeleteRange(r.lower, r.upper, nil); err != nil {
			return err
		}
	}
	err := e.commit(b)
	e.iters.changed(e)
	return errors.Join(err, e.Flush())
}
