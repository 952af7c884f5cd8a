// Package docdb stores the documents of tablets: what a key holds, at every
// hybrid time that can still be read, on a log-structured merge tree (Pebble).
package docdb
