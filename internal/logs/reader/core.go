package reader

import (
	"fmt"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// Config says what is read, and how. The zero value of all but the first group is
// a good default.
type Config struct {
	Log         logs.LogID
	From, Until logs.LSN // inclusive

	// SingleCopy has each record sent by one shard.
	SingleCopy bool
	// WithoutPayload has records sent without what is in them.
	WithoutPayload bool
	// FullReadSet tells a gap only when every shard that can answer has.
	FullReadSet bool
	// Filter (logs.Filter*) on the filter key, applied by the shards.
	Filter                 uint32
	FilterKey1, FilterKey2 []byte

	// Window is how many LSNs above the last taken one shards may send. Default 4096.
	Window uint64
	// BufferBytes bounds what is held for the application. Default 4 MiB.
	BufferBytes int
	// NextBytes bounds one answer. Default 1 MiB, less where there are many shards.
	NextBytes int
	// Grace is how long shards that are silent, though an f-majority is not, may keep a
	// gap from being told; one that let GraceMisses of them pass is not waited for.
	// Default 100 ms, 2.
	Grace       time.Duration
	GraceMisses int
	// FailOver is how long the front may stay empty, although it is released, before
	// silent shards are passed over; after twice that all send all. Default 10 s.
	FailOver time.Duration
	// Wait is how long a shard may hold a question for which there is nothing. Default 5 s.
	Wait time.Duration
	// RetryMin and RetryMax bound the pause before a shard that failed is asked again;
	// it doubles. Default 50 ms, 2 s.
	RetryMin, RetryMax time.Duration
}

func (c Config) withDefaults() Config {
	if c.From == logs.LSNInvalid {
		c.From = logs.LSNOldest
	}
	if c.Until == logs.LSNInvalid {
		c.Until = logs.LSNMax
	}
	if c.Window == 0 {
		c.Window = 4096
	}
	if c.BufferBytes <= 0 {
		c.BufferBytes = 4 << 20
	}
	if c.NextBytes <= 0 {
		c.NextBytes = 1 << 20
	}
	if c.Grace <= 0 {
		c.Grace = 100 * time.Millisecond
	}
	if c.GraceMisses <= 0 {
		c.GraceMisses = 2
	}
	if c.FailOver <= 0 {
		c.FailOver = 10 * time.Second
	}
	if c.Wait <= 0 {
		c.Wait = 5 * time.Second
	}
	if c.RetryMin <= 0 {
		c.RetryMin = 50 * time.Millisecond
	}
	if c.RetryMax < c.RetryMin {
		c.RetryMax = max(2*time.Second, c.RetryMin)
	}
	return c
}

// Item is a record, or a range of LSNs without one.
type Item struct {
	LSN logs.LSN // of the record, or the first of the gap
	To  logs.LSN // the last of the gap; LSN itself for a record
	Gap logs.GapType
	// Record is nil for a gap. Its Payload is gone if Payloads has it.
	Record *wire.LogRecord
	// Payloads of the record, by batch offset; nil where they were not asked for.
	Payloads [][]byte
	// Offset is how many payloads the log has before the record's first.
	Offset      uint64
	OffsetKnown bool
	// Bytes that taking it sets free.
	Bytes int
}

// Event is something that happened to a reader.
type Event interface{ event() }

// The events. Call and Version are those of the effect that is answered.
type (
	// Begin comes first, once.
	Begin struct{}
	// End comes when nobody reads any more: all streams are stopped.
	End struct{}
	// Wake comes at the time that an effect wished for, or at any other.
	Wake struct{}
	// Metadata answers AskMetadata: all entries by effective_since, and the last epoch
	// up to which there can be no other. Err: ask again later. End: the log can not be
	// read (GapNotInConfig, GapAccess).
	Metadata struct {
		Entries []*wire.EpochMetadata
		Through logs.Epoch
		Err     error
		End     logs.GapType
	}
	// Started answers a Start.
	Started struct {
		Shard logs.ShardID
		Call  uint64
		Resp  *wire.ReadStartResponse
		Err   error
	}
	// Answered answers a Next.
	Answered struct {
		Shard logs.ShardID
		Call  uint64
		Resp  *wire.ReadNextResponse
		Err   error
	}
	// Shard is what the cluster believes of a shard; it may come before the shard is
	// part of any nodeset.
	Shard struct {
		Shard  logs.ShardID
		Status ShardStatus
	}
	// Taken says that the application has everything below Next, and what that set free.
	Taken struct {
		Next  logs.LSN
		Bytes int
	}
)

func (Begin) event()    {}
func (End) event()      {}
func (Wake) event()     {}
func (Metadata) event() {}
func (Started) event()  {}
func (Answered) event() {}
func (Shard) event()    {}
func (Taken) event()    {}

// ShardStatus is what the cluster believes of a shard.
type ShardStatus uint8

const (
	// ShardUp can be asked; it is what is believed of a shard of which nothing was said.
	ShardUp ShardStatus = iota
	// ShardDown does not answer now and may come back with all that it has: where it is
	// needed the reader waits for it.
	ShardDown
	// ShardLost was given up by whoever decides that: what it had may be gone, and is
	// not waited for.
	ShardLost
	// ShardEmptied holds no copy that is needed.
	ShardEmptied
)

// Effects is what a step asks its host to do.
type Effects struct {
	Starts []Start
	Nexts  []Next
	Stops  []Stop
	// Items to be handed to the application, in order.
	Items []Item
	// Ask for metadata that covers the epoch, 0 for no question. With Released some
	// record of that epoch is known to be released, so that its metadata can be read.
	AskMetadata logs.Epoch
	Released    bool
	// Done: Until is reached, there will be no more items.
	Done bool
	// Wake is when the reader wants to be stepped again, 0 for never.
	Wake time.Duration
}

// Start is to be answered with Started.
type Start struct {
	Shard logs.ShardID
	Call  uint64
	Req   *wire.ReadStartRequest
}

// Next is to be answered with Answered. A shard holds it for up to Req.WaitMs.
type Next struct {
	Shard logs.ShardID
	Call  uint64
	Req   *wire.ReadNextRequest
}

// Stop needs no answer.
type Stop struct {
	Shard  logs.ShardID
	Stream uint64
}

// Counters of a reader. All only grow.
type Counters struct {
	Records       uint64 // told
	Bytes         uint64 // of their payloads, as they were sent
	BytesReceived uint64 // of all copies that came
	Gaps          uint64
	Losses        uint64 // gaps of type DATALOSS
	Rewinds       uint64
	AllSendAll    uint64 // times that single-copy delivery was given up
	Damaged       uint64 // copies that failed their checksum here
}

// Core reads one log. It is stepped by one host at a time.
type Core struct {
	cfg Config
	now time.Duration
	out Effects

	head LSN  // R1: everything below has been told
	last Item // told last, for the assertion
	told bool // something was
	done bool // Until was told, or the log cannot be read
	trim LSN  // the highest trim point heard of
	rel  LSN  // the highest released LSN heard of

	meta   metadata
	shards []*shard // of the epoch at the front, ascending
	set    *placement.ShardSet
	entry  *wire.EpochMetadata // that shards is of
	status map[logs.ShardID]ShardStatus

	window window
	mode   mode
	grace  grace
	calls  uint64 // the number given to a call last

	Counters Counters
}

// LSN saves the qualifier in this package.
type LSN = logs.LSN

// New makes a reader, to be begun with Begin.
func New(cfg Config) *Core {
	cfg = cfg.withDefaults()
	c := &Core{cfg: cfg, head: cfg.From, status: make(map[logs.ShardID]ShardStatus)}
	c.mode.version = 1
	c.mode.single = cfg.SingleCopy
	c.window.open(cfg.From, cfg.Window)
	return c
}

// Step tells the reader what happened and gives what is to be done. The effects'
// slices are good until the next step.
func (c *Core) Step(now time.Duration, ev Event) *Effects {
	c.now = max(c.now, now)
	clear(c.out.Items)
	c.out = Effects{Starts: c.out.Starts[:0], Nexts: c.out.Nexts[:0], Stops: c.out.Stops[:0], Items: c.out.Items[:0]}
	switch ev := ev.(type) {
	case Begin:
		c.begin()
	case Wake:
	case End:
		c.done = true
	case Metadata:
		c.learn(ev)
	case Started:
		c.started(ev)
	case Answered:
		c.answered(ev)
	case Shard:
		c.believe(ev)
	case Taken:
		c.window.take(ev.Next, ev.Bytes)
	default:
		panic(fmt.Sprintf("BUG: an event of type %T", ev))
	}
	c.settle()
	return &c.out
}

// begin checks the range and asks what the log's epochs were stored on.
func (c *Core) begin() {
	if c.cfg.From > c.cfg.Until {
		c.done = true
		return
	}
	c.ask(c.head.Epoch(), false)
}

// settle goes as far as what is known allows: it tells what can be told, rewinds if
// that is due, and asks the shards for more.
func (c *Core) settle() {
	for !c.done && c.advance() {
	}
	if c.done {
		c.end()
		return
	}
	c.checkBackUp()
	c.checkEverybody()
	c.checkFront()
	c.rewindIfDue()
	c.askAgain()
	c.pump()
	c.out.Wake = c.nextWake()
}

// end stops all streams, once.
func (c *Core) end() {
	for _, s := range c.shards {
		c.stop(s)
	}
	c.shards = nil
	c.out.Done = true
}

// emit tells an item.
func (c *Core) emit(it Item) {
	if c.done || it.LSN != c.head || it.To < it.LSN || it.To > c.cfg.Until ||
		(c.told && it.LSN != c.last.To+1) || (it.Record != nil && it.To != it.LSN) {
		panic(fmt.Sprintf("BUG: R1: [%s, %s] is told after [%s, %s], front %s", it.LSN, it.To, c.last.LSN, c.last.To, c.head))
	}
	c.last, c.told = it, true
	if it.Record != nil {
		c.Counters.Records++
	} else {
		c.Counters.Gaps++
		if c.window.told == 0 {
			// Nothing that the window is there to bound: what follows the gap may come.
			c.window.take(above(it.To, 1), 0)
		}
		if it.Gap == logs.GapDataLoss {
			c.Counters.Losses++
		}
	}
	c.window.holdTold(it.Bytes)
	c.out.Items = append(c.out.Items, it)
	if it.To == c.cfg.Until {
		c.done = true
		return
	}
	c.moveTo(it.To + 1)
}

// gap tells that [head, to] holds no record.
func (c *Core) gap(t logs.GapType, to LSN) {
	c.emit(Item{LSN: c.head, To: min(to, c.cfg.Until), Gap: t, Bytes: slotBytes})
}

// moveTo is the front moving up: what was waited for there is history.
func (c *Core) moveTo(head LSN) {
	c.head = head
	c.dropSlots(head)
	c.window.moved()
	c.grace.reset()
	c.mode.moved(c.now)
}

// Front is the LSN that is to be told next.
func (c *Core) Front() LSN { return c.head }

// nextWake is the earliest time at which something is to be done unasked.
func (c *Core) nextWake() time.Duration {
	var at time.Duration
	sooner := func(t time.Duration) {
		if t != 0 && (at == 0 || t < at) {
			at = t
		}
	}
	sooner(c.grace.at)
	sooner(c.mode.rewindAt)
	if !c.meta.asking {
		sooner(c.meta.retryAt)
	}
	if c.meta.laterAt > c.now {
		sooner(c.meta.laterAt)
	}
	if c.mode.single && c.rel >= c.head && len(c.shards) > 0 {
		sooner(c.mode.frontSince + c.cfg.FailOver)
	}
	for _, s := range c.shards {
		if s.state == shardIdle {
			sooner(s.retryAt)
		}
	}
	return at
}
