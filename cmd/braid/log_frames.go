package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// framing says how records stand in a stream: each followed by a delimiter, or
// preceded by its length. Their bytes are left as they are.
type framing struct {
	Delimiter      string `help:"What stands behind each record; \\n, \\t, \\0 and \\xHH are understood, and nothing at all makes one record of everything." default:"\\n"`
	LengthPrefixed bool   `help:"Each record stands behind its length instead: 4 bytes, the highest first. Any bytes come through."`
}

// delimiter reads the escapes of --delimiter.
func (f framing) delimiter() ([]byte, error) {
	var out []byte
	for rest := f.Delimiter; rest != ""; {
		if len(rest) > 1 && rest[0] == '\\' && rest[1] == '0' { // not octal
			out, rest = append(out, 0), rest[2:]
			continue
		}
		if rest[0] != '\\' { // bytes as they are, be they UTF-8 or not
			out, rest = append(out, rest[0]), rest[1:]
			continue
		}
		r, multibyte, tail, err := strconv.UnquoteChar(rest, 0)
		if err != nil {
			return nil, &usageError{fmt.Errorf("--delimiter %q: %q is not understood: write \\n, \\t, \\0 or \\xHH", f.Delimiter, rest)}
		}
		if multibyte {
			out = append(out, string(r)...)
		} else {
			out = append(out, byte(r))
		}
		rest = tail
	}
	return out, nil
}

// errTooLong says that a record is longer than the log takes.
type errTooLong struct {
	number int // of the record, from 1
	most   int
}

func (e *errTooLong) Error() string {
	return fmt.Sprintf("record %d has more than the %d bytes that the log takes: raise max_payload_bytes with braid log alter, or divide it", e.number, e.most)
}

// frameReader cuts a stream into records of up to most bytes.
type frameReader struct {
	in        *bufio.Reader
	delimiter []byte
	prefixed  bool
	most      int
	number    int
	record    []byte
}

func newFrameReader(in io.Reader, f framing, most int) (*frameReader, error) {
	d, err := f.delimiter()
	return &frameReader{in: bufio.NewReaderSize(in, 256<<10), delimiter: d, prefixed: f.LengthPrefixed, most: most}, err
}

// next gives a record, until io.EOF. It holds until the next call.
func (r *frameReader) next() ([]byte, error) {
	r.record = r.record[:0]
	r.number++
	if r.prefixed {
		return r.nextPrefixed()
	}
	return r.nextDelimited()
}

func (r *frameReader) nextPrefixed() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("record %d: the input ends within a length", r.number)
		}
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if uint64(size) > uint64(r.most) {
		return nil, &errTooLong{r.number, r.most}
	}
	r.record = append(r.record, make([]byte, size)...)
	if _, err := io.ReadFull(r.in, r.record); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("record %d: the input ends before its %d bytes do", r.number, size)
		}
		return nil, err
	}
	return r.record, nil
}

// nextDelimited reads up to the delimiter. What stands behind the last one is a
// record too, unless it is nothing.
func (r *frameReader) nextDelimited() ([]byte, error) {
	if len(r.delimiter) == 0 {
		return r.rest()
	}
	last := r.delimiter[len(r.delimiter)-1]
	for {
		part, err := r.in.ReadSlice(last)
		r.record = append(r.record, part...)
		if err == nil && hasSuffix(r.record, r.delimiter) {
			r.record = r.record[:len(r.record)-len(r.delimiter)]
			if len(r.record) > r.most {
				return nil, &errTooLong{r.number, r.most}
			}
			return r.record, nil
		}
		if len(r.record) >= r.most+len(r.delimiter) {
			return nil, &errTooLong{r.number, r.most}
		}
		switch {
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(r.record) > 0:
			if len(r.record) > r.most {
				return nil, &errTooLong{r.number, r.most}
			}
			return r.record, nil
		default:
			return nil, err
		}
	}
}

func (r *frameReader) rest() ([]byte, error) {
	if r.number > 1 {
		return nil, io.EOF
	}
	var err error
	if r.record, err = io.ReadAll(io.LimitReader(r.in, int64(r.most)+1)); err != nil {
		return nil, err
	}
	switch {
	case len(r.record) > r.most:
		return nil, &errTooLong{r.number, r.most}
	case len(r.record) == 0:
		return nil, io.EOF
	}
	return r.record, nil
}

func hasSuffix(b, suffix []byte) bool {
	return len(b) >= len(suffix) && string(b[len(b)-len(suffix):]) == string(suffix)
}

// frameWriter writes records as a frameReader of the same framing reads them.
type frameWriter struct {
	out       *bufio.Writer
	delimiter []byte
	prefixed  bool
}

func newFrameWriter(out io.Writer, f framing) (*frameWriter, error) {
	d, err := f.delimiter()
	return &frameWriter{out: bufio.NewWriterSize(out, 256<<10), delimiter: d, prefixed: f.LengthPrefixed}, err
}

func (w *frameWriter) write(record []byte) error {
	if w.prefixed {
		var head [4]byte
		binary.BigEndian.PutUint32(head[:], uint32(len(record)))
		if _, err := w.out.Write(head[:]); err != nil {
			return err
		}
	}
	if _, err := w.out.Write(record); err != nil || w.prefixed {
		return err
	}
	_, err := w.out.Write(w.delimiter)
	return err
}
