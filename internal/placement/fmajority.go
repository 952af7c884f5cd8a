package placement

import (
	"slices"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
)

// ShardState is what is known of one shard of a nodeset in one round of
// questions.
type ShardState uint8

const (
	// ShardUnheard has not answered yet, and may.
	ShardUnheard ShardState = iota
	// ShardHeard has answered.
	ShardHeard
	// ShardEmpty is known to hold no copy that is needed: what it had is elsewhere.
	ShardEmpty
	// ShardUnavailable has lost what it held: its answer, if there is one, proves nothing.
	ShardUnavailable
)

func (s ShardState) String() string {
	return [...]string{"unheard", "heard", "empty", "unavailable"}[s]
}

// FMajority is what the answers of a nodeset amount to. With an f-majority no
// copyset lies wholly among those that were not heard, so that every record that
// was fully stored has been seen on somebody.
type FMajority uint8

const (
	// FMajorityNone: too few answers, more may come.
	FMajorityNone FMajority = iota
	// FMajorityComplete: an f-majority, and everybody who can answer has.
	FMajorityComplete
	// FMajorityIncomplete: an f-majority, and more may answer.
	FMajorityIncomplete
	// FMajorityNonAuthoritative: everybody who can answer has, and a copyset fits among the others.
	FMajorityNonAuthoritative
)

func (f FMajority) String() string {
	return [...]string{"none", "complete", "incomplete", "non-authoritative"}[f]
}

// Reached says whether no copyset fits among those not heard.
func (f FMajority) Reached() bool { return f == FMajorityComplete || f == FMajorityIncomplete }

// ShardSet keeps the state of each shard of a nodeset.
type ShardSet struct {
	replication *catalog.Replication
	shards      []logs.ShardID // as the nodeset lists them
	states      []ShardState   // same order
	grid        *grid
}

// NewShardSet begins with every shard unheard.
func NewShardSet(r *catalog.Replication, nodeset []LogShard) *ShardSet {
	s := &ShardSet{replication: r, states: make([]ShardState, len(nodeset)), grid: newGrid(nodeset)}
	for _, shard := range nodeset {
		s.shards = append(s.shards, shard.Shard)
	}
	return s
}

// Set changes what is known of a shard; of one that is not of the nodeset
// nothing is.
func (s *ShardSet) Set(shard logs.ShardID, state ShardState) {
	if i := slices.Index(s.shards, shard); i >= 0 {
		s.states[i] = state
	}
}

// Has says whether the shard is of the nodeset.
func (s *ShardSet) Has(shard logs.ShardID) bool { return slices.Contains(s.shards, shard) }

// State is what is known of a shard of the nodeset.
func (s *ShardSet) State(shard logs.ShardID) ShardState {
	if i := slices.Index(s.shards, shard); i >= 0 {
		return s.states[i]
	}
	return ShardUnheard
}

// Count is how many shards are in a state.
func (s *ShardSet) Count(state ShardState) int {
	n := 0
	for _, st := range s.states {
		if st == state {
			n++
		}
	}
	return n
}

// Clone copies the states; what never changes is shared.
func (s *ShardSet) Clone() *ShardSet {
	c := *s
	c.states = slices.Clone(s.states)
	return &c
}

// Missing is how many more shards, well chosen, those chosen by their place in the
// nodeset need to contain a copyset.
func (s *ShardSet) Missing(chosen func(i int) bool) int { return s.grid.missing(s.replication, chosen) }

// CanReplicate says whether the shards in a state contain a copyset.
func (s *ShardSet) CanReplicate(state ShardState) bool {
	return Copies(s.replication) > 0 && s.grid.enough(s.replication, func(i int) bool { return s.states[i] == state })
}

// FMajority judges the answers: there is an f-majority if at any scope fewer
// domains hold a silent shard than a copyset needs. Shards that are empty count
// neither way.
func (s *ShardSet) FMajority() FMajority {
	reached := Copies(s.replication) > 0 && !s.grid.enough(s.replication, func(i int) bool {
		return s.states[i] == ShardUnheard || s.states[i] == ShardUnavailable
	})
	waiting := s.Count(ShardUnheard) > 0
	switch {
	case reached && waiting:
		return FMajorityIncomplete
	case reached:
		return FMajorityComplete
	case waiting:
		return FMajorityNone
	}
	return FMajorityNonAuthoritative
}
