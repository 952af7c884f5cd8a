package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// LogInfo describes a log, a group of logs or a directory.
type LogInfo struct {
	Path      string // of the group or directory
	Directory bool

	ID     LogID // of the log that was named; of a group, its first
	Number int   // of that log in its group
	Logs   int   // of the group
	Ranges []LogRange

	Version    uint64         // of the catalog when the group last changed; 0 for a directory
	Attributes *LogAttributes // all that the logs have, what they inherit included; do not change it
}

// LogRange is the logs with the ids from First to Last.
type LogRange struct{ First, Last LogID }

// IDs are the group's logs in the order of their numbers.
func (i LogInfo) IDs() (ids []LogID) {
	for _, r := range i.Ranges {
		for id := r.First; id <= r.Last; id++ {
			ids = append(ids, id)
		}
	}
	return ids
}

// logTree is the client's copy of the log part of the catalog: one whole version
// of it. It is read again when something newer is known of, or asked for.
type logTree struct {
	once   sync.Once
	asking chan struct{} // holds one: who reads it

	mu struct {
		sync.Mutex
		logs  *catalog.Logs // nil: never read
		asked time.Time     // when the master was last asked for it, and answered
		least uint64        // a version that is known to exist
	}
}

// outdated says that a version exists.
func (t *logTree) outdated(version uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.least = max(t.mu.least, version)
}

// cached is the copy, nil where a newer version is known to exist.
func (t *logTree) cached() *catalog.Logs {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.logs == nil || t.mu.logs.Version() < t.mu.least {
		return nil
	}
	return t.mu.logs
}

// read gives the copy if it is of a version, and not older than any that is known
// to exist; else it asks the master. Version 0 always asks: an answer that
// nothing has changed is short.
func (t *logTree) read(ctx context.Context, c *Client, version uint64) (*catalog.Logs, error) {
	t.once.Do(func() { t.asking = make(chan struct{}, 1) })
	fresh := func() *catalog.Logs {
		if l := t.cached(); l != nil && version != 0 && l.Version() >= version {
			return l
		}
		return nil
	}
	if l := fresh(); l != nil {
		return l, nil
	}
	select {
	case t.asking <- struct{}{}:
		defer func() { <-t.asking }()
	case <-ctx.Done():
		return nil, newError(wire.Code_CODE_CANCELED, ctx.Err(), "waiting for the list of logs: %v", ctx.Err())
	}
	if l := fresh(); l != nil { // somebody else has asked meanwhile
		return l, nil
	}
	t.mu.Lock()
	had := t.mu.logs
	t.mu.Unlock()
	req := &wire.CatalogRequest{Action: wire.CatalogRequest_ACTION_READ_LOGS, Log: new(wire.LogChange)}
	if had != nil {
		req.Log.KnownVersion = had.Version()
	}
	begun := c.opts.Clock.Now()
	resp, err := c.catalog(ctx, req)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.Catalog != nil:
		had = catalog.NewLogs(resp.Catalog)
	case had == nil:
		return nil, newError(wire.Code_CODE_INTERNAL, nil, "the answer holds no list of logs")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.asked = begun
	if t.mu.logs == nil || t.mu.logs.Version() < had.Version() {
		t.mu.logs = had
	}
	return t.mu.logs, nil
}

// LogInfo describes what a name says: /events/clicks, /events/clicks#3, a log's
// id, or a directory.
func (c *Client) LogInfo(ctx context.Context, name string) (LogInfo, error) {
	tree, err := c.logTree.read(ctx, c, 0)
	if err != nil {
		return LogInfo{}, err
	}
	return describeName(tree, name)
}

// Logs describes a directory or a group and all below it, a directory before what
// it holds; "/" is all there is.
func (c *Client) Logs(ctx context.Context, path string) ([]LogInfo, error) {
	tree, err := c.logTree.read(ctx, c, 0)
	if err != nil {
		return nil, err
	}
	var list []LogInfo
	err = tree.Walk(path, func(e catalog.LogEntry) bool {
		list = append(list, describe(e))
		return true
	})
	return list, logsError(err)
}

// LogSources says of every attribute of a group or a directory what it is and
// which level set it: "built-in", or a path, "/" being the cluster's defaults.
func (c *Client) LogSources(ctx context.Context, path string) ([]LogSource, error) {
	tree, err := c.logTree.read(ctx, c, 0)
	if err != nil {
		return nil, err
	}
	sources, err := tree.Sources(path)
	return sources, logsError(err)
}

// resolveLog finds the one log that a name says, from the client's copy if that
// has it: a path says one log as long as it exists. What is not there is asked
// for once more.
func (c *Client) resolveLog(ctx context.Context, name string) (LogInfo, error) {
	n, err := catalog.ParseLogName(name)
	if err != nil {
		return LogInfo{}, logsError(err)
	}
	tree, err := c.logTree.read(ctx, c, 1)
	if err != nil {
		return LogInfo{}, err
	}
	if info, err := describeLog(tree, n); err == nil {
		return info, nil
	}
	if tree, err = c.logTree.read(ctx, c, 0); err != nil {
		return LogInfo{}, err
	}
	return describeLog(tree, n)
}

// resolveLogForAppend is resolveLog that has the log made where its directory
// allows that.
func (c *Client) resolveLogForAppend(ctx context.Context, name string) (LogInfo, error) {
	info, err := c.resolveLog(ctx, name)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return info, err
	}
	n, _ := catalog.ParseLogName(name) // it was found fit to look for
	if n.ID != 0 || n.Number != 0 {
		return info, err
	}
	made, err := c.createOnAppend(ctx, n.Path)
	if err != nil {
		return LogInfo{}, err
	}
	if made.Logs > 1 && !n.Numbered { // it was made meanwhile, by somebody who wanted several
		return c.resolveLog(ctx, name)
	}
	return made, nil
}

// attributesOfLog are those of the client's copy, be it outdated; false where it
// has no such log.
func (c *Client) attributesOfLog(log LogID) (*LogAttributes, bool) {
	c.logTree.mu.Lock()
	tree := c.logTree.mu.logs
	c.logTree.mu.Unlock()
	if tree == nil {
		return nil, false
	}
	return tree.Attributes(uint64(log))
}

func describeName(tree *catalog.Logs, name string) (LogInfo, error) {
	n, err := catalog.ParseLogName(name)
	if err == nil && (n.ID != 0 || n.Numbered) {
		return describeLog(tree, n)
	}
	var info LogInfo
	err = tree.Walk(name, func(e catalog.LogEntry) bool {
		info = describe(e)
		return false
	})
	return info, logsError(err)
}

func describeLog(tree *catalog.Logs, n catalog.LogName) (LogInfo, error) {
	id, err := tree.Resolve(n)
	if err != nil {
		return LogInfo{}, logsError(err)
	}
	g, number := tree.GroupOf(id)
	info, err := describeGroup(tree, g.Id)
	info.ID, info.Number = LogID(id), int(number)
	return info, err
}

func describeGroup(tree *catalog.Logs, group uint64) (LogInfo, error) {
	g := tree.GroupWithID(group)
	if g == nil {
		return LogInfo{}, newError(wire.Code_CODE_NOT_FOUND, nil, "the log group was removed meanwhile")
	}
	a, _ := tree.Attributes(g.FirstLog)
	return describe(catalog.LogEntry{Path: tree.Path(group), Group: g, Attributes: a}), nil
}

func describe(e catalog.LogEntry) LogInfo {
	info := LogInfo{Path: e.Path, Directory: e.Group == nil, Attributes: e.Attributes}
	if g := e.Group; g != nil {
		info.ID, info.Logs, info.Version = logs.LogID(g.FirstLog), int(g.Logs()), g.Version
		for r := range g.Ranges() {
			info.Ranges = append(info.Ranges, LogRange{LogID(r.First), LogID(r.Last)})
		}
	}
	return info
}

// logsError makes an Error of what the catalog says about names of logs.
func logsError(err error) error {
	if err == nil {
		return nil
	}
	return newError(wire.LogErrorCode(err), err, "%v", err)
}
