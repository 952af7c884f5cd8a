package tablet

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/wire"
)

// What a tablet puts into Raft entries; docs/formats/tablet.md is the
// specification of every byte here.

const payloadVersion = 1

type payloadKind uint8

const (
	payloadWrite  payloadKind = 1
	payloadSchema payloadKind = 2
	payloadCutoff payloadKind = 3
)

const (
	flagRemembered = 1 << iota
	flagRaises
	flagsKnown = flagRemembered | flagRaises
)

// ErrFormat says that bytes of a Raft entry, of the group state or of a
// snapshot are not what this version writes: damaged, or of a newer version.
// An entry that cannot be read must stop the replica, never be skipped.
var ErrFormat = errors.New("tablet: unreadable format")

// payloadOverhead is more than a payload's fixed fields take.
const payloadOverhead = 64

// payload is one write of an entry. Its byte slices alias what it was decoded
// from.
type payload struct {
	kind payloadKind
	// term is the term in which the request was checked, locked and executed.
	// An entry of another term is void: see W3 in doc.go.
	term uint64

	// payloadWrite
	raises       bool // the entry raises the cutoff to its own time
	remembered   bool
	request      requestKey
	firstRunning uint64
	outcome      []byte // encoded, see appendOutcome
	effects      []byte // encoded docdb.WriteBatch

	schema *catalog.Table // payloadSchema
	cutoff hlc.Timestamp  // payloadCutoff
}

func (p *payload) append(b []byte) []byte {
	b = append(b, payloadVersion, byte(p.kind))
	b = binary.AppendUvarint(b, p.term)
	switch p.kind {
	case payloadWrite:
		var flags byte
		if p.remembered {
			flags |= flagRemembered
		}
		if p.raises {
			flags |= flagRaises
		}
		b = append(b, flags)
		if p.remembered {
			b = append(b, p.request.client[:]...)
			b = binary.AppendUvarint(b, p.request.id)
			b = binary.AppendUvarint(b, p.request.id-p.firstRunning)
			b = appendBytes(b, p.outcome)
		}
		return append(b, p.effects...)
	case payloadSchema:
		data, err := p.schema.MarshalVT()
		if err != nil {
			panic(fmt.Sprintf("BUG: a table that does not marshal: %v", err))
		}
		return append(b, data...)
	case payloadCutoff:
		return binary.BigEndian.AppendUint64(b, uint64(p.cutoff))
	}
	panic(fmt.Sprintf("BUG: payload of kind %d", p.kind))
}

func decodePayload(data []byte) (p payload, err error) {
	d := decoder{data: data}
	if v := d.byte(); d.err == nil && v != payloadVersion {
		return p, fmt.Errorf("%w: payload version %d, this node reads %d", ErrFormat, v, payloadVersion)
	}
	p.kind = payloadKind(d.byte())
	p.term = d.uvarint()
	switch p.kind {
	case payloadWrite:
		flags := d.byte()
		if flags&^flagsKnown != 0 {
			d.fail("flags")
		}
		p.raises = flags&flagRaises != 0
		if p.remembered = flags&flagRemembered != 0; p.remembered {
			copy(p.request.client[:], d.take(len(clientID{})))
			p.request.id = d.uvarint()
			back := d.uvarint()
			if back > p.request.id {
				d.fail("first running request")
			}
			p.firstRunning = p.request.id - back
			p.outcome = d.bytes()
		}
		p.effects = d.rest()
	case payloadSchema:
		p.schema = new(catalog.Table)
		if err := p.schema.UnmarshalVT(d.rest()); err != nil {
			d.fail("table")
		}
		if p.schema.Schema == nil {
			d.fail("schema")
		}
	case payloadCutoff:
		p.cutoff = hlc.Timestamp(d.uint64())
		d.end()
	default:
		d.fail("kind")
	}
	return p, d.err
}

// outcome is what a request came to: results, or the one error that a tablet
// remembers, a failed condition. It is what a retry is answered with.
type outcome struct {
	code    wire.Code
	message string
	results []*wire.Result
}

func (o *outcome) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(o.code))
	if o.code != wire.Code_CODE_OK {
		b = appendBytes(b, []byte(o.message))
	}
	b = binary.AppendUvarint(b, uint64(len(o.results)))
	for _, r := range o.results {
		n := r.SizeVT()
		b = binary.AppendUvarint(b, uint64(n))
		at := len(b)
		b = append(b, make([]byte, n)...)
		if _, err := r.MarshalToSizedBufferVT(b[at:]); err != nil {
			panic(fmt.Sprintf("BUG: a result that does not marshal: %v", err))
		}
	}
	return b
}

// decodeOutcome copies: an outcome lives longer than the bytes it came from.
func decodeOutcome(data []byte) (*outcome, error) {
	d := decoder{data: data}
	o := &outcome{code: wire.Code(d.uvarint())}
	if o.code != wire.Code_CODE_OK {
		o.message = string(d.bytes())
	}
	n := d.uvarint()
	if n > uint64(len(d.data)) { // every result takes a byte or more
		d.fail("number of results")
		n = 0
	}
	for range n {
		r := new(wire.Result)
		if err := r.UnmarshalVT(d.bytes()); err != nil {
			d.fail("result")
		}
		if d.err != nil {
			break
		}
		o.results = append(o.results, r)
	}
	d.end()
	return o, d.err
}

func (o *outcome) response() *wire.WriteResponse {
	resp := &wire.WriteResponse{Results: o.results}
	if o.code != wire.Code_CODE_OK {
		resp.Error = &wire.Error{Code: o.code, Message: o.message}
	}
	return resp
}

func appendBytes(b, data []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(data))), data...)
}

// decoder takes fields off outside bytes. After the first thing that does not
// fit it gives zeros and keeps the error; nothing is allocated on the word of a
// length that the data cannot hold.
type decoder struct {
	data []byte
	err  error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrFormat, what)
	}
	d.data = nil
}

func (d *decoder) take(n int) []byte {
	if n > len(d.data) {
		d.fail("cut short")
		return nil
	}
	b := d.data[:n:n]
	d.data = d.data[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.data)
	if n <= 0 {
		d.fail("number")
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.data)) {
		d.fail("cut short")
		return nil
	}
	return d.take(int(n))
}

func (d *decoder) rest() []byte { return d.take(len(d.data)) }

func (d *decoder) end() {
	if d.err == nil && len(d.data) != 0 {
		d.fail("bytes left over")
	}
}
