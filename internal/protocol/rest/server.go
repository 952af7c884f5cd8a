package rest

import (
	"bytes"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/client"
)

// Options of a server. The zero value is a good default.
type Options struct {
	// Requests is how many are carried out at once, those that read apart. Default 1024.
	Requests int
	// Readers is how many requests read at once. Each may hold ReaderBytes, and an
	// answer. Default 256.
	Readers int
	// BodyBytes bounds the memory of all bodies at once. Default 256 MiB.
	BodyBytes int64
	// JSONBytes bounds a JSON body; of a log that takes larger payloads, twice the
	// largest. Default 8 MiB.
	JSONBytes int64
	// AnswerBytes is the size at which a JSON answer ends, though there is more. A
	// single record may exceed it. Default 4 MiB.
	AnswerBytes int
	// ReaderBytes bounds what a reader holds. Default 1 MiB.
	ReaderBytes int
	// BodyTimeout bounds how long a body may take to come. Default 1 min.
	BodyTimeout time.Duration
	// WriteTimeout bounds how long a client may take nothing of its answer. Default 30 s.
	WriteTimeout time.Duration
	// WaitMax bounds wait=, and timeout=. Default 1 min.
	WaitMax time.Duration
	// ReadTimeout bounds how long a bounded read waits for what is surely there.
	// Default 10 s.
	ReadTimeout time.Duration
}

func (o Options) withDefaults() Options {
	ints := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	durations := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	ints(&o.Requests, 1024)
	ints(&o.Readers, 256)
	ints(&o.AnswerBytes, 4<<20)
	ints(&o.ReaderBytes, 1<<20)
	durations(&o.BodyTimeout, time.Minute)
	durations(&o.WriteTimeout, 30*time.Second)
	durations(&o.WaitMax, time.Minute)
	durations(&o.ReadTimeout, 10*time.Second)
	if o.BodyBytes <= 0 {
		o.BodyBytes = 256 << 20
	}
	if o.JSONBytes <= 0 {
		o.JSONBytes = 8 << 20
	}
	return o
}

// Server answers what is asked below /v1/. It is a handler, and has no goroutine of
// its own: the listener that it is mounted on ends its requests.
type Server struct {
	cluster Cluster
	opts    Options
	metrics Metrics
	origins *http.CrossOriginProtection
	running atomic.Int64

	mu struct {
		sync.Mutex
		infos map[string]knownLog // see logNamed
	}
}

// knownLog is what a name said a moment ago.
type knownLog struct {
	info client.LogInfo
	at   time.Time
}

// NewServer makes a server for the logs of a cluster; see Over.
func NewServer(c Cluster, o Options) *Server {
	s := &Server{cluster: c, opts: o.withDefaults(), origins: http.NewCrossOriginProtection()}
	s.mu.infos = map[string]knownLog{}
	return s
}

// Metrics counts what the server did.
func (s *Server) Metrics() *Metrics { return &s.metrics }

// ServeHTTP carries out one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.metrics.Requests.Add(1)
	defer func() { s.takeWithin(w) }() // also for what net/http writes after us
	if err := s.serve(w, r); err != nil {
		s.answerProblem(w, r, problemOf(err))
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	row, name, err := routeOf(r)
	if err != nil {
		return err
	}
	if err := s.origins.Check(r); err != nil {
		return refuse(http.StatusForbidden, "access", "%v", err)
	}
	q, err := parseQuery(r.URL.RawQuery, row.parameters)
	if err != nil {
		return err
	}
	count, limit, what := &s.running, s.opts.Requests, "requests"
	if row.reads {
		count, limit, what = &s.metrics.Readers, s.opts.Readers, "requests that read"
	}
	defer count.Add(-1)
	if count.Add(1) > int64(limit) { // I5
		s.metrics.Refused.Add(1)
		return overloaded(int64(limit), "%d %s are under way already", limit, what)
	}
	return row.serve(s, w, &request{Request: r, name: name, query: q})
}

// request is one request, taken apart.
type request struct {
	*http.Request
	name  string // behind the resource: of a log, a group or a directory
	query query
}

// takeWithin bounds how long the client may take nothing of what is written next.
func (s *Server) takeWithin(w http.ResponseWriter) {
	// What is served without a connection has no deadlines.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.opts.WriteTimeout))
}

// answer writes a whole answer as JSON.
func (s *Server) answer(w http.ResponseWriter, code int, body any) {
	var b bytes.Buffer
	if err := encoder(&b).Encode(body); err != nil {
		panic("BUG: " + err.Error())
	}
	s.answerBytes(w, code, b.Bytes())
}

func (s *Server) answerBytes(w http.ResponseWriter, code int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", typeJSON)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	s.takeWithin(w)
	if _, err := w.Write(body); err != nil {
		s.metrics.Gone.Add(1)
	}
}

// The types of bodies.
const (
	typeJSON   = "application/json"
	typeNDJSON = "application/x-ndjson"
	typeFrames = "application/octet-stream"
)
