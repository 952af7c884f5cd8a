package recovery

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestAPurgeInDoubtWaitsForWhoMayKnow: a shard has lost the CLEAN of an epoch with the
// end of its journal, another was not of the mutation set, the third knows and is slow.
// The first two do not prove that nothing was decided, unless the third knows no more:
// that it has marked the epoch as one of which nobody knew is no decision that nothing is
// good.
func TestAPurgeInDoubtWaitsForWhoMayKnow(t *testing.T) {
	decided := []*wire.EpochRecovery{{Epoch: 1, SealEpoch: 1, LastKnownGood: 42, Last: 44}}
	for name, third := range map[string]*wire.EpochRecoveryResponse{
		"the third knows":    {Epochs: decided},
		"it is in doubt too": {Status: statusPartial},
		"nobody knew there":  {Status: statusPartial, Epochs: []*wire.EpochRecovery{{Epoch: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			p, fx := purgeInDoubt()
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
			case third.Status == statusOK && (len(fx.calls) != 1 || fx.calls[0].kind != callDelete || fx.calls[0].from != logs.MakeLSN(1, 43)):
				t.Errorf("what was decided is known, and it does %v", fx.calls)
			case third.Status != statusOK && (p.state != purgeMarking || p.found.LastKnownGood != 22):
				t.Errorf("nobody knows more, and it is at %d with %v", p.state, p.found)
			}
		})
	}
}

// purgeInDoubt is a purge of epoch 1 that has sealed its own shard, the third of three.
func purgeInDoubt() (*purge, effects) {
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
	return p, fx
}

// TestAPurgeAsksAgainWhoWasInDoubt: two shards are in doubt and the third is down. As
// soon as the doubts are over those two prove that nothing was decided, and the third
// is not waited for.
func TestAPurgeAsksAgainWhoWasInDoubt(t *testing.T) {
	p, fx := purgeInDoubt()
	now, asked := time.Duration(1), map[logs.ShardID]int{}
	out := map[logs.ShardID]call{}
	note := func(fx effects) {
		for _, c := range fx.calls {
			if c.kind == callDecisions {
				asked[c.shard]++
				out[c.shard] = c
			}
		}
	}
	note(fx)
	for round := range 8 {
		status := statusPartial
		if round > 5 {
			status = statusOK
		}
		for _, s := range []logs.ShardID{xShard(0), xShard(2)} { // the second says nothing
			if c, ok := out[s]; ok {
				if p.state != purgeAsking {
					t.Fatalf("round %d: at %d with %v", round, p.state, p.found)
				}
				delete(out, s)
				note(p.step(now, event{kind: evAnswer, of: bare(c), decisions: &wire.EpochRecoveryResponse{Status: status}}))
			}
		}
		now += talkConfig.Retry
		note(p.step(now, event{kind: evTimer}))
	}
	if p.state != purgeMarking || p.found.LastKnownGood != 22 {
		t.Errorf("the doubts are over, and it is at %d with %v", p.state, p.found)
	}
	if asked[xShard(1)] != 1 || asked[xShard(0)] != 7 {
		t.Errorf("asked %v", asked)
	}
}

// TestADoubtElsewhereLeavesAnEpochAlone: what is in doubt are other epochs of the
// answer, and of this one the two that answered have nothing.
func TestADoubtElsewhereLeavesAnEpochAlone(t *testing.T) {
	for _, empty := range []uint32{1, 2} {
		p, fx := purgeInDoubt()
		for _, c := range fx.calls {
			if c.shard != xShard(1) {
				p.step(1, event{kind: evAnswer, of: bare(c), decisions: &wire.EpochRecoveryResponse{Status: statusPartial, Empty: []uint32{empty}}})
			}
		}
		if proved := p.state == purgeMarking; proved != (empty == 1) {
			t.Errorf("epoch %d is not in doubt: epoch 1 is at %d", empty, p.state)
		}
	}
}
