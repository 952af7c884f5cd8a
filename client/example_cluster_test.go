package client_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/node"
)

// A table that changes while it is used, on three real nodes: every write is on
// two disks before it is acknowledged.
func Example_cluster() {
	addrs, stop := startNodes(3)
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := client.Connect(ctx, addrs, client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if err := c.CreateKeyspace(ctx, "shop", 0, true); err != nil {
		log.Fatal(err)
	}
	orders, err := c.CreateTable(ctx, client.TableSpec{
		Keyspace: "shop", Name: "orders",
		Columns: []client.Column{
			{Name: "customer", Type: client.String, Role: client.Hashed},
			{Name: "number", Type: client.Int64, Role: client.Ranged},
			{Name: "what", Type: client.String},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	for number, what := range []string{"a lamp", "two chairs", "a table"} {
		if err := orders.Put(ctx, client.Row{"customer": "ann", "number": number, "what": what}); err != nil {
			log.Fatal(err)
		}
	}
	if err := c.AlterTable(ctx, "shop", "orders", client.AddColumn(client.Column{Name: "paid", Type: client.Bool})); err != nil {
		log.Fatal(err)
	}
	if err := orders.Update(ctx, client.Row{"customer": "ann", "number": 1, "paid": true}, client.IfPresent()); err != nil {
		log.Fatal(err)
	}
	for row, err := range orders.Scan(ctx, client.Query{Key: client.Row{"customer": "ann"}}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(row["number"], row["what"], row["paid"])
	}
	// Output:
	// 0 a lamp <nil>
	// 1 two chairs true
	// 2 a table <nil>
}

// startNodes runs a cluster in this process, with disks in memory and real
// sockets, and gives its addresses for clients.
func startNodes(count int) (clients []string, stop func()) {
	join := freeAddrs(count)
	nodes := make([]*node.Node, count)
	var wg sync.WaitGroup
	for i := range count {
		_, port, err := net.SplitHostPort(join[i])
		if err != nil {
			log.Fatal(err)
		}
		cfg := node.Config{Data: "/data", Join: join, Memory: 64 << 20, ClientPort: -1, RedisPort: -1, ConsolePort: -1}
		if _, err := fmt.Sscan(port, &cfg.NodePort); err != nil {
			log.Fatal(err)
		}
		deps := node.RealDeps(slog.New(slog.DiscardHandler), func(err error) { log.Fatal(err) })
		deps.FS = vfs.NewMem()
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			var err error
			if nodes[i], err = node.Start(ctx, cfg, deps); err == nil {
				err = nodes[i].WaitReady(ctx)
			}
			if err != nil {
				log.Fatal(err)
			}
		})
	}
	wg.Wait()
	for _, n := range nodes {
		clients = append(clients, n.Addrs().Client)
	}
	return clients, func() {
		for _, n := range nodes {
			n.Kill()
		}
	}
}

// freeAddrs finds addresses that nobody listens on: all are held open until the
// last is known, so that they differ.
func freeAddrs(count int) (addrs []string) {
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}
