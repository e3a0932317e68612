// Package admin is the HTTP port for the people and programs that look after a
// node: is it alive, is it ready, what does it do, where does its time go.
//
//	/healthz       200 while the process must not be restarted
//	/readyz        200 while requests should be sent here, and what was set aside; else 503 and what is missing
//	/statusz       the state of every part, as JSON
//	/metrics       for Prometheus
//	/debug/pprof/  profiles
//
// gRPC on the same port (without TLS) goes to Options.GRPC: channelz. There is
// no authentication: keep the port inside the cluster.
package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/mq/embedded"
	"github.com/querynode/querynode/pool"
	"github.com/querynode/querynode/segments"
)

// Options configure a Server.
type Options struct {
	// Listener is where it answers; New takes it over. Required.
	Listener net.Listener
	// Machine says in which state the node is. Required.
	Machine *lifecycle.Machine
	// Registry is what /metrics shows; New adds the collectors of Go, the process
	// and the node. Required.
	Registry *prometheus.Registry
	// Parts returns what there is to show, nil until the node has been built. Nil
	// = there never is anything. It is called for each request.
	Parts func() *Parts
	// Step says what the start is at, for /readyz. Nil = not known.
	Step func() string
	// GRPC answers gRPC calls. Nil = none are answered. The caller stops it after
	// the Server.
	GRPC http.Handler
	// Failed is called once if the port can no longer be served. Nil = only logged.
	Failed func(error)
	// Name of the node and Version of the program, for the metric querynode_info.
	Name, Version string
	// Logger gets failed requests. Nil = discard.
	Logger *slog.Logger
}

// Parts are the parts of a node that are shown. Node is required; others that
// are nil are left out.
type Parts struct {
	Node  *node.Node
	Pool  *pool.Pool
	Queue *embedded.Queue
}

// EnsureDefaults fills what was left nil.
func (o *Options) EnsureDefaults() {
	if o.Parts == nil {
		o.Parts = func() *Parts { return nil }
	}
	if o.Step == nil {
		o.Step = func() string { return "" }
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate lists all problems in one error.
func (o *Options) Validate() error {
	var errs []error
	for _, v := range []struct {
		ok   bool
		name string
	}{{o.Listener != nil, "Listener"}, {o.Machine != nil, "Machine"}, {o.Registry != nil, "Registry"}} {
		if !v.ok {
			errs = append(errs, errors.Newf("admin: %s is required", v.name))
		}
	}
	return errclass.Mark(errors.Join(errs...), errclass.Invalid)
}

// Server answers on the admin port. Open it with New and Close it last of all
// parts: it says what the others are at.
type Server struct {
	o     Options
	http  *http.Server
	group *lifecycle.Group
	began time.Time
}

// New returns a server that answers.
func New(o Options) (*Server, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Server{o: o, began: time.Now()}
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newCollector(&s.o),
	} {
		if err := o.Registry.Register(c); err != nil {
			return nil, errors.Wrap(err, "register metrics")
		}
	}
	s.group = lifecycle.NewGroup(context.Background(), func(name string, err error) {
		if err != nil {
			o.Logger.Error("admin: port failed", "error", err)
			o.Failed(err)
		}
	})
	s.http = s.httpServer()
	if err := s.group.Go("admin port", func(context.Context) error {
		if err := s.http.Serve(o.Listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			return errors.Wrapf(err, "serve HTTP on %s", o.Listener.Addr())
		}
		return nil
	}); err != nil {
		return nil, err
	}
	return s, nil
}

// longestReply bounds one reply: a profile or trace of ?seconds=... has to fit.
const longestReply = 5 * time.Minute

func (s *Server) httpServer() *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           s.routes(),
		Protocols:         &protocols,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      longestReply,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return s.group.Context() },
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /statusz", s.statusz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.o.Registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 20 * time.Second, EnableOpenMetrics: true, Registry: s.o.Registry,
	}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", index)
	if s.o.GRPC == nil {
		return mux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			s.o.GRPC.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func index(w http.ResponseWriter, _ *http.Request) {
	_, _ = fmt.Fprint(w, "/healthz\n/readyz\n/statusz\n/metrics\n/debug/pprof/\n")
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	st := s.o.Machine.State()
	if !st.Live() {
		http.Error(w, "not alive: "+st.String(), http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprintf(w, "alive: %s\n", st)
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	st := s.o.Machine.State()
	if st.Ready() {
		_, _ = fmt.Fprintln(w, strings.Join(append([]string{"ready"}, s.setAside()...), "\n- "))
		return
	}
	http.Error(w, strings.Join(append([]string{"not ready: " + st.String()}, s.missing()...), "\n- "), http.StatusServiceUnavailable)
}

// setAside says for people what a node that is ready does without.
func (s *Server) setAside() []string {
	p := s.o.Parts()
	if p == nil {
		return nil
	}
	var segs []segments.SegmentStatus
	for _, c := range p.Node.Segments().Collections() {
		segs = append(segs, c.Segments()...)
	}
	return append(lines(p.Node.Troubles()), without(segs, p.Node.BrokenSegments(), p.Node.Channels())...)
}

// lines are those of all texts.
func lines(texts []string) (all []string) {
	for _, text := range texts {
		all = append(all, strings.Split(text, "\n")...)
	}
	return all
}

// segmentsOf is how many segments, in words.
func segmentsOf(n int) string {
	if n == 1 {
		return "1 segment"
	}
	return fmt.Sprintf("%d segments", n)
}

func beingLoaded(n int) string {
	if n == 1 {
		return segmentsOf(n) + " is being loaded"
	}
	return segmentsOf(n) + " are being loaded"
}

func without(segs []segments.SegmentStatus, broken int, channels []node.ChannelStatus) (all []string) {
	for _, s := range segs {
		if s.State == segments.StateQuarantined {
			all = append(all, fmt.Sprintf("segment %d of %s is not searched any more: %s", s.ID, s.VChannel, s.Error))
		}
	}
	if broken > 0 {
		all = append(all, segmentsOf(broken)+" cannot be loaded, see querynode status")
	}
	for _, c := range channels {
		switch {
		case c.Quarantined == 1:
			all = append(all, fmt.Sprintf("1 message of %s could not be applied and was set aside", c.VChannel))
		case c.Quarantined > 1:
			all = append(all, fmt.Sprintf("%d messages of %s could not be applied and were set aside", c.Quarantined, c.VChannel))
		}
	}
	return all
}

// missing says for people what keeps the node from being ready.
func (s *Server) missing() []string {
	st := s.o.Machine.State()
	switch {
	case st == lifecycle.Starting:
		return []string{s.o.Step()}
	case st.Draining() || !st.Live():
		return []string{"the node is going away"}
	}
	p := s.o.Parts()
	if p == nil {
		return nil
	}
	var all []string
	all = append(all, lines(p.Node.Troubles())...)
	for _, l := range p.Node.Logs() {
		if l.Assigned && l.Replay.Share < 1 {
			all = append(all, fmt.Sprintf("log of %s is %v: %.0f %% replayed (%d rows, %d bytes, at %s)",
				l.PChannel, l.State, 100*l.Replay.Share, l.Replay.Rows, l.Replay.Bytes, l.Replay.Position))
		}
	}
	if n := len(p.Node.Segments().Loading()); n > 0 {
		all = append(all, beingLoaded(n))
	}
	if len(all) == 0 {
		all = []string{"collections and logs are being opened"}
	}
	return all
}

func (s *Server) statusz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(s.status()); err != nil {
		s.o.Logger.Warn("admin: statusz", "error", err)
	}
}

// stopGrace is how long running requests may go on at Close: a scrape fits, a
// profile does not.
const stopGrace = 200 * time.Millisecond

// Close stops answering. Requests that run are cut after a moment.
func (s *Server) Close(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	err := s.http.Shutdown(soon)
	if err != nil && soon.Err() != nil {
		err = s.http.Close()
	}
	return errors.Join(errors.Wrap(err, "admin port"), errors.Wrap(s.group.Close(ctx), "admin"))
}
