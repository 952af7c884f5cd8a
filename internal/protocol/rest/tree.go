package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
)

// infoJSON describes a log, a group of logs or a directory.
type infoJSON struct {
	Path       string            `json:"path"`
	Directory  bool              `json:"directory,omitempty"`
	ID         client.LogID      `json:"id,omitempty"`     // of the log that was named; of a group, its first
	Number     int               `json:"number,omitempty"` // of that log in its group
	Logs       int               `json:"logs,omitempty"`   // of the group
	Ranges     []rangeJSON       `json:"ranges,omitempty"` // of ids
	Version    uint64            `json:"version,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Sources    map[string]string `json:"sources,omitempty"` // where each attribute was set
}

type rangeJSON struct {
	First client.LogID `json:"first"`
	Last  client.LogID `json:"last"`
}

func infoOf(i client.LogInfo, attributes bool) infoJSON {
	out := infoJSON{Path: i.Path, Directory: i.Directory, ID: i.ID, Number: i.Number, Logs: i.Logs, Version: i.Version}
	for _, r := range i.Ranges {
		out.Ranges = append(out.Ranges, rangeJSON(r))
	}
	if attributes {
		out.Attributes = map[string]string{}
		for _, d := range catalog.AllLogAttributes() {
			if d.IsSet(i.Attributes) {
				out.Attributes[d.Name] = d.Format(i.Attributes)
			}
		}
	}
	return out
}

// describeLogs describes one thing, or a directory and all below it.
//
//	GET /v1/logs?attributes=true
//	GET /v1/logs/{path}?recursive=true&attributes=true&sources=true
func (s *Server) describeLogs(w http.ResponseWriter, r *request) error {
	recursive, err := r.query.flag("recursive")
	if err != nil {
		return err
	}
	attributes, err := r.query.flag("attributes")
	if err != nil {
		return err
	}
	sources, err := r.query.flag("sources")
	if err != nil {
		return err
	}
	if recursive || r.name == "" {
		if sources {
			return invalid("sources is for one group or directory")
		}
		return s.describeTree(w, r, attributes)
	}
	info, err := s.cluster.LogInfo(r.Context(), logName(r.name))
	if err != nil {
		return err
	}
	out := infoOf(info, true)
	if sources {
		list, err := s.cluster.LogSources(r.Context(), info.Path)
		if err != nil {
			return err
		}
		out.Sources = map[string]string{}
		for _, l := range list {
			out.Sources[l.Name] = l.From
		}
	}
	s.answer(w, http.StatusOK, out)
	return nil
}

// describeTree answers with a list that may be long: it is written as it is made.
func (s *Server) describeTree(w http.ResponseWriter, r *request, attributes bool) error {
	path, err := catalog.CleanLogPath("/" + r.name)
	if err != nil {
		return invalid("%v", err)
	}
	list, err := s.cluster.Logs(r.Context(), path)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", typeJSON)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	var b bytes.Buffer
	enc := encoder(&b)
	b.WriteString(`{"logs":[`)
	for i, info := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := enc.Encode(infoOf(info, attributes)); err != nil {
			panic("BUG: " + err.Error())
		}
		join(&b)
		if b.Len() < streamBytes {
			continue
		}
		s.takeWithin(w)
		if _, err := w.Write(b.Bytes()); err != nil {
			s.metrics.Gone.Add(1)
			return nil
		}
		b.Reset()
	}
	b.WriteString("]}\n")
	s.takeWithin(w)
	if _, err := w.Write(b.Bytes()); err != nil {
		s.metrics.Gone.Add(1)
	}
	return nil
}

// changeJSON is what a change of the tree says.
type changeJSON struct {
	Attributes  map[string]json.RawMessage `json:"attributes"`
	Inherit     []string                   `json:"inherit"`       // PATCH: attributes to be inherited again
	Logs        *int                       `json:"logs"`          // of the group; PATCH: it grows or shrinks to that
	Directory   bool                       `json:"directory"`     // PUT: make a directory
	Parents     bool                       `json:"parents"`       // missing directories are made too
	IfNotExists bool                       `json:"if_not_exists"` // PUT: what is there is taken for what was to be made
	IfVersion   uint64                     `json:"if_version"`    // PATCH: only if the group is of this version
	FirstID     client.LogID               `json:"first_id"`      // PUT: ids of the new logs
	From        string                     `json:"from"`          // rename
	To          string                     `json:"to"`
}

// changeBytesMax bounds the body of a change.
const changeBytesMax = 256 << 10

// change reads a body that may be left out. Fields that mean nothing here are refused.
func (s *Server) change(w http.ResponseWriter, r *request, fields string) (c changeJSON, settings []client.LogSetting, err error) {
	body, release, err := s.readBody(w, r.Request, changeBytesMax, "describes a change")
	defer release()
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return c, nil, err
	}
	if err := decodeJSON(body, &c); err != nil {
		return c, nil, err
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(body, &given); err != nil {
		return c, nil, invalid("the body is not an object: %v", err)
	}
	for name := range given {
		if !knows(fields, strings.ToLower(name)) {
			return c, nil, invalid("%q means nothing here; there are %s", name, fields)
		}
	}
	settings, err = c.settings()
	return c, settings, err
}

func (c *changeJSON) settings() (list []client.LogSetting, err error) {
	for _, d := range catalog.AllLogAttributes() { // in their order, not the map's
		raw, ok := c.Attributes[d.Name]
		if !ok {
			continue
		}
		value, err := attributeText(raw)
		if err != nil {
			return nil, invalid("attribute %s: %v", d.Name, err)
		}
		list = append(list, client.LogAttribute(d.Name, value))
	}
	for name := range c.Attributes {
		if _, err := catalog.LogAttributeNamed(name); err != nil {
			return nil, refuse(http.StatusBadRequest, "invalid_attributes", "%v", err)
		}
	}
	if len(c.Inherit) > 0 {
		list = append(list, client.LogInherit(c.Inherit...))
	}
	if c.Parents {
		list = append(list, client.LogParents())
	}
	if c.IfNotExists {
		list = append(list, client.LogIfNotExists())
	}
	if c.IfVersion != 0 {
		list = append(list, client.LogIfVersion(c.IfVersion))
	}
	if c.FirstID != 0 {
		list = append(list, client.LogFirstID(c.FirstID))
	}
	return list, nil
}

// attributeText is a value as `braid log create` takes it: a string, a number or a
// truth value of JSON.
func attributeText(raw json.RawMessage) (string, error) {
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return "", err
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("%s is no value of an attribute: write a string, a number, true or false", raw)
}

// changedPath is the path of a change. A bare number is no path here: elsewhere it is
// a log's id.
func changedPath(name string) (string, error) {
	if isID(name) {
		return "", invalid("%s is a log's id: changes are made to the path of its group", name)
	}
	path, err := catalog.CleanLogPath("/" + strings.TrimPrefix(name, "/"))
	if err != nil {
		return "", invalid("%v", err)
	}
	return path, nil
}

// createLogs makes a group of logs, or a directory.
//
//	PUT /v1/logs/{path}  {"logs":4,"attributes":{"backlog":"7d"},"parents":true,"if_not_exists":true}
//	PUT /v1/logs/{path}  {"directory":true,"attributes":{"create_on_append":true}}
func (s *Server) createLogs(w http.ResponseWriter, r *request) error {
	path, err := changedPath(r.name)
	if err != nil {
		return err
	}
	c, settings, err := s.change(w, r, "attributes logs directory parents if_not_exists first_id")
	if err != nil {
		return err
	}
	defer s.forgetInfos()
	if c.Directory {
		if c.Logs != nil {
			return invalid("a directory has no logs of its own")
		}
		if err := s.cluster.CreateLogDirectory(r.Context(), path, settings...); err != nil {
			return err
		}
		return s.answerChanged(w, r, http.StatusCreated, path)
	}
	n := 1
	if c.Logs != nil {
		n = *c.Logs
	}
	info, err := s.cluster.CreateLogs(r.Context(), path, n, settings...)
	if err != nil {
		return err
	}
	s.answer(w, http.StatusCreated, infoOf(info, true))
	return nil
}

// alterLogs changes attributes of a group or a directory, or, without a path, the
// cluster's defaults; or the number of a group's logs.
//
//	PATCH /v1/logs/{path}  {"attributes":{"max_payload_bytes":"2MiB"},"inherit":["backlog"],"if_version":17}
//	PATCH /v1/logs/{path}  {"logs":8}
func (s *Server) alterLogs(w http.ResponseWriter, r *request) error {
	path, err := changedPath(r.name)
	if err != nil {
		return err
	}
	c, settings, err := s.change(w, r, "attributes inherit logs if_version")
	if err != nil {
		return err
	}
	defer s.forgetInfos()
	switch {
	case c.Logs != nil && (len(c.Attributes) > 0 || len(c.Inherit) > 0):
		return invalid("change the number of logs and their attributes in two requests: each is one change")
	case c.Logs != nil:
		_, err = s.cluster.ResizeLogs(r.Context(), path, *c.Logs, settings...)
	case len(c.Attributes) == 0 && len(c.Inherit) == 0:
		return invalid("nothing is to be changed: give attributes, inherit or logs")
	default:
		err = s.cluster.AlterLog(r.Context(), path, settings...)
	}
	if err != nil {
		return err
	}
	return s.answerChanged(w, r, http.StatusOK, path)
}

// removeLogs removes a group with its records, or a directory.
//
//	DELETE /v1/logs/{path}?recursive=true&if_version=N
func (s *Server) removeLogs(w http.ResponseWriter, r *request) error {
	path, err := changedPath(r.name)
	if err != nil {
		return err
	}
	recursive, err := r.query.flag("recursive")
	if err != nil {
		return err
	}
	version, err := r.query.number("if_version", 1)
	if err != nil {
		return err
	}
	var settings []client.LogSetting
	if version != 0 {
		settings = append(settings, client.LogIfVersion(version))
	}
	defer s.forgetInfos()
	if err := s.cluster.RemoveLog(r.Context(), path, recursive, settings...); err != nil {
		return err
	}
	s.answer(w, http.StatusOK, map[string]string{"removed": path})
	return nil
}

// renameLogs gives a group, or a directory with all below it, another path.
//
//	POST /v1/rename  {"from":"/a","to":"/b/a","parents":true}
func (s *Server) renameLogs(w http.ResponseWriter, r *request) error {
	c, settings, err := s.change(w, r, "from to parents")
	if err != nil {
		return err
	}
	if c.From == "" || c.To == "" {
		return invalid("say from and to")
	}
	from, err := changedPath(c.From)
	if err != nil {
		return err
	}
	to, err := changedPath(c.To)
	if err != nil {
		return err
	}
	defer s.forgetInfos()
	if err := s.cluster.RenameLog(r.Context(), from, to, settings...); err != nil {
		return err
	}
	return s.answerChanged(w, r, http.StatusOK, to)
}

// answerChanged describes what was changed. The change is made, whatever becomes of that.
func (s *Server) answerChanged(w http.ResponseWriter, r *request, code int, path string) error {
	info, err := s.cluster.LogInfo(r.Context(), path)
	if err != nil {
		s.answer(w, code, infoJSON{Path: path})
		return nil
	}
	s.answer(w, code, infoOf(info, true))
	return nil
}
