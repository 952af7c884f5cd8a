package rest

import (
	"context"
	"time"

	"github.com/braiddb/braid/client"
)

// Cluster is what the front end needs of a client; Over makes one.
type Cluster interface {
	// Log finds a log, and has one that is not there made where its directory
	// allows that.
	Log(ctx context.Context, name string) (Log, error)

	LogInfo(ctx context.Context, name string) (client.LogInfo, error)
	Logs(ctx context.Context, path string) ([]client.LogInfo, error)
	LogSources(ctx context.Context, path string) ([]client.LogSource, error)
	CreateLogs(ctx context.Context, path string, n int, settings ...client.LogSetting) (client.LogInfo, error)
	CreateLogDirectory(ctx context.Context, path string, settings ...client.LogSetting) error
	AlterLog(ctx context.Context, path string, settings ...client.LogSetting) error
	ResizeLogs(ctx context.Context, path string, n int, settings ...client.LogSetting) (client.LogInfo, error)
	RenameLog(ctx context.Context, from, to string, settings ...client.LogSetting) error
	RemoveLog(ctx context.Context, path string, recursive bool, settings ...client.LogSetting) error
}

// Log is one log of a Cluster.
type Log interface {
	ID() client.LogID
	// Append appends one record and waits.
	Append(ctx context.Context, a Append) (client.LSN, error)
	// AppendAsync begins an append, behind those begun before. done is called once,
	// maybe before it returns, and does not block.
	AppendAsync(a Append, done func(client.LSN, error))
	NewReader(o client.ReaderOptions) Reader
	FindTime(ctx context.Context, t time.Time, approximate bool) (client.LSN, error)
	FindKey(ctx context.Context, key []byte, approximate bool) (low, high client.LSN, err error)
	Tail(ctx context.Context) (client.LSN, error)
	TailAttributes(ctx context.Context) (client.TailAttributes, error)
	HeadAttributes(ctx context.Context) (client.HeadAttributes, error)
	IsEmpty(ctx context.Context) (bool, error)
	DataSize(ctx context.Context, from, to time.Time) (uint64, error)
	Trim(ctx context.Context, lsn client.LSN) error
}

// Reader is a reader of a Log; *client.Reader is one.
type Reader interface {
	Next(ctx context.Context) (client.Entry, error)
	Health() client.ReaderHealth
	Close()
}

// Append is a record to be appended, and on which terms.
type Append struct {
	Payload            []byte
	FindKey, FilterKey []byte      // nil: none
	IfTail             *client.LSN // nil: whatever the tail is; never with a producer, nor asynchronous
	Producer, Sequence uint64      // 0: the client's own
}

func (a Append) options() (opts []client.AppendOption) {
	if a.FindKey != nil {
		opts = append(opts, client.FindKey(a.FindKey))
	}
	if a.FilterKey != nil {
		opts = append(opts, client.FilterKey(a.FilterKey))
	}
	return opts
}

// Over is a client as a Cluster.
func Over(c *client.Client) Cluster { return clientCluster{c} }

type clientCluster struct{ *client.Client }

func (c clientCluster) Log(ctx context.Context, name string) (Log, error) {
	l, err := c.Client.Log(ctx, name)
	if err != nil {
		return nil, err
	}
	return clientLog{l}, nil
}

type clientLog struct{ *client.Log }

func (l clientLog) Append(ctx context.Context, a Append) (client.LSN, error) {
	switch {
	case a.IfTail != nil:
		return l.AppendIf(ctx, *a.IfTail, a.Payload, a.options()...)
	case a.Producer != 0:
		return l.Producer(a.Producer).Append(ctx, a.Sequence, a.Payload, a.options()...)
	}
	return l.Log.Append(ctx, a.Payload, a.options()...)
}

func (l clientLog) AppendAsync(a Append, done func(client.LSN, error)) {
	if a.IfTail != nil {
		panic("BUG: a conditional append is waited for")
	}
	if a.Producer != 0 {
		l.Producer(a.Producer).AppendAsync(a.Sequence, a.Payload, done, a.options()...)
		return
	}
	l.Log.AppendAsync(a.Payload, done, a.options()...)
}

func (l clientLog) NewReader(o client.ReaderOptions) Reader { return l.Log.NewReader(o) }
