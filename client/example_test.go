package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/braiddb/braid/client"
)

// A table with columns: create it, write and read typed rows.
func Example() {
	ctx := context.Background()
	c, err := client.Connect(ctx, exampleCluster(), client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	messages, err := c.CreateTable(ctx, client.TableSpec{
		Keyspace: "app", Name: "messages",
		Columns: []client.Column{
			{Name: "room", Type: client.String, Role: client.Hashed},
			{Name: "id", Type: client.Int64, Role: client.Ranged},
			{Name: "text", Type: client.String},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := messages.Put(ctx, client.Row{"room": "lobby", "id": 1, "text": "hello"}); err != nil {
		log.Fatal(err)
	}
	row, err := messages.Get(ctx, client.Row{"room": "lobby", "id": 1})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(row["text"])
	// Output: hello
}

// The documents behind the Redis port, without Redis.
func ExampleClient_Redis() {
	ctx := context.Background()
	c, err := client.Connect(ctx, exampleCluster(), client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	for range 3 {
		if _, err := c.Redis().Do(ctx, client.IncrBy([]byte("visits"), 1)); err != nil {
			log.Fatal(err)
		}
	}
	r, err := c.Redis().Do(ctx, client.Get([]byte("visits")))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", r.Bytes)
	// Output: 3
}

// Rows of one key, in the order of their ranged column, as of one moment.
func ExampleTable_Scan() {
	ctx := context.Background()
	readings := exampleTable(ctx)
	for hour := range 5 {
		if err := readings.Put(ctx, client.Row{"sensor": "s1", "hour": hour, "value": 20.5 + float64(hour)}); err != nil {
			log.Fatal(err)
		}
	}
	for row, err := range readings.Scan(ctx, client.Query{Key: client.Row{"sensor": "s1"}, From: 1, To: 4}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row["hour"], row["value"])
	}
	// Output:
	// 1 21.5
	// 2 22.5
	// 3 23.5
}

// A row that is written only if it is as expected.
func ExampleIf() {
	ctx := context.Background()
	readings := exampleTable(ctx)
	key := client.Row{"sensor": "s1", "hour": 1}
	row := func(v float64) client.Row { return client.Row{"sensor": "s1", "hour": 1, "value": v} }

	fmt.Println(readings.Put(ctx, row(1), client.IfAbsent(), client.TTL(time.Hour)))
	err := readings.Put(ctx, row(2), client.If(client.Condition{Column: "value", Compare: client.Equal, Value: 7.0}))
	fmt.Println(errors.Is(err, client.ErrConditionFailed))
	got, err := readings.Get(ctx, key, "value")
	fmt.Println(got["value"], err)
	// Output:
	// <nil>
	// true
	// 1 <nil>
}

// Several rows with the same hashed columns are written atomically.
func ExampleTable_WriteRows() {
	ctx := context.Background()
	readings := exampleTable(ctx)
	err := readings.WriteRows(ctx,
		client.PutRow(client.Row{"sensor": "s2", "hour": 1, "value": 1.0}),
		client.PutRow(client.Row{"sensor": "s2", "hour": 2, "value": 2.0}),
		client.DeleteRow(client.Row{"sensor": "s2", "hour": 3}),
	)
	fmt.Println(err)
	// Output: <nil>
}

func exampleTable(ctx context.Context) *client.Table {
	c, err := client.Connect(ctx, exampleCluster(), client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	t, err := c.CreateTable(ctx, client.TableSpec{
		Keyspace: "app", Name: "readings",
		Columns: []client.Column{
			{Name: "sensor", Type: client.String, Role: client.Hashed},
			{Name: "hour", Type: client.Int64, Role: client.Ranged},
			{Name: "value", Type: client.Float64},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	return t
}
