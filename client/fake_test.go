package client

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// fakeCluster is three nodes in memory: just enough of tablets, their leaders
// and their memory of requests to see whether the client treats them well.
type fakeCluster struct {
	mu       sync.Mutex
	version  uint64
	time     uint64
	tables   []*catalog.Table
	tablets  []*wire.TabletLocation
	docs     map[string]string                         // table/key -> value
	rows     map[uint32]map[string]*fakeRow            // by table and key
	memory   map[string]map[uint64]*wire.WriteResponse // by client id
	floor    map[uint64]uint64                         // greatest first_running, by tablet
	writes   []*wire.WriteRequest                      // as they arrived
	nodes    []NodeID                                  // that they arrived at
	reads    []*wire.ReadRequest
	lookups  int
	sequence uint64

	// intercept, if set, may answer a request in the cluster's place.
	intercept func(node NodeID, write *wire.WriteRequest, read *wire.ReadRequest) verdict
	// locate, if set, may fail a lookup.
	locate func() error
}

type fakeRow struct {
	hash    uint64
	key     []byte
	cells   map[uint32]*wire.Cell
	written uint64
}

// verdict is what happens to a request.
type verdict struct {
	refusal *wire.Error
	err     error // instead of an answer
	execute bool  // before err
	silent  bool  // no answer at all until the deadline
}

func code(c Code) verdict { return verdict{refusal: &wire.Error{Code: c}} }

// newFakeCluster has the Redis table, in so many tablets, all led by node 1.
func newFakeCluster(tablets int) *fakeCluster {
	f := &fakeCluster{
		version: 1, time: 1000,
		docs: map[string]string{}, rows: map[uint32]map[string]*fakeRow{},
		memory: map[string]map[uint64]*wire.WriteResponse{}, floor: map[uint64]uint64{},
	}
	f.addTable(&catalog.Table{
		Id: uint32(catalog.RedisTableID), Keyspace: catalog.SystemKeyspace, Name: catalog.RedisTable,
		Hash: catalog.Hash_HASH_CRC16, Schema: &catalog.Schema{Version: 1},
	}, tablets)
	return f
}

func (f *fakeCluster) addTable(t *catalog.Table, tablets int) {
	f.tables = append(f.tables, t)
	f.rows[t.Id] = map[string]*fakeRow{}
	step := ^uint64(0)/uint64(tablets) + 1
	for i := range tablets {
		end := step * uint64(i+1)
		if i == tablets-1 {
			end = 0
		}
		f.tablets = append(f.tablets, &wire.TabletLocation{LeaderNode: 1, Tablet: &catalog.Tablet{
			Id: f.nextTablet(), Table: t.Id, HashStart: step * uint64(i), HashEnd: end,
			Replicas: []*catalog.Replica{{Id: 1, Node: 1}, {Id: 2, Node: 2}, {Id: 3, Node: 3}},
		}})
	}
}

func (f *fakeCluster) nextTablet() uint64 {
	f.sequence++
	return 100 + f.sequence
}

// lead moves the leaders of all tablets.
func (f *fakeCluster) lead(node NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.tablets {
		l.LeaderNode = uint64(node)
	}
}

// split makes two tablets of the one that owns hash.
func (f *fakeCluster) split(hash uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	for i, l := range f.tablets {
		t := l.Tablet
		if hash <= t.HashStart || (hash >= t.HashEnd && t.HashEnd != 0) {
			continue
		}
		left := &catalog.Tablet{Id: f.nextTablet(), Table: t.Table, HashStart: t.HashStart, HashEnd: hash, Replicas: t.Replicas}
		right := &catalog.Tablet{Id: f.nextTablet(), Table: t.Table, HashStart: hash, HashEnd: t.HashEnd, Replicas: t.Replicas}
		f.tablets[i] = &wire.TabletLocation{Tablet: left, LeaderNode: l.LeaderNode}
		f.tablets = append(f.tablets, &wire.TabletLocation{Tablet: right, LeaderNode: l.LeaderNode})
		return
	}
}

func (f *fakeCluster) Self() NodeID { return 0 }

func (f *fakeCluster) decide(node NodeID, w *wire.WriteRequest, r *wire.ReadRequest) verdict {
	if f.intercept != nil {
		return f.intercept(node, w, r)
	}
	return verdict{}
}

// admit is what a node checks before it carries out a request.
func (f *fakeCluster) admit(node NodeID, tablet uint64, schema uint32) *wire.Error {
	for _, l := range f.tablets {
		if l.Tablet.Id != tablet {
			continue
		}
		if l.LeaderNode != uint64(node) {
			return &wire.Error{Code: wire.Code_CODE_NOT_LEADER, LeaderNode: l.LeaderNode}
		}
		if t := f.table(l.Tablet.Table); t.Schema.Version != schema {
			return &wire.Error{Code: wire.Code_CODE_SCHEMA_MISMATCH}
		}
		return nil
	}
	return &wire.Error{Code: wire.Code_CODE_TABLET_NOT_FOUND}
}

func (f *fakeCluster) table(id uint32) *catalog.Table {
	for _, t := range f.tables {
		if t.Id == id {
			return t
		}
	}
	return nil
}

func (f *fakeCluster) StartWrite(node NodeID, req *wire.WriteRequest, deadline time.Time, done func(*wire.WriteResponse, error)) {
	f.mu.Lock()
	f.writes = append(f.writes, req)
	f.nodes = append(f.nodes, node)
	v := f.decide(node, req, nil)
	var resp *wire.WriteResponse
	switch {
	case v.refusal != nil:
		resp = &wire.WriteResponse{Error: v.refusal}
	case v.err == nil && !v.silent || v.execute:
		resp = f.write(node, req)
	}
	f.mu.Unlock()
	switch {
	case v.silent:
		time.AfterFunc(time.Until(deadline), func() { done(nil, rpc.ErrDeadline) })
	case v.err != nil:
		done(nil, v.err)
	default:
		done(resp, nil)
	}
}

func (f *fakeCluster) write(node NodeID, req *wire.WriteRequest) *wire.WriteResponse {
	if e := f.admit(node, req.Tablet, req.SchemaVersion); e != nil {
		return &wire.WriteResponse{Error: e}
	}
	remembered := f.memory[string(req.ClientId)]
	if remembered == nil {
		remembered = map[uint64]*wire.WriteResponse{}
		f.memory[string(req.ClientId)] = remembered
	}
	if old := remembered[req.RequestId]; old != nil {
		return old
	}
	if req.RequestId < f.floor[req.Tablet] {
		return &wire.WriteResponse{Error: &wire.Error{Code: wire.Code_CODE_REQUEST_EXPIRED}}
	}
	f.floor[req.Tablet] = max(f.floor[req.Tablet], req.FirstRunning)
	f.time++
	resp := &wire.WriteResponse{HybridTime: f.time, Copies: 2}
	before := maps.Clone(f.rows[req.Table])
	for _, op := range req.Ops {
		if op.Code == uint32(wire.OpCheck) && op.Ints[0] != 0 {
			return &wire.WriteResponse{Error: &wire.Error{Code: wire.Code_CODE_CONDITION_FAILED}}
		}
		if op.Code >= uint32(wire.OpRowPut) && op.Code <= uint32(wire.OpRowDelete) && !f.rowMeets(req.Table, op) {
			f.rows[req.Table] = before
			return &wire.WriteResponse{Error: &wire.Error{Code: wire.Code_CODE_CONDITION_FAILED}}
		}
		resp.Results = append(resp.Results, f.execute(req.Table, op, f.time))
	}
	remembered[req.RequestId] = resp
	return resp
}

func (f *fakeCluster) StartRead(node NodeID, req *wire.ReadRequest, deadline time.Time, done func(*wire.ReadResponse, error)) {
	f.mu.Lock()
	f.reads = append(f.reads, req)
	v := f.decide(node, nil, req)
	resp := &wire.ReadResponse{Error: v.refusal}
	if v.refusal == nil {
		resp.Error = f.admit(node, req.Tablet, req.SchemaVersion)
	}
	if resp.Error == nil {
		if resp.ReadTime = req.ReadTime; resp.ReadTime == 0 {
			resp.ReadTime = f.time
		}
		for _, op := range req.Ops {
			if op.Code == uint32(wire.OpRowScan) {
				resp.Results = append(resp.Results, f.scan(req, op, resp.ReadTime))
				continue
			}
			resp.Results = append(resp.Results, f.execute(req.Table, op, resp.ReadTime))
		}
	}
	f.mu.Unlock()
	switch {
	case v.silent:
		time.AfterFunc(time.Until(deadline), func() { done(nil, rpc.ErrDeadline) })
	case v.err != nil:
		done(nil, v.err)
	default:
		done(resp, nil)
	}
}

// execute carries out one operation.
func (f *fakeCluster) execute(table uint32, op *wire.Op, now uint64) *wire.Result {
	name := fmt.Sprintf("%d/%s", table, op.Key)
	switch wire.OpCode(op.Code) {
	case wire.OpSet:
		f.docs[name] = string(op.Args[0])
	case wire.OpGet:
		if v, ok := f.docs[name]; ok {
			return &wire.Result{Kind: KindBytes, Bytes: []byte(v)}
		}
		return &wire.Result{Kind: KindNil}
	case wire.OpIncrBy:
		n, _ := strconv.ParseInt(f.docs[name], 10, 64)
		n += op.Ints[0]
		f.docs[name] = strconv.FormatInt(n, 10)
		return &wire.Result{Kind: KindInt, Int: n}
	case wire.OpAppend:
		f.docs[name] += string(op.Args[0])
		return &wire.Result{Kind: KindInt, Int: int64(len(f.docs[name]))}
	case wire.OpRowPut, wire.OpRowUpdate, wire.OpRowDelete:
		return f.writeRow(table, op, now)
	case wire.OpRowGet:
		row := f.rows[table][string(op.Key)]
		if row == nil {
			return &wire.Result{Kind: KindNil}
		}
		return row.result()
	}
	return &wire.Result{Kind: KindOK}
}

func (f *fakeCluster) rowMeets(table uint32, op *wire.Op) bool {
	old := f.rows[table][string(op.Key)]
	return (op.Flags&FlagNX == 0 || old == nil) && (op.Flags&FlagXX == 0 || old != nil) && old.meets(op.Conditions)
}

func (f *fakeCluster) writeRow(table uint32, op *wire.Op, now uint64) *wire.Result {
	rows := f.rows[table]
	old := rows[string(op.Key)]
	if op.Code == uint32(wire.OpRowDelete) {
		delete(rows, string(op.Key))
		return &wire.Result{Kind: KindBool, Int: 1}
	}
	row := &fakeRow{hash: op.Hash, key: op.Key, cells: map[uint32]*wire.Cell{}, written: now}
	if old != nil && op.Code == uint32(wire.OpRowUpdate) {
		for id, c := range old.cells {
			row.cells[id] = c
		}
	}
	for _, c := range op.Cells {
		row.cells[c.Column] = c
	}
	rows[string(op.Key)] = row
	return &wire.Result{Kind: KindBool, Int: 1}
}

func (r *fakeRow) meets(conditions []*wire.Cell) bool {
	for _, want := range conditions {
		var have *wire.Cell
		if r != nil {
			have = r.cells[want.Column]
		}
		if want.IsNull || have == nil || have.IsNull {
			if null := have == nil || have.IsNull; want.Compare != uint32(Equal) || want.IsNull != null {
				return false
			}
			continue
		}
		n, err := wire.CompareCells(have.Value, want.Value)
		holds := [...]bool{n == 0, n != 0, n < 0, n <= 0, n > 0, n >= 0}
		if err != nil || !holds[want.Compare] {
			return false
		}
	}
	return true
}

func (r *fakeRow) result() *wire.Result {
	res := &wire.Result{Kind: KindRow, Bytes: r.key}
	for _, c := range r.cells {
		res.Cells = append(res.Cells, c)
	}
	return res
}

// scan answers one page of a tablet's rows, as of a time.
func (f *fakeCluster) scan(req *wire.ReadRequest, op *wire.Op, at uint64) *wire.Result {
	var end uint64
	for _, l := range f.tablets {
		if l.Tablet.Id == req.Tablet {
			end = l.Tablet.HashEnd
		}
	}
	var rows []*fakeRow
	for _, r := range f.rows[req.Table] {
		before := r.hash < op.Hash || (r.hash == op.Hash && bytes.Compare(r.key, op.Key) < 0)
		past := (end != 0 && r.hash >= end) || (len(op.Args[0]) > 0 && (r.hash > op.Hash || bytes.Compare(r.key, op.Args[0]) >= 0))
		if !before && !past && r.written <= at && r.meets(op.Conditions) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b *fakeRow) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), bytes.Compare(a.key, b.key))
	})
	res := &wire.Result{Kind: KindArray}
	for i, r := range rows {
		if int64(i) == op.Ints[0] {
			res.Items = append(res.Items, &wire.Result{Kind: KindBytes, Bytes: r.key})
			break
		}
		res.Items = append(res.Items, r.result())
	}
	return res
}

func (f *fakeCluster) Locations(ctx context.Context, req *wire.LocationsRequest) (*wire.LocationsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lookups++
	if f.locate != nil {
		if err := f.locate(); err != nil {
			return nil, err
		}
	}
	t := f.table(req.TableId)
	if t == nil {
		return &wire.LocationsResponse{Error: &wire.Error{Code: wire.Code_CODE_NOT_FOUND}}, nil
	}
	resp := &wire.LocationsResponse{Table: t, CatalogVersion: f.version, Nodes: f.nodeList()}
	for _, l := range f.tablets {
		if l.Tablet.Table == t.Id {
			resp.Tablets = append(resp.Tablets, &wire.TabletLocation{Tablet: l.Tablet, LeaderNode: l.LeaderNode})
		}
	}
	return resp, nil
}

func (f *fakeCluster) nodeList() []*catalog.Node {
	var nodes []*catalog.Node
	for i := uint64(1); i <= 3; i++ {
		nodes = append(nodes, &catalog.Node{Id: i, RedisAddr: fmt.Sprintf("redis-%d", i)})
	}
	return nodes
}

func (f *fakeCluster) Catalog(ctx context.Context, req *wire.CatalogRequest) (*wire.CatalogResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &wire.CatalogResponse{}
	switch req.Action {
	case wire.CatalogRequest_ACTION_CREATE_TABLE:
		for _, t := range f.tables {
			if t.Keyspace == req.Table.Keyspace && t.Name == req.Table.Name {
				return &wire.CatalogResponse{Error: &wire.Error{Code: wire.Code_CODE_ALREADY_EXISTS}}, nil
			}
		}
		t := &catalog.Table{
			Id: uint32(len(f.tables) + 1), Keyspace: req.Table.Keyspace, Name: req.Table.Name, Hash: req.Table.Hash,
			Schema: &catalog.Schema{Version: 1, Columns: req.Table.Schema.Columns},
		}
		for i, c := range t.Schema.Columns {
			c.Id = uint32(i + 1)
		}
		f.addTable(t, int(max(req.Tablets, 1)))
		resp.Table = t
	case wire.CatalogRequest_ACTION_ALTER_TABLE:
		resp.Table = f.alter(req)
	}
	f.version++
	resp.Catalog = &catalog.Catalog{Version: f.version, Tables: f.tables, Nodes: f.nodeList()}
	return resp, nil
}

func (f *fakeCluster) alter(req *wire.CatalogRequest) *catalog.Table {
	for i, t := range f.tables {
		if t.Name != req.Table.Name {
			continue
		}
		s := &catalog.Schema{Version: t.Schema.Version + 1}
		for _, c := range t.Schema.Columns {
			if c.Name != req.Alterations[0].Drop {
				s.Columns = append(s.Columns, c)
			}
		}
		if add := req.Alterations[0].Add; add != nil {
			add.Id = 50
			s.Columns = append(s.Columns, add)
		}
		f.tables[i] = &catalog.Table{Id: t.Id, Keyspace: t.Keyspace, Name: t.Name, Hash: t.Hash, Schema: s}
		return f.tables[i]
	}
	return nil
}
