package reader

import (
	"errors"
	"fmt"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// shard is what the reader knows of one shard of the nodeset.
type shard struct {
	id      logs.ShardID
	status  ShardStatus
	state   shardState
	call    uint64 // the Start or Next under way, or the last one
	asking  bool   // a Next is under way
	asked   int    // bytes that it may bring
	askedTo LSN    // the window that it was asked with
	high    LSN    // the window that it answered to last
	stream  uint64
	retryAt time.Duration // when idle: when to start, 0 for at once
	backoff time.Duration
	err     error // why it does not answer, nil when it does
	stale   int   // answers of an older filter version, in a row

	slots slots // that it sent, at or above the front

	// next: every record below that the shard has and is to send has come.
	next LSN
	// suspectTo: below it the shard may lack records that it should have.
	suspectTo LSN
	// missed counts the grace periods that it let pass since it last said something.
	missed int
	// down: in single-copy delivery the others send in its place. It is taken off the
	// list when it has sent a record and the front is above downTo.
	down   bool
	downTo LSN
	sent   bool // a record, since the last rewind
}

type shardState uint8

const (
	shardIdle     shardState = iota // to be started
	shardStarting                   // a Start is under way
	shardStarted
)

// pump starts what is to be started and asks who is not asked.
func (c *Core) pump() {
	for _, s := range c.shards {
		if s.state == shardIdle && s.status != ShardEmptied && c.now >= s.retryAt {
			c.start(s)
		}
	}
	for _, s := range c.shards {
		if s.state == shardStarted && !s.asking {
			c.askNext(s)
		}
	}
}

func (c *Core) start(s *shard) {
	c.calls++
	s.state, s.call = shardStarting, c.calls
	req := &wire.ReadStartRequest{
		Log: uint64(c.cfg.Log), From: uint64(max(c.head, s.next)), Until: uint64(c.cfg.Until), WindowHigh: uint64(c.window.high),
		FilterVersion: c.mode.version, Replication: c.entry.Replication,
		Filter: c.cfg.Filter, FilterKey1: c.cfg.FilterKey1, FilterKey2: c.cfg.FilterKey2,
		Stream: s.stream, Shard: uint64(s.id),
	}
	if c.cfg.WithoutPayload {
		req.Flags |= logs.ReadNoPayload
	}
	if c.mode.single {
		req.Flags |= logs.ReadSingleCopy
		for _, other := range c.shards {
			if other.down {
				req.FilteredOut = append(req.FilteredOut, uint64(other.id))
			}
		}
	}
	c.out.Starts = append(c.out.Starts, Start{Shard: s.id, Call: s.call, Req: req})
}

// askNext asks for what comes next, if there is room for it (R5).
func (c *Core) askNext(s *shard) {
	if s.next > c.window.high || s.next > c.cfg.Until || s.next == logs.LSNMax {
		return
	}
	budget := min(c.cfg.NextBytes, max(64<<10, c.cfg.BufferBytes/len(c.shards)))
	if room := c.cfg.BufferBytes - c.window.held(); room < budget {
		// What the front waits for must be able to come, or nothing is ever freed; but not
		// while the application has not taken what is there.
		if marker, _ := c.marker(); c.window.told > 0 || s.next > max(c.head, marker) {
			return
		}
	}
	c.calls++
	s.asking, s.call, s.asked, s.askedTo = true, c.calls, budget, c.window.high
	c.window.asked += budget
	c.out.Nexts = append(c.out.Nexts, Next{Shard: s.id, Call: s.call, Req: &wire.ReadNextRequest{
		Stream: s.stream, WindowHigh: uint64(c.window.high), BytesMax: uint32(budget),
		WaitMs: uint32(c.cfg.Wait / time.Millisecond), Shard: uint64(s.id),
	}})
}

// answerCame ends the accounting of a Next.
func (c *Core) answerCame(s *shard) {
	if s.asking {
		s.asking = false
		c.window.asked -= s.asked
	}
}

// stop ends a shard's stream.
func (c *Core) stop(s *shard) {
	c.answerCame(s)
	if s.stream != 0 {
		c.out.Stops = append(c.out.Stops, Stop{Shard: s.id, Stream: s.stream})
	}
	s.state, s.stream = shardIdle, 0
	s.call = 0
}

// find is a shard of the epoch at the front, or nil.
func (c *Core) find(id logs.ShardID) *shard {
	for _, s := range c.shards {
		if s.id == id {
			return s
		}
	}
	return nil
}

// believe takes what the cluster believes of a shard.
func (c *Core) believe(ev Shard) {
	c.status[ev.Shard] = ev.Status
	s := c.find(ev.Shard)
	if s == nil || s.status == ev.Status {
		return
	}
	s.status = ev.Status
	if ev.Status == ShardUp {
		s.backoff, s.missed = 0, 0
		if s.state == shardIdle {
			s.retryAt = c.now
		}
		return
	}
	c.passOver(s, c.head)
}

// started takes the answer to a Start.
func (c *Core) started(ev Started) {
	s := c.find(ev.Shard)
	if s == nil || s.call != ev.Call || s.state != shardStarting {
		if ev.Err == nil && ev.Resp.Status == wire.LogStatus_LOG_STATUS_OK && ev.Resp.Stream != 0 && (s == nil || s.stream != ev.Resp.Stream) {
			c.out.Stops = append(c.out.Stops, Stop{Shard: ev.Shard, Stream: ev.Resp.Stream})
		}
		return
	}
	s.state = shardIdle
	if ev.Err != nil {
		c.failed(s, ev.Err)
		return
	}
	switch ev.Resp.Status {
	case wire.LogStatus_LOG_STATUS_OK:
	case wire.LogStatus_LOG_STATUS_ACCESS:
		c.gap(logs.GapAccess, c.cfg.Until)
		return
	case wire.LogStatus_LOG_STATUS_NO_STREAM:
		s.stream = 0
		s.retryAt = c.now
		return
	default:
		c.failed(s, &logs.StatusError{Status: ev.Resp.Status, Message: ev.Resp.Message})
		return
	}
	if ev.Resp.Stream == 0 || ev.Resp.FilterVersion != c.mode.version {
		c.failed(s, fmt.Errorf("started stream %d with filter version %d, asked for %d", ev.Resp.Stream, ev.Resp.FilterVersion, c.mode.version))
		return
	}
	s.state, s.stream = shardStarted, ev.Resp.Stream
	if s.status == ShardDown {
		s.status, c.status[s.id] = ShardUp, ShardUp // it answers, whatever is believed of it
	}
	s.retryAt, s.err, s.stale = 0, nil, 0
	c.rel = max(c.rel, LSN(ev.Resp.LastReleased))
}

// answered takes the answer to a Next.
func (c *Core) answered(ev Answered) {
	s := c.find(ev.Shard)
	if s == nil {
		return
	}
	if !s.asking || s.call != ev.Call {
		return
	}
	c.answerCame(s)
	if ev.Err != nil {
		c.failed(s, ev.Err)
		return
	}
	r := ev.Resp
	switch r.Status {
	case wire.LogStatus_LOG_STATUS_OK:
	case wire.LogStatus_LOG_STATUS_NO_STREAM:
		// It was started anew, or forgot the stream for being idle: that is no reason to
		// pass it over.
		s.state, s.stream, s.retryAt = shardIdle, 0, c.now+s.backoff
		c.backOff(s)
		c.forgetWindow(s)
		return
	case wire.LogStatus_LOG_STATUS_ACCESS:
		c.gap(logs.GapAccess, c.cfg.Until)
		return
	default:
		c.failed(s, &logs.StatusError{Status: r.Status})
		return
	}
	if r.FilterVersion != c.mode.version { // R3: gathered before the shard was told of the rewind
		if s.stale++; s.stale > staleMax {
			c.failed(s, fmt.Errorf("answers under filter version %d, not %d", r.FilterVersion, c.mode.version))
		}
		return
	}
	s.backoff, s.stale, s.high = 0, 0, s.askedTo
	c.rel = max(c.rel, LSN(r.LastReleased))
	for _, d := range r.Deliveries {
		if err := c.deliver(s, d); err != nil {
			c.failed(s, err)
			return
		}
	}
	if len(r.Deliveries) == 0 && c.rel > c.window.high && s.next <= c.window.high && c.front() == nil && c.window.told == 0 {
		c.window.stretch() // nothing within, but something above
	}
}

// failed makes a shard wait before it is asked again; where it was to send, others do.
func (c *Core) failed(s *shard, err error) {
	c.answerCame(s)
	if s.stream != 0 && s.state != shardStarting {
		c.out.Stops = append(c.out.Stops, Stop{Shard: s.id, Stream: s.stream})
	}
	s.state, s.stream, s.err = shardIdle, 0, err
	c.backOff(s)
	s.retryAt = c.now + s.backoff
	c.forgetWindow(s)
	c.passOver(s, c.head)
}

// forgetWindow takes back what a shard said that stopped at the window: it would have
// been the marker of a gap whose end only it could tell, and it cannot be asked now.
func (c *Core) forgetWindow(s *shard) {
	if s.next > c.head && s.high+1 == s.next {
		s.next = c.head
	}
	s.high = 0
}

func (c *Core) backOff(s *shard) { s.backoff = min(max(c.cfg.RetryMin, 2*s.backoff), c.cfg.RetryMax) }

// staleMax is how many answers in a row a shard may make of what it gathered before
// it was rewound.
const staleMax = 8

// errBeyondWindow is how a shard that sends what it may not send is refused.
var errBeyondWindow = errors.New("sent an LSN above the window")

// errMalformed is how a delivery that says nothing is refused.
var errMalformed = errors.New("sent a delivery that is neither a record nor a gap")
