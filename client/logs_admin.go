package client

import (
	"context"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// The words of logs.
type (
	// LogID names a log for its whole life.
	LogID = logs.LogID
	// Replication says how many copies a record has, and over how many domains of
	// each scope they lie.
	Replication = catalog.Replication
	// LogAttributes are the attributes of logs as messages carry them; what is
	// absent is inherited, except in LogInfo, which has all of them.
	LogAttributes = catalog.LogAttributes
	// LogSource is one attribute of a log and the level that set it.
	LogSource = catalog.LogSource
	// Compression of batches.
	Compression = catalog.Compression
)

// The compressions of batches.
const (
	CompressionNone = catalog.Compression_COMPRESSION_NONE
	CompressionLZ4  = catalog.Compression_COMPRESSION_LZ4
	CompressionZstd = catalog.Compression_COMPRESSION_ZSTD
)

// LogSetting is part of a request about logs: an attribute, or how it is to be
// carried out.
type LogSetting func(*wire.CatalogRequest) error

func attribute(set func(*LogAttributes)) LogSetting {
	return func(r *wire.CatalogRequest) error {
		if r.Log.Attributes == nil {
			r.Log.Attributes = new(LogAttributes)
		}
		set(r.Log.Attributes)
		return nil
	}
}

// LogReplication sets how many copies of each record are made, and where.
func LogReplication(r *Replication) LogSetting {
	return attribute(func(a *LogAttributes) { a.Replication = r })
}

// LogNodesetSize sets on how many shards an epoch may store; 0: the cluster chooses.
func LogNodesetSize(n uint32) LogSetting {
	return attribute(func(a *LogAttributes) { a.NodesetSize = &n })
}

// LogWindow sets how many records may be in flight.
func LogWindow(records uint32) LogSetting {
	return attribute(func(a *LogAttributes) { a.MaxWritesInFlight = &records })
}

// LogMaxPayload sets the largest record, in bytes.
func LogMaxPayload(bytes uint32) LogSetting {
	return attribute(func(a *LogAttributes) { a.MaxPayloadBytes = &bytes })
}

// LogStickyCopysets keeps a block of records on the same nodes.
func LogStickyCopysets(on bool) LogSetting {
	return attribute(func(a *LogAttributes) { a.StickyCopysets = &on })
}

// LogSingleCopyDelivery has each record sent to a reader by one shard only.
func LogSingleCopyDelivery(on bool) LogSetting {
	return attribute(func(a *LogAttributes) { a.SingleCopyDelivery = &on })
}

// LogSequencerBatching has the sequencer put records of many writers into one.
func LogSequencerBatching(on bool) LogSetting {
	return attribute(func(a *LogAttributes) { a.SequencerBatching = &on })
}

// LogBacklog sets how long records are kept, to the millisecond; 0: for ever.
func LogBacklog(d time.Duration) LogSetting {
	return attribute(func(a *LogAttributes) { a.BacklogMs = new(d.Milliseconds()) })
}

// LogCreateOnAppend has logs below a directory made when they are appended to.
func LogCreateOnAppend(on bool) LogSetting {
	return attribute(func(a *LogAttributes) { a.CreateOnAppend = &on })
}

// LogSequencerAffinity names the location where sequencers should be.
func LogSequencerAffinity(location string) LogSetting {
	return attribute(func(a *LogAttributes) { a.SequencerAffinity = &location })
}

// LogAttribute sets any attribute from text, as `braid log create` does; see
// LogAttributeNames.
func LogAttribute(name, value string) LogSetting {
	return func(r *wire.CatalogRequest) error {
		d, err := catalog.LogAttributeNamed(name)
		if err != nil {
			return newError(wire.Code_CODE_INVALID_ATTRIBUTES, err, "%v", err)
		}
		a := r.Log.Attributes
		if a == nil {
			a = new(LogAttributes)
		}
		if err := d.Parse(a, value); err != nil {
			return newError(wire.Code_CODE_INVALID_ATTRIBUTES, err, "%v", err)
		}
		r.Log.Attributes = a
		return nil
	}
}

// LogAttributeNames are the attributes of logs, each with a line of help.
func LogAttributeNames() (names, help []string) {
	for _, d := range catalog.AllLogAttributes() {
		names, help = append(names, d.Name), append(help, d.Help)
	}
	return names, help
}

// LogInherit has attributes no longer set there, but inherited; for AlterLog.
func LogInherit(names ...string) LogSetting {
	return func(r *wire.CatalogRequest) error {
		r.Log.Inherit = append(r.Log.Inherit, names...)
		return nil
	}
}

// LogParents makes missing directories too.
func LogParents() LogSetting {
	return func(r *wire.CatalogRequest) error { r.Log.Parents = true; return nil }
}

// LogIfNotExists takes what exists for what was to be made.
func LogIfNotExists() LogSetting {
	return func(r *wire.CatalogRequest) error { r.IfNotExists = true; return nil }
}

// LogFirstID chooses the ids of new logs: the first, and those that follow it.
// Ids at or below any that were given out before are refused with ErrIDClash.
func LogFirstID(id LogID) LogSetting {
	return func(r *wire.CatalogRequest) error { r.Log.FirstLog = uint64(id); return nil }
}

// LogIfVersion refuses the change with ErrConditionFailed if the group is not of
// this version (LogInfo.Version) any more.
func LogIfVersion(v uint64) LogSetting {
	return func(r *wire.CatalogRequest) error { r.Log.IfVersion = v; return nil }
}

// CreateLogs makes a group of n logs with one path and the same attributes. One
// log of several is named by its number, counted from 0: /events/clicks#3.
func (c *Client) CreateLogs(ctx context.Context, path string, n int, settings ...LogSetting) (LogInfo, error) {
	if n < 1 {
		return LogInfo{}, newError(wire.Code_CODE_INVALID, nil, "a group of %d logs", n)
	}
	return c.changeLogs(ctx, wire.CatalogRequest_ACTION_MAKE_LOG_GROUP, &wire.LogChange{Path: path, Logs: uint64(n)}, settings)
}

// CreateLogDirectory makes a directory; its attributes are inherited by all below it.
func (c *Client) CreateLogDirectory(ctx context.Context, path string, settings ...LogSetting) error {
	_, err := c.changeLogs(ctx, wire.CatalogRequest_ACTION_MAKE_LOG_DIRECTORY, &wire.LogChange{Path: path}, settings)
	return err
}

// AlterLog changes attributes of a group or a directory, or, at "/", the
// cluster's defaults.
func (c *Client) AlterLog(ctx context.Context, path string, settings ...LogSetting) error {
	_, err := c.changeLogs(ctx, wire.CatalogRequest_ACTION_ALTER_LOGS, &wire.LogChange{Path: path}, settings)
	return err
}

// ResizeLogs gives a group n logs. Those of the highest numbers go, with their
// records, or new ones with ids never used before come.
func (c *Client) ResizeLogs(ctx context.Context, path string, n int, settings ...LogSetting) (LogInfo, error) {
	if n < 1 {
		return LogInfo{}, newError(wire.Code_CODE_INVALID, nil, "a group of %d logs", n)
	}
	return c.changeLogs(ctx, wire.CatalogRequest_ACTION_RESIZE_LOG_GROUP, &wire.LogChange{Path: path, Logs: uint64(n)}, settings)
}

// RenameLog gives a group, or a directory with all below it, another path. Logs
// keep their ids and records, and inherit from where they are now.
func (c *Client) RenameLog(ctx context.Context, from, to string, settings ...LogSetting) error {
	_, err := c.changeLogs(ctx, wire.CatalogRequest_ACTION_RENAME_LOGS, &wire.LogChange{Path: from, To: to}, settings)
	return err
}

// RemoveLog removes a group, or a directory: with recursive, all below it too.
func (c *Client) RemoveLog(ctx context.Context, path string, recursive bool, settings ...LogSetting) error {
	_, err := c.changeLogs(ctx, wire.CatalogRequest_ACTION_REMOVE_LOGS, &wire.LogChange{Path: path, Recursive: recursive}, settings)
	return err
}

// createOnAppend finds the log of a path, or makes it where its directory allows that.
func (c *Client) createOnAppend(ctx context.Context, path string) (LogInfo, error) {
	return c.changeLogs(ctx, wire.CatalogRequest_ACTION_CREATE_ON_APPEND, &wire.LogChange{Path: path}, nil)
}

// changeLogs carries out one change; the information is empty where it was about
// a directory.
func (c *Client) changeLogs(ctx context.Context, action wire.CatalogRequest_Action, change *wire.LogChange, settings []LogSetting) (LogInfo, error) {
	req := &wire.CatalogRequest{Action: action, Log: change}
	for _, s := range settings {
		if err := s(req); err != nil {
			return LogInfo{}, err
		}
	}
	resp, err := c.catalog(ctx, req)
	if err != nil {
		return LogInfo{}, err
	}
	c.logTree.outdated(resp.LogVersion)
	if resp.LogGroup == nil {
		return LogInfo{}, nil
	}
	tree, err := c.logTree.read(ctx, c, resp.LogVersion)
	if err != nil {
		return LogInfo{}, err
	}
	return describeGroup(tree, resp.LogGroup.Id)
}
