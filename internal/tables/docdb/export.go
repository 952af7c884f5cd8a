package docdb

import (
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/catalog"
)

// A snapshot stream is a header and frames (docs/formats/docdb.md). Each frame
// has its number in its checksum and the last one says how many records there
// were, so that a stream which is cut, reordered or damaged is never taken for a
// whole one.
const (
	streamMagic   = "BRAIDDOC"
	streamVersion = 1
	streamHeader  = 8 + 4 + 4 + 8 + 8 + 8 // magic, version, table, start, end, group

	frameHeader = 4 + 4     // length, checksum
	frameData   = 1         // uvarint length, key, uvarint length, value; repeated
	frameEnd    = 2         // uvarint: records in the stream
	frameBytes  = 256 << 10 // a frame is closed when it is this long
	frameMax    = 80 << 20  // what a reader accepts: the longest record and some
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func frameSum(number uint64, payload []byte) uint32 {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], number)
	return crc32.Update(crc32.Checksum(n[:], castagnoli), castagnoli, payload)
}

func appendStreamHeader(dst []byte, span Span, group catalog.GroupID) []byte {
	dst = append(dst, streamMagic...)
	dst = binary.BigEndian.AppendUint32(dst, streamVersion)
	dst = binary.BigEndian.AppendUint32(dst, uint32(span.Table))
	dst = binary.BigEndian.AppendUint64(dst, span.Start)
	dst = binary.BigEndian.AppendUint64(dst, span.End)
	return binary.BigEndian.AppendUint64(dst, uint64(group))
}

// Snapshot is a tablet's documents, all versions, and its group's state as they
// were at one moment, to be read as a stream while writes go on. It pins the
// files and memtables of that moment until it is closed.
type Snapshot struct {
	e      *Engine
	it     *pebble.Iterator
	span   Span
	group  catalog.GroupID
	ranges [][2][]byte // still to be read, the group's and the documents'
	open   bool        // the iterator stands in ranges[0]
	frame  []byte      // ready to be read
	number uint64
	count  uint64
	err    error
}

// Export takes a snapshot of a tablet. Close it.
func (e *Engine) Export(span Span, group catalog.GroupID) (*Snapshot, error) {
	// An iterator and not a Pebble snapshot: those do not hold against an excise.
	it, err := e.db.NewIter(nil)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{e: e, it: it, span: span, group: group}
	s.frame = appendStreamHeader(nil, span, group)
	gl, gu := groupRange(group, nil, nil)
	dl, du := span.bounds()
	s.ranges = [][2][]byte{{gl, gu}, {dl, du}}
	return s, nil
}

// GroupState reads a record of the group's state out of the snapshot.
func (s *Snapshot) GroupState(key []byte) ([]byte, bool, error) {
	it, err := s.it.Clone(pebble.CloneOptions{IterOptions: &pebble.IterOptions{}})
	if err != nil {
		return nil, false, err
	}
	defer it.Close()
	if !it.SeekPrefixGE(groupKey(nil, s.group, key)) {
		return nil, false, it.Error()
	}
	p, err := it.ValueAndErr()
	return clone(p), err == nil, err
}

// Close releases the snapshot.
func (s *Snapshot) Close() error { return s.it.Close() }

// Read gives the stream.
func (s *Snapshot) Read(p []byte) (n int, err error) {
	for len(s.frame) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.err = s.next()
	}
	n = copy(p, s.frame)
	s.frame = s.frame[n:]
	return n, nil
}

// next makes one frame; io.EOF is for the call after the last.
func (s *Snapshot) next() error {
	buf := make([]byte, frameHeader+1, frameHeader+frameBytes+4<<10)
	for len(s.ranges) > 0 {
		if r := s.ranges[0]; !s.open {
			s.it.SetBounds(r[0], r[1])
			s.it.SeekGE(r[0])
			s.open = true
		}
		for ; s.it.Valid() && len(buf) < frameBytes; s.it.Next() {
			value, err := s.it.ValueAndErr()
			if err != nil {
				return err
			}
			buf = binary.AppendUvarint(buf, uint64(len(s.it.Key())))
			buf = append(buf, s.it.Key()...)
			buf = binary.AppendUvarint(buf, uint64(len(value)))
			buf = append(buf, value...)
			s.count++
		}
		if err := s.it.Error(); err != nil {
			return err
		}
		if len(buf) >= frameBytes {
			break
		}
		s.ranges, s.open = s.ranges[1:], false
	}
	if len(buf) > frameHeader+1 {
		buf[frameHeader] = frameData
		s.emit(buf)
		return nil
	}
	buf[frameHeader] = frameEnd
	s.emit(binary.AppendUvarint(buf, s.count))
	return io.EOF
}

// emit finishes a frame whose payload follows the room for its header.
func (s *Snapshot) emit(buf []byte) {
	payload := buf[frameHeader:]
	binary.BigEndian.PutUint32(buf, uint32(len(payload)))
	binary.BigEndian.PutUint32(buf[4:], frameSum(s.number, payload))
	s.number++
	s.frame = buf
}
