package rest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"unicode/utf8"

	"github.com/braiddb/braid/client"
)

// encodeEntry writes an entry as a line of JSON. A payload that is UTF-8 is text, any
// other base64: so it comes back as it was sent (I2).
func encodeEntry(enc *json.Encoder, p *plan, e client.Entry) {
	var out entryJSON
	if e.IsGap() {
		out.Gap = &gapJSON{Type: e.Gap.Type.String(), From: lsnText(e.Gap.From), To: lsnText(e.Gap.To)}
	} else {
		r := &e.Record
		out.LSN, out.Number, out.BatchOffset, out.Timestamp = lsnText(r.LSN), r.LSN, r.BatchOffset, timeText(r.Timestamp)
		if r.OffsetKnown {
			out.Offset = &r.Offset
		}
		switch {
		case p.headers:
			out.Count = r.Count
		case p.binary || !utf8.Valid(r.Payload):
			raw := append([]byte{}, r.Payload...) // nil would be null
			out.PayloadBase64 = &raw
		default:
			t := jsonString(r.Payload)
			out.Payload = &t
		}
	}
	if err := enc.Encode(&out); err != nil {
		panic("BUG: " + err.Error())
	}
}

// encoder writes values into b, each on a line of its own.
func encoder(b *bytes.Buffer) *json.Encoder {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	return enc
}

// join takes back the end of the line that an encoder wrote: the value is part of
// a larger one.
func join(b *bytes.Buffer) { b.Truncate(b.Len() - 1) }

// The kinds of frames (docs/formats/http-frames.md).
const (
	frameRecord = 1
	frameGap    = 2
	frameEnd    = 3
	frameError  = 4
)

const (
	frameHeader    = 4 + 1
	recordHeader   = 8 + 4 + 4 + 8 + 8
	offsetNotKnown = ^uint64(0)
)

// appendFrame appends an entry as a frame.
func appendFrame(b []byte, e client.Entry) []byte {
	if e.IsGap() {
		b = frameOf(b, frameGap, 1+8+8)
		b = append(b, byte(e.Gap.Type))
		b = binary.LittleEndian.AppendUint64(b, uint64(e.Gap.From))
		return binary.LittleEndian.AppendUint64(b, uint64(e.Gap.To))
	}
	r := &e.Record
	offset := offsetNotKnown
	if r.OffsetKnown {
		offset = r.Offset
	}
	b = frameOf(b, frameRecord, recordHeader+len(r.Payload))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.LSN))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.BatchOffset))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.Count))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Timestamp.UnixMilli()))
	b = binary.LittleEndian.AppendUint64(b, offset)
	return append(b, r.Payload...)
}

// appendEnd appends the frame that says where to go on.
func appendEnd(b []byte, next position, end bool) []byte {
	b = frameOf(b, frameEnd, 8+4+1)
	b = binary.LittleEndian.AppendUint64(b, uint64(next.lsn))
	b = binary.LittleEndian.AppendUint32(b, uint32(next.offset))
	if end {
		return append(b, 1)
	}
	return append(b, 0)
}

// frameOf begins a frame whose body has n bytes; the length counts the kind and those.
func frameOf(b []byte, kind byte, n int) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(1+n))
	return append(b, kind)
}
