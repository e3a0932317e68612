package server

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// metrics of the calls.
type metrics struct {
	calls   *prometheus.CounterVec
	latency *prometheus.HistogramVec
	running *prometheus.GaugeVec
	panics  prometheus.Counter
	methods sync.Map // string -> *methodMetrics
}

func newMetrics() *metrics {
	return &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "querynode_grpc_calls_total", Help: "Finished calls by method and code.",
		}, []string{"method", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "querynode_grpc_latency_seconds", Help: "Time from the start of a call to its end.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 18),
		}, []string{"method"}),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "querynode_grpc_calls_running", Help: "Calls that run now.",
		}, []string{"method"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "querynode_grpc_panics_recovered_total", Help: "Panics that were caught in a call and became its error.",
		}),
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.calls, m.latency, m.running, m.panics} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// methodMetrics are the metrics of one method, and what is special about it.
// They are looked up once: that costs as much as a short call's own work.
type methodMetrics struct {
	all     *metrics
	method  string
	running prometheus.Gauge
	latency prometheus.Observer
	ok      prometheus.Counter
	always  bool
	endless bool
	request atomic.Pointer[shape] // nil = not known yet
}

// of returns those of a method. Methods are those that the server has: their
// number is bounded.
func (m *metrics) of(method string) *methodMetrics {
	if v, ok := m.methods.Load(method); ok {
		return v.(*methodMetrics)
	}
	v, _ := m.methods.LoadOrStore(method, &methodMetrics{
		all: m, method: method, running: m.running.WithLabelValues(method), latency: m.latency.WithLabelValues(method),
		ok: m.calls.WithLabelValues(method, codes.OK.String()), always: matches(method, always), endless: matches(method, endless),
	})
	return v.(*methodMetrics)
}

// end counts a call out.
func (m *methodMetrics) end(c codes.Code, took time.Duration) {
	m.running.Dec()
	if c == codes.OK {
		m.ok.Inc()
	} else {
		m.all.calls.WithLabelValues(m.method, c.String()).Inc()
	}
	m.latency.Observe(took.Seconds())
}
