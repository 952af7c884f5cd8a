package redis

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// latencyBuckets counts durations: bucket i holds those below 2^i microseconds.
const latencyBuckets = 26

// Metrics of a server. All but what CommandStats gives only grow.
type Metrics struct {
	// Connections accepted.
	Connections atomic.Uint64
	// Rejected connections, because of MaxClients.
	Rejected atomic.Uint64
	// BytesIn read from clients.
	BytesIn atomic.Uint64
	// BytesOut written to clients.
	BytesOut atomic.Uint64
	// Errors answered.
	Errors atomic.Uint64
	// ProtocolErrors that ended a connection.
	ProtocolErrors atomic.Uint64
	// Refused commands that exceeded a limit of size.
	Refused atomic.Uint64
	// Crowded commands, answered TRYAGAIN because those on their way take as much memory as they may.
	Crowded atomic.Uint64
	// SlowReaders disconnected because they left too many replies unread.
	SlowReaders atomic.Uint64
	// ReadLatency and WriteLatency of commands, from read to reply rendered.
	ReadLatency, WriteLatency Latency

	commands *commandTable
}

// Latency is a histogram of durations with buckets that double.
type Latency struct {
	buckets [latencyBuckets]atomic.Uint64
	micros  atomic.Uint64
}

func (l *Latency) observe(d time.Duration) {
	us := uint64(max(d.Microseconds(), 0))
	l.buckets[min(bits.Len64(us), latencyBuckets-1)].Add(1)
	l.micros.Add(us)
}

// Bucket is how many durations were below Below (the last: any).
type Bucket struct {
	Below time.Duration
	Count uint64
}

// Buckets gives the histogram, and the sum of all durations.
func (l *Latency) Buckets() (buckets []Bucket, sum time.Duration) {
	for i := range l.buckets {
		buckets = append(buckets, Bucket{Below: time.Microsecond << i, Count: l.buckets[i].Load()})
	}
	return buckets, time.Duration(l.micros.Load()) * time.Microsecond
}

func (m *Metrics) observe(cmd *command, took time.Duration) {
	switch {
	case cmd.flags&write != 0:
		m.WriteLatency.observe(took)
	case cmd.flags&readonly != 0:
		m.ReadLatency.observe(took)
	}
}

// CommandStats is what one command did.
type CommandStats struct {
	Name                    string
	Calls, Failed, Rejected uint64
	Total                   time.Duration
}

// Commands gives the commands that were called.
func (m *Metrics) Commands() []CommandStats {
	var all []CommandStats
	add := func(cmd *command) {
		st := CommandStats{
			Name: cmd.name, Calls: cmd.stats.calls.Load(), Failed: cmd.stats.failed.Load(),
			Rejected: cmd.stats.rejected.Load(),
			Total:    time.Duration(cmd.stats.micros.Load()) * time.Microsecond,
		}
		if st.Calls+st.Rejected > 0 {
			all = append(all, st)
		}
	}
	for _, cmd := range m.commands.all {
		add(cmd)
		for _, sub := range cmd.subs {
			add(sub)
		}
	}
	return all
}
