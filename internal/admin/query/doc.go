// Package query answers SQL over live state: every table is a function that
// gives rows, and SQLite, in memory and read only, does the rest.
//
//	SELECT … ─▶ Engine.Query ─▶ SQLite ──(xFilter: columns that equal)──▶ Table.Rows ─▶ every node
//	                              ▲                                           │
//	                              └────────────── rows ◀──────────────────────┘
//
// A table's rows are asked for when a query reads it and are not kept. What a
// WHERE clause says of a column that the table marks as Pushed reaches Rows as a
// filter, so that `WHERE log_id = 7` asks for the records of one log.
//
// Invariants:
//
//	Q1. One statement that only reads: SELECT, WITH, VALUES or EXPLAIN. Nothing
//	    that touches a file can be said.
//	Q2. A query holds at most Options.RowsMax rows of a table and answers at most
//	    as many; beyond, it ends with an error that says so.
//	Q3. A query ends when its context does.
package query
