package recovery

import (
	"testing"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestAPurgeInDoubtWaitsForWhoMayKnow: a shard has lost the CLEAN of an epoch with the
// end of its journal, another was not of the mutation set, the third knows and is slow.
// The first two do not prove that nothing was decided, unless the third knows no more.
func TestAPurgeInDoubtWaitsForWhoMayKnow(t *testing.T) {
	decided := []*wire.EpochRecovery{{Epoch: 1, SealEpoch: 1, LastKnownGood: 42, Last: 44}}
	for name, third := range map[string]*wire.EpochRecoveryResponse{
		"the third knows":    {Epochs: decided},
		"it is in doubt too": {Status: statusPartial},
	} {
		t.Run(name, func(t *testing.T) {
			view := &fakeView{readOnly: map[logs.ShardID]bool{}, empty: map[logs.ShardID]bool{}}
			var nodeset []uint64
			for i := range 3 {
				view.shards = append(view.shards, newFakeShard(xShard(i)))
				nodeset = append(nodeset, uint64(xShard(i)))
			}
			meta := &wire.EpochMetadata{Epoch: 2, EffectiveSince: 1, Nodeset: nodeset, Replication: &catalog.Replication{Node: 2}}
			p := newPurge(&talkConfig, view, 3, xShard(2), talkLog, 0, 1)
			fx := p.step(1, event{kind: evStart})
			for p.state == purgeHistory && len(fx.calls) > 0 {
				var next effects
				for _, c := range fx.calls {
					fx := p.step(1, event{kind: evAnswer, of: bare(c), metadata: &wire.ReadMetadataResponse{Metadata: []*wire.EpochMetadata{meta}}})
					next.calls = append(next.calls, fx.calls...)
				}
				fx = next
			}
			fx = p.step(1, event{kind: evAnswer, of: bare(fx.calls[0]), seal: &wire.SealResponse{Status: statusPartial,
				Epochs: []*wire.EpochTail{{Epoch: 1, LastKnownGood: 22, MaxSeen: 22}}}})
			answers := map[logs.ShardID]*wire.EpochRecoveryResponse{xShard(2): {Status: statusPartial}, xShard(0): {}, xShard(1): third}
			asked := map[logs.ShardID]call{}
			for _, c := range fx.calls {
				asked[c.shard] = c
			}
			for _, s := range []logs.ShardID{xShard(2), xShard(0), xShard(1)} {
				if p.state != purgeAsking {
					t.Fatalf("it knows what to do before %s has answered: %v", s, p.found)
				}
				fx = p.step(1, event{kind: evAnswer, of: bare(asked[s]), decisions: answers[s]})
			}
			switch {
			case len(third.Epochs) > 0 && (len(fx.calls) != 1 || fx.calls[0].kind != callDelete || fx.calls[0].from != logs.MakeLSN(1, 43)):
				t.Errorf("what was decided is known, and it does %v", fx.calls)
			case len(third.Epochs) == 0 && (p.state != purgeMarking || p.found.LastKnownGood != 22):
				t.Errorf("nobody knows more, and it is at %d with %v", p.state, p.found)
			}
		})
	}
}
