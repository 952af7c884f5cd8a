package docdb

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
)

// ErrStream says that a snapshot stream is cut, damaged or of something else.
var ErrStream = errors.New("docdb: bad snapshot stream")

// ingestFileBytes is the size at which a new file is begun.
const ingestFileBytes = 64 << 20

// Ingest replaces a tablet's documents and its group's state by what a Snapshot
// stream holds. All of it appears at once, and is durable when Ingest returns;
// if it fails, nothing has changed. The caller keeps writes to the tablet away
// meanwhile.
//
// Why it is durable although the store has no log: the files are synced before
// the store is told of them, the store links them and syncs its directory before
// it names them in its manifest, and syncs the manifest. What memtables hold of
// the range is flushed before (DisableIngestAsFlushable), so nothing older can
// come to lie above.
func (e *Engine) Ingest(span Span, group catalog.GroupID, r io.Reader) error {
	in, err := e.newIngest(span, group)
	if err != nil {
		return err
	}
	defer in.clean()
	if err := in.stream(r); err != nil {
		return err
	}
	return in.install()
}

// Drop removes a tablet's documents and its group's state, durably.
func (e *Engine) Drop(span Span, group catalog.GroupID) error {
	h := Held{span, group}
	if e.Damaged(h) {
		return e.erase(h)
	}
	err := e.drop(span, group)
	if pebble.IsCorruptionError(err) { // known only now
		return e.erase(h)
	}
	return err
}

func (e *Engine) drop(span Span, group catalog.GroupID) error {
	in, err := e.newIngest(span, group)
	if err != nil {
		return err
	}
	defer in.clean()
	return in.install()
}

// ingest is one snapshot on its way into the store.
type ingest struct {
	e     *Engine
	span  Span
	group catalog.GroupID
	dir   string
	paths []string
	w     *sstable.Writer // file being written, nil if none
	size  int64           // bytes given to w

	groups bool // the file of the group's state is done
	last   []byte
}

func (e *Engine) newIngest(span Span, group catalog.GroupID) (*ingest, error) {
	in := &ingest{e: e, span: span, group: group}
	in.dir = e.fs.PathJoin(e.ingestDir(), fmt.Sprint(e.ingests.Add(1)))
	if err := e.fs.MkdirAll(in.dir, 0o755); err != nil {
		return nil, fmt.Errorf("docdb: ingest: %w", err)
	}
	// One excise covers one range, and the group's state lies elsewhere: the first
	// file removes it with a range tombstone, below the records that it brings.
	if err := in.open(); err != nil {
		return nil, err
	}
	lower, upper := groupRange(group, nil, nil)
	if err := in.w.DeleteRange(lower, upper); err != nil {
		return nil, fmt.Errorf("docdb: ingest: %w", err)
	}
	return in, nil
}

func (in *ingest) open() error {
	path := in.e.fs.PathJoin(in.dir, fmt.Sprintf("%06d.sst", len(in.paths)))
	f, err := in.e.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("docdb: ingest: %w", err)
	}
	in.paths = append(in.paths, path)
	o := in.e.po.MakeWriterOptions(0, in.e.db.TableFormat())
	o.DisableValueBlocks = true
	in.w, in.size = sstable.NewWriter(objstorageprovider.NewFileWritable(f), o), 0
	return nil
}

// close finishes the file; the writer syncs it.
func (in *ingest) close() error {
	w := in.w
	in.w = nil
	if err := w.Close(); err != nil {
		return fmt.Errorf("docdb: ingest: %w", err)
	}
	return nil
}

// clean removes what was not handed over.
func (in *ingest) clean() {
	if in.w != nil {
		_ = in.w.Close() // the file is thrown away
	}
	if err := in.e.fs.RemoveAll(in.dir); err != nil {
		in.e.o.Logger.Warn("docdb: an ingest's files were left behind", "dir", in.dir, "error", err)
	}
}

// stream reads header and frames into files.
func (in *ingest) stream(r io.Reader) error {
	var h [streamHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return fmt.Errorf("%w: header: %w", ErrStream, err)
	}
	if string(h[:8]) != streamMagic {
		return fmt.Errorf("%w: it begins with %q", ErrStream, h[:8])
	}
	if v := binary.BigEndian.Uint32(h[8:]); v != streamVersion {
		return &FormatError{What: "a snapshot", Have: uint64(v), Want: streamVersion}
	}
	if !bytes.Equal(h[:], appendStreamHeader(nil, in.span, in.group)) {
		return fmt.Errorf("%w: it is of another tablet: %x", ErrStream, h[12:])
	}
	frames := frameReader{r: r}
	for {
		kind, payload, err := frames.next()
		if err != nil {
			return err
		}
		if kind == frameEnd {
			return nil
		}
		d := reader{p: payload}
		for len(d.p) > 0 {
			key := d.take(d.uvarint())
			value := d.take(d.uvarint())
			if d.bad {
				return fmt.Errorf("%w: a record does not fit its frame", ErrStream)
			}
			frames.records++
			if err := in.add(key, value); err != nil {
				return err
			}
		}
	}
}

// add puts one record into its file.
func (in *ingest) add(key, value []byte) error {
	if bytes.Compare(key, in.last) <= 0 {
		return fmt.Errorf("%w: keys are out of order", ErrStream)
	}
	in.last = append(in.last[:0], key...)
	lower, upper := groupRange(in.group, nil, nil)
	if !inRange(key, lower, upper) || split(key) != len(key) {
		lower, upper = in.span.bounds()
		if _, err := parseVersion(key); err != nil || !inRange(key, lower, upper) {
			return fmt.Errorf("%w: a key that is not the tablet's: %x", ErrStream, key[:min(len(key), 64)])
		}
		if !in.groups || in.size >= ingestFileBytes {
			in.groups = true
			if err := in.close(); err != nil {
				return err
			}
			if err := in.open(); err != nil {
				return err
			}
		}
	}
	in.size += int64(len(key) + len(value))
	if err := in.w.Set(key, value); err != nil {
		return fmt.Errorf("docdb: ingest: %w", err)
	}
	return nil
}

func inRange(key, lower, upper []byte) bool {
	return bytes.Compare(key, lower) >= 0 && bytes.Compare(key, upper) < 0
}

// install hands the files over, in exchange for what the range held.
func (in *ingest) install() error {
	if err := in.close(); err != nil {
		return err
	}
	lower, upper := in.span.bounds()
	err := in.e.install(in.paths, pebble.KeyRange{Start: lower, End: upper})
	in.e.iters.changed(in.e)
	if err != nil {
		return fmt.Errorf("docdb: ingest: %w", err)
	}
	return nil
}

// errFailed is what is left to say after a fatal error.
var errFailed = errors.New("the store has failed")

// install hands files over in exchange for what a span held.
func (e *Engine) install(paths []string, span pebble.KeyRange) error {
	return e.alone(func() error {
		_, err := e.db.IngestAndExcise(context.Background(), paths, nil, nil, span)
		return err
	})
}

// alone lets one ingest at a time into the store, which takes turns too, but waits for
// ever for one whose goroutine a fatal error has ended.
func (e *Engine) alone(ingest func() error) error {
	e.installing <- struct{}{}
	defer func() { <-e.installing }()
	// A sweep that has judged a document by what was here must not delete, above
	// it, what comes here now; and no batch waits behind it (commit says why).
	e.applying.Lock()
	defer e.applying.Unlock()
	if e.dead.Load() {
		return errFailed
	}
	return ingest()
}

// frameReader takes frames off a stream.
type frameReader struct {
	r       io.Reader
	buf     bytes.Buffer
	number  uint64
	records uint64 // taken out of frames so far
}

// next reads one frame. What it returns is valid until the next call.
func (f *frameReader) next() (kind byte, payload []byte, err error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(f.r, h[:]); err != nil {
		return 0, nil, fmt.Errorf("%w: frame %d: %w", ErrStream, f.number, unexpected(err))
	}
	n := binary.BigEndian.Uint32(h[:])
	if n == 0 || n > frameMax {
		return 0, nil, fmt.Errorf("%w: frame %d has %d bytes", ErrStream, f.number, n)
	}
	// The buffer grows with what arrives, not with what the length promises.
	f.buf.Reset()
	if _, err := io.CopyN(&f.buf, f.r, int64(n)); err != nil {
		return 0, nil, fmt.Errorf("%w: frame %d: %w", ErrStream, f.number, unexpected(err))
	}
	payload = f.buf.Bytes()
	if frameSum(f.number, payload) != binary.BigEndian.Uint32(h[4:]) {
		return 0, nil, fmt.Errorf("%w: frame %d fails its checksum", ErrStream, f.number)
	}
	f.number++
	kind, payload = payload[0], payload[1:]
	switch kind {
	case frameData:
		return kind, payload, nil
	case frameEnd:
		d := reader{p: payload}
		if n := d.uvarint(); d.bad || len(d.p) > 0 || n != f.records {
			return 0, nil, fmt.Errorf("%w: it ends after %d records of %d", ErrStream, f.records, n)
		}
		return kind, nil, nil
	}
	return 0, nil, fmt.Errorf("%w: frame %d is of kind %d", ErrStream, f.number-1, kind)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
