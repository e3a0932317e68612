package server

import (
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

// begin counts a call in; the returned function counts it out.
func (m *metrics) begin(method string) func(codes.Code) {
	start := time.Now()
	running := m.running.WithLabelValues(method)
	running.Inc()
	return func(c codes.Code) {
		running.Dec()
		m.calls.WithLabelValues(method, c.String()).Inc()
		m.latency.WithLabelValues(method).Observe(time.Since(start).Seconds())
	}
}
