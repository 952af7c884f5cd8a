package hlc

import (
	"errors"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestReadingsAscend drives one clock with a physical clock that jumps both
// ways and with remote times, and checks H1 and H2 after every step.
func TestReadingsAscend(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		physical := int64(1_700_000_000_000_000)
		const skew = 500 * time.Millisecond
		c := New(func() int64 { return physical }, skew)
		var last Timestamp
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				physical += rapid.Int64Range(-2_000_000, 2_000_000).Draw(t, "jump")
			case 1, 2:
				now := c.Now()
				if now <= last {
					t.Fatalf("reading %v is not above %v", now, last)
				}
				last = now
			case 3:
				remote := FromMicros(physical + rapid.Int64Range(-1_000_000, 1_000_000).Draw(t, "offset"))
				before := c.mu.last
				err := c.Update(remote)
				ahead := time.Duration(remote.Micros()-physical) * time.Microsecond
				var refused *SkewError
				switch {
				case remote > before && ahead > skew:
					if !errors.As(err, &refused) || c.mu.last != before {
						t.Fatalf("a time %v ahead was merged (err %v)", ahead, err)
					}
				case err != nil:
					t.Fatalf("a time %v ahead was refused: %v", ahead, err)
				default:
					last = max(last, remote)
				}
			}
		}
	})
}

func TestNowIsUniqueAcrossGoroutines(t *testing.T) {
	c := New(func() int64 { return 1 }, time.Second)
	const goroutines, each = 8, 2000
	got := make([][]Timestamp, goroutines)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			for range each {
				got[i] = append(got[i], c.Now())
			}
		})
	}
	wg.Wait()
	seen := map[Timestamp]bool{}
	for _, readings := range got {
		for _, r := range readings {
			if seen[r] {
				t.Fatalf("reading %v was given twice", r)
			}
			seen[r] = true
		}
	}
}

func TestLogicalOverflowCarriesIntoMicroseconds(t *testing.T) {
	c := New(func() int64 { return 7 }, time.Second)
	var last Timestamp
	for range 1<<logicalBits + 1 {
		last = c.Now()
	}
	if last.Micros() != 8 {
		t.Fatalf("after 4097 readings in one microsecond the clock shows %d µs, want 8", last.Micros())
	}
}

func TestAheadIsToldOfAClockThatWasSetBack(t *testing.T) {
	physical := int64(1_700_000_000_000_000)
	c := New(func() int64 { return physical }, time.Second)
	look := func(want time.Duration) {
		t.Helper()
		if got := c.Ahead(); got != want {
			t.Fatalf("the clock is %s ahead, want %s", got, want)
		}
	}
	look(0)
	c.Now()
	look(0)
	physical += time.Hour.Microseconds()
	look(0)
	c.Now()
	physical -= time.Hour.Microseconds()
	look(time.Hour)
	physical += time.Minute.Microseconds()
	look(59 * time.Minute)
}

func TestAtLeastAndArithmetic(t *testing.T) {
	c := New(func() int64 { return 100 }, time.Millisecond)
	c.AtLeast(FromMicros(10_000_000))
	if got := c.Now(); got != FromMicros(10_000_000)+1 {
		t.Fatalf("after AtLeast the next reading is %v", got)
	}
	ts := FromMicros(1_500_000)
	if got := ts.Add(250 * time.Millisecond).Sub(ts); got != 250*time.Millisecond {
		t.Fatalf("Add then Sub gives %v", got)
	}
	if ts.Millis() != 1500 {
		t.Fatalf("Millis = %d", ts.Millis())
	}
}
