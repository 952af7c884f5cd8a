package client_test

import (
	"testing"

	"github.com/braiddb/braid/client"
)

// exampleHost lets the examples use what takes a testing.TB: what they start
// lasts as long as the process.
type exampleHost struct{ testing.TB }

func (exampleHost) Helper()        {}
func (exampleHost) Cleanup(func()) {}
func (exampleHost) Fatal(v ...any) { panic(v) }

func exampleCluster() []string { return client.StartFakeCluster(exampleHost{}) }
