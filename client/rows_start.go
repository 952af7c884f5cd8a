package client

import (
	"errors"
	"time"

	"github.com/braiddb/braid/internal/catalog"
)

// StartRow carries out one write of a row without waiting: done is called once,
// perhaps before StartRow returns, and must not block. A zero deadline means
// Options.Park from now. It fails with ErrConditionFailed if an option kept it
// from being written.
func (t *Table) StartRow(m Mutation, deadline time.Time, done func(error)) {
	t.startRow(deadline, m.op, func(d *catalog.Table, r *Result, err error) {
		if err == nil {
			err = resultError(r)
		}
		done(err)
	}, func() { done(t.WriteRows(t.client.ctx, m)) })
}

// StartGet is Get without waiting, as StartRow is to WriteRows.
func (t *Table) StartGet(key Row, deadline time.Time, done func(Row, error), columns ...string) {
	encode := func(d *catalog.Table) (*Op, error) { return getOp(d, key, columns) }
	t.startRow(deadline, encode, func(d *catalog.Table, r *Result, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		done(gotRow(d, key, r, columns))
	}, func() { done(t.Get(t.client.ctx, key, columns...)) })
}

// startRow carries out one operation under the schema as known. Where none is
// known, or the leader has another one, the waiting form of the request learns
// what there is to learn, on a goroutine of its own: that is rare.
func (t *Table) startRow(deadline time.Time, encode func(*catalog.Table) (*Op, error), done func(*catalog.Table, *Result, error), waiting func()) {
	beside := func(err error) {
		if !t.client.spawn(waiting) {
			done(nil, nil, err)
		}
	}
	r := t.routes.Load()
	if r == nil {
		beside(ErrClosed)
		return
	}
	op, err := encode(r.desc)
	if err != nil {
		done(nil, nil, err)
		return
	}
	c := t.newCall(deadline, request{schema: r.desc.Schema.GetVersion()})
	c.one[0] = op
	c.ops = c.one[:]
	c.doneOne = func(res *Result, err error) {
		if errors.Is(err, ErrSchemaMismatch) {
			beside(err)
			return
		}
		done(r.desc, res, err)
	}
	c.start()
}
