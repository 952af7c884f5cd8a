package proof

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/node"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// heldFS makes whoever opens the documents wait.
type heldFS struct {
	vfs.FS
	release chan struct{}
}

func (f heldFS) MkdirAll(dir string, perm os.FileMode) error {
	if f.PathBase(dir) == "docs" {
		<-f.release
	}
	return f.FS.MkdirAll(dir, perm)
}

// TestCallsBeforeTheStorageIsOpenAreRefused calls a restarted node whose disk
// takes its time: every call is answered at once with what its caller retries on.
func TestCallsBeforeTheStorageIsOpenAreRefused(t *testing.T) {
	l := newLab(t, 1, 12)
	l.start()
	b := l.benches[0]
	b.fs = b.fs.Kill()
	b.kill()
	deps := node.RealDeps(slog.New(slog.NewTextHandler(&b.log, nil)), func(err error) { t.Error(err) })
	held := heldFS{b.fs, make(chan struct{})}
	deps.FS, deps.Rand = held, rand.New(rand.NewPCG(1, 2))
	started := make(chan struct{})
	go func() {
		defer close(started)
		if n, err := node.Start(context.Background(), b.cfg, deps); err != nil {
			t.Error(err)
		} else {
			n.Kill()
		}
	}()
	defer func() { close(held.release); <-started }()

	var cluster atomic.Pointer[string]
	cluster.Store(new(string))
	pool := rpc.NewPool(rpc.TCP{}, rpc.PoolOptions{Role: rpc.RoleNode, Cluster: func() string { return *cluster.Load() }, RedialMax: 50 * time.Millisecond})
	defer pool.Close()
	to := pool.To(net.JoinHostPort("127.0.0.1", strconv.Itoa(b.cfg.NodePort)))
	hello := func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		resp := new(wire.HelloResponse)
		err := to.Call(ctx, rpc.MethodHello, new(wire.HelloRequest), resp)
		cluster.Store(&resp.ClusterId)
		return err == nil
	}
	if !eventually(10*time.Second, hello) {
		t.Fatal("the node does not listen")
	}
	type refusable interface {
		rpc.Message
		GetError() *wire.Error
	}
	for _, row := range []struct {
		method rpc.Method
		req    rpc.Message
		resp   refusable
		code   wire.Code
	}{
		{rpc.MethodWrite, new(wire.WriteRequest), new(wire.WriteResponse), wire.Code_CODE_UNAVAILABLE},
		{rpc.MethodRead, new(wire.ReadRequest), new(wire.ReadResponse), wire.Code_CODE_UNAVAILABLE},
		{rpc.MethodLocations, new(wire.LocationsRequest), new(wire.LocationsResponse), wire.Code_CODE_NOT_READY},
		{rpc.MethodCatalog, new(wire.CatalogRequest), new(wire.CatalogResponse), wire.Code_CODE_NOT_READY},
		{rpc.MethodHeartbeat, new(wire.HeartbeatRequest), new(wire.HeartbeatResponse), wire.Code_CODE_NOT_READY},
		{rpc.MethodJoin, new(wire.JoinRequest), new(wire.JoinResponse), wire.Code_CODE_NOT_LEADER},
		{rpc.MethodSnapshotChunk, new(wire.SnapshotChunk), new(wire.SnapshotAck), wire.Code_CODE_NOT_READY},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := to.Call(ctx, row.method, row.req, row.resp)
		cancel()
		if got := row.resp.GetError().GetCode(); err != nil || got != row.code || !got.Retriable() {
			t.Errorf("%v: %v, %v; want %v", row.method, err, row.resp.GetError(), row.code)
		}
	}
	type withStatus interface {
		rpc.Message
		GetStatus() wire.LogStatus
	}
	for m, req := range map[rpc.Method]rpc.Message{
		rpc.MethodAppend: new(wire.AppendRequest), rpc.MethodSequencerState: new(wire.SequencerStateRequest), rpc.MethodSeal: new(wire.SealRequest),
		rpc.MethodDigest: new(wire.DigestRequest), rpc.MethodReadStart: new(wire.ReadStartRequest), rpc.MethodTrim: new(wire.TrimRequest),
		rpc.MethodRecords: new(wire.RecordsRequest), rpc.MethodProducerLookup: new(wire.ProducerLookupRequest),
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		resp := m.NewResponse().(withStatus)
		err := to.Call(ctx, m, req, resp)
		cancel()
		if err != nil || resp.GetStatus() != wire.LogStatus_LOG_STATUS_NOT_READY || !logs.Retriable(resp.GetStatus()) {
			t.Errorf("%v: %v, %v; want NOT_READY", m, err, resp.GetStatus())
		}
	}
	tail := new(wire.TailAnswer)
	ctx2, cancel2 := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel2()
	if err := to.Call(ctx2, rpc.MethodTailQuery, &wire.TailQuery{Groups: []*wire.TailState{{Group: 2}}}, tail); err != nil || len(tail.Groups) != 0 {
		t.Errorf("tail query: %v, %v", err, tail)
	}
}
