package master

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/braiddb/braid/internal/wire"
)

// The file in which a node keeps its part in founding the cluster is
//
//	"BRBF" | crc32c of the rest, little-endian u32 | BootstrapState
const (
	bootstrapMagic  = "BRBF"
	bootstrapFormat = 1
	bootstrapMax    = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// EncodeBootstrap is the contents of the file that keeps s.
func EncodeBootstrap(s *wire.BootstrapState) ([]byte, error) {
	body, err := s.MarshalVT()
	if err != nil {
		return nil, err
	}
	out := append([]byte(bootstrapMagic), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(out[4:], crc32.Checksum(body, castagnoli))
	return append(out, body...), nil
}

// DecodeBootstrap reads such a file. A damaged one is refused: a node that forgets
// what it accepted could help to found a second cluster.
func DecodeBootstrap(data []byte) (*wire.BootstrapState, error) {
	if len(data) < 8 || len(data) > bootstrapMax || string(data[:4]) != bootstrapMagic {
		return nil, fmt.Errorf("founding file: %w: not one", ErrDamaged)
	}
	if crc32.Checksum(data[8:], castagnoli) != binary.LittleEndian.Uint32(data[4:]) {
		return nil, fmt.Errorf("founding file: %w: its checksum does not fit", ErrDamaged)
	}
	s := new(wire.BootstrapState)
	if err := s.UnmarshalVT(data[8:]); err != nil {
		return nil, fmt.Errorf("founding file: %w: %v", ErrDamaged, err)
	}
	if s.Format > bootstrapFormat {
		return nil, fmt.Errorf("founding file: %w: format %d, this release reads up to %d", ErrNewer, s.Format, bootstrapFormat)
	}
	if (s.Decided || s.Accepted != nil) && !sound(s.Founding) {
		return nil, fmt.Errorf("founding file: %w: its founding is not sound", ErrDamaged)
	}
	return s, nil
}
