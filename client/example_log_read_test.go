package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"

	"github.com/braiddb/braid/client"
)

// Reading a log from its beginning. With ReaderOptions.Until left out Next would wait
// for what is appended later.
func ExampleLog_NewReader() {
	ctx := context.Background()
	c := client.FakeLogs(exampleHost{})
	defer c.Close()
	clicks := c.LogWithID(7)
	var last client.LSN
	for _, page := range []string{"/", "/docs", "/blog"} {
		lsn, err := clicks.Append(ctx, []byte(page))
		if err != nil {
			log.Fatal(err)
		}
		last = lsn
	}

	r := clicks.NewReader(client.ReaderOptions{Until: last})
	defer r.Close()
	for {
		e, err := r.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		if e.IsGap() {
			fmt.Println(e.Gap)
			continue
		}
		fmt.Printf("%s at offset %d: %s\n", e.Record.LSN, e.Record.Offset, e.Record.Payload)
	}
	// Output:
	// BRIDGE [e0n1, e1n0]
	// e1n1 at offset 0: /
	// e1n2 at offset 1: /docs
	// e1n3 at offset 2: /blog
}

// A reader that goes on where it, or another process, committed last.
func ExampleLog_NewCheckpointedReader() {
	ctx := context.Background()
	c := client.FakeLogs(exampleHost{})
	defer c.Close()
	orders := c.LogWithID(7)
	var last client.LSN
	for i := range 4 {
		last, _ = orders.Append(ctx, fmt.Appendf(nil, "order %d", i))
	}
	options := client.CheckpointOptions{Reader: client.ReaderOptions{Until: last}}

	read := func(n int) {
		r, err := orders.NewCheckpointedReader(ctx, "billing", options)
		if err != nil {
			log.Fatal(err)
		}
		defer r.Close()
		for e, err := range r.All(ctx) {
			if err != nil {
				log.Fatal(err)
			}
			if e.IsGap() {
				continue
			}
			fmt.Printf("%s\n", e.Record.Payload)
			if n--; n == 0 {
				break
			}
		}
		if err := r.Commit(ctx); err != nil {
			log.Fatal(err)
		}
	}
	read(2)
	fmt.Println("and later")
	read(2)
	// Output:
	// order 0
	// order 1
	// and later
	// order 2
	// order 3
}

// Trimming says what it refuses, and what it could do in part only.
func ExampleLog_Trim() {
	ctx := context.Background()
	c := client.FakeLogs(exampleHost{})
	defer c.Close()
	events := c.LogWithID(7)
	lsn, err := events.Append(ctx, []byte("old"))
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println(errors.Is(events.Trim(ctx, lsn+1), client.ErrPastTail))
	fmt.Println(events.Trim(ctx, lsn))
	fmt.Println(events.IsEmpty(ctx))
	// Output:
	// true
	// <nil>
	// true <nil>
}
