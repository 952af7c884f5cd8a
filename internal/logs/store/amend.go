package store

import (
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// checked says that the store comes back from putOff.
func (in *incoming) checked(*wire.Store) bool { return in.verified }

// putOff has a worker look in the partitions for the copy that an amendment is
// of. An amendment of nothing would be a copy that is acknowledged and not here.
func (s *Store) putOff(in *incoming, st *wire.Store) {
	pointPutOff.Reach()
	own, err := cloneStore(st)
	again := &incoming{s: s, from: in.from, node: in.node, reply: in.reply, out: &batch{s: s}, verified: true}
	if err != nil {
		in.refuse(st, wire.LogStatus_LOG_STATUS_INVALID)
		return
	}
	ok := s.run(func() {
		defer again.answerRefused()
		found, err := s.hasWhole(logs.LogID(own.Record.Log), logs.LSN(own.Record.Lsn))
		if err != nil || !found {
			pointAmendNothing.Reach()
			again.refuse(own, wire.LogStatus_LOG_STATUS_FAILED)
			return
		}
		again.stores = []*wire.Store{own}
		again.out.encode(again.stores, 9+copyBytesMax(own.Record))
		s.accept(again)
	})
	if !ok {
		in.refuse(st, wire.LogStatus_LOG_STATUS_SHUTDOWN)
	}
}

func cloneStore(st *wire.Store) (*wire.Store, error) {
	b, err := st.MarshalVT()
	if err != nil {
		return nil, err
	}
	own := new(wire.Store)
	return own, own.UnmarshalVT(b)
}

// hasWhole says whether a copy with its content is in the partitions.
func (s *Store) hasWhole(log logs.LogID, lsn logs.LSN) (bool, error) {
	v, err := s.view(log, lsn, lsn)
	if err != nil {
		return false, err
	}
	defer v.close()
	if v.next() {
		for i := range v.versions {
			if b := &v.versions[i]; b.damage == nil && b.kind == kindWhole && !pseudo(b.head.flags) {
				return true, nil
			}
		}
	}
	return false, v.err
}
