package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/braiddb/braid/client"
)

func exampleLog(ctx context.Context, path string) *client.Log {
	c, err := client.Connect(ctx, client.StartFakeLogs(exampleHost{}), client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.CreateLogs(ctx, path, 1, client.LogParents()); err != nil {
		log.Fatal(err)
	}
	l, err := c.Log(ctx, path)
	if err != nil {
		log.Fatal(err)
	}
	return l
}

// Records get ascending sequence numbers.
func ExampleLog_Append() {
	ctx := context.Background()
	clicks := exampleLog(ctx, "/events/clicks")
	for _, page := range []string{"home", "search", "buy"} {
		lsn, err := clicks.Append(ctx, []byte(page))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(lsn, page)
	}
	// Output:
	// e1n1 home
	// e1n2 search
	// e1n3 buy
}

// A record that is appended only if nobody else has appended meanwhile.
func ExampleLog_AppendIf() {
	ctx := context.Background()
	elections := exampleLog(ctx, "/elections")
	first, err := elections.AppendIf(ctx, 0, []byte("ann leads"))
	fmt.Println(first, err)
	_, err = elections.AppendIf(ctx, 0, []byte("bob leads"))
	fmt.Println(errors.Is(err, client.ErrConditionFailed))
	if e := (*client.LogError)(nil); errors.As(err, &e) {
		fmt.Println("the tail is", e.Tail)
	}
	// Output:
	// e1n1 <nil>
	// true
	// the tail is e1n1
}

// What is begun in an order is in the log in that order; nobody waits for each.
func ExampleLog_AppendAsync() {
	ctx := context.Background()
	steps := exampleLog(ctx, "/steps")
	ended := make(chan string, 3)
	for i := range 3 {
		steps.AppendAsync(fmt.Append(nil, "step ", i), func(lsn client.LSN, err error) { ended <- fmt.Sprint(lsn, err) })
	}
	for range 3 {
		fmt.Println(<-ended)
	}
	// Output:
	// e1n1 <nil>
	// e1n2 <nil>
	// e1n3 <nil>
}

// A program that copies rows and may be started anew at any time: what was copied
// is not copied again.
func ExampleLog_Producer() {
	ctx := context.Background()
	copied := exampleLog(ctx, "/copied")
	rows := []string{"a", "b", "c"}
	for range 2 { // the second time everything is there already
		p := copied.Producer(42)
		for i, row := range rows {
			lsn, err := p.Append(ctx, uint64(i+1), []byte(row))
			if err != nil {
				log.Fatal(err)
			}
			fmt.Print(lsn, " ")
		}
		last, _, err := p.Last(ctx)
		fmt.Println("last:", last, err)
	}
	// Output:
	// e1n1 e1n2 e1n3 last: 3 <nil>
	// e1n1 e1n2 e1n3 last: 3 <nil>
}

// Many small payloads in few records.
func ExampleLog_BufferedWriter() {
	ctx := context.Background()
	lines := exampleLog(ctx, "/lines")
	w := lines.BufferedWriter(client.BufferedWriterOptions{Count: 2, Compression: new(client.CompressionZstd)})
	for _, line := range []string{"one", "two", "three"} {
		if err := w.Append([]byte(line), func(lsn client.LSN, offset int, err error) {
			fmt.Println(line, lsn, offset, err)
		}); err != nil {
			log.Fatal(err)
		}
		if err := w.Sync(ctx); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(w.Close(ctx))
	// Output:
	// one e1n1 0 <nil>
	// two e1n2 0 <nil>
	// three e1n3 0 <nil>
	// <nil>
}
