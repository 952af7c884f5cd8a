//go:build !unix

package redis

// canTryWrite says that there is no non-blocking write here: the outbox leaves
// all writing to its goroutine.
const canTryWrite = false

func tryWrite(uintptr, []byte) (int, error) { panic("BUG: tryWrite without canTryWrite") }
