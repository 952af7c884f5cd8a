package tablet

import (
	"errors"
	"fmt"
	"sync"

	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/tables/docdb"
	"github.com/braiddb/braid/internal/wire"
)

// viewTries bounds how often a read without a time of its own picks a new one
// because the cutoff overtook it. In a table without history every write raises
// the cutoff, so a write that is applied between the choice and the view does.
const viewTries = 8

var execs = sync.Pool{New: func() any { return docdb.NewExec(nil, nil, 0, 0) }}

// Read carries out operations that change nothing, all at one time: the
// request's, or the tablet's safe time. It may touch the disk and never waits for
// a peer.
//
// The lease is not looked at again after the read. The safe time was fixed under
// it: no later write, of this leader or the next, will be at or below that time,
// and all earlier ones are applied here. So what is read at that time is the
// same whenever it is read, and was current when the time was fixed, which is
// between the request and its answer.
func (t *Tablet) Read(req *wire.ReadRequest) *wire.ReadResponse {
	view, e := t.openView(req)
	if e != nil {
		t.metrics.Refused.Add(1)
		return &wire.ReadResponse{Error: e}
	}
	defer view.Close()
	x := execs.Get().(*docdb.Exec)
	defer func() {
		x.Reset(nil, nil, 0, 0)
		execs.Put(x)
	}()
	x.Reset(view, nil, t.table, view.At().Millis())
	x.SetSchema(t.schema.Load().Schema)
	resp := &wire.ReadResponse{ReadTime: uint64(view.At()), HybridTime: uint64(view.At())}
	resp.Results = make([]*wire.Result, 0, len(req.Ops))
	for _, op := range req.Ops {
		r, err := x.Read(op)
		if err != nil {
			return &wire.ReadResponse{Error: readError(err)}
		}
		resp.Results = append(resp.Results, r)
	}
	t.metrics.Reads.Add(1)
	return resp
}

// openView checks a read and gives the tablet at its time.
func (t *Tablet) openView(req *wire.ReadRequest) (*docdb.View, *wire.Error) {
	if t.closed.Load() || req.Tablet != uint64(t.id) {
		return nil, &wire.Error{Code: wire.Code_CODE_TABLET_NOT_FOUND, Message: "the tablet is not served here"}
	}
	g := t.group.Load()
	if g == nil {
		return nil, &wire.Error{Code: wire.Code_CODE_NOT_READY, Message: "the tablet is being opened"}
	}
	if e := t.merge(req.HybridTime); e != nil {
		return nil, e
	}
	if e := t.checkSchema(req.Table, req.SchemaVersion); e != nil {
		return nil, e
	}
	if e := t.checkOps(req.Ops, req.SchemaVersion); e != nil {
		return nil, e
	}
	var err error
	for range viewTries {
		at, lease := g.ReadTime()
		if lease != nil {
			return nil, groupError(lease)
		}
		if asked := hlc.Timestamp(req.ReadTime); asked > at {
			// Waiting would park the goroutine of a connection; the caller's
			// clock is ahead of ours by little, and it asks again.
			return nil, &wire.Error{Code: wire.Code_CODE_NOT_READY, Message: fmt.Sprintf("read time %s is above the safe time %s", asked, at)}
		} else if asked != 0 {
			at = asked
		}
		var view *docdb.View
		if view, err = t.deps.Engine.View(t.span, at, &t.cutoff); err == nil {
			return view, nil
		}
		if req.ReadTime != 0 || !errors.Is(err, docdb.ErrSnapshotTooOld) {
			break
		}
		pointOvertaken.Reach()
	}
	return nil, readError(err)
}
