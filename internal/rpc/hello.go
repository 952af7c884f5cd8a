package rpc

import (
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/braiddb/braid/internal/catalog"
)

// The protocol versions that this program speaks.
const (
	versionMin = 1
	versionMax = 2

	// versionStamps is the first in which the dialling end sends stamps.
	versionStamps = 2
)

const (
	helloMagic       = "braidrpc"
	helloPrefixBytes = len(helloMagic) + 2
	helloFixedBytes  = 2 + 2 + 1 + 1 + 1 + 8 + 8 + 1
	clusterIDBytes   = 64 // at most
	helloBodyMax     = 1024
)

// hello opens a connection: the dialling end sends one, the listening end
// answers with its own, and refuses in it if it must.
//
//	"braidrpc" │ length u16 │ body │ crc-32c of all before
//	body: version min u16, version max u16, role u8, lane u8, refusal u8,
//	      node u64, incarnation u64, cluster id length u8, cluster id, later additions
type hello struct {
	versionMin, versionMax uint16
	role                   Role
	lane                   Lane
	refusal                Refusal
	node                   catalog.NodeID
	incarnation            uint64
	cluster                string
}

func (h *hello) append(b []byte) []byte {
	start := len(b)
	b = append(b, helloMagic...)
	b = binary.LittleEndian.AppendUint16(b, uint16(helloFixedBytes+len(h.cluster)))
	b = binary.LittleEndian.AppendUint16(b, h.versionMin)
	b = binary.LittleEndian.AppendUint16(b, h.versionMax)
	b = append(b, byte(h.role), byte(h.lane), byte(h.refusal))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.node))
	b = binary.LittleEndian.AppendUint64(b, h.incarnation)
	b = append(b, byte(len(h.cluster)))
	b = append(b, h.cluster...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// readHello reads one hello and not a byte more.
func readHello(r io.Reader) (*hello, error) {
	b := make([]byte, helloPrefixBytes, helloPrefixBytes+helloBodyMax+4)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	if string(b[:len(helloMagic)]) != helloMagic {
		return nil, &FrameError{"the peer does not speak this protocol"}
	}
	n := int(binary.LittleEndian.Uint16(b[len(helloMagic):]))
	if n < helloFixedBytes || n > helloBodyMax {
		return nil, &FrameError{"length of hello"}
	}
	b = b[:helloPrefixBytes+n+4]
	if _, err := io.ReadFull(r, b[helloPrefixBytes:]); err != nil {
		return nil, inFrame(err)
	}
	end := helloPrefixBytes + n
	if binary.LittleEndian.Uint32(b[end:]) != crc32.Checksum(b[:end], castagnoli) {
		return nil, &FrameError{"checksum of hello"}
	}
	body := b[helloPrefixBytes:end]
	cluster := int(body[helloFixedBytes-1])
	if cluster > clusterIDBytes || helloFixedBytes+cluster > n {
		return nil, &FrameError{"cluster id of hello"}
	}
	return &hello{
		versionMin:  binary.LittleEndian.Uint16(body),
		versionMax:  binary.LittleEndian.Uint16(body[2:]),
		role:        Role(body[4]),
		lane:        Lane(body[5]),
		refusal:     Refusal(body[6]),
		node:        catalog.NodeID(binary.LittleEndian.Uint64(body[7:])),
		incarnation: binary.LittleEndian.Uint64(body[15:]),
		cluster:     string(body[helloFixedBytes : helloFixedBytes+cluster]),
	}, nil
}

// refuse decides whether the listening end, ours, takes a peer. An empty
// cluster id is that of a node that has none yet, or of a client.
func refuse(ours, theirs *hello) Refusal {
	switch {
	case theirs.versionMin > ours.versionMax || theirs.versionMax < ours.versionMin:
		return RefusalVersion
	case theirs.role != ours.role || theirs.lane >= lanes:
		return RefusalRole
	case ours.cluster != "" && theirs.cluster != "" && ours.cluster != theirs.cluster:
		return RefusalCluster
	}
	return RefusalNone
}

// refusalError makes the typed error of a refusal, seen from this end.
func refusalError(r Refusal, ours, theirs *hello) *HandshakeError {
	e := &HandshakeError{Refusal: r}
	switch r {
	case RefusalCluster:
		e.Ours, e.Theirs = ours.cluster, theirs.cluster
	case RefusalRole:
		e.Ours, e.Theirs = ours.role.String(), theirs.role.String()
	case RefusalVersion:
		e.Ours, e.Theirs = versions(ours), versions(theirs)
	}
	return e
}
