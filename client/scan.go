package client

import (
	"bytes"
	"context"
	"iter"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// Query says which rows a scan gives.
type Query struct {
	// Key, if given, names all hashed columns, and may name ranged ones from the
	// first on: only the rows of that key are given, in the order of the ranged
	// columns. Without it all rows are, in the order of their hashes.
	Key Row
	// From and To bound the ranged column that follows those in Key, in the
	// column's own order: from From, inclusive, to To, exclusive. Nil leaves an
	// end open.
	From, To any
	// Where must hold for each row; it is decided where the row is.
	Where []Condition
	// Columns to read; none means all.
	Columns []string
	// Limit on the number of rows, 0 for none.
	Limit int
	// PageRows is how many rows are asked for at once. Default 256.
	PageRows int
	// ReadTime is the hybrid time to read at. Zero: the first page's tablet
	// chooses, and all other pages are read at the same time.
	ReadTime uint64
}

// Scan gives rows, page by page, all as of one moment. It goes on over changes
// of leaders and of tablets; an error ends it.
func (t *Table) Scan(ctx context.Context, q Query) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		s := &scan{table: t, query: q}
		for left := q.Limit; !s.over; {
			rows, err := s.page(ctx, left)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
			if left -= len(rows); q.Limit > 0 && left <= 0 {
				return
			}
		}
	}
}

// scan is where a scan is.
type scan struct {
	table  *Table
	query  Query
	desc   *catalog.Table
	begun  bool
	over   bool
	hash   uint64
	key    []byte // to go on from; nil is the first of hash
	end    []byte // exclusive, nil is open
	prefix []byte // of all keys, with Query.Key
}

// page reads the next rows, of one tablet.
func (s *scan) page(ctx context.Context, left int) ([]Row, error) {
	limit := s.query.PageRows
	if limit <= 0 {
		limit = 256
	}
	if s.query.Limit > 0 {
		limit = min(limit, left)
	}
	reply, err := s.table.rows(ctx, s.query.ReadTime, func(d *catalog.Table) ([]*Op, error) {
		s.desc = d
		if err := s.begin(); err != nil {
			return nil, err
		}
		conditions, err := conditionCells(d, s.query.Where)
		if err != nil {
			return nil, err
		}
		columns, err := columnCells(d, s.query.Columns)
		if err != nil {
			return nil, err
		}
		return []*Op{RowScan(s.hash, s.key, s.end, int64(limit), columns, conditions)}, nil
	})
	if err != nil {
		return nil, err
	}
	s.query.ReadTime = reply.HybridTime
	if err := resultError(reply.Results[0]); err != nil {
		return nil, err
	}
	return s.take(reply)
}

// begin finds where to start, once: key columns can not change.
func (s *scan) begin() error {
	if s.begun {
		return nil
	}
	d, q := s.desc, &s.query
	if q.Key == nil {
		if q.From != nil || q.To != nil {
			return newError(wire.Code_CODE_INVALID, nil, "a scan with bounds names no key")
		}
		s.begun = true
		return nil
	}
	var err error
	if s.prefix, s.hash, err = rowKey(d, q.Key, false); err != nil {
		return err
	}
	if s.key, err = s.bound(q.From); err != nil {
		return err
	}
	if q.To == nil {
		s.end = prefixEnd(s.prefix)
	} else if s.end, err = s.bound(q.To); err != nil {
		return err
	}
	s.begun = true
	return nil
}

// bound is the prefix with one more column, or the prefix itself if v is nil.
func (s *scan) bound(v any) ([]byte, error) {
	key := append([]byte{}, s.prefix...)
	if v == nil {
		return key, nil
	}
	for _, c := range s.desc.Schema.Columns {
		if _, named := s.query.Key[c.Name]; named || !isKey(c) {
			continue
		}
		key, err := wire.AppendKeyValue(key, c.Type, v, c.Descending)
		if err != nil {
			return nil, invalid(err)
		}
		return key, nil
	}
	return nil, newError(wire.Code_CODE_INVALID, nil, "the key has no column left for a bound")
}

// prefixEnd is the first key after all that have the prefix.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte{}, prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// take decodes a page and finds where the next one starts.
func (s *scan) take(reply Reply) ([]Row, error) {
	var rows []Row
	var next []byte
	for _, item := range reply.Results[0].Items {
		if item.Kind != KindRow {
			next = item.Bytes
			break
		}
		if !bytes.HasPrefix(item.Bytes, s.prefix) {
			s.over = true // of another key, which has the same hash
			return rows, nil
		}
		row, err := s.row(item)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	switch {
	case next != nil:
		if bytes.Equal(next, s.key) && len(rows) == 0 {
			return nil, newError(wire.Code_CODE_INTERNAL, nil, "the scan does not advance")
		}
		values, err := wire.DecodeRowKey(s.desc.Schema, next)
		if err != nil {
			return nil, newError(wire.Code_CODE_INTERNAL, err, "where to go on: %v", err)
		}
		if _, s.hash, err = wire.RowKey(s.desc.Hash, s.desc.Schema, values); err != nil {
			return nil, newError(wire.Code_CODE_INTERNAL, err, "where to go on: %v", err)
		}
		s.key = next
	case s.prefix != nil || reply.tabletEnd == 0:
		s.over = true
	default:
		s.hash, s.key = reply.tabletEnd, nil
	}
	return rows, nil
}

func (s *scan) row(r *Result) (Row, error) {
	values, err := wire.DecodeRowKey(s.desc.Schema, r.Bytes)
	if err != nil {
		return nil, newError(wire.Code_CODE_INTERNAL, err, "key of a row: %v", err)
	}
	row := Row{}
	for i, v := range values {
		if c := s.desc.Schema.Columns[i]; len(s.query.Columns) == 0 || contains(s.query.Columns, c.Name) {
			row[c.Name] = v
		}
	}
	return row, fillRow(row, s.desc, r.Cells, s.query.Columns)
}
