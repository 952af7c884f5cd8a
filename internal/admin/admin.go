// Package admin is the console port of a node: health, metrics, profiles, and
// the state of the cluster for programs and for people.
//
//	/            a page for people
//	/api/status  the same as JSON
//	/metrics     Prometheus text
//	/livez       200 while the process can answer at all
//	/readyz      200 while the node serves; else 503 and why
//	/debug/pprof profiles
//	/v1/         and what else Options.Mounts has
//
// It is given values and functions that return values; it knows no subsystem.
package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options say what the console shows.
type Options struct {
	// Ready returns nil while the node serves, else why it does not.
	Ready func() error
	// Status returns what /api/status answers and the page shows.
	Status func() Status
	// Metrics maps a room to a function that returns a struct of numbers; every
	// exported numeric field becomes braid_<room>_<field>.
	Metrics map[string]func() any
	// Mounts maps a path, "/v1/", to the handler of all below it.
	Mounts map[string]http.Handler
}

// Status is the state of a cluster as one node sees it.
type Status struct {
	ClusterID   string         `json:"cluster_id"`
	Node        uint64         `json:"node"`
	Version     string         `json:"version"`
	Uptime      string         `json:"uptime"`
	Replication string         `json:"replication"` // in words: "three copies", "one copy"
	Problems    []string       `json:"problems,omitempty"`
	Nodes       []NodeStatus   `json:"nodes"`
	Tablets     []TabletStatus `json:"tablets"`
}

// NodeStatus is one node.
type NodeStatus struct {
	ID       uint64 `json:"id"`
	State    string `json:"state"`
	RPC      string `json:"rpc"`
	Redis    string `json:"redis"`
	Console  string `json:"console"`
	Location string `json:"location,omitempty"`
	Replicas int    `json:"replicas"`
	Leaders  int    `json:"leaders"`
}

// TabletStatus is one tablet's replica on this node, or a whole tablet.
type TabletStatus struct {
	ID       uint64   `json:"id"`
	Table    string   `json:"table"`
	Range    string   `json:"range"`
	Leader   uint64   `json:"leader_node"`
	Replicas []uint64 `json:"replica_nodes"`
	Applied  uint64   `json:"applied"`
}

// A Server answers on the console port.
type Server struct {
	http *http.Server
	done chan struct{}
}

// headerBytesMax bounds the header of a request, its path and parameters included.
const headerBytesMax = 64 << 10

// Serve starts answering on l until Close.
func Serve(l net.Listener, o Options) *Server {
	s := &Server{http: &http.Server{Handler: handler(o), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: headerBytesMax}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return // the listener was closed under it: the node is going down
		}
	}()
	return s
}

// Close stops answering and waits.
func (s *Server) Close() {
	s.http.Close()
	<-s.done
}

func handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry(o.Metrics), promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := o.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.Encode(o.Status())
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		page.Execute(w, o.Status())
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for path, h := range o.Mounts {
			if strings.HasPrefix(r.URL.Path, path) { // as it is: a mux would send who writes // elsewhere
				h.ServeHTTP(w, r)
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}

func registry(rooms map[string]func() any) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for room, read := range rooms {
		r.MustRegister(&structCollector{room: room, read: read})
	}
	return r
}

// structCollector turns the numeric fields of a struct into metrics, so that a
// room's Metrics type is the only place where they are named.
type structCollector struct {
	room string
	read func() any
}

// Describe sends nothing: an unchecked collector, whose fields are known only when read.
func (c *structCollector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the struct once and sends a metric per numeric field.
func (c *structCollector) Collect(out chan<- prometheus.Metric) {
	v := reflect.Indirect(reflect.ValueOf(c.read()))
	if v.Kind() != reflect.Struct {
		return
	}
	c.collect(out, v, "braid_"+c.room)
}

func (c *structCollector) collect(out chan<- prometheus.Metric, v reflect.Value, prefix string) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		name := prefix + "_" + snake(field.Name)
		var value float64
		switch f := loaded(v.Field(i)); {
		case f.Kind() == reflect.Struct:
			c.collect(out, f, name)
			continue
		case f.CanInt():
			value = float64(f.Int())
		case f.CanUint():
			value = float64(f.Uint())
		case f.CanFloat():
			value = f.Float()
		default:
			continue
		}
		desc := prometheus.NewDesc(name, field.Name+" of "+c.room+".", nil, nil)
		out <- prometheus.MustNewConstMetric(desc, prometheus.UntypedValue, value)
	}
}

// loaded gives the value inside a sync/atomic number, else f itself.
func loaded(f reflect.Value) reflect.Value {
	if f.Kind() == reflect.Struct && f.CanAddr() {
		if load := f.Addr().MethodByName("Load"); load.IsValid() && load.Type().NumIn() == 0 && load.Type().NumOut() == 1 {
			return load.Call(nil)[0]
		}
	}
	return f
}

// snake turns FieldName into field_name and keeps runs of capitals together.
func snake(s string) string {
	var b strings.Builder
	runes := []rune(s)
	for i, r := range runes {
		if unicode.IsUpper(r) && i > 0 &&
			(unicode.IsLower(runes[i-1]) || (i+1 < len(runes) && unicode.IsLower(runes[i+1]))) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
