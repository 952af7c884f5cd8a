package logs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/braiddb/braid/internal/catalog"
)

// A batch is several payloads in one record. BufferedWriter makes batches in the
// client, sequencer batching on the node; readers take them apart. There is one
// format (docs/formats/log-batch.md):
//
//	format 1 | compression | count | length of body | body, maybe compressed
//	body: (length, payload) × count
//
// A body has no header of its own, so the bodies of two batches, one after the
// other, are the body of both: to batch batches again is to copy.

const (
	batchFormat = 1
	// batchHeaderMax is the longest header: two bytes and two uvarints.
	batchHeaderMax = 2 + 2*binary.MaxVarintLen32
	// batchLengthMax is the longest length of a payload in a body.
	batchLengthMax = binary.MaxVarintLen32
)

// Bounds of a batch.
const (
	// BatchBytesMax bounds the body, uncompressed: as large as the largest payload
	// that any log can be configured to take.
	BatchBytesMax = 33 << 20
	// BatchCountMax bounds the payloads of one record, since readers number them
	// and empty ones cost hardly a byte each.
	BatchCountMax = 1 << 20
)

// ErrBadBatch is what the bytes of a batch that is not whole are refused with.
var ErrBadBatch = errors.New("malformed batch")

func badBatch(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBadBatch, fmt.Sprintf(format, args...))
}

// BatchBuilder gathers payloads. The zero value is empty and ready; Reset makes
// it so again and keeps its memory.
type BatchBuilder struct {
	body  []byte
	count int
}

// Count is how many payloads it has.
func (b *BatchBuilder) Count() int { return b.count }

// Bytes is the length of the body so far; the batch is not longer than that and a
// header, whatever the compression.
func (b *BatchBuilder) Bytes() int { return len(b.body) }

// Reset empties it.
func (b *BatchBuilder) Reset() { b.body, b.count = b.body[:0], 0 }

// BatchSize bounds the length of a batch with a body of so many bytes.
func BatchSize(bytes int) int { return bytes + batchHeaderMax }

// BatchedSize is what a payload of so many bytes adds to a body.
func BatchedSize(bytes int) int {
	n := 1
	for v := uint(bytes); v >= 0x80; v >>= 7 {
		n++
	}
	return n + bytes
}

// Fits says whether so many more payloads, with so many bytes of body, can be added.
func (b *BatchBuilder) Fits(count, bytes int) bool {
	return b.count+count <= BatchCountMax && len(b.body)+bytes <= BatchBytesMax
}

// Add adds a payload; a copy is made. The caller has seen that it fits.
func (b *BatchBuilder) Add(payload []byte) {
	if !b.Fits(1, BatchedSize(len(payload))) {
		panic("BUG: a payload is added to a batch that is full")
	}
	b.body = binary.AppendUvarint(b.body, uint64(len(payload)))
	b.body = append(b.body, payload...)
	b.count++
}

// Only gives the payload of a builder that has just one. It is valid until the
// builder changes.
func (b *BatchBuilder) Only() []byte {
	if b.count != 1 {
		panic("BUG: the only payload of several")
	}
	_, k := uvarint(b.body)
	return b.body[k:]
}

// AddBatch adds the payloads of a batch, in their order. A batch that is not
// whole, or does not fit, adds nothing.
func (b *BatchBuilder) AddBatch(blob []byte) error {
	in, err := OpenBatch(blob)
	if err != nil {
		return err
	}
	if !b.Fits(in.count, len(in.body)) {
		return fmt.Errorf("a batch of %d payloads and %d bytes does not fit behind %d payloads and %d bytes",
			in.count, len(in.body), b.count, len(b.body))
	}
	b.body = append(b.body, in.body...)
	b.count += in.count
	return nil
}

// AppendTo appends the batch to dst. Where compression does not make it smaller
// the body is left as it is. An empty batch cannot be made.
func (b *BatchBuilder) AppendTo(dst []byte, c catalog.Compression) []byte {
	if b.count == 0 {
		panic("BUG: an empty batch")
	}
	start := len(dst)
	dst = b.appendHeader(dst, c)
	body := len(dst)
	dst, ok := compress(dst, b.body, c)
	if !ok || len(dst)-body >= len(b.body) {
		dst = append(b.appendHeader(dst[:start], catalog.Compression_COMPRESSION_NONE), b.body...)
	}
	return dst
}

func (b *BatchBuilder) appendHeader(dst []byte, c catalog.Compression) []byte {
	dst = append(dst, batchFormat, byte(c))
	dst = binary.AppendUvarint(dst, uint64(b.count))
	return binary.AppendUvarint(dst, uint64(len(b.body)))
}

// Batch is a batch that was found whole.
type Batch struct {
	body        []byte
	count       int
	compression catalog.Compression
}

// OpenBatch checks a batch and takes it apart. What it gives aliases blob where
// that is not compressed. Memory is taken only once it is plausible that the
// bytes are there (L2).
func OpenBatch(blob []byte) (Batch, error) {
	b, length, rest, err := batchHeader(blob)
	if err != nil {
		return Batch{}, err
	}
	if b.body, err = decompress(rest, length, b.compression); err != nil {
		return Batch{}, err
	}
	left := b.body
	for i := range b.count {
		n, k := uvarint(left)
		if k <= 0 || n > uint64(len(left)-k) {
			return Batch{}, badBatch("payload %d of %d does not lie in the body", i, b.count)
		}
		left = left[k+int(n):]
	}
	if len(left) > 0 {
		return Batch{}, badBatch("%d bytes follow the last payload", len(left))
	}
	return b, nil
}

// BatchCount reads the header only: how many payloads the batch says it has.
func BatchCount(blob []byte) (int, error) {
	b, _, _, err := batchHeader(blob)
	return b.count, err
}

func batchHeader(blob []byte) (b Batch, length int, rest []byte, err error) {
	if len(blob) < 2 {
		return b, 0, nil, badBatch("%d bytes are no batch", len(blob))
	}
	if blob[0] != batchFormat {
		return b, 0, nil, badBatch("format %d; this program knows %d", blob[0], batchFormat)
	}
	b.compression = catalog.Compression(blob[1])
	rest = blob[2:]
	count, k := uvarint(rest)
	if k <= 0 || count == 0 || count > BatchCountMax {
		return b, 0, nil, badBatch("%d payloads, allowed are 1 to %d", count, BatchCountMax)
	}
	rest = rest[k:]
	n, k := uvarint(rest)
	if k <= 0 || n > BatchBytesMax || n < count { // a payload takes a byte at least, for its length
		return b, 0, nil, badBatch("%d payloads in %d bytes, allowed are %d", count, n, BatchBytesMax)
	}
	b.count = int(count)
	return b, int(n), rest[k:], nil
}

// uvarint is binary.Uvarint that takes only the shortest form, so that one batch
// has one encoding.
func uvarint(b []byte) (uint64, int) {
	v, k := binary.Uvarint(b)
	if k > 1 && b[k-1] == 0 {
		return 0, -k
	}
	return v, k
}

// Count is how many payloads it has.
func (b Batch) Count() int { return b.count }

// Bytes is the length of its body, uncompressed.
func (b Batch) Bytes() int { return len(b.body) }

// Compression is what it was compressed with.
func (b Batch) Compression() catalog.Compression { return b.compression }

// All gives the payloads with their batch offsets. They alias the batch.
func (b Batch) All() iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		left := b.body
		for i := range b.count {
			n, k := uvarint(left)
			end := k + int(n)
			if !yield(i, left[k:end:end]) {
				return
			}
			left = left[end:]
		}
	}
}

// AppendPayloads appends the payloads to dst. They alias the batch.
func (b Batch) AppendPayloads(dst [][]byte) [][]byte {
	for _, p := range b.All() {
		dst = append(dst, p)
	}
	return dst
}
