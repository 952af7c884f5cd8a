package recovery

import (
	"cmp"
	"time"
)

// Config holds the constants; zero values mean the defaults.
type Config struct {
	// Recoveries is how many logs are recovered at a time; others wait. Default 400.
	Recoveries int
	// Purges is how many logs are purged at a time. Default 4.
	Purges int
	// Comparisons is how many logs of a shard in doubt are compared at a time. Default 16.
	Comparisons int
	// Ends is how many sequencers are asked at a time for the end of a reign that keeps
	// a log in doubt. Default 4.
	Ends int
	// EndPause is the least time from one such question of a node to its next. Default 10 ms.
	EndPause time.Duration
	// EndGrace is how long such a reign is left to end by itself; if it then has not
	// after it was asked for, twice as long each time, at most EndRetryMax. Default 2 s.
	EndGrace time.Duration
	// EndRetryMax is the longest time between two questions about one log. Default 60 s.
	EndRetryMax time.Duration
	// Retry is the longest time from a failure to the next try, a sixteenth of it the
	// first, and how long a silent node is waited for where it can be done without.
	// Default 1 s.
	Retry time.Duration
	// Grace is how long the digest waits for the rest once it has an f-majority.
	// Default 100 ms.
	Grace time.Duration
	// StoreRetry is the time from a store that failed to its next try. Default 500 ms.
	StoreRetry time.Duration
	// Tries is how often a shard of the mutation set may fail in a row before the
	// rest goes on without it; two if it is believed dead. Default 5.
	Tries int
	// MutationsMax is how many slots are stored at a time. Default 128.
	MutationsMax int
	// DigestBytes bounds one answer of a digest. Default 4 MiB.
	DigestBytes uint32
}

func (c Config) withDefaults() Config {
	c.Recoveries = cmp.Or(c.Recoveries, 400)
	c.Purges = cmp.Or(c.Purges, 4)
	c.Comparisons = cmp.Or(c.Comparisons, 16)
	c.Ends = cmp.Or(c.Ends, 4)
	c.EndPause = cmp.Or(c.EndPause, 10*time.Millisecond)
	c.EndGrace = cmp.Or(c.EndGrace, 2*time.Second)
	c.EndRetryMax = cmp.Or(c.EndRetryMax, time.Minute)
	c.Retry = cmp.Or(c.Retry, time.Second)
	c.Grace = cmp.Or(c.Grace, 100*time.Millisecond)
	c.StoreRetry = cmp.Or(c.StoreRetry, 500*time.Millisecond)
	c.Tries = cmp.Or(c.Tries, 5)
	c.MutationsMax = cmp.Or(c.MutationsMax, 128)
	c.DigestBytes = cmp.Or(c.DigestBytes, 4<<20)
	return c
}
