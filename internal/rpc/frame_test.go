package rpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/braiddb/braid/internal/wire"
)

func readAll(b []byte) (hs []header, ps [][]byte, err error) {
	f := newFrameReader(bytes.NewReader(b), new(Metrics), func() {}, func() {})
	for {
		h, p, err := f.next()
		if err != nil {
			return hs, ps, err
		}
		hs, ps = append(hs, h), append(ps, p)
	}
}

func TestFramesComeBack(t *testing.T) {
	want := []header{
		{kind: kindRequest, method: MethodWrite, id: 1<<63 + 5, timeout: 4000},
		{kind: kindError, code: errorNoMethod, method: 999},
		{kind: kindOneWay, method: MethodRaftBatch, id: 0},
	}
	big := &wire.RaftBatch{Envelopes: []*wire.Envelope{{Raft: bytes.Repeat([]byte{7}, 3*readBufferBytes)}}}
	messages := []Message{&wire.WriteRequest{Table: 3}, nil, big}
	var b []byte
	for i, h := range want {
		b = appendFrame(b, h, messages[i])
	}
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(b), "byte by byte": iotest.OneByteReader(bytes.NewReader(b)), "data with EOF": iotest.DataErrReader(bytes.NewReader(b)),
	} {
		f := newFrameReader(r, new(Metrics), func() {}, func() {})
		for i, w := range want {
			h, p, err := f.next()
			if err != nil {
				t.Fatalf("%s: frame %d: %v", name, i, err)
			}
			if h.kind != w.kind || h.code != w.code || h.method != w.method || h.id != w.id || h.timeout != w.timeout {
				t.Errorf("%s: %+v came back as %+v", name, w, h)
			}
			if i == 2 {
				got := new(wire.RaftBatch)
				if err := got.UnmarshalVTUnsafe(p); err != nil || !bytes.Equal(got.Envelopes[0].Raft, big.Envelopes[0].Raft) {
					t.Errorf("%s: the large payload differs, %v", name, err)
				}
			}
		}
		if _, _, err := f.next(); err != io.EOF {
			t.Errorf("%s: %v at the end", name, err)
		}
	}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	good := appendFrame(nil, header{kind: kindRequest, method: MethodWrite, id: 77, timeout: 9}, &wire.WriteRequest{Table: 3, ClientId: []byte("client")})
	for i := range len(good) * 8 {
		b := bytes.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		hs, _, err := readAll(b)
		var bad *FrameError
		if len(hs) > 0 || !errors.As(err, &bad) {
			t.Errorf("bit %d of byte %d: %d frames, %v", i%8, i/8, len(hs), err)
		}
	}
	for n := 1; n < len(good); n++ {
		if hs, _, err := readAll(good[:n]); len(hs) > 0 || err != io.ErrUnexpectedEOF {
			t.Errorf("cut after %d bytes: %d frames, %v", n, len(hs), err)
		}
	}
}

// TestNothingIsAllocatedForBytesThatAreNotThere claims 64 MiB and sends none (R3).
func TestNothingIsAllocatedForBytesThatAreNotThere(t *testing.T) {
	b := make([]byte, headerBytes)
	h := header{kind: kindRequest, method: MethodWrite}
	h.put(b, nil)
	binary.LittleEndian.PutUint32(b, 64<<20)
	binary.LittleEndian.PutUint32(b[24:], crc32.Checksum(b[:24], castagnoli))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := readAll(b)
	runtime.ReadMemStats(&after)
	if err != io.ErrUnexpectedEOF {
		t.Errorf("error %v", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(nil, header{kind: kindRequest, method: MethodWrite, id: 1, timeout: 5}, &wire.WriteRequest{Table: 3}))
	f.Add(appendFrame(appendFrame(nil, header{kind: kindPing}, nil), header{kind: kindOneWay, method: MethodBeat}, &wire.Beat{Sequence: 1}))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		hs, ps, err := readAll(b)
		var bad *FrameError
		if err != io.EOF && err != io.ErrUnexpectedEOF && !errors.As(err, &bad) {
			t.Fatalf("untyped error %v", err)
		}
		var again []byte
		for i, h := range hs {
			frame := append(make([]byte, headerBytes), ps[i]...)
			h.put(frame, ps[i])
			again = append(again, frame...)
			// What a server does with the payload must not panic either.
			if info := h.method.info(); info != nil {
				if m := info.req(); m.UnmarshalVTUnsafe(ps[i]) == nil {
					m.SizeVT()
				}
			}
		}
		if !bytes.HasPrefix(b, again) {
			t.Fatalf("%x came back as %x", b, again)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add((&hello{versionMin: 1, versionMax: 1, role: RoleNode, cluster: "cluster", node: 7, incarnation: 8}).append(nil))
	f.Add((&hello{versionMax: 9, role: RoleClient, lane: 3, refusal: RefusalBusy}).append(nil))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		h, err := readHello(r)
		if err != nil {
			var bad *FrameError
			if err != io.EOF && err != io.ErrUnexpectedEOF && !errors.As(err, &bad) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if len(h.cluster) > clusterIDBytes {
			t.Fatalf("a cluster id of %d bytes", len(h.cluster))
		}
		again, err := readHello(bytes.NewReader(h.append(nil)))
		if err != nil || *again != *h {
			t.Fatalf("%+v came back as %+v, %v", h, again, err)
		}
	})
}
