package master

import (
	"errors"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// logChange is a client's change of log directories and groups: a version of the
// log part made of the one before, nil where nothing had to change, and the
// group that it is about.
type logChange func(l *catalog.Logs, at uint64, r *wire.LogChange) (*catalog.Logs, *catalog.LogGroup, error)

var logChanges = map[wire.CatalogRequest_Action]logChange{
	wire.CatalogRequest_ACTION_MAKE_LOG_DIRECTORY: func(l *catalog.Logs, at uint64, r *wire.LogChange) (*catalog.Logs, *catalog.LogGroup, error) {
		next, err := l.MakeDirectory(at, r.GetPath(), r.GetAttributes(), r.GetParents())
		return next, nil, err
	},
	wire.CatalogRequest_ACTION_MAKE_LOG_GROUP: func(l *catalog.Logs, at uint64, r *wire.LogChange) (*catalog.Logs, *catalog.LogGroup, error) {
		return l.MakeGroup(at, catalog.NewLogGroup{
			Path: r.GetPath(), Attributes: r.GetAttributes(), Logs: r.GetLogs(), FirstLog: r.GetFirstLog(), Parents: r.GetParents(),
		})
	},
	wire.CatalogRequest_ACTION_ALTER_LOGS: func(l *catalog.Logs, at uint64, r *wire.LogChange) (*catalog.Logs, *catalog.LogGroup, error) {
		return l.Alter(at, catalog.LogAlteration{Path: r.GetPath(), Set: r.GetAttributes(), Inherit: r.GetInherit(), IfVersion: r.GetIfVersion()})
	},
	wire.CatalogRequest_ACTION_RENAME_LOGS: func(l *catalog.Logs, at uint64, r *wire.LogChange) (*catalog.Logs, *catalog.LogGroup, error) {
		return l.Rename(at, r.GetPath(), r.GetTo(), r.GetParents())
	},
	wire.CatalogRequest_ACTION_REMOVE_LOGS: func(l *catalog.Logs, at uint64, r *wire.LogChange) (*catalog.Logs, *catalog.LogGroup, error) {
		next, err := l.Remove(at, r.GetPath(), r.GetRecursive(), r.GetIfVersion())
		return next, nil, err
	},
	wire.CatalogRequest_ACTION_RESIZE_LOG_GROUP: func(l *catalog.Logs, at uint64, r *wire.LogChange) (*catalog.Logs, *catalog.LogGroup, error) {
		return l.Resize(at, r.GetPath(), r.GetLogs(), r.GetIfVersion())
	},
	wire.CatalogRequest_ACTION_CREATE_ON_APPEND: func(l *catalog.Logs, at uint64, r *wire.LogChange) (*catalog.Logs, *catalog.LogGroup, error) {
		return l.CreateOnAppend(at, r.GetPath())
	},
}

// changeLogs carries out one change of the log part.
func (c *change) changeLogs(req *wire.CatalogRequest, do logChange) *wire.Error {
	next, group, err := do(c.was.Logs(), c.was.Version()+1, req.GetLog())
	if err != nil {
		if req.IfNotExists && errors.Is(err, &catalog.LogError{Kind: catalog.LogExists}) {
			return c.foundLogs(req, err)
		}
		return refuseLogs(err)
	}
	c.out.LogGroup = group.GetId()
	if next != nil {
		c.logs, c.changed = next, true
	}
	return nil
}

// foundLogs is a making of what exists, where that is as good: it must be of the
// same kind.
func (c *change) foundLogs(req *wire.CatalogRequest, err error) *wire.Error {
	path := req.GetLog().GetPath()
	switch req.Action {
	case wire.CatalogRequest_ACTION_MAKE_LOG_GROUP:
		if g, _ := c.was.Logs().Group(path); g != nil {
			c.out.LogGroup = g.Id
			return nil
		}
	case wire.CatalogRequest_ACTION_MAKE_LOG_DIRECTORY:
		if d, _ := c.was.Logs().Directory(path); d != nil {
			return nil
		}
	}
	return refuseLogs(err)
}

// refuseLogs turns what catalog refuses into what clients are told.
func refuseLogs(err error) *wire.Error { return refuse(wire.LogErrorCode(err), "%v", err) }

// readLogs gives a client the log part of the catalog, unless it has it.
func (m *Master) readLogs(x *catalog.Index, req *wire.CatalogRequest) *wire.CatalogResponse {
	c := x.Catalog()
	resp := &wire.CatalogResponse{LogVersion: c.LogVersion, MasterLeader: uint64(m.d.Node)}
	if known := req.GetLog().GetKnownVersion(); known == 0 || known != c.LogVersion {
		resp.Catalog = &catalog.Catalog{
			ClusterId: c.ClusterId, Version: c.Version,
			LogDirectories: c.LogDirectories, LogGroups: c.LogGroups, NextLogId: c.NextLogId,
			NextLogItemId: c.NextLogItemId, LogDefaults: c.LogDefaults, LogVersion: c.LogVersion,
		}
	}
	return resp
}

// withoutLogs is a catalog for who looks at nodes and tables: there may be many
// more logs than of all else together.
func withoutLogs(c *catalog.Catalog) *catalog.Catalog {
	out := c.Shallow()
	out.LogDirectories, out.LogGroups = nil, nil
	return out
}
