package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A durable file is a small file that is replaced as a whole:
//
//	"BRDF" | format u32 | length u32 | crc32c u32 over what follows and the name | data
//
// It is written beside its place, synced, renamed, and the directory is synced,
// so that after a crash it holds either the old data or the new.
const (
	durableMagic    = "BRDF"
	durableFormat   = 1
	durableHeader   = 16
	durableBytesMax = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrFormat says that a file was written by a newer Braid.
var ErrFormat = errors.New("written by a newer version of braid: start that version, or restore this node from a copy")

// ErrDamaged says that a durable file's content does not match its checksum.
var ErrDamaged = errors.New("damaged: its checksum does not match; wipe this data directory and let the node rejoin as a new one")

func durableSum(name string, data []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(name), castagnoli), castagnoli, data)
}

// writeDurably replaces dir/name with data.
func writeDurably(fs vfs.FS, dir, name string, data []byte) error {
	place, temporary := fs.PathJoin(dir, name), fs.PathJoin(dir, name+".new")
	header := make([]byte, durableHeader, durableHeader+len(data))
	copy(header, durableMagic)
	binary.BigEndian.PutUint32(header[4:], durableFormat)
	binary.BigEndian.PutUint32(header[8:], uint32(len(data)))
	binary.BigEndian.PutUint32(header[12:], durableSum(name, data))
	f, err := fs.Create(temporary, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err = f.Write(append(header, data...)); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", temporary, err)
	}
	if err := fs.Rename(temporary, place); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

// makeDurably makes a directory whose name outlives a power loss: syncing what is
// in it does not see to that, its parent must be synced.
func makeDurably(fs vfs.FS, dir string) error {
	parents := []string{fs.PathDir(dir)} // always: an earlier life may have ended before it was synced
	for at := parents[0]; fs.PathDir(at) != at; at = fs.PathDir(at) {
		if _, err := fs.Stat(at); !isMissing(err) {
			break
		}
		parents = append(parents, fs.PathDir(at))
	}
	_, known := fs.Stat(dir)
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range parents {
		err := syncDir(fs, p)
		if known == nil && errors.Is(err, os.ErrPermission) {
			continue // somebody else made the directory, where we may not look
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readDurable reads dir/name; a missing file is (nil, os.ErrNotExist).
func readDurable(fs vfs.FS, dir, name string) ([]byte, error) {
	place := fs.PathJoin(dir, name)
	f, err := fs.Open(place)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, durableBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", place, err)
	}
	data, err := decodeDurable(name, raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	return data, nil
}

// decodeDurable checks a durable file's bytes and gives its data.
func decodeDurable(name string, raw []byte) ([]byte, error) {
	if len(raw) < durableHeader || len(raw) > durableBytesMax || string(raw[:4]) != durableMagic {
		return nil, ErrDamaged
	}
	if binary.BigEndian.Uint32(raw[4:]) > durableFormat {
		return nil, ErrFormat
	}
	data := raw[durableHeader:]
	if int(binary.BigEndian.Uint32(raw[8:])) != len(data) || binary.BigEndian.Uint32(raw[12:]) != durableSum(name, data) {
		return nil, ErrDamaged
	}
	return data, nil
}

func isMissing(err error) bool { return errors.Is(err, os.ErrNotExist) }
