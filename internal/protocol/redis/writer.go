package redis

import (
	"strconv"
)

// writer appends replies, in the protocol version that the client has chosen.
type writer struct {
	out   []byte
	resp3 bool
}

func (w *writer) line(kind byte, s string) {
	w.out = append(append(append(w.out, kind), s...), '\r', '\n')
}

func (w *writer) count(kind byte, n int) {
	if n < 10 {
		w.out = append(w.out, kind, byte('0'+n), '\r', '\n')
		return
	}
	w.out = append(strconv.AppendInt(append(w.out, kind), int64(n), 10), '\r', '\n')
}

// ok is the reply of commands that have nothing to say.
func (w *writer) ok() { w.out = append(w.out, "+OK\r\n"...) }

// simple writes a status; s has no line ends.
func (w *writer) simple(s string) { w.line('+', s) }

// error writes an error; line ends in it become blanks.
func (w *writer) error(s string) {
	w.out = append(w.out, '-')
	at := len(w.out)
	w.out = append(w.out, s...)
	for i := at; i < len(w.out); i++ {
		if c := w.out[i]; c == '\r' || c == '\n' {
			w.out[i] = ' '
		}
	}
	w.out = append(w.out, '\r', '\n')
}

func (w *writer) int(n int64) {
	if n >= 0 && n < 10 {
		w.out = append(w.out, ':', byte('0'+n), '\r', '\n')
		return
	}
	w.out = append(strconv.AppendInt(append(w.out, ':'), n, 10), '\r', '\n')
}

func (w *writer) bulk(b []byte) {
	w.count('$', len(b))
	w.out = append(append(w.out, b...), '\r', '\n')
}

func (w *writer) bulkString(s string) {
	w.count('$', len(s))
	w.out = append(append(w.out, s...), '\r', '\n')
}

// null is a missing value.
func (w *writer) null() {
	if w.resp3 {
		w.out = append(w.out, "_\r\n"...)
	} else {
		w.out = append(w.out, "$-1\r\n"...)
	}
}

// nullArray is a missing array.
func (w *writer) nullArray() {
	if w.resp3 {
		w.out = append(w.out, "_\r\n"...)
	} else {
		w.out = append(w.out, "*-1\r\n"...)
	}
}

// array says that n replies follow which make one.
func (w *writer) array(n int) { w.count('*', n) }

// dict says that n pairs follow.
func (w *writer) dict(n int) {
	if w.resp3 {
		w.count('%', n)
	} else {
		w.count('*', 2*n)
	}
}

// set says that n members follow.
func (w *writer) set(n int) {
	if w.resp3 {
		w.count('~', n)
	} else {
		w.count('*', n)
	}
}

func (w *writer) double(f float64) {
	var scratch [64]byte
	d := appendFloat(scratch[:0], f)
	if w.resp3 {
		w.out = append(append(append(w.out, ','), d...), '\r', '\n')
	} else {
		w.bulk(d)
	}
}

// verbatim is text for people.
func (w *writer) verbatim(s string) {
	if !w.resp3 {
		w.bulkString(s)
		return
	}
	w.count('=', len(s)+4)
	w.out = append(append(append(w.out, "txt:"...), s...), '\r', '\n')
}
