package journal

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

type realClock struct{}

func (realClock) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

func testIdentity(incarnation uint64) Identity {
	return Identity{Cluster: [16]byte{1, 2, 3}, Node: 7, Incarnation: incarnation}
}

func openAt(t testing.TB, fs vfs.FS, dir string, incarnation uint64, o Options) (*Journal, *Replay) {
	t.Helper()
	j, r, err := Open(fs, dir, testIdentity(incarnation), realClock{}, o)
	if err != nil {
		t.Fatal(err)
	}
	return j, r
}

func appendWait(t testing.TB, j *Journal, recs ...Record) {
	t.Helper()
	if err := appendErr(j, recs...); err != nil {
		t.Fatal(err)
	}
}

func appendErr(j *Journal, recs ...Record) error {
	c := make(chan error, 1)
	j.Append(recs, func(err error) { c <- err })
	return <-c
}

func closeJournal(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func entry(s StreamID, pos uint64, payload string) Record {
	return Record{Stream: s, Kind: KindEntry, Pos: pos, Payload: []byte(payload)}
}

func TestWhatIsAppendedIsReplayed(t *testing.T) {
	dir := t.TempDir()
	j, r := openAt(t, vfs.Default, dir, 1, Options{})
	if len(r.Streams) != 0 || r.Suspect || len(r.Corrupt) != 0 {
		t.Fatalf("a new journal holds %+v", r)
	}
	appendWait(t, j, entry(1, 1, "a"), entry(2, 1, "x"), entry(1, 2, "b"))
	appendWait(t, j, Record{Stream: 1, Kind: KindState, Payload: []byte("term 1")})
	appendWait(t, j, Record{Stream: 1, Kind: KindTruncate, Pos: 2}, entry(1, 2, "c"), entry(1, 3, ""))
	appendWait(t, j, Record{Stream: 3, Kind: KindStart, Pos: 40, Payload: []byte("snap")}, entry(3, 41, "s"))
	appendWait(t, j, entry(4, 1, "gone"))
	appendWait(t, j, Record{Stream: 4, Kind: KindDrop})
	closeJournal(t, j)
	for incarnation := uint64(2); incarnation < 5; incarnation++ {
		j, r = openAt(t, vfs.Default, dir, incarnation, Options{})
		got := ""
		for _, id := range []StreamID{1, 2, 3, 4} {
			if s := r.Streams[id]; s != nil {
				got += fmt.Sprintf("%d start=%d%q state=%q corrupt=%v", id, s.StartPos, s.Start, s.State, s.Corrupt)
				for _, e := range s.Records {
					got += fmt.Sprintf(" %d:%s", e.Pos, e.Payload)
				}
				got += "\n"
			}
		}
		want := `1 start=0"" state="term 1" corrupt=false 1:a 2:c 3:
2 start=0"" state="" corrupt=false 1:x
3 start=40"snap" state="" corrupt=false 41:s
`
		if got != want || r.Suspect || len(r.Corrupt) != 0 || r.Torn != 0 {
			t.Fatalf("incarnation %d:\n%s%+v", incarnation, got, r)
		}
		closeJournal(t, j)
	}
}

func TestCallbacksRunInOrderWithManyWriters(t *testing.T) {
	dir := t.TempDir()
	j, _ := openAt(t, vfs.Default, dir, 1, Options{SegmentBytes: 64 << 10, SegmentsMax: 1000})
	var mu, submit sync.Mutex
	var told []int
	next := 0
	var writers, all sync.WaitGroup
	for w := range 16 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			for i := range 100 {
				all.Add(1)
				submit.Lock()
				n := next
				next++
				j.Append([]Record{entry(StreamID(w), uint64(i+1), fmt.Sprintf("%d-%d", w, i))}, func(err error) {
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					told = append(told, n)
					mu.Unlock()
					all.Done()
				})
				submit.Unlock()
			}
		}()
	}
	writers.Wait()
	all.Wait()
	for i, n := range told {
		if n != i {
			t.Fatalf("callback %d came at place %d", n, i)
		}
	}
	closeJournal(t, j)
	j, r := openAt(t, vfs.Default, dir, 2, Options{SegmentBytes: 64 << 10})
	defer j.Close()
	for w := range 16 {
		s := r.Streams[StreamID(w)]
		if s == nil || len(s.Records) != 100 {
			t.Fatalf("stream %d: %+v", w, s)
		}
		for i, e := range s.Records {
			if string(e.Payload) != fmt.Sprintf("%d-%d", w, i) {
				t.Fatalf("stream %d record %d is %q", w, i, e.Payload)
			}
		}
	}
}

func TestSegmentsAreRecycledAndStatesMoveForward(t *testing.T) {
	dir := t.TempDir()
	o := Options{SegmentBytes: 16 << 10, SegmentsMax: 8}
	j, _ := openAt(t, vfs.Default, dir, 1, o)
	appendWait(t, j, Record{Stream: 9, Kind: KindState, Payload: []byte("old vote")})
	payload := bytes.Repeat([]byte("p"), 1000)
	for i := uint64(1); i <= 500; i++ {
		for {
			err := appendErr(j, Record{Stream: 1, Kind: KindEntry, Pos: i, Payload: payload})
			if err == nil {
				break
			}
			if !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
		}
		j.SetLowWater(1, i-1)
	}
	m := j.Metrics()
	if m.Recycled < 10 || m.Created > 8 || m.Rewritten == 0 {
		t.Errorf("%+v", m)
	}
	closeJournal(t, j)
	j, r := openAt(t, vfs.Default, dir, 2, o)
	defer j.Close()
	if s := r.Streams[9]; s == nil || string(s.State) != "old vote" {
		t.Errorf("the state of the idle stream is %+v", s)
	}
	s := r.Streams[1]
	if n := len(s.Records); n == 0 || s.Records[n-1].Pos != 500 || s.Corrupt {
		t.Errorf("stream 1 ends with %d records, %+v", n, r)
	}
}

func TestLargeAppendsGetSegmentsOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	o := Options{SegmentBytes: 64 << 10}
	j, _ := openAt(t, vfs.Default, dir, 1, o)
	big := bytes.Repeat([]byte("0123456789abcdef"), 65<<16) // 65 MiB
	appendWait(t, j, entry(1, 1, "before"))
	appendWait(t, j, Record{Stream: 1, Kind: KindEntry, Pos: 2, Payload: big})
	appendWait(t, j, entry(1, 3, "after"))
	closeJournal(t, j)
	j, r := openAt(t, vfs.Default, dir, 2, o)
	defer j.Close()
	s := r.Streams[1]
	if len(s.Records) != 3 || !bytes.Equal(s.Records[1].Payload, big) || string(s.Records[2].Payload) != "after" {
		t.Fatalf("%d records, suspect %v, corrupt %v", len(s.Records), r.Suspect, r.Corrupt)
	}
}
