package catalog

import (
	"fmt"
	"sort"
)

// InvalidError says which invariant of this package a catalog would break.
type InvalidError struct {
	Invariant string // "C1" .. "C9", see doc.go
	Detail    string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("catalog: invariant %s: %s", e.Invariant, e.Detail)
}

func invalid(invariant, format string, args ...any) error {
	return &InvalidError{Invariant: invariant, Detail: fmt.Sprintf(format, args...)}
}

// Validate checks every invariant of doc.go and returns the first that does not
// hold, as an *InvalidError.
func Validate(c *Catalog) error {
	if err := ValidateBesideLogs(c); err != nil {
		return err
	}
	return validateLogs(c)
}

// ValidateBesideLogs is Validate without C7 to C9: for a version whose log part
// is that of a valid one, or was made of one by the changes of Logs, which check
// what they touch. Looking at a hundred thousand logs for every tablet that moves
// would cost more than the change.
func ValidateBesideLogs(c *Catalog) error {
	checks := []func(*Catalog) error{
		validateNodes, validateKeyspaces, validateTables, validateTablets, validateReplicas,
	}
	for _, check := range checks {
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
}

func validateNodes(c *Catalog) error {
	seen := make(map[uint64]bool, len(c.GetNodes()))
	directories := make(map[string]uint64, len(c.GetNodes()))
	for _, n := range c.GetNodes() {
		if n == nil || n.Id == 0 || n.Id >= c.NextNodeId {
			return invalid("C2", "node id %d is not in [1, %d)", n.GetId(), c.NextNodeId)
		}
		if seen[n.Id] {
			return invalid("C2", "two nodes have the id %d", n.Id)
		}
		seen[n.Id] = true
		if len(n.DirectoryId) == 0 {
			continue
		}
		if other := directories[string(n.DirectoryId)]; other != 0 {
			return invalid("C2", "nodes %d and %d have one directory", other, n.Id)
		}
		directories[string(n.DirectoryId)] = n.Id
	}
	return nil
}

func validateKeyspaces(c *Catalog) error {
	seen := make(map[string]bool, len(c.GetKeyspaces()))
	for _, k := range c.GetKeyspaces() {
		if k.GetName() == "" || seen[k.Name] {
			return invalid("C5", "keyspace name %q is empty or taken", k.GetName())
		}
		if k.ReplicationFactor == 0 {
			return invalid("C5", "keyspace %q has no replication factor", k.Name)
		}
		seen[k.Name] = true
	}
	return nil
}

func validateTables(c *Catalog) error {
	keyspaces := make(map[string]bool, len(c.GetKeyspaces()))
	for _, k := range c.GetKeyspaces() {
		keyspaces[k.Name] = true
	}
	ids := make(map[uint32]bool, len(c.GetTables()))
	names := make(map[[2]string]bool, len(c.GetTables()))
	for _, t := range c.GetTables() {
		if t == nil || t.Id == 0 || t.Id >= c.NextTableId {
			return invalid("C2", "table id %d is not in [1, %d)", t.GetId(), c.NextTableId)
		}
		if ids[t.Id] {
			return invalid("C2", "two tables have the id %d", t.Id)
		}
		ids[t.Id] = true
		if !keyspaces[t.Keyspace] {
			return invalid("C5", "table %d is in keyspace %q, which does not exist", t.Id, t.Keyspace)
		}
		name := [2]string{t.Keyspace, t.Name}
		if t.Name == "" || names[name] {
			return invalid("C5", "table name %s.%q is empty or taken", t.Keyspace, t.Name)
		}
		names[name] = true
		if err := ValidateTable(t); err != nil {
			return err
		}
	}
	return nil
}

// ValidateTable checks what a table's descriptor says of itself: hash, factor
// and C4.
func ValidateTable(t *Table) error {
	if t.Hash != Hash_HASH_CRC16 && t.Hash != Hash_HASH_MURMUR3 {
		return invalid("C5", "table %s.%s has no hash", t.Keyspace, t.Name)
	}
	if t.ReplicationFactor == 0 {
		return invalid("C5", "table %s.%s has no replication factor", t.Keyspace, t.Name)
	}
	return validateSchema(t.Schema)
}

func validateSchema(s *Schema) error {
	if s == nil || s.Version == 0 {
		return invalid("C4", "schema without a version")
	}
	if len(s.Columns) == 0 || s.Columns[0].GetKind() != ColumnKind_COLUMN_KIND_HASH {
		return invalid("C4", "the first column must be part of the hash key")
	}
	ids := make(map[uint32]bool, len(s.Columns))
	names := make(map[string]bool, len(s.Columns))
	before := ColumnKind_COLUMN_KIND_HASH
	for _, col := range s.Columns {
		switch {
		case col.GetId() == 0 || col.Id >= s.NextColumnId:
			return invalid("C4", "column id %d is not in [1, %d)", col.GetId(), s.NextColumnId)
		case ids[col.Id]:
			return invalid("C4", "two columns have the id %d", col.Id)
		case col.Name == "" || names[col.Name]:
			return invalid("C4", "column name %q is empty or taken", col.Name)
		case Type_name[int32(col.Type)] == "" || col.Type == Type_TYPE_UNSPECIFIED:
			return invalid("C4", "column %q has no type", col.Name)
		case col.Kind < before || col.Kind > ColumnKind_COLUMN_KIND_REGULAR:
			return invalid("C4", "column %q: columns stand in the order hash key, range key, regular", col.Name)
		case col.Descending && col.Kind != ColumnKind_COLUMN_KIND_RANGE:
			return invalid("C4", "column %q: only range columns descend", col.Name)
		}
		ids[col.Id], names[col.Name], before = true, true, col.Kind
	}
	return nil
}

// validateTablets checks C1 and the tablets' ids.
func validateTablets(c *Catalog) error {
	ids := make(map[uint64]bool, len(c.GetTablets()))
	byTable := make(map[uint32][]*Tablet, len(c.GetTables()))
	for _, t := range c.GetTablets() {
		if t == nil || t.Id <= uint64(MasterGroup) || t.Id >= c.NextTabletId {
			return invalid("C2", "tablet id %d is not in [%d, %d)", t.GetId(), MasterGroup+1, c.NextTabletId)
		}
		if ids[t.Id] {
			return invalid("C2", "two tablets have the id %d", t.Id)
		}
		ids[t.Id] = true
		byTable[t.Table] = append(byTable[t.Table], t)
	}
	for _, table := range c.GetTables() {
		tablets := byTable[table.Id]
		delete(byTable, table.Id)
		sort.Slice(tablets, func(i, j int) bool { return tablets[i].HashStart < tablets[j].HashStart })
		if err := validateTiling(table, tablets); err != nil {
			return err
		}
	}
	for _, t := range c.GetTablets() {
		if _, orphan := byTable[t.Table]; orphan {
			return invalid("C1", "tablet %d belongs to table %d, which does not exist", t.Id, t.Table)
		}
	}
	return nil
}

// validateTiling is C1 for one table; tablets are sorted by their start.
func validateTiling(table *Table, tablets []*Tablet) error {
	if len(tablets) == 0 {
		return invalid("C1", "table %d has no tablet", table.Id)
	}
	var next uint64 // where the next tablet must start
	for i, t := range tablets {
		last := i == len(tablets)-1
		switch {
		case t.HashStart != next:
			return invalid("C1", "table %d: tablet %d starts at %#x, the one before it ends at %#x", table.Id, t.Id, t.HashStart, next)
		case last && t.HashEnd != 0:
			return invalid("C1", "table %d: the last tablet %d ends at %#x, not at the end of the hash space", table.Id, t.Id, t.HashEnd)
		case !last && t.HashEnd <= t.HashStart:
			return invalid("C1", "table %d: tablet %d [%#x, %#x) is empty or open", table.Id, t.Id, t.HashStart, t.HashEnd)
		}
		next = t.HashEnd
	}
	return nil
}

// validateReplicas checks C3 and C6 for every group, the master's included, and
// that no replica id occurs twice anywhere (C2).
func validateReplicas(c *Catalog) error {
	nodes := make(map[uint64]bool, len(c.GetNodes()))
	for _, n := range c.GetNodes() {
		nodes[n.Id] = true
	}
	ids := make(map[uint64]uint64)
	check := func(t *Tablet) error {
		onNode := make(map[uint64]bool, len(t.Replicas)+1)
		voters := 0
		removing := t.Removing == 0
		for r := range t.Members() {
			switch {
			case r.GetId() == 0 || r.Id >= c.NextReplicaId:
				return invalid("C2", "group %d: replica id %d is not in [1, %d)", t.Id, r.GetId(), c.NextReplicaId)
			case ids[r.Id] != 0:
				return invalid("C2", "replica id %d is in groups %d and %d", r.Id, ids[r.Id], t.Id)
			case !nodes[r.Node]:
				return invalid("C2", "group %d: replica %d is on node %d, which does not exist", t.Id, r.Id, r.Node)
			case onNode[r.Node]:
				return invalid("C3", "group %d has two replicas on node %d", t.Id, r.Node)
			case r.Role != Role_ROLE_VOTER && r.Role != Role_ROLE_LEARNER:
				return invalid("C6", "group %d: replica %d has no role", t.Id, r.Id)
			}
			ids[r.Id] = t.Id
			onNode[r.Node] = true
			removing = removing || r.Id == t.Removing
			if r.Role == Role_ROLE_VOTER && r != t.Adding {
				voters++
			}
		}
		if voters == 0 {
			return invalid("C6", "group %d has no voter", t.Id)
		}
		if !removing || (t.Adding != nil && t.Adding.Id == t.Removing) {
			return invalid("C6", "group %d is to lose replica %d, which is not in its configuration", t.Id, t.Removing)
		}
		return nil
	}
	if err := check(c.MasterTablet()); err != nil {
		return err
	}
	for _, t := range c.GetTablets() {
		if err := check(t); err != nil {
			return err
		}
	}
	return nil
}
