package rest

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
)

const (
	// infoTime is how long what a name says is believed: so long may it take until a
	// change of max_payload_bytes that was made elsewhere is seen here.
	infoTime = 5 * time.Second
	// infosMax bounds how many names are remembered.
	infosMax = 10_000
)

// logName is a name as the client library reads it: what follows the resource in a
// path is a log's id, or a path without its first slash.
func logName(name string) string {
	if isID(name) {
		return name
	}
	return "/" + name
}

func isID(name string) bool { return name != "" && strings.Trim(name, "0123456789") == "" }

// logNamed finds one log. With create, one that is not there is made where its
// directory allows that. A log is opened by its id, so that to look for it never
// makes one.
func (s *Server) logNamed(ctx context.Context, name string, create bool) (Log, client.LogInfo, error) {
	n, err := catalog.ParseLogName(logName(name))
	if err != nil {
		return nil, client.LogInfo{}, invalid("%v", err)
	}
	info, err := s.info(ctx, n.String())
	if create && errors.Is(err, client.ErrNotFound) {
		if _, err = s.cluster.Log(ctx, n.String()); err == nil {
			info, err = s.info(ctx, n.String())
		}
	}
	switch {
	case err != nil:
		return nil, info, err
	case info.Directory:
		return nil, info, invalid("%s is a directory, not a log", info.Path)
	case info.Logs > 1 && n.ID == 0 && !n.Numbered:
		return nil, info, invalid("%s is a group of %d logs: name one of them, %s%%230 to %s%%23%d", info.Path, info.Logs, info.Path, info.Path, info.Logs-1)
	}
	l, err := s.cluster.Log(ctx, strconv.FormatUint(uint64(info.ID), 10))
	if errors.Is(err, client.ErrNotFound) {
		s.forgetInfos() // it was removed since
	}
	return l, info, err
}

// info is what a name says, as of a moment ago.
func (s *Server) info(ctx context.Context, name string) (client.LogInfo, error) {
	now := time.Now()
	s.mu.Lock()
	known, ok := s.mu.infos[name]
	s.mu.Unlock()
	if ok && now.Sub(known.at) < infoTime {
		return known.info, nil
	}
	info, err := s.cluster.LogInfo(ctx, name)
	if err != nil {
		return info, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.infos) >= infosMax {
		clear(s.mu.infos)
	}
	s.mu.infos[name] = knownLog{info, now}
	return info, nil
}

// forgetInfos is called where something was changed.
func (s *Server) forgetInfos() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.mu.infos)
}
