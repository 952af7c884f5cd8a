package recovery

import (
	"slices"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// survey asks every other shard which logs it has something of: one of which this
// shard has lost all it had can be found with them alone.
type survey struct {
	world
	own    logs.ShardID
	shards []surveyed
}

type surveyed struct {
	source
	after logs.LogID // listed up to it
}

func newSurvey(cfg *Config, view View, own logs.ShardID) *survey {
	return &survey{world: world{cfg: cfg, view: view}, own: own}
}

func (v *survey) step(now time.Duration, ev event) effects {
	v.now, v.fx = now, &effects{}
	switch ev.kind {
	case evView:
		v.view = ev.view
	case evAnswer:
		v.answer(&ev)
	}
	for _, id := range v.view.Shards() {
		if id != v.own && !slices.ContainsFunc(v.shards, func(s surveyed) bool { return s.id == id }) {
			v.shards = append(v.shards, surveyed{source: source{id: id}})
		}
	}
	for i := range v.shards {
		s := &v.shards[i]
		if v.mayAsk(&s.source) {
			s.asked = true
			v.call(call{kind: callStates, shard: s.id, states: &wire.LogStateRequest{After: uint64(s.after), Shard: uint64(s.id)}})
		}
	}
	fx := *v.fx
	v.fx = nil
	fx.done = slices.Contains(v.view.Shards(), v.own) && len(v.silent()) == 0 // else it is not known yet who there is
	return fx
}

// silent are the shards that have not told all, and still may.
func (v *survey) silent() (out []logs.ShardID) {
	for i := range v.shards {
		if s := &v.shards[i]; v.awaits(&s.source) {
			out = append(out, s.id)
		}
	}
	return out
}

func (v *survey) answer(ev *event) {
	at := slices.IndexFunc(v.shards, func(s surveyed) bool { return s.id == ev.of.shard })
	if at < 0 || ev.of.kind != callStates {
		return
	}
	s := &v.shards[at]
	s.asked = false
	switch {
	case ev.err == nil && ev.states.Status == statusOK:
		for _, st := range ev.states.States {
			s.after = max(s.after, logs.LogID(st.Log))
			if id := logs.LogID(st.Log).DataLog(); len(v.fx.logs) == 0 || v.fx.logs[len(v.fx.logs)-1] != id {
				v.fx.logs = append(v.fx.logs, id)
			}
		}
		s.answered = !ev.states.More || len(ev.states.States) == 0
	case ev.err == nil && ev.states.Status == statusNotStorage:
		s.answered = true
	default:
		s.retryAt = v.now + v.cfg.Retry
	}
}
