package node

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
)

// identityFile holds who this data directory is.
const identityFile = "IDENTITY"

// Identity is who a data directory is. The directory id is made with the
// directory; the cluster and node ids are given once, when it first meets its
// cluster, and never change: a wiped directory is somebody new.
type Identity struct {
	Directory   string         `json:"directory"` // 32 hex digits
	Cluster     string         `json:"cluster,omitempty"`
	Node        catalog.NodeID `json:"node,omitempty"`
	Incarnation uint64         `json:"incarnation"`  // lives of this directory, counted at each start
	LeaseMax    int64          `json:"lease_max_us"` // longest promise that any of its lives may have made
}

// DirectoryBytes is the directory id as raw bytes.
func (id Identity) DirectoryBytes() []byte {
	b, err := hex.DecodeString(id.Directory)
	if err != nil {
		panic("BUG: a directory id that is not hex: " + id.Directory)
	}
	return b
}

// ErrOtherCluster says that a directory belongs to a cluster other than the one
// that it was told to join.
var ErrOtherCluster = errors.New("this data directory belongs to another cluster")

// openIdentity reads the identity of dir, or makes a new one, and begins a new
// incarnation. The new incarnation is on disk before anything is sent under it.
func openIdentity(fs vfs.FS, dir string, rng *rand.Rand) (Identity, error) {
	var id Identity
	data, err := readDurable(fs, dir, identityFile)
	switch {
	case isMissing(err):
		raw := make([]byte, 16)
		for i := range raw {
			raw[i] = byte(rng.Uint32())
		}
		id.Directory = hex.EncodeToString(raw)
	case err != nil:
		return Identity{}, err
	default:
		if err := json.Unmarshal(data, &id); err != nil {
			return Identity{}, fmt.Errorf("%s: %w (%v)", fs.PathJoin(dir, identityFile), ErrDamaged, err)
		}
		if len(id.Directory) != 32 {
			return Identity{}, fmt.Errorf("%s: %w (directory id %q)", fs.PathJoin(dir, identityFile), ErrDamaged, id.Directory)
		}
		if _, err := hex.DecodeString(id.Directory); err != nil {
			return Identity{}, fmt.Errorf("%s: %w (%v)", fs.PathJoin(dir, identityFile), ErrDamaged, err)
		}
	}
	id.Incarnation++
	return id, id.save(fs, dir)
}

func (id Identity) save(fs vfs.FS, dir string) error {
	data, err := json.Marshal(id)
	if err != nil {
		return err
	}
	return writeDurably(fs, dir, identityFile, data)
}
