// Package store is the storage node's side of logs: one shard, its records on the
// node's journal and in Pebble.
package store
