package rpc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// MaxMessage bounds an encoded message: the largest value, 64 MiB, with room
// for keys and for what surrounds them.
const MaxMessage = 64<<20 + 1<<20

// headerBytes is the length of a frame's header.
const headerBytes = 28

// kind of a frame.
type kind uint8

const (
	kindRequest  kind = 1 // answered by kindResponse or kindError with the same id
	kindOneWay   kind = 2
	kindResponse kind = 3
	kindError    kind = 4 // code says why there is no response
	kindCancel   kind = 5 // nobody waits for the answer to id
	kindPing     kind = 6 // answered by kindPong
	kindPong     kind = 7
	kindStamp    kind = 8 // id says when the frames behind it were added, by the sender's clock (lag.go)

	kindMax = kindStamp
)

// Codes of a kindError frame.
const (
	errorNoMethod   uint8 = 1
	errorBadRequest uint8 = 2
	errorCluster    uint8 = 3 // the method needs a connection between nodes of one known cluster
	errorTooLarge   uint8 = 4 // the response exceeds MaxMessage
	errorExpired    uint8 = 5 // the deadline had passed when the request was taken up
	errorBusy       uint8 = 6 // too much waits; timeout says when to ask again
)

// header of a frame.
//
//	 0        4        8    9    10     12       20        24       28
//	┌────────┬────────┬────┬────┬──────┬────────┬─────────┬────────┐
//	│ length │ crc of │kind│code│method│   id   │ timeout │ crc of │ payload …
//	│        │payload │    │    │      │        │   ms    │ 0..24  │
//	└────────┴────────┴────┴────┴──────┴────────┴─────────┴────────┘
//
// Little-endian; checksums are CRC-32C. The header has one of its own so that a
// damaged length is noticed at once instead of being waited for (R3).
type header struct {
	length  uint32
	crc     uint32
	kind    kind
	code    uint8
	method  Method
	id      uint64
	timeout uint32 // milliseconds left to the caller, 0 for no deadline; with errorBusy, until it may ask again
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// put writes the header of a payload in front of it: b starts with headerBytes
// of room.
func (h *header) put(b, payload []byte) {
	binary.LittleEndian.PutUint32(b, uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(payload, castagnoli))
	b[8], b[9] = byte(h.kind), h.code
	binary.LittleEndian.PutUint16(b[10:], uint16(h.method))
	binary.LittleEndian.PutUint64(b[12:], h.id)
	binary.LittleEndian.PutUint32(b[20:], h.timeout)
	binary.LittleEndian.PutUint32(b[24:], crc32.Checksum(b[:24], castagnoli))
}

// reput writes the header of a whole frame anew.
func (h *header) reput(frame []byte) {
	binary.LittleEndian.PutUint64(frame[12:], h.id)
	binary.LittleEndian.PutUint32(frame[24:], crc32.Checksum(frame[:24], castagnoli))
}

// parseHeader reads a header and checks its bounds.
func parseHeader(b []byte) (header, error) {
	_ = b[headerBytes-1]
	if binary.LittleEndian.Uint32(b[24:]) != crc32.Checksum(b[:24], castagnoli) {
		return header{}, &FrameError{"header checksum"}
	}
	h := header{
		length:  binary.LittleEndian.Uint32(b),
		crc:     binary.LittleEndian.Uint32(b[4:]),
		kind:    kind(b[8]),
		code:    b[9],
		method:  Method(binary.LittleEndian.Uint16(b[10:])),
		id:      binary.LittleEndian.Uint64(b[12:]),
		timeout: binary.LittleEndian.Uint32(b[20:]),
	}
	if h.length > MaxMessage {
		return header{}, &FrameError{fmt.Sprintf("length %d, the limit is %d", h.length, MaxMessage)}
	}
	if h.kind == 0 || h.kind > kindMax {
		return header{}, &FrameError{fmt.Sprintf("kind %d", h.kind)}
	}
	return h, nil
}

const (
	readBufferBytes = 64 << 10
	// firstAllocation is how much is allocated for a large payload before any of
	// it has arrived; it doubles as it fills (R3).
	firstAllocation = 1 << 20
)

// frameReader takes frames from a stream; one read yields as many as came.
type frameReader struct {
	r       io.Reader
	metrics *Metrics
	// idle is called before each read that may wait, woke after it.
	idle, woke func()
	// large, unless nil, is called when a frame of at least firstAllocation has
	// begun to arrive.
	large  func(header)
	buf    []byte
	lo, hi int // buf[lo:hi] is read and not yet taken
}

func newFrameReader(r io.Reader, m *Metrics, idle, woke func()) *frameReader {
	return &frameReader{r: r, metrics: m, idle: idle, woke: woke, buf: make([]byte, readBufferBytes)}
}

// next gives the next frame. Its payload is memory of its own (R4).
func (f *frameReader) next() (header, []byte, error) {
	if err := f.fill(headerBytes); err != nil {
		return header{}, nil, err
	}
	h, err := parseHeader(f.buf[f.lo:f.hi])
	if err != nil {
		return header{}, nil, err
	}
	f.lo += headerBytes
	var payload []byte
	if n := int(h.length); n > 0 {
		if n >= firstAllocation && f.large != nil {
			f.large(h)
		}
		if payload, err = f.payload(n); err != nil {
			return header{}, nil, err
		}
		if crc32.Checksum(payload, castagnoli) != h.crc {
			return header{}, nil, &FrameError{"payload checksum"}
		}
	} else if h.crc != 0 {
		return header{}, nil, &FrameError{"checksum of nothing"}
	}
	f.metrics.FramesReceived.Add(1)
	return h, payload, nil
}

// payload takes n bytes: from the buffer when they fit, else straight from the
// stream.
func (f *frameReader) payload(n int) ([]byte, error) {
	if n <= len(f.buf)/2 {
		if err := f.fill(n); err != nil {
			return nil, inFrame(err)
		}
		p := make([]byte, n)
		copy(p, f.buf[f.lo:])
		f.lo += n
		return p, nil
	}
	p := make([]byte, 0, min(n, firstAllocation))
	take := min(n, f.hi-f.lo)
	p = append(p, f.buf[f.lo:f.lo+take]...)
	f.lo += take
	for len(p) < n {
		if len(p) == cap(p) {
			grown := make([]byte, len(p), min(n, 2*cap(p)))
			copy(grown, p)
			p = grown
		}
		got, err := f.read(p[len(p):cap(p)])
		p = p[:len(p)+got]
		if err != nil && len(p) < n {
			return nil, inFrame(err)
		}
	}
	return p, nil
}

// fill makes at least n bytes available in the buffer.
func (f *frameReader) fill(n int) error {
	for f.hi-f.lo < n {
		if f.lo > 0 {
			copy(f.buf, f.buf[f.lo:f.hi])
			f.lo, f.hi = 0, f.hi-f.lo
		}
		got, err := f.read(f.buf[f.hi:])
		f.hi += got
		if err != nil && f.hi-f.lo < n {
			if f.hi > f.lo {
				return inFrame(err)
			}
			return err
		}
	}
	return nil
}

func (f *frameReader) read(b []byte) (int, error) {
	f.idle()
	n, err := f.r.Read(b)
	f.woke()
	if n > 0 {
		f.metrics.Reads.Add(1)
		f.metrics.BytesReceived.Add(uint64(n))
	}
	return n, err
}

// inFrame says that the stream ended where it must not.
func inFrame(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
