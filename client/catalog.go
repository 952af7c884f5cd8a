package client

import (
	"context"
	"fmt"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// ColumnType is the type of a column.
type ColumnType = catalog.Type

// The types of columns, and the Go types that their values have in a Row.
const (
	Bool      = catalog.Type_TYPE_BOOL      // bool
	Int64     = catalog.Type_TYPE_INT64     // int64 (int and the smaller integers are taken too)
	Float64   = catalog.Type_TYPE_DOUBLE    // float64
	String    = catalog.Type_TYPE_STRING    // string
	Bytes     = catalog.Type_TYPE_BYTES     // []byte
	Timestamp = catalog.Type_TYPE_TIMESTAMP // time.Time, kept to the microsecond, read back in UTC
)

// ColumnRole says whether a column is part of the key.
type ColumnRole = catalog.ColumnKind

const (
	// Hashed columns decide, together, in which tablet a row lies.
	Hashed = catalog.ColumnKind_COLUMN_KIND_HASH
	// Ranged columns order the rows that have the same hashed columns.
	Ranged = catalog.ColumnKind_COLUMN_KIND_RANGE
	// Regular columns are not part of the key.
	Regular = catalog.ColumnKind_COLUMN_KIND_REGULAR
)

// Column describes one column of a table.
type Column struct {
	Name       string
	Type       ColumnType
	Role       ColumnRole // zero means Regular
	Descending bool       // Ranged columns only
}

// TableSpec describes a table to be created.
type TableSpec struct {
	Keyspace, Name    string
	Columns           []Column // Hashed first, then Ranged, then Regular
	DefaultTTL        time.Duration
	HistoryRetention  time.Duration // how far back reads can go; zero means the cluster's default
	ReplicationFactor int           // zero means the keyspace's
	Tablets           int           // zero means the cluster's default
	IfNotExists       bool
}

// TableInfo describes a table that exists.
type TableInfo struct {
	ID             catalog.TableID
	Keyspace, Name string
	SchemaVersion  uint32
	Columns        []Column
	DefaultTTL     time.Duration
}

// Alteration is one change of a table: AddColumn, DropColumn or RenameColumn.
type Alteration struct{ wire *wire.Alteration }

// AddColumn adds a regular column; existing rows have none of it.
func AddColumn(c Column) Alteration {
	return Alteration{&wire.Alteration{Add: c.descriptor()}}
}

// DropColumn drops a regular column and, with it, its values.
func DropColumn(name string) Alteration { return Alteration{&wire.Alteration{Drop: name}} }

// RenameColumn gives a column another name.
func RenameColumn(from, to string) Alteration {
	return Alteration{&wire.Alteration{RenameFrom: from, RenameTo: to}}
}

func (c Column) descriptor() *catalog.Column {
	role := c.Role
	if role == catalog.ColumnKind_COLUMN_KIND_UNSPECIFIED {
		role = Regular
	}
	return &catalog.Column{Name: c.Name, Type: c.Type, Kind: role, Descending: c.Descending}
}

// CreateKeyspace creates a keyspace. A replication factor of zero means the cluster's default.
func (c *Client) CreateKeyspace(ctx context.Context, name string, replicationFactor int, ifNotExists bool) error {
	_, err := c.catalog(ctx, &wire.CatalogRequest{
		Action:      wire.CatalogRequest_ACTION_CREATE_KEYSPACE,
		Keyspace:    &catalog.Keyspace{Name: name, ReplicationFactor: uint32(replicationFactor)},
		IfNotExists: ifNotExists,
	})
	return err
}

// DropKeyspace drops an empty keyspace.
func (c *Client) DropKeyspace(ctx context.Context, name string) error {
	_, err := c.catalog(ctx, &wire.CatalogRequest{
		Action:   wire.CatalogRequest_ACTION_DROP_KEYSPACE,
		Keyspace: &catalog.Keyspace{Name: name},
	})
	return err
}

// ForgetNode gives up a node that will never come back: its data directory is gone. The
// tablets that it had copies of get others, nothing that it stored of logs is waited
// for any more, and the node itself is not let in again. A node that was heard from a
// moment ago is refused with ErrUnavailable. Where data may have been on forgotten
// nodes alone it is refused with ErrInvalid, unless acceptLoss is set: then readers of
// logs are told what was lost (GapDataLoss).
func (c *Client) ForgetNode(ctx context.Context, node NodeID, acceptLoss bool) error {
	_, err := c.catalog(ctx, &wire.CatalogRequest{
		Action: wire.CatalogRequest_ACTION_FORGET_NODE, Node: uint64(node), AcceptLoss: acceptLoss,
	})
	return err
}

// CreateTable creates a table and returns it, ready for use.
func (c *Client) CreateTable(ctx context.Context, s TableSpec) (*Table, error) {
	desc := &catalog.Table{
		Keyspace: s.Keyspace, Name: s.Name, Hash: catalog.Hash_HASH_MURMUR3,
		ReplicationFactor: uint32(s.ReplicationFactor), HistoryRetentionMs: s.HistoryRetention.Milliseconds(),
		Schema: &catalog.Schema{DefaultTtlMs: s.DefaultTTL.Milliseconds()},
	}
	for _, col := range s.Columns {
		desc.Schema.Columns = append(desc.Schema.Columns, col.descriptor())
	}
	if _, err := c.catalog(ctx, &wire.CatalogRequest{
		Action: wire.CatalogRequest_ACTION_CREATE_TABLE, Table: desc,
		Tablets: uint32(s.Tablets), IfNotExists: s.IfNotExists,
	}); err != nil {
		return nil, err
	}
	return c.Table(ctx, s.Keyspace, s.Name)
}

// AlterTable changes a table online.
func (c *Client) AlterTable(ctx context.Context, keyspace, name string, changes ...Alteration) error {
	req := &wire.CatalogRequest{
		Action: wire.CatalogRequest_ACTION_ALTER_TABLE,
		Table:  &catalog.Table{Keyspace: keyspace, Name: name},
	}
	for _, ch := range changes {
		req.Alterations = append(req.Alterations, ch.wire)
	}
	resp, err := c.catalog(ctx, req)
	if err != nil || resp.Table == nil {
		return err
	}
	return c.table(catalog.TableID(resp.Table.Id)).Refresh(ctx)
}

// DropTable drops a table and all of its rows. The nodes hear of it within a
// heartbeat: until then a write by somebody who knows the table of old may still
// be acknowledged, and is lost with the table.
func (c *Client) DropTable(ctx context.Context, keyspace, name string) error {
	_, err := c.catalog(ctx, &wire.CatalogRequest{
		Action: wire.CatalogRequest_ACTION_DROP_TABLE,
		Table:  &catalog.Table{Keyspace: keyspace, Name: name},
	})
	return err
}

// ListTables describes the tables of a keyspace, of all keyspaces if it is empty.
func (c *Client) ListTables(ctx context.Context, keyspace string) ([]TableInfo, error) {
	cat, err := c.readCatalog(ctx)
	if err != nil {
		return nil, err
	}
	var infos []TableInfo
	for _, t := range cat.Tables {
		if keyspace == "" || t.Keyspace == keyspace {
			infos = append(infos, tableInfo(t))
		}
	}
	return infos, nil
}

// ListKeyspaces names the keyspaces.
func (c *Client) ListKeyspaces(ctx context.Context) ([]string, error) {
	cat, err := c.readCatalog(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, k := range cat.Keyspaces {
		names = append(names, k.Name)
	}
	return names, nil
}

// Nodes describes the cluster's nodes.
func (c *Client) Nodes(ctx context.Context) ([]NodeInfo, error) {
	cat, err := c.readCatalog(ctx)
	if err != nil {
		return nil, err
	}
	var infos []NodeInfo
	for _, n := range cat.Nodes {
		infos = append(infos, nodeInfo(n))
	}
	return infos, nil
}

// Table opens a table by name.
func (c *Client) Table(ctx context.Context, keyspace, name string) (*Table, error) {
	cat, err := c.readCatalog(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range cat.Tables {
		if t.Keyspace == keyspace && t.Name == name && t.State != catalog.TableState_TABLE_STATE_DROPPING {
			table := c.table(catalog.TableID(t.Id))
			_, err := table.awaitRoutes(ctx)
			return table, err
		}
	}
	return nil, newError(wire.Code_CODE_NOT_FOUND, nil, "table %s.%s", keyspace, name)
}

// Info describes the table, as last heard.
func (t *Table) Info(ctx context.Context) (TableInfo, error) {
	r, err := t.awaitRoutes(ctx)
	if err != nil {
		return TableInfo{}, err
	}
	return tableInfo(r.desc), nil
}

func tableInfo(t *catalog.Table) TableInfo {
	info := TableInfo{ID: catalog.TableID(t.Id), Keyspace: t.Keyspace, Name: t.Name}
	if s := t.Schema; s != nil {
		info.SchemaVersion = s.Version
		info.DefaultTTL = time.Duration(s.DefaultTtlMs) * time.Millisecond
		for _, col := range s.Columns {
			info.Columns = append(info.Columns, Column{Name: col.Name, Type: col.Type, Role: col.Kind, Descending: col.Descending})
		}
	}
	return info
}

func (c *Client) readCatalog(ctx context.Context) (*catalog.Catalog, error) {
	resp, err := c.catalog(ctx, &wire.CatalogRequest{Action: wire.CatalogRequest_ACTION_READ})
	if err != nil {
		return nil, err
	}
	if resp.Catalog == nil {
		return nil, newError(wire.Code_CODE_INTERNAL, nil, "the answer holds no catalog")
	}
	return resp.Catalog, nil
}

// catalog carries out one request at the master. Changes carry a request id, as
// writes do, so the master can recognise one that is repeated.
func (c *Client) catalog(ctx context.Context, req *wire.CatalogRequest) (*wire.CatalogResponse, error) {
	change := changes(req)
	if change {
		req.ClientId, req.RequestId = c.id, c.requests.Add(1)
	}
	give := c.opts.Clock.Now().Add(c.opts.Park)
	maybe := false
	for round := 0; ; round++ {
		if c.closed.Load() {
			return nil, newError(wire.Code_CODE_CANCELED, ErrClosed, "%v", ErrClosed)
		}
		resp, err := c.transport.Catalog(ctx, req)
		switch {
		case err != nil:
			maybe = maybe || change && uncertain(err)
			err = transportError(err)
		case resp.Error == nil || resp.Error.Code == wire.Code_CODE_OK:
			return resp, nil
		default:
			maybe = maybe || change && resp.Error.Code == wire.Code_CODE_UNKNOWN_OUTCOME
			if err = fromWire(resp.Error); !resp.Error.Code.Retriable() {
				return nil, err
			}
		}
		if !c.opts.Clock.Now().Before(give) || !c.sleep(ctx, c.backoff(round)) {
			return nil, fmt.Errorf("catalog: %w", catalogError(err, maybe))
		}
	}
}

// catalogError is how a request to the master ends that got no answer in time.
func catalogError(err error, maybe bool) error {
	switch codeOf(err) {
	case wire.Code_CODE_NOT_LEADER, wire.Code_CODE_NOT_READY:
		err = newError(wire.Code_CODE_UNAVAILABLE, err, "no master leader found in time")
	}
	if maybe {
		return newError(wire.Code_CODE_UNKNOWN_OUTCOME, err, "%v", err)
	}
	return err
}

// sleep waits for d; it reports false when the context or the client ended first.
func (c *Client) sleep(ctx context.Context, d time.Duration) bool {
	woken := make(chan struct{})
	stop := c.opts.Clock.AfterFunc(d, func() { close(woken) })
	defer stop()
	select {
	case <-woken:
		return true
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return false
}

// backoff is the pause after so many rounds.
func (c *Client) backoff(rounds int) time.Duration {
	return c.jitter(min(c.opts.BackoffMin<<min(rounds, 20), c.opts.BackoffMax))
}
