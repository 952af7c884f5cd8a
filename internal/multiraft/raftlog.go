package multiraft

import (
	"context"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3"

	"github.com/braiddb/braid/internal/catalog"
)

// raftLogger gives raft's own words to the node's log. What raft calls
// information is this room's debugging. It formats much that nobody reads, so
// the level is asked first.
type raftLogger struct {
	l     *slog.Logger
	group catalog.GroupID
}

var _ raft.Logger = raftLogger{}

func (r raftLogger) print(level slog.Level, v []any) {
	if r.l.Enabled(context.Background(), level) {
		r.l.Log(context.Background(), level, "raft: "+fmt.Sprint(v...), "group", uint64(r.group))
	}
}

func (r raftLogger) printf(level slog.Level, format string, v []any) {
	if r.l.Enabled(context.Background(), level) {
		r.l.Log(context.Background(), level, "raft: "+fmt.Sprintf(format, v...), "group", uint64(r.group))
	}
}

func (r raftLogger) Debug(v ...any)                   { r.print(slog.LevelDebug-4, v) }
func (r raftLogger) Debugf(format string, v ...any)   { r.printf(slog.LevelDebug-4, format, v) }
func (r raftLogger) Info(v ...any)                    { r.print(slog.LevelDebug, v) }
func (r raftLogger) Infof(format string, v ...any)    { r.printf(slog.LevelDebug, format, v) }
func (r raftLogger) Warning(v ...any)                 { r.print(slog.LevelInfo, v) }
func (r raftLogger) Warningf(format string, v ...any) { r.printf(slog.LevelInfo, format, v) }
func (r raftLogger) Error(v ...any)                   { r.print(slog.LevelError, v) }
func (r raftLogger) Errorf(format string, v ...any)   { r.printf(slog.LevelError, format, v) }

// Fatal is a broken invariant, as Panic is.
func (r raftLogger) Fatal(v ...any)                 { r.Panic(v...) }
func (r raftLogger) Fatalf(format string, v ...any) { r.Panicf(format, v...) }
func (r raftLogger) Panic(v ...any) {
	panic(fmt.Sprintf("raft group %d: %s", r.group, fmt.Sprint(v...)))
}
func (r raftLogger) Panicf(format string, v ...any) {
	panic(fmt.Sprintf("raft group %d: %s", r.group, fmt.Sprintf(format, v...)))
}
