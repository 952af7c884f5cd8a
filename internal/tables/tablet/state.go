package tablet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/tables/docdb"
)

// Keys of a tablet in its group's state; docs/formats/tablet.md says what is
// under them.
var (
	keyApplied = []byte{'a'}
	keyConf    = []byte{'c'}
	keySchema  = []byte{'s'}
	keyFloors  = []byte{'f'} // then a client id
	keyRecords = []byte{'r'} // then a Raft index
)

const stateVersion = 1

func floorKey(id clientID) []byte { return append(keyFloors[:1:1], id[:]...) }

func requestsKey(index uint64) []byte { return binary.BigEndian.AppendUint64(keyRecords[:1:1], index) }

// appliedRecord is what every batch of entries writes: how far the replica is.
type appliedRecord struct {
	index     uint64
	term      uint64
	time      hlc.Timestamp
	cutoff    hlc.Timestamp
	lastWrite hlc.Timestamp
}

func (a *appliedRecord) append(b []byte) []byte {
	b = append(b, stateVersion)
	for _, v := range [...]uint64{a.index, a.term, uint64(a.time), uint64(a.cutoff), uint64(a.lastWrite)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func decodeApplied(data []byte) (a appliedRecord, err error) {
	d := decoder{data: data}
	if v := d.byte(); d.err == nil && v != stateVersion {
		return a, fmt.Errorf("%w: applied state of version %d, this node reads %d", ErrFormat, v, stateVersion)
	}
	a = appliedRecord{index: d.uint64(), term: d.uint64(), time: hlc.Timestamp(d.uint64()),
		cutoff: hlc.Timestamp(d.uint64()), lastWrite: hlc.Timestamp(d.uint64())}
	d.end()
	return a, d.err
}

// load reads back everything the engine holds of the group.
func (t *Tablet) load() error {
	err := errors.Join(t.loadApplied(), t.loadSchema(), t.loadRequests())
	if err != nil {
		return fmt.Errorf("open tablet %d: %w", t.id, err)
	}
	return nil
}

func (t *Tablet) loadApplied() error {
	a, conf, err := readApplied(func(key []byte) ([]byte, bool, error) { return t.deps.Engine.GroupState(t.id, key) })
	if err != nil {
		return err
	}
	t.apply.state = a.state(conf)
	t.cutoff.Raise(a.cutoff)
	t.collectable.Store(uint64(t.cutoff.Load()))
	t.lastWrite.Store(uint64(a.lastWrite))
	t.appliedTerm.Store(a.term)
	return nil
}

// readApplied reads how far a replica is; zero if nothing of it exists.
func readApplied(get func(key []byte) ([]byte, bool, error)) (a appliedRecord, conf []byte, err error) {
	data, ok, err := get(keyApplied)
	if err != nil || !ok {
		return a, nil, err
	}
	if a, err = decodeApplied(data); err != nil {
		return a, nil, err
	}
	conf, _, err = get(keyConf)
	return a, conf, err
}

func (a *appliedRecord) state(conf []byte) multiraft.AppliedState {
	return multiraft.AppliedState{Index: a.index, Term: a.term, HybridTime: a.time, Conf: conf}
}

func (t *Tablet) loadSchema() error {
	data, ok, err := t.deps.Engine.GroupState(t.id, keySchema)
	if err != nil || !ok {
		return err
	}
	table := new(catalog.Table)
	if err := table.UnmarshalVT(data); err != nil || table.Schema == nil {
		return fmt.Errorf("%w: schema", ErrFormat)
	}
	if table.Schema.Version >= t.schema.Load().Schema.Version {
		t.schema.Store(table)
	}
	return nil
}

// loadRequests rebuilds what is remembered: floors first, records in the order of
// their entries (Q4).
func (t *Tablet) loadRequests() error {
	r := newRequests(t.deps.Options.requestLimits())
	var failed error
	scan := func(prefix []byte, each func(key, value []byte) error) error {
		err := t.deps.Engine.ScanGroupState(t.id, prefix, []byte{prefix[0] + 1}, func(key, value []byte) bool {
			failed = each(key[len(prefix):], value)
			return failed == nil
		})
		return errors.Join(err, failed)
	}
	err := scan(keyFloors, func(id, value []byte) error {
		f, err := decodeFloor(id, value)
		r.loadFloor(f)
		return err
	})
	if err != nil {
		return err
	}
	err = scan(keyRecords, func(key, value []byte) error {
		if len(key) != 8 {
			return fmt.Errorf("%w: key of remembered requests", ErrFormat)
		}
		return r.loadEntry(binary.BigEndian.Uint64(key), value)
	})
	if err != nil {
		return err
	}
	r.loaded(t.apply.state.HybridTime)
	t.requests.Store(r)
	return nil
}

// putApplied writes how far the replica is, with every batch.
func (t *Tablet) putApplied(b *docdb.ApplyBatch) error {
	s := &t.apply.state
	a := appliedRecord{index: s.Index, term: s.Term, time: s.HybridTime, cutoff: t.cutoff.Load(), lastWrite: hlc.Timestamp(t.lastWrite.Load())}
	t.apply.buf = a.append(t.apply.buf[:0])
	return b.PutGroupState(t.id, keyApplied, t.apply.buf)
}

// putGarbage writes the floors that changed and deletes the records that they
// made void, once there are enough of them.
func (t *Tablet) putGarbage(b *docdb.ApplyBatch) error {
	g, ok := t.requests.Load().collect()
	if !ok {
		return nil
	}
	pointGarbage.Reach()
	var err error
	for _, f := range g.floors {
		t.apply.buf = f.append(t.apply.buf[:0])
		err = errors.Join(err, b.PutGroupState(t.id, floorKey(f.id), t.apply.buf))
	}
	for _, id := range g.clients {
		err = errors.Join(err, b.DeleteGroupState(t.id, floorKey(id)))
	}
	if len(g.entries) >= rangeFrom {
		if n := sort.Search(len(g.entries), func(i int) bool { return g.entries[i] >= g.firstLive }); n >= rangeFrom {
			g.entries = g.entries[n:]
			err = errors.Join(err, b.DeleteGroupStateRange(t.id, keyRecords, requestsKey(g.firstLive)))
		}
	}
	for _, index := range g.entries {
		err = errors.Join(err, b.DeleteGroupState(t.id, requestsKey(index)))
	}
	return err
}

// rangeFrom is the number of void records below the first live one from which
// one range tombstone is cheaper than a tombstone for each.
const rangeFrom = 16

// Flushed tells the group how far the LSM has durably flushed its effects. It is
// read back from the LSM, never from memory: the journal is cut there. Call it
// after every flush.
func (t *Tablet) Flushed() error {
	data, ok, err := t.deps.Engine.DurableGroupState(t.id, keyApplied)
	if err != nil || !ok {
		return err
	}
	a, err := decodeApplied(data)
	if err != nil {
		return err
	}
	if g := t.group.Load(); g != nil {
		g.FlushedTo(a.index)
	}
	return nil
}
