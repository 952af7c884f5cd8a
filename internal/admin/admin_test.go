package admin

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

type testMetrics struct {
	Commands  uint64
	FsyncsRPC int64
	Inner     struct{ LoadAvg float64 }
	Name      string
	Waits     atomic.Uint64
	hidden    uint64
}

func TestConsole(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var ready atomic.Bool
	m := &testMetrics{Commands: 3, FsyncsRPC: -4, hidden: 9}
	m.Inner.LoadAvg = 0.5
	m.Waits.Store(11)
	s := Serve(l, Options{
		Ready: func() error {
			if !ready.Load() {
				return errors.New("no leader yet")
			}
			return nil
		},
		Status: func() Status {
			return Status{ClusterID: "c1", Node: 2, Problems: []string{"<script>"}, Nodes: []NodeStatus{{ID: 2, State: "alive"}}}
		},
		Metrics: map[string]func() any{"room": func() any { return m }},
		Mounts: map[string]http.Handler{"/v1/": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.Method+" "+r.URL.Path)
		})},
	})
	defer s.Close()
	get := func(path string) (int, string) {
		t.Helper()
		r, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}

	if code, body := get("/readyz"); code != 503 || !strings.Contains(body, "no leader yet") {
		t.Errorf("readyz before ready: %d %q", code, body)
	}
	ready.Store(true)
	for _, path := range []string{"/readyz", "/livez", "/debug/pprof/cmdline"} {
		if code, _ := get(path); code != 200 {
			t.Errorf("%s: %d", path, code)
		}
	}
	if code, _ := get("/nothing"); code != 404 {
		t.Errorf("unknown page: %d", code)
	}
	if code, body := get("/v1/records/a%23b/c"); code != 200 || body != "GET /v1/records/a#b/c" {
		t.Errorf("what is mounted: %d %q", code, body)
	}
	if code, _ := get("/v1/" + strings.Repeat("x", headerBytesMax+8<<10)); code != 431 {
		t.Errorf("a header without end: %d", code)
	}
	_, body := get("/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatalf("/metrics does not parse: %v", err)
	}
	for name, want := range map[string]float64{"braid_room_commands": 3, "braid_room_fsyncs_rpc": -4, "braid_room_inner_load_avg": 0.5, "braid_room_waits": 11} {
		f := families[name]
		if f == nil || f.Metric[0].Untyped.GetValue() != want {
			t.Errorf("%s = %v, want %v", name, f, want)
		}
	}
	if strings.Contains(body, "hidden") {
		t.Error("an unexported field was shown")
	}
	_, body = get("/api/status")
	var st Status
	if err := json.Unmarshal([]byte(body), &st); err != nil || st.Node != 2 {
		t.Errorf("status %q: %v", body, err)
	}
	if _, body = get("/"); !strings.Contains(body, "cluster c1") || strings.Contains(body, "<script>") {
		t.Errorf("page: %q", body)
	}
}
