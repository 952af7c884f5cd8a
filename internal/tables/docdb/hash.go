package docdb

import (
	"bytes"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/braiddb/braid/internal/hlc"
)

// Hash is a digest of what a view of the tablet at a time can see: every live
// document and child with its version, in order. Two replicas that applied the
// same entries have equal hashes at every time at or above the cutoff of both,
// whatever their sweeps have done.
func (e *Engine) Hash(span Span, at hlc.Timestamp, cutoff *Cutoff) (uint64, error) {
	v, err := e.View(span, at, cutoff)
	if err != nil {
		return 0, err
	}
	defer v.Close()
	h := digest{x: xxhash.New(), nowMs: at.Millis()}
	lower, upper := span.bounds()
	var failed error
	err = v.roots(lower, upper, func(docKey, p []byte, t DocTime) bool {
		failed = h.document(v, docKey, p, t)
		return failed == nil
	})
	if err != nil {
		return 0, err
	}
	return h.x.Sum64(), failed
}

type digest struct {
	x     *xxhash.Digest
	nowMs int64
	buf   []byte
}

func (h *digest) document(v *View, docKey, p []byte, t DocTime) error {
	r, err := decodeRoot(p, t)
	if err != nil {
		return corruptRecord("root", docKey, err)
	}
	if r.Kind == RootNone || expired(r.ExpireAtMs, h.nowMs) {
		return nil
	}
	h.add(docKey, p, t)
	if r.Kind == RootString || r.Kind == RootRow {
		return nil
	}
	var failed error
	key := bytes.Clone(docKey)
	lower, upper := subRange(nil, nil)
	err = v.children(key, lower, upper, false, func(tail, p []byte, t DocTime) bool {
		if t.Compare(r.Created) < 0 {
			return true
		}
		_, expireAtMs, dead, err := decodeChild(p)
		if err != nil {
			failed = corruptRecord("child", key, err)
			return false
		}
		if !dead && !expired(expireAtMs, h.nowMs) {
			h.add(tail, p, t)
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}

// add writes lengths too, so that no two different contents look the same.
func (h *digest) add(name, value []byte, t DocTime) {
	h.buf = binary.AppendUvarint(h.buf[:0], uint64(len(name)))
	h.buf = append(h.buf, name...)
	h.buf = appendTime(h.buf, t)
	h.buf = binary.AppendUvarint(h.buf, uint64(len(value)))
	_, _ = h.x.Write(h.buf) // a hash does not fail
	_, _ = h.x.Write(value)
}
