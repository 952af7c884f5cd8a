package store

import (
	"bytes"
	"testing"
)

// TestAViewGivesNoMemoryTwice: what a view copied is what it was, however much it copies
// afterwards, and whoever appends to one piece changes no other.
func TestAViewGivesNoMemoryTwice(t *testing.T) {
	v := &view{}
	var given, want [][]byte
	for i := range 400 {
		b := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 1+i*i%700)
		if i == 200 {
			b = bytes.Repeat([]byte{200}, slabBytes+1)
		}
		given, want = append(given, v.own(b)), append(want, bytes.Clone(b))
		clear(b) // it was the iterator's, which takes it back
	}
	for _, b := range given {
		_ = append(b, 0xff)
	}
	for i := range given {
		if !bytes.Equal(given[i], want[i]) {
			t.Fatalf("piece %d of %d bytes is another now", i, len(want[i]))
		}
	}
}
