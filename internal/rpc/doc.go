// Package rpc carries messages between nodes, and between clients and nodes,
// over a few TCP connections per pair: framed by length and checksum, requests
// multiplexed, whatever waits on a connection written with one system call.
package rpc
