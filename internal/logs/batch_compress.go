package logs

import (
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/braiddb/braid/internal/catalog"
)

// lz4Encoders hold their hash tables from one batch to the next.
var lz4Encoders = sync.Pool{New: func() any { return new(lz4.Compressor) }}

// The zstd coders are made with the program, not when first used: they hold
// channels, and a channel made inside a bubble of simulated time cannot be used
// by anybody outside.
var (
	zstdEncoder = mustZstdEncoder()
	zstdDecoder = mustZstdDecoder()
)

func mustZstdEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	e.EncodeAll([]byte{0}, nil) // it makes its channel with the first call
	return e
}

func mustZstdDecoder() *zstd.Decoder {
	// What is declared is allocated by us, after it was checked: no more is decoded.
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxWindow(8<<20), zstd.IgnoreChecksum(true))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return d
}

// compress appends the compressed body to dst; false says that it is not smaller.
func compress(dst, body []byte, c catalog.Compression) ([]byte, bool) {
	switch c {
	case catalog.Compression_COMPRESSION_NONE:
		return dst, false
	case catalog.Compression_COMPRESSION_LZ4:
		// No room for more than the body itself: the coder gives up when it would
		// grow, and the buffer is not larger than an uncompressed batch needs.
		dst = slices.Grow(dst, len(body))
		e := lz4Encoders.Get().(*lz4.Compressor)
		n, err := e.CompressBlock(body, dst[len(dst):len(dst)+len(body)])
		lz4Encoders.Put(e)
		return dst[:len(dst)+n], err == nil && n > 0
	case catalog.Compression_COMPRESSION_ZSTD:
		dst = slices.Grow(dst, len(body))
		return zstdEncoder.EncodeAll(body, dst), true
	}
	panic("BUG: unknown compression " + c.String())
}

// The most that the formats can make of a byte: a byte of an LZ4 length stands
// for 255, four bytes of a zstd block for 128 KiB.
const (
	lz4Ratio       = 255
	zstdBlockBytes = 128 << 10
)

// decompress gives the body, which is exactly length bytes long.
func decompress(in []byte, length int, c catalog.Compression) ([]byte, error) {
	switch c {
	case catalog.Compression_COMPRESSION_NONE:
		if len(in) != length {
			return nil, badBatch("%d bytes, the header says %d", len(in), length)
		}
		return in, nil
	case catalog.Compression_COMPRESSION_LZ4:
		if length/lz4Ratio > len(in) {
			return nil, badBatch("%d bytes of lz4 cannot be %d", len(in), length)
		}
		body := make([]byte, length)
		if n, err := lz4.UncompressBlock(in, body); err != nil || n != length {
			return nil, badBatch("lz4: %d of %d bytes: %v", n, length, err)
		}
		return body, nil
	case catalog.Compression_COMPRESSION_ZSTD:
		if length/zstdBlockBytes > len(in)/4 {
			return nil, badBatch("%d bytes of zstd cannot be %d", len(in), length)
		}
		body, err := zstdDecoder.DecodeAll(in, make([]byte, 0, length))
		if err != nil || len(body) != length {
			return nil, badBatch("zstd: %d of %d bytes: %v", len(body), length, err)
		}
		return body, nil
	}
	return nil, badBatch("compression %d is not known to this program", int32(c))
}
