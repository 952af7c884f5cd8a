//go:build !unix

package rpc

import "net"

// tryWriter is not to be had here: all writing is done by writer goroutines.
type tryWriter struct{}

func newTryWriter(net.Conn) *tryWriter { return nil }

func (*tryWriter) write([]byte) (int, error) { panic("BUG: there is no tryWriter") }
