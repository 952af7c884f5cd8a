package checker

import (
	"cmp"
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// Config says what is checked.
type Config struct {
	Log logs.LogID
	// Epochs is all metadata that the log has had, by effective_since.
	Epochs []*wire.EpochMetadata
	// From and To bound what is judged; To is at most the last released LSN.
	From, To logs.LSN
	// Page is how many copies are asked for at once. Default 4096.
	Page uint32
}

// Checker checks one log. Ask what Want wants, give what came to Answer, until Want
// wants nothing; then there is the Report.
type Checker struct {
	cfg    Config
	shards []*shard // of all epochs, ascending
	epochs []epoch  // as Config.Epochs
	at     logs.LSN // C3: everything below was judged
	seen   logs.LSN // the highest LSN of at's epoch that had a copy, or 0
	ended  bool     // the bridge of at's epoch was judged
	report Report
}

type epoch struct {
	since   logs.Epoch
	nodeset []placement.LogShard
	meta    *wire.EpochMetadata
}

// shard is what a shard has said and was not judged yet.
type shard struct {
	id       logs.ShardID
	next     logs.LSN // where the next page begins
	over     bool     // there are no more pages
	silent   bool
	released logs.LSN
	copies   []*wire.LogRecord // ascending by LSN, the winner of each first
	damaged  []logs.LSN        // ascending
}

// passed is the LSN up to which everything that the shard has is known.
func (s *shard) passed() logs.LSN {
	if s.over || s.silent {
		return logs.LSNMax
	}
	return s.next - 1
}

// New begins a check.
func New(cfg Config) *Checker {
	if cfg.Page == 0 {
		cfg.Page = 4096
	}
	cfg.From = max(cfg.From, logs.MakeLSN(1, 1))
	c := &Checker{cfg: cfg, at: cfg.From, report: Report{Log: cfg.Log, From: cfg.From, To: cfg.To}}
	for _, m := range cfg.Epochs {
		e := epoch{since: logs.Epoch(m.EffectiveSince), meta: m}
		for i, id := range m.Nodeset {
			n := placement.LogShard{Shard: logs.ShardID(id), Weight: 1}
			if i < len(m.Locations) {
				n.Location = m.Locations[i]
			}
			e.nodeset = append(e.nodeset, n)
			if c.find(n.Shard) == nil {
				c.shards = append(c.shards, &shard{id: n.Shard, next: cfg.From})
			}
		}
		c.epochs = append(c.epochs, e)
	}
	slices.SortFunc(c.shards, func(a, b *shard) int { return cmp.Compare(a.id, b.id) })
	return c
}

func (c *Checker) find(id logs.ShardID) *shard {
	for _, s := range c.shards {
		if s.id == id {
			return s
		}
	}
	return nil
}

// Want gives the requests to be sent next, each to the shard that it names; none when
// all is judged. They may be sent at the same time.
func (c *Checker) Want() []*wire.RecordsRequest {
	if c.cfg.From > c.cfg.To || len(c.epochs) == 0 {
		return nil
	}
	var reqs []*wire.RecordsRequest
	for _, s := range c.shards {
		if !s.over && !s.silent && s.next <= c.cfg.To && len(s.copies) == 0 {
			reqs = append(reqs, &wire.RecordsRequest{
				Log: uint64(c.cfg.Log), From: uint64(s.next), To: uint64(c.cfg.To), Limit: c.cfg.Page, Shard: uint64(s.id),
			})
		}
	}
	return reqs
}

// Answer takes a shard's answer; nil says that it could not be asked.
func (c *Checker) Answer(id logs.ShardID, resp *wire.RecordsResponse) {
	s := c.find(id)
	if s == nil || s.silent {
		return
	}
	if resp == nil || resp.Status != wire.LogStatus_LOG_STATUS_OK || (resp.Next != 0 && logs.LSN(resp.Next) <= s.next) {
		s.silent = true
		c.report.Silent = append(c.report.Silent, id)
		c.judge()
		return
	}
	s.released = max(s.released, logs.LSN(resp.LastReleased))
	c.report.Trim = max(c.report.Trim, logs.LSN(resp.TrimPoint))
	for _, r := range resp.Records {
		if lsn := logs.LSN(r.Lsn); lsn >= s.next && lsn <= c.cfg.To {
			s.copies = append(s.copies, r)
		}
	}
	slices.SortStableFunc(s.copies, func(a, b *wire.LogRecord) int {
		return cmp.Or(cmp.Compare(a.Lsn, b.Lsn), cmp.Compare(logs.Precedence(b), logs.Precedence(a)))
	})
	for _, d := range resp.Damaged {
		s.damaged = append(s.damaged, logs.LSN(d))
	}
	slices.Sort(s.damaged)
	if resp.Next == 0 {
		s.over = true
	} else {
		s.next = logs.LSN(resp.Next)
	}
	c.judge()
}

// Report is what was found. It is whole once Want wants nothing.
func (c *Checker) Report() *Report {
	slices.Sort(c.report.Silent)
	return &c.report
}

// At is how far it has come: everything below was judged.
func (c *Checker) At() logs.LSN { return c.at }

// judge goes as far as every shard has come (C1).
func (c *Checker) judge() {
	to := c.cfg.To
	for _, s := range c.shards {
		to = min(to, s.passed())
	}
	for c.at <= to {
		lsn, ok := c.lowest()
		if !ok || lsn > to {
			// Whether the epoch goes on above to is not known before somebody says more.
			if to == c.cfg.To {
				c.missing(to)
			}
			break
		}
		if lsn > c.at {
			c.missing(lsn - 1)
		}
		c.one(lsn)
	}
	for _, s := range c.shards {
		s.dropBelow(c.at)
	}
}

// lowest is the lowest LSN of which there is a copy, damaged or not.
func (c *Checker) lowest() (at logs.LSN, ok bool) {
	take := func(l logs.LSN) {
		if !ok || l < at {
			at, ok = l, true
		}
	}
	for _, s := range c.shards {
		s.dropBelow(c.at)
		if len(s.copies) > 0 {
			take(logs.LSN(s.copies[0].Lsn))
		}
		if len(s.damaged) > 0 {
			take(s.damaged[0])
		}
	}
	return at, ok
}

func (s *shard) dropBelow(lsn logs.LSN) {
	n := 0
	for n < len(s.copies) && logs.LSN(s.copies[n].Lsn) < lsn {
		n++
	}
	s.copies = s.copies[n:]
	for len(s.damaged) > 0 && s.damaged[0] < lsn {
		s.damaged = s.damaged[1:]
	}
}

// missing judges [at, to], of which nobody has anything: it is a loss where the epoch
// goes on.
func (c *Checker) missing(to logs.LSN) {
	from := max(c.at, c.report.Trim+1)
	for from <= to {
		end := min(to, logs.MakeLSN(from.Epoch()+1, 0)-1)
		c.enter(from.Epoch())
		// Whether the epoch goes on shows in a copy of it above, or in its being the one
		// that was released last.
		next, ok := c.lowest()
		goesOn := (ok && next.Epoch() == from.Epoch()) || from.Epoch() == c.cfg.To.Epoch()
		if first := max(from, logs.MakeLSN(from.Epoch(), logs.ESNMin)); goesOn && !c.ended && first <= end {
			c.lost(first, end)
		}
		if end == logs.LSNMax || end >= to {
			break
		}
		if e := c.nextEpoch(from.Epoch()); e > end.Epoch()+1 && logs.MakeLSN(e, 0) <= to {
			from = logs.MakeLSN(e, 0)
			continue
		}
		from = end + 1
	}
	c.at = to + 1
	c.enter(c.at.Epoch())
}

// nextEpoch is the next one that may hold copies: epochs that nobody has anything of
// are skipped.
func (c *Checker) nextEpoch(e logs.Epoch) logs.Epoch {
	if next, ok := c.lowest(); ok && next.Epoch() > e {
		return next.Epoch()
	}
	return max(e+1, c.cfg.To.Epoch())
}

// enter forgets what was known of another epoch.
func (c *Checker) enter(e logs.Epoch) {
	if c.seen.Epoch() != e {
		c.seen, c.ended = logs.MakeLSN(e, 0), false
	}
}

// epochOf is what an epoch is stored by.
func (c *Checker) epochOf(e logs.Epoch) *epoch {
	for i := len(c.epochs) - 1; i >= 0; i-- {
		if c.epochs[i].since <= e {
			return &c.epochs[i]
		}
	}
	return &c.epochs[0]
}

// lost reports LSNs of which nobody who was asked has anything, unless who was not
// asked may have all copies (C2).
func (c *Checker) lost(from, to logs.LSN) {
	e := c.epochOf(from.Epoch())
	set := placement.NewShardSet(e.meta.Replication, e.nodeset)
	for _, s := range c.shards {
		if !s.silent {
			set.Set(s.id, placement.ShardHeard)
		}
	}
	n := uint64(to-from) + 1
	c.report.Records += n
	if set.FMajority().Reached() {
		c.found(from, to, DataLoss, "")
	}
}

// found notes a problem.
func (c *Checker) found(from, to logs.LSN, f Finding, copies string) {
	if f == 0 {
		return
	}
	for i := range findings {
		if f&(1<<i) != 0 {
			c.report.Found[i] += uint64(to-from) + 1
		}
	}
	if len(c.report.Problems) < ProblemsMax {
		c.report.Problems = append(c.report.Problems, Problem{from, to, f, copies})
	}
}
