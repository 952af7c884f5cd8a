package catalog

import (
	"errors"
	"fmt"
)

// What an alteration may be refused for.
var (
	ErrColumnExists  = errors.New("a column of this name exists")
	ErrNoSuchColumn  = errors.New("no column of this name exists")
	ErrKeyColumn     = errors.New("a key column cannot be added or dropped")
	ErrColumnInvalid = errors.New("a column needs a name and a type")
)

// AddColumn makes the next version of a schema with one more regular column. The
// column gets an id that no column of the table ever had, so that a value
// written for a dropped column of the same name is never read as one of its.
func (s *Schema) AddColumn(c *Column) (*Schema, error) {
	switch {
	case c.GetName() == "" || c.Type == Type_TYPE_UNSPECIFIED || Type_name[int32(c.Type)] == "":
		return nil, ErrColumnInvalid
	case c.Kind != ColumnKind_COLUMN_KIND_REGULAR && c.Kind != ColumnKind_COLUMN_KIND_UNSPECIFIED:
		return nil, fmt.Errorf("%w: %q", ErrKeyColumn, c.Name)
	case s.Column(c.Name) != nil:
		return nil, fmt.Errorf("%w: %q", ErrColumnExists, c.Name)
	}
	next := s.next()
	next.Columns = append(next.Columns, &Column{
		Id: s.NextColumnId, Name: c.Name, Type: c.Type, Kind: ColumnKind_COLUMN_KIND_REGULAR,
	})
	next.NextColumnId++
	return next, nil
}

// DropColumn makes the next version of a schema without a regular column.
func (s *Schema) DropColumn(name string) (*Schema, error) {
	col := s.Column(name)
	if col == nil {
		return nil, fmt.Errorf("%w: %q", ErrNoSuchColumn, name)
	}
	if col.Kind != ColumnKind_COLUMN_KIND_REGULAR {
		return nil, fmt.Errorf("%w: %q", ErrKeyColumn, name)
	}
	next := s.next()
	next.Columns = next.Columns[:0]
	for _, c := range s.Columns {
		if c != col {
			next.Columns = append(next.Columns, c)
		}
	}
	return next, nil
}

// RenameColumn makes the next version of a schema in which a column, key columns
// included, has another name and the same id.
func (s *Schema) RenameColumn(from, to string) (*Schema, error) {
	switch {
	case s.Column(from) == nil:
		return nil, fmt.Errorf("%w: %q", ErrNoSuchColumn, from)
	case to == "":
		return nil, ErrColumnInvalid
	case s.Column(to) != nil:
		return nil, fmt.Errorf("%w: %q", ErrColumnExists, to)
	}
	next := s.next()
	for i, c := range next.Columns {
		if c.Name == from {
			renamed := c.CloneVT()
			renamed.Name = to
			next.Columns[i] = renamed
		}
	}
	return next, nil
}

// next is the schema's next version, still with the same columns.
func (s *Schema) next() *Schema {
	return &Schema{
		Version:      s.Version + 1,
		Columns:      append(make([]*Column, 0, len(s.Columns)+1), s.Columns...),
		NextColumnId: s.NextColumnId,
		DefaultTtlMs: s.DefaultTtlMs,
	}
}

// Column finds a column by name; nil if there is none.
func (s *Schema) Column(name string) *Column {
	for _, c := range s.GetColumns() {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// ColumnByID finds a column by id; nil if there is none.
func (s *Schema) ColumnByID(id uint32) *Column {
	for _, c := range s.GetColumns() {
		if c.Id == id {
			return c
		}
	}
	return nil
}
