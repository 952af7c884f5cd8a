package docdb

import "fmt"

// FormatError says that bytes are of a format version that this program does not
// know.
type FormatError struct {
	What string
	Have uint64
	Want uint64
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("docdb: %s has format version %d, this program reads %d; run the version of braid that wrote it", e.What, e.Have, e.Want)
}

// batchRecord is one record of an encoded batch; slices are borrowed.
type batchRecord struct {
	kind        byte
	docKey      []byte // recDoc
	tail, value []byte // recSet
	stamp       []byte // recCollect, with tail: the version
	start, end  uint64 // recTruncate
}

type batchReader struct {
	r     reader
	inDoc bool
}

func decodeBatch(p []byte) (batchReader, error) {
	d := batchReader{r: reader{p: p}}
	if v := d.r.byte(); d.r.bad {
		return d, ErrEncoding
	} else if v != batchVersion {
		return d, &FormatError{What: "a write batch", Have: uint64(v), Want: batchVersion}
	}
	return d, nil
}

// next reads one record; ok is false at the end.
func (d *batchReader) next() (r batchRecord, ok bool, err error) {
	if len(d.r.p) == 0 && !d.r.bad {
		return r, false, nil
	}
	r.kind = d.r.byte()
	valid := true
	switch r.kind {
	case recDoc:
		r.docKey = d.r.take(d.r.uvarint())
		valid = validDocKey(r.docKey)
		d.inDoc = true
	case recSet:
		r.tail = d.r.take(d.r.uvarint())
		r.value = d.r.take(d.r.uvarint())
		valid = d.inDoc && validTail(r.tail) && validValue(r.tail, r.value)
	case recGap:
	case recTruncate:
		r.start, r.end = d.r.uint64(), d.r.uint64()
		valid = r.end == 0 || r.start < r.end
		d.inDoc = false
	case recCollect:
		r.tail = d.r.take(d.r.uvarint())
		r.stamp = d.r.take(d.r.uvarint())
		valid = d.inDoc && validTail(r.tail) && validStamp(r.tail, r.stamp)
	default:
		valid = false
	}
	if d.r.bad || !valid {
		return r, false, ErrEncoding
	}
	return r, true, nil
}

func validDocKey(p []byte) bool {
	if len(p) < 8 {
		return false
	}
	return validString(p[8:])
}

// validString reports whether p is exactly one escaped string.
func validString(p []byte) bool {
	for i := 0; i+1 < len(p); i++ {
		if p[i] != escape {
			continue
		}
		if p[i+1] == terminator {
			return i+2 == len(p)
		}
		if p[i+1] != escapedNul {
			return false
		}
		i++
	}
	return false
}

func validTail(p []byte) bool {
	if len(p) == 1 {
		return p[0] == tailRoot
	}
	return len(p) > 1 && p[0] == tailSub && validString(p[1:])
}

// validStamp reports whether stamp ends a key whose tail is tail.
func validStamp(tail, stamp []byte) bool {
	var docKey [docHeader + 2]byte
	key := append(append(docKey[:], tail...), stamp...)
	v, err := parseVersion(key)
	return err == nil && len(v.docKey) == len(docKey) && len(v.tail) == len(tail)
}

func validValue(tail, value []byte) bool {
	var err error
	if tail[0] == tailRoot {
		_, err = decodeRoot(value, DocTime{WriteID: maxWriteID})
	} else {
		_, _, _, err = decodeChild(value)
	}
	return err == nil
}
