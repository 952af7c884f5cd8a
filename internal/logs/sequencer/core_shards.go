package sequencer

import (
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// ban says why a shard is not chosen for copies.
type ban uint8

const (
	banNone       ban = iota
	banSlow           // graylist: it was silent
	banOverloaded     // blacklist, from here on: it refused
	banNoSpace
	banUnroutable
	banDisabled
)

// String names the ban as tables show it.
func (b ban) String() string {
	return [...]string{"", "SLOW", "OVERLOADED", "NO_SPACE", "UNROUTABLE", "DISABLED"}[b]
}

// shardHealth is what the sequencers of a loop have seen of a shard. It is kept
// for all logs together: a shard that is silent for one is silent for the next.
type shardHealth struct {
	c       *core
	shard   logs.ShardID
	ban     ban
	until   time.Duration
	probing bool
	probe   uint64 // token
	low     bool   // said to be low on space: only a mark
	timer   timer
}

func (c *core) health(shard logs.ShardID) *shardHealth {
	h := c.shards[shard]
	if h == nil {
		h = &shardHealth{c: c, shard: shard}
		h.timer.kind, h.timer.h = timerProbe, h
		c.shards[shard] = h
	}
	return h
}

// refused is the blacklist: the shard said no.
func (c *core) refusedBy(shard logs.ShardID, st wire.LogStatus) {
	switch st {
	case wire.LogStatus_LOG_STATUS_DROPPED, wire.LogStatus_LOG_STATUS_OVERLOADED:
		c.health(shard).put(banOverloaded, c.cfg.OverloadedFor)
	case wire.LogStatus_LOG_STATUS_NO_SPACE:
		pointNoSpace.Reach()
		c.health(shard).put(banNoSpace, c.cfg.NoSpaceFor)
	case wire.LogStatus_LOG_STATUS_DISABLED:
		c.health(shard).put(banDisabled, c.cfg.DisabledFor)
	case wire.LogStatus_LOG_STATUS_CHECKSUM_MISMATCH:
		c.health(shard).put(banSlow, c.cfg.GraylistFor)
	default: // SHUTDOWN, NOT_STORAGE, NOT_IN_COPYSET, FAILED: it will not take copies soon
		c.health(shard).put(banUnroutable, c.cfg.UnroutableFor)
	}
	c.m.Blacklisted.Add(1)
}

// silent is the graylist.
func (c *core) silent(shard logs.ShardID) {
	pointSilent.Reach()
	h := c.health(shard)
	if h.ban == banNone || h.ban == banSlow {
		h.put(banSlow, c.cfg.GraylistFor)
		c.m.Graylisted.Add(1)
	}
}

func (h *shardHealth) put(b ban, d time.Duration) {
	h.ban, h.until, h.probing = b, h.c.now+d, false
	h.c.wheel.set(&h.timer, h.until)
}

// ring: the ban is over, and the shard is asked whether it lives before copies
// are entrusted to it again; or it did not answer that.
func (h *shardHealth) ring() {
	if h.ban == banNone {
		return
	}
	if h.probing { // no answer
		delete(h.c.calls, h.probe)
		h.put(h.ban, h.c.banFor(h.ban))
		return
	}
	h.startProbe()
}

func (h *shardHealth) startProbe() {
	h.probing = true
	h.c.m.Probes.Add(1)
	h.probe = h.c.ask(shardCall{shard: h.shard, seal: &wire.CheckSealRequest{Log: uint64(logs.LogIDMax), Shard: uint64(h.shard)}},
		func(answer any, err error) { h.probed(answer, err) })
	h.c.wheel.set(&h.timer, h.c.now+h.c.cfg.ProbeTimeout)
}

func (h *shardHealth) probed(answer any, err error) {
	if !h.probing {
		return
	}
	r, ok := answer.(*wire.CheckSealResponse)
	switch {
	case err != nil || !ok:
		h.put(h.ban, h.c.banFor(h.ban))
	case r.Status == wire.LogStatus_LOG_STATUS_OK, r.Status == wire.LogStatus_LOG_STATUS_NOT_FOUND,
		r.Status == wire.LogStatus_LOG_STATUS_PARTIAL: // it lives; what it may have lost is of the past
		h.free()
	default:
		h.probing = false
		h.c.refusedBy(h.shard, r.Status)
	}
}

// free lets the shard be chosen again; appends that wait for a copyset look.
func (h *shardHealth) free() {
	h.ban, h.probing, h.until = banNone, false, 0
	h.c.wheel.clear(&h.timer)
	h.c.wakeWaiting()
}

func (c *core) banFor(b ban) time.Duration {
	switch b {
	case banOverloaded:
		return c.cfg.OverloadedFor
	case banNoSpace:
		return c.cfg.NoSpaceFor
	case banDisabled:
		return c.cfg.DisabledFor
	case banSlow:
		return c.cfg.GraylistFor
	}
	return c.cfg.UnroutableFor
}

// usable says whether a shard may be chosen: its node lives, takes copies, and
// did not refuse. gray lets through what was only silent.
func (c *core) usable(shard logs.ShardID, gray bool) bool {
	n, ok := c.cluster.Node(shard.Node())
	if !ok || !n.Alive || !n.Storage || !n.Writable {
		return false
	}
	h := c.shards[shard]
	return h == nil || h.ban == banNone || gray && h.ban == banSlow
}

// pick chooses a copyset among the usable shards. The graylist yields, and is
// emptied of this set's shards, only when nothing can be chosen without them.
func (c *core) pick(set *replicaSet, dst []logs.ShardID) ([]logs.ShardID, bool) {
	if out, ok := c.draw(set, c.avoid, dst); ok {
		return out, true
	}
	out, ok := c.draw(set, c.avoidRefusing, dst)
	if !ok {
		c.askNeeded(set)
		return dst, false
	}
	for _, s := range set.shards {
		if h := c.shards[s.Shard]; h != nil && h.ban == banSlow {
			c.m.GraylistCleared.Add(1)
			h.ban, h.probing = banNone, false
			c.wheel.clear(&h.timer)
		}
	}
	return out, true
}

// neededFor is how long a shard that refused is left alone while appends wait for a
// copyset that there is not without it.
const neededFor = 2 * time.Second

// askNeeded shortens the bans of a set's shards that refused: a log that can be stored
// nowhere else goes on soon after they take copies again.
func (c *core) askNeeded(set *replicaSet) {
	for _, s := range set.shards {
		if h := c.shards[s.Shard]; h != nil && h.ban > banSlow && !h.probing && h.until > c.now+neededFor {
			h.put(h.ban, neededFor)
		}
	}
}

// why names what keeps a shard from being chosen, "" if nothing does.
func (c *core) why(shard logs.ShardID) string {
	n, ok := c.cluster.Node(shard.Node())
	switch {
	case !ok:
		return "not in the cluster"
	case !n.Alive:
		return "dead"
	case !n.Storage:
		return "no storage node"
	case !n.Writable:
		return "not writable"
	}
	if h := c.shards[shard]; h != nil {
		return h.ban.String()
	}
	return ""
}
