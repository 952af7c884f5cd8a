package master

import (
	"errors"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// Bounds of what clients may ask for.
const (
	nameLenMax    = 255
	columnsMax    = 1024
	tabletsMax    = 1024
	factorMax     = 7
	retentionMsIf = 900_000 // history kept by a table if nobody says otherwise
)

func (c *change) admin(a *Admin) *wire.Error {
	req := a.GetRequest()
	switch req.GetAction() {
	case wire.CatalogRequest_ACTION_CREATE_KEYSPACE:
		return c.createKeyspace(req)
	case wire.CatalogRequest_ACTION_DROP_KEYSPACE:
		return c.dropKeyspace(req.GetKeyspace().GetName())
	case wire.CatalogRequest_ACTION_CREATE_TABLE:
		return c.createTable(req, a.Tablets)
	case wire.CatalogRequest_ACTION_DROP_TABLE:
		return c.dropTable(req.GetTable())
	case wire.CatalogRequest_ACTION_ALTER_TABLE:
		return c.alterTable(req)
	case wire.CatalogRequest_ACTION_FORGET_NODE:
		return c.forget(req.Node, req.AcceptLoss)
	}
	if change := logChanges[req.GetAction()]; change != nil {
		return c.changeLogs(req, change)
	}
	return refuse(wire.Code_CODE_INVALID, "unknown action %d", req.GetAction())
}

func (c *change) createKeyspace(req *wire.CatalogRequest) *wire.Error {
	name := req.GetKeyspace().GetName()
	if name == "" || len(name) > nameLenMax {
		return refuse(wire.Code_CODE_INVALID, "a keyspace's name has 1 to %d bytes", nameLenMax)
	}
	if c.was.Keyspace(name) != nil {
		if req.IfNotExists {
			return nil
		}
		return refuse(wire.Code_CODE_ALREADY_EXISTS, "keyspace %q exists", name)
	}
	factor := req.Keyspace.ReplicationFactor
	if factor == 0 {
		factor = placement.DefaultReplication
	}
	if factor > factorMax {
		return refuse(wire.Code_CODE_INVALID, "replication factor %d is above %d", factor, factorMax)
	}
	c.next.Keyspaces = append(c.next.Keyspaces, &catalog.Keyspace{Name: name, ReplicationFactor: factor})
	c.changed = true
	return nil
}

func (c *change) dropKeyspace(name string) *wire.Error {
	if name == catalog.SystemKeyspace {
		return refuse(wire.Code_CODE_INVALID, "keyspace %q is the cluster's own", name)
	}
	if c.was.Keyspace(name) == nil {
		return refuse(wire.Code_CODE_NOT_FOUND, "no keyspace %q", name)
	}
	for _, t := range c.next.Tables {
		if t.Keyspace == name {
			return refuse(wire.Code_CODE_INVALID, "keyspace %q holds table %q: drop its tables first", name, t.Name)
		}
	}
	c.next.Keyspaces = without(c.next.Keyspaces, func(k *catalog.Keyspace) bool { return k.Name == name })
	c.changed = true
	return nil
}

func (c *change) createTable(req *wire.CatalogRequest, placed []*Placed) *wire.Error {
	wanted := req.GetTable()
	if own := ownTable(wanted); own != nil {
		wanted = own
	}
	if bad := checkTable(c.was, wanted); bad != nil {
		return bad
	}
	if old := c.was.TableNamed(wanted.Keyspace, wanted.Name); old != nil {
		if req.IfNotExists {
			c.out.Table = old.Id
			return nil
		}
		return refuse(wire.Code_CODE_ALREADY_EXISTS, "table %s.%s exists", old.Keyspace, old.Name)
	}
	if len(placed) == 0 || len(placed) > tabletsMax {
		return refuse(wire.Code_CODE_INVALID, "a table has 1 to %d tablets, not %d", tabletsMax, len(placed))
	}
	table := completeTable(c.was, wanted)
	table.Id = c.next.NextTableId
	c.next.NextTableId++
	for i, r := range catalog.Ranges(table.Hash, len(placed)) {
		tablet := &catalog.Tablet{
			Id: c.next.NextTabletId, Table: table.Id, HashStart: r.Start, HashEnd: r.End, Version: 1,
		}
		c.next.NextTabletId++
		for _, node := range placed[i].GetNodes() {
			if n := c.was.Node(catalog.NodeID(node)); n == nil || n.Gone() {
				return refuse(wire.Code_CODE_OVERLOADED, "node %d went away while the table was placed: try again", node)
			}
			tablet.Replicas = append(tablet.Replicas, &catalog.Replica{
				Id: c.next.NextReplicaId, Node: node, Role: catalog.Role_ROLE_VOTER,
			})
			c.next.NextReplicaId++
		}
		c.next.Tablets = append(c.next.Tablets, tablet)
	}
	c.next.Tables = append(c.next.Tables, table)
	c.out.Table = table.Id
	c.changed = true
	return nil
}

// checkTable says what is wrong with a table that a client wants, if anything.
func checkTable(x *catalog.Index, t *catalog.Table) *wire.Error {
	switch {
	case t.GetName() == "" || len(t.Name) > nameLenMax:
		return refuse(wire.Code_CODE_INVALID, "a table's name has 1 to %d bytes", nameLenMax)
	case x.Keyspace(t.Keyspace) == nil:
		return refuse(wire.Code_CODE_NOT_FOUND, "no keyspace %q", t.Keyspace)
	case t.Keyspace == catalog.SystemKeyspace && ownTable(t) == nil:
		return refuse(wire.Code_CODE_INVALID, "keyspace %q is the cluster's own", t.Keyspace)
	case len(t.GetSchema().GetColumns()) > columnsMax:
		return refuse(wire.Code_CODE_INVALID, "%d columns, at most %d", len(t.Schema.Columns), columnsMax)
	case t.ReplicationFactor > factorMax:
		return refuse(wire.Code_CODE_INVALID, "replication factor %d is above %d", t.ReplicationFactor, factorMax)
	case t.GetSchema().GetDefaultTtlMs() < 0 || t.HistoryRetentionMs < 0:
		return refuse(wire.Code_CODE_INVALID, "a time to live and a retention are not negative")
	}
	if err := catalog.ValidateTable(completeTable(x, t)); err != nil {
		return refuse(wire.Code_CODE_INVALID, "%v", err)
	}
	return nil
}

// completeTable fills in what a client leaves to the master: numbering and
// defaults. The result shares nothing with t.
func completeTable(x *catalog.Index, t *catalog.Table) *catalog.Table {
	table := t.CloneVT()
	table.State = catalog.TableState_TABLE_STATE_CREATING
	if table.ReplicationFactor == 0 {
		table.ReplicationFactor = x.Keyspace(t.Keyspace).GetReplicationFactor()
	}
	if table.HistoryRetentionMs == 0 {
		table.HistoryRetentionMs = retentionMsIf
	}
	if table.Schema != nil {
		table.Schema.Version = 1
		for i, col := range table.Schema.Columns {
			if col != nil {
				col.Id = uint32(i + 1)
			}
		}
		table.Schema.NextColumnId = uint32(len(table.Schema.Columns) + 1)
	}
	return table
}

// dropTable forgets a table and its tablets. Their ids are below next_tablet_id
// and in no catalog any more, by which nodes know to destroy what they hold.
func (c *change) dropTable(t *catalog.Table) *wire.Error {
	old, bad := c.existing(t)
	if bad != nil {
		return bad
	}
	c.next.Tables = without(c.next.Tables, func(t *catalog.Table) bool { return t == old })
	c.next.Tablets = without(c.next.Tablets, func(t *catalog.Tablet) bool { return t.Table == old.Id })
	c.changed = true
	return nil
}

// alterTable makes one new schema version of all alterations, or none.
func (c *change) alterTable(req *wire.CatalogRequest) *wire.Error {
	old, bad := c.existing(req.GetTable())
	if bad != nil {
		return bad
	}
	if len(req.Alterations) == 0 {
		return refuse(wire.Code_CODE_INVALID, "nothing to alter in %s.%s", old.Keyspace, old.Name)
	}
	schema := old.Schema
	for _, a := range req.Alterations {
		next, err := alter(schema, a)
		if err != nil {
			return refuse(alterCode(err), "%s.%s: %v", old.Keyspace, old.Name, err)
		}
		schema = next
	}
	if len(schema.Columns) > columnsMax {
		return refuse(wire.Code_CODE_INVALID, "%d columns, at most %d", len(schema.Columns), columnsMax)
	}
	table := old.CloneVT()
	table.Schema = schema
	table.Schema.Version = old.Schema.Version + 1
	for i := range c.next.Tables {
		if c.next.Tables[i] == old {
			c.next.Tables[i] = table
		}
	}
	c.out.Table = table.Id
	c.changed = true
	return nil
}

var errEmptyAlteration = errors.New("an alteration adds, drops or renames a column")

func alter(s *catalog.Schema, a *wire.Alteration) (*catalog.Schema, error) {
	switch {
	case a.GetAdd() != nil:
		if len(a.Add.Name) > nameLenMax {
			return nil, catalog.ErrColumnInvalid
		}
		return s.AddColumn(a.Add)
	case a.GetDrop() != "":
		return s.DropColumn(a.Drop)
	case a.GetRenameFrom() != "":
		if len(a.RenameTo) > nameLenMax {
			return nil, catalog.ErrColumnInvalid
		}
		return s.RenameColumn(a.RenameFrom, a.RenameTo)
	}
	return nil, errEmptyAlteration
}

func alterCode(err error) wire.Code {
	switch {
	case errors.Is(err, catalog.ErrColumnExists):
		return wire.Code_CODE_ALREADY_EXISTS
	case errors.Is(err, catalog.ErrNoSuchColumn):
		return wire.Code_CODE_NOT_FOUND
	}
	return wire.Code_CODE_INVALID
}

// existing finds a table that a client may change, by id or by name.
func (c *change) existing(t *catalog.Table) (*catalog.Table, *wire.Error) {
	old := c.was.TableNamed(t.GetKeyspace(), t.GetName())
	if t.GetId() != 0 {
		old = c.was.Table(catalog.TableID(t.Id))
	}
	if old == nil {
		return nil, refuse(wire.Code_CODE_NOT_FOUND, "no table %s.%s", t.GetKeyspace(), t.GetName())
	}
	if old.Keyspace == catalog.SystemKeyspace {
		return nil, refuse(wire.Code_CODE_INVALID, "table %s.%s is the cluster's own", old.Keyspace, old.Name)
	}
	return old, nil
}

func without[T any](list []T, drop func(T) bool) []T {
	kept := make([]T, 0, len(list))
	for _, e := range list {
		if !drop(e) {
			kept = append(kept, e)
		}
	}
	return kept
}
