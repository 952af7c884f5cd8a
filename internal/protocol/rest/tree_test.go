package rest

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestLogsAreAdministered(t *testing.T) {
	l := newLab(t, Options{})
	l.must(201, "PUT", "/v1/logs/events", `{"directory":true,"attributes":{"backlog":"7d","replication":"node:3"}}`)
	info := infoIn(t, l.must(201, "PUT", "/v1/logs/events/clicks", `{"logs":4,"attributes":{"max_payload_bytes":2097152,"sticky_copysets":false}}`))
	if info.ID != 1 || info.Logs != 4 || info.Attributes["backlog"] != "7d" || info.Attributes["max_payload_bytes"] != "2MiB" ||
		info.Attributes["sticky_copysets"] != "false" || len(info.Ranges) != 1 || info.Ranges[0] != (rangeJSON{1, 4}) {
		t.Errorf("made %+v", info)
	}
	if p := problemIn(t, l.must(412, "PATCH", "/v1/logs/events/clicks", `{"attributes":{"backlog":"1d"},"if_version":1}`)); p.Status != "condition_failed" {
		t.Errorf("%+v", p)
	}
	changed := infoIn(t, l.must(200, "PATCH", "/v1/logs/events/clicks", `{"attributes":{"max_writes_in_flight":7},"inherit":["sticky_copysets"]}`))
	if changed.Attributes["max_writes_in_flight"] != "7" || changed.Attributes["sticky_copysets"] != "true" || changed.Version <= info.Version {
		t.Errorf("changed %+v", changed)
	}
	if grown := infoIn(t, l.must(200, "PATCH", "/v1/logs/events/clicks", `{"logs":5}`)); grown.Logs != 5 {
		t.Errorf("grown %+v", grown)
	}
	l.must(200, "PATCH", "/v1/logs", `{"attributes":{"sequencer_affinity":"eu"}}`)
	one := infoIn(t, l.must(200, "GET", "/v1/logs/events/clicks%233?sources=true", ""))
	if one.ID != 4 || one.Number != 3 || one.Sources["backlog"] != "/events" || one.Sources["sequencer_affinity"] != "/" || one.Sources["durability"] != "built-in" {
		t.Errorf("found %+v", one)
	}
	if byID := infoIn(t, l.must(200, "GET", "/v1/logs/2", "")); byID.Path != "/events/clicks" || byID.Number != 1 {
		t.Errorf("by its id %+v", byID)
	}
	if moved := infoIn(t, l.must(200, "POST", "/v1/rename", `{"from":"/events/clicks","to":"/a/b","parents":true}`)); moved.Path != "/a/b" {
		t.Errorf("moved %+v", moved)
	}
	var list struct{ Logs []infoJSON }
	if err := json.Unmarshal([]byte(l.must(200, "GET", "/v1/logs", "")), &list); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, i := range list.Logs {
		paths = append(paths, i.Path)
	}
	if got := strings.Join(paths, " "); got != "/ /a /a/b /events" {
		t.Errorf("the tree holds %q", got)
	}
	l.must(409, "DELETE", "/v1/logs/a", "")
	same(t, l.must(200, "DELETE", "/v1/logs/a?recursive=true", ""), `{"removed":"/a"}`)
	l.must(404, "GET", "/v1/logs/a/b", "")
	l.must(404, "POST", "/v1/records/2", "x")
}

func infoIn(t testing.TB, body string) (i infoJSON) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &i); err != nil || i.Path == "" {
		t.Fatalf("%q: %v", body, err)
	}
	return i
}

func TestBadChangesAreRefused(t *testing.T) {
	l := newLab(t, Options{})
	l.must(201, "PUT", "/v1/logs/a", "")
	for _, c := range []struct {
		code               int
		method, path, body string
		says               string
	}{
		{409, "PUT", "/v1/logs/a", "", "a"},
		{400, "PUT", "/v1/logs/7", "", "log's id"},
		{404, "PUT", "/v1/logs/x/y", "", "x"},
		{409, "PUT", "/v1/logs/a/b", "", "a"},
		{400, "PUT", "/v1/logs/b", `{"logs":0}`, "0 logs"},
		{400, "PUT", "/v1/logs/b", `{"logs":2,"directory":true}`, "directory"},
		{400, "PUT", "/v1/logs/b", `{"inherit":["backlog"]}`, "inherit"},
		{400, "PUT", "/v1/logs/b", `{"attributes":{"colour":"red"}}`, "colour"},
		{400, "PUT", "/v1/logs/b", `{"attributes":{"backlog":[]}}`, "backlog"},
		{400, "PUT", "/v1/logs/b", `{"attributes":{"backlog":"soon"}}`, "backlog"},
		{400, "PUT", "/v1/logs/b", `{"attributes":{"durability":"none"}}`, "durability"},
		{400, "PUT", "/v1/logs/b", `{`, "JSON"},
		{413, "PUT", "/v1/logs/b", `{"attributes":{"x":"` + strings.Repeat("x", changeBytesMax) + `"}}`, "more than"},
		{400, "PATCH", "/v1/logs/a", `{}`, "nothing"},
		{400, "PATCH", "/v1/logs/a", `{"logs":2,"inherit":["backlog"]}`, "two requests"},
		{404, "PATCH", "/v1/logs/zzz", `{"logs":2}`, "zzz"},
		{404, "DELETE", "/v1/logs/zzz", "", "zzz"},
		{400, "POST", "/v1/rename", `{"from":"/a"}`, "from and to"},
		{404, "POST", "/v1/rename", `{"from":"/zzz","to":"/b"}`, "zzz"},
	} {
		a := l.do(c.method, c.path, c.body)
		if p := problemIn(t, a.body); a.code != c.code || !strings.Contains(p.Message, c.says) {
			t.Errorf("%s %s %.60s: %d %s, want %d and %q", c.method, c.path, c.body, a.code, a.body, c.code, c.says)
		}
	}
}
