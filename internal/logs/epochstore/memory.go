package epochstore

import (
	"sync"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/wire"
)

// Memory is the store of one process: for simulations and tests. It calls done
// before it returns.
type Memory struct {
	mu      sync.Mutex
	records map[logs.LogID][]byte
}

// NewMemory is empty.
func NewMemory() *Memory { return &Memory{records: map[logs.LogID][]byte{}} }

// Read gives the record of a log, nil if there is none.
func (m *Memory) Read(log logs.LogID, done func(*wire.EpochRecord, error)) {
	m.mu.Lock()
	data := m.records[log]
	m.mu.Unlock()
	if data == nil {
		done(nil, nil)
		return
	}
	done(decode(log, data))
}

// CompareAndSet replaces the record of version expect.
func (m *Memory) CompareAndSet(log logs.LogID, expect uint64, next *wire.EpochRecord, done func(error)) {
	done(m.set(log, expect, next))
}

func (m *Memory) set(log logs.LogID, expect uint64, next *wire.EpochRecord) error {
	if err := checkRequest(log, expect, next); err != nil {
		return err
	}
	data, err := encode(next)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var was *wire.EpochRecord
	if held := m.records[log]; held != nil {
		if was, err = decode(log, held); err != nil {
			return err
		}
	}
	if was.GetVersion() != expect {
		return outcome(was, next, sequencer.ErrConflict)
	}
	if err := goesBack(was, next); err != nil {
		return err
	}
	m.records[log] = data
	return nil
}
