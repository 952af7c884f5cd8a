package client

import (
	"context"
	"time"
)

// Row is one row, or part of one, by column name. Values have the Go type of
// their column (see ColumnType); nil is null.
type Row map[string]any

// RowOption conditions or modifies a write of a row.
type RowOption func(*rowWrite)

// rowWrite is what the options of a write add up to.
type rowWrite struct {
	flags      uint64
	ttl        time.Duration
	conditions []Condition
}

// Comparison of a column with a value.
type Comparison uint32

// The comparisons, as wire.Cell numbers them.
const (
	Equal Comparison = iota
	NotEqual
	Less
	LessOrEqual
	Greater
	GreaterOrEqual
)

// Condition holds when column compares so with value. A null equals only null.
type Condition struct {
	Column  string
	Compare Comparison
	Value   any
}

// Query says which rows a scan gives.
type Query struct {
	// Key, if given, names all hashed columns: only the rows of that key are
	// given, in the order of their ranged columns.
	Key Row
	// From and To bound the first ranged column under Key: from From, inclusive,
	// to To, exclusive, in the column's order. Nil leaves an end open.
	From, To any
	// Where must hold for each row; it is decided where the row is.
	Where []Condition
	// Limit on the number of rows, 0 for none.
	Limit int
	// PageRows is how many rows are asked for at once. Default 256.
	PageRows int
	// ReadTime, if set, is the hybrid time to read at; else the first page chooses
	// one, and all others read at the same.
	ReadTime uint64
}

// batchRows is what WriteRows needs of a mutation.
var _ = context.Background
