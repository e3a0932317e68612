package main

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/lifecycle"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type benchServeCmd struct {
	Collection  string        `required:"" help:"Name or alias of the collection."`
	Queries     string        `required:"" type:"existingfile" placeholder:"FILE" help:"Vectors to search for: .npy, .fvecs, .bvecs or .parquet."`
	Truth       string        `type:"existingfile" placeholder:"FILE" help:"Keys of the nearest rows of each query, .npy or .ivecs. Default: the node is asked for exact answers."`
	Field       string        `placeholder:"NAME" help:"Vector field; needed if there are several."`
	TopK        int           `short:"k" default:"10" help:"Rows wanted for each vector."`
	NQ          int           `name:"nq" default:"1" help:"Vectors in one call."`
	EF          int32         `name:"ef" help:"HNSW, HNSW_SQ: size of the candidate list; 0 = chosen by the node."`
	Nprobe      int32         `help:"IVF_FLAT, IVF_SQ8, SCANN: lists to read; 0 = chosen by the node."`
	Recall      float64       `placeholder:"0.95" help:"Use the smallest ef, or nprobe where all segments have lists, that finds this share of the nearest rows."`
	Concurrency int           `short:"c" default:"32" help:"Calls under way at a time."`
	Connections int           `default:"1" help:"Connections they are spread over."`
	Duration    time.Duration `default:"15s" help:"How long to send."`
	Limit       int64         `default:"1000" help:"Query vectors to use; 0 = all of the file."`
	Filter      string        `placeholder:"EXPR" help:"Only rows that match."`
	Filters     string        `type:"existingfile" placeholder:"FILE" help:"Filters, one a line: the calls have them in turn."`
	Consistency string        `enum:"strong,bounded,eventually" default:"bounded" help:"How fresh the answers are."`
	clientFlags
}

// Help is shown by --help.
func (benchServeCmd) Help() string {
	return `Sends searches to a node for a while and says how many it answered in a second, how long they took, how many of
the nearest rows they found, and how much processor time the node used for 1,000 of them. Requests are encoded
before and answers are not decoded while it measures, so that the node is what is measured.

Example:
  querynode bench serve --collection images --queries q.npy --truth gt.npy --recall 0.95 --concurrency 32 --json`
}

// servedFigures is what bench serve measures.
type servedFigures struct {
	QPS            float64  `json:"qps"` // query vectors a second
	P50            float64  `json:"p50_ms"`
	P95            float64  `json:"p95_ms"`
	P99            float64  `json:"p99_ms"`
	Recall         *float64 `json:"recall"` // of top_k; null = not known
	CPU            *float64 `json:"server_cpu_s_per_1k"`
	ClientCPU      float64  `json:"client_cpu_s_per_1k"`
	Calls          int64    `json:"calls"`
	Errors         int64    `json:"errors"`
	FirstError     string   `json:"first_error,omitempty"`
	Seconds        float64  `json:"duration_s"`
	Concurrency    int      `json:"concurrency"`
	Connections    int      `json:"connections"`
	NQ             int      `json:"nq"`
	TopK           int      `json:"top_k"`
	EF             int32    `json:"ef"`     // 0 = chosen by the node
	Nprobe         int32    `json:"nprobe"` // the same
	Truth          string   `json:"truth"`
	ServerVersion  string   `json:"server_version"`
	ServerCPUs     int32    `json:"server_cpus"`
	SealedSegments int      `json:"sealed_segments"`
	Growing        int      `json:"growing_segments"`
}

// Run measures.
func (b *benchServeCmd) Run(a *app) error {
	if err := b.check(); err != nil {
		return err
	}
	queries, err := readMatrix(b.Queries, b.Limit)
	if err != nil {
		return err
	}
	filters, err := b.readFilters()
	if err != nil {
		return err
	}
	var truth *answers
	if b.Truth != "" {
		if truth, err = readTruth(b.Truth); err != nil {
			return err
		}
		if len(truth.rows)/truth.k < queries.rows() || truth.k < b.TopK {
			return usage(errors.Newf("--truth has %d neighbours of %d queries, want at least %d of %d",
				truth.k, len(truth.rows)/truth.k, b.TopK, queries.rows()))
		}
	}
	to, err := b.target(a)
	if err != nil {
		return err
	}
	creds, err := b.credentials(to)
	if err != nil {
		return err
	}
	return b.with(a, func(ctx context.Context, c *client) error {
		s := &servedBench{cmd: b, c: c, creds: creds, queries: queries, filters: filters, truth: truth}
		s.fig = servedFigures{Concurrency: b.Concurrency, Connections: b.Connections, NQ: b.NQ, TopK: b.TopK, EF: b.EF, Nprobe: b.Nprobe, Truth: "file"}
		if err := s.run(ctx); err != nil {
			return err
		}
		s.show()
		if s.fig.Errors > 0 {
			return errors.Newf("%d of %d calls failed, the first with: %s", s.fig.Errors, s.fig.Calls+s.fig.Errors, s.fig.FirstError)
		}
		return nil
	})
}

func (b *benchServeCmd) check() error {
	switch {
	case b.TopK < 1 || b.NQ < 1 || b.Concurrency < 1 || b.Connections < 1:
		return usage(errors.New("-k, --nq, --concurrency and --connections are at least 1"))
	case b.Duration <= 0 || b.Duration > time.Hour:
		return usage(errors.New("--duration: want more than 0 and at most 1h"))
	case b.Limit < 0:
		return usage(errors.New("--limit: want 0 or more"))
	case b.Recall < 0 || b.Recall > 1:
		return usage(errors.New("--recall: want 0 to 1"))
	case b.EF < 0 || b.Nprobe < 0:
		return usage(errors.New("--ef and --nprobe: want 0 or more"))
	case b.Recall > 0 && (b.EF > 0 || b.Nprobe > 0):
		return usage(errors.New("--recall chooses --ef or --nprobe: give one of them"))
	case b.Filter != "" && b.Filters != "":
		return usage(errors.New("--filter is of all calls, --filters of one each: give one of them"))
	}
	return nil
}

// servedBench is one run.
type servedBench struct {
	cmd     *benchServeCmd
	c       *client
	creds   credentials.TransportCredentials
	queries *matrix
	filters []string // at least one, maybe ""
	truth   *answers
	least   []float32 // score of the last of the top_k nearest of each query, if the node was asked
	metric  string
	fig     servedFigures
}

func (s *servedBench) run(ctx context.Context) error {
	if err := s.findTruth(ctx); err != nil {
		return errors.Wrap(err, "ask for exact answers")
	}
	if err := s.chooseEffort(ctx); err != nil {
		return err
	}
	requests, err := s.encode()
	if err != nil {
		return err
	}
	return s.measure(ctx, requests)
}

// recallOf asks for all queries once and compares. It notes what was searched.
func (s *servedBench) recallOf(ctx context.Context) (float64, error) {
	found, wanted := 0, 0
	for from := 0; from < s.queries.rows(); from += s.cmd.NQ {
		req := s.request(from)
		got, err := s.c.query.Search(ctx, req)
		if err != nil {
			return 0, err
		}
		s.fig.SealedSegments, s.fig.Growing = len(got.GetStats().GetSealedSegments()), len(got.GetStats().GetGrowingSegments())
		at := 0
		for i, n := range got.GetCounts() {
			if at+int(n) > len(got.GetScores()) {
				return 0, errors.Newf("the node's answer is inconsistent: %d hits, %d scores", at+int(n), len(got.GetScores()))
			}
			for hit := at; hit < at+int(n); hit++ {
				if s.isNearest(from+i, got, hit) {
					found++
				}
			}
			at += int(n)
			wanted += s.wanted(from + i)
		}
	}
	return float64(found) / float64(max(wanted, 1)), nil
}

func (s *servedBench) wanted(query int) int {
	if s.truth != nil {
		return min(s.cmd.TopK, s.truth.k)
	}
	return s.cmd.TopK
}

// isNearest says whether a hit is one of the nearest of a query. Where the node
// has told the scores of those, rows that are as near as the last of them count.
func (s *servedBench) isNearest(query int, got *qnpb.SearchResponse, hit int) bool {
	if s.truth == nil {
		score, last := got.GetScores()[hit], s.least[query]
		slack := 1e-5 * float32(math.Abs(float64(last)))
		if s.metric == "L2" {
			return score <= last+slack
		}
		return score >= last-slack
	}
	near := s.truth.of(query, s.cmd.TopK)
	if text := got.GetIds().GetStrings().GetValues(); text != nil {
		n, err := strconv.ParseInt(text[hit], 10, 64)
		return err == nil && slices.Contains(near, n)
	}
	return slices.Contains(near, got.GetIds().GetInts().GetValues()[hit])
}

// findTruth asks the node for exact answers if there is no file of them: a search
// with a bound on the near side that nothing reaches is exact.
func (s *servedBench) findTruth(ctx context.Context) error {
	if s.truth != nil {
		return nil
	}
	coll, err := s.c.describe(ctx, s.cmd.Collection)
	if err != nil {
		return err
	}
	field, err := pickVector(coll, s.cmd.Field)
	if err != nil {
		return err
	}
	for _, ix := range coll.GetIndexes() {
		if ix.GetField() == field.GetName() {
			s.metric = strings.ToUpper(ix.GetMetric())
		}
	}
	far := float32(math.Inf(1))
	if s.metric == "L2" {
		far = float32(math.Inf(-1))
	}
	s.fig.Truth, s.least = "node", make([]float32, s.queries.rows())
	bar := s.c.out.Bar("exact answers", int64(s.queries.rows()), console.Steps)
	defer bar.Fail()
	for i := range s.queries.rows() {
		req := s.request(i)
		req.Ef, req.Nprobe = 0, 0
		req.Vectors.Raw, req.RangeFilter = rawBytes(s.queries.row(i)), &far
		cctx, cancel := s.c.work(ctx)
		got, err := s.c.query.Search(cctx, req)
		cancel()
		if err != nil {
			return err
		}
		n := len(got.GetScores())
		if n < s.cmd.TopK {
			return errors.Newf("the collection has %d rows that match, want at least %d (-k)", n, s.cmd.TopK)
		}
		s.least[i] = got.GetScores()[n-1]
		bar.Set(int64(i + 1))
	}
	bar.Done()
	return nil
}

// serveEfforts are tried for --recall, from small to large, from least on.
func serveEfforts(least int) []int32 {
	var out []int32
	for e := float64(least); e <= 4096; e = max(e+min(2, float64(least)), e*1.1) {
		out = append(out, int32(e))
	}
	return out
}

// readsLists says whether all sealed segments that a search reads have lists, so
// that nprobe is what it takes more or less of.
func (s *servedBench) readsLists(ctx context.Context) (bool, error) {
	req := s.request(0)
	req.Explain = true
	got, err := s.c.query.Search(ctx, req)
	if err != nil {
		return false, err
	}
	read := 0
	for _, x := range got.GetStats().GetSegments() {
		if x.GetGrowing() || x.GetPruned() != "" {
			continue
		}
		for _, way := range x.GetStrategies() {
			switch index.Kind(way) {
			case index.KindIVFFlat, index.KindIVFSQ8, index.KindScaNN:
				read++
			default:
				return false, nil
			}
		}
	}
	return read > 0, nil
}

// chooseEffort finds the smallest ef or nprobe of enough recall, and the recall of
// the one in use.
func (s *servedBench) chooseEffort(ctx context.Context) error {
	if s.cmd.Recall == 0 {
		r, err := s.recallOf(ctx)
		s.fig.Recall = &r
		return err
	}
	lists, err := s.readsLists(ctx)
	if err != nil {
		return err
	}
	name, of, grid := "ef", &s.fig.EF, serveEfforts(s.cmd.TopK)
	if lists {
		name, of, grid = "nprobe", &s.fig.Nprobe, serveEfforts(1)
	}
	lo, hi, best := -1, len(grid), 0.0
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		*of = grid[mid]
		r, err := s.recallOf(ctx)
		if err != nil {
			return err
		}
		s.c.out.Notef("%s %d: recall %.4f", name, grid[mid], r)
		if r >= s.cmd.Recall {
			hi, best = mid, r
		} else {
			lo = mid
		}
	}
	if hi == len(grid) {
		return errors.Newf("recall %v is not reached with %s %d", s.cmd.Recall, name, grid[len(grid)-1])
	}
	*of, s.fig.Recall = grid[hi], &best
	return nil
}

// measure sends requests for a while.
func (s *servedBench) measure(ctx context.Context, requests [][]byte) error {
	conns := make([]*grpc.ClientConn, s.cmd.Connections)
	for i := range conns {
		conn, err := grpc.NewClient(s.c.addr, grpc.WithTransportCredentials(s.creds))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		conns[i] = conn
	}
	load := newLoad(requests, s.cmd.Concurrency)
	if err := load.run(ctx, conns, min(2*time.Second, s.cmd.Duration)); err != nil { // connections, caches
		return err
	}
	load = newLoad(requests, s.cmd.Concurrency)
	before, err := s.c.control.GetMetrics(ctx, &qnpb.GetMetricsRequest{})
	if err != nil {
		return err
	}
	mine, start := cpuTime(), time.Now()
	if err := load.run(ctx, conns, s.cmd.Duration); err != nil {
		return err
	}
	took, own := time.Since(start), cpuTime()-mine
	after, err := s.c.control.GetMetrics(ctx, &qnpb.GetMetricsRequest{})
	if err != nil {
		return err
	}
	f := &s.fig
	f.Seconds, f.Errors = took.Seconds(), load.failed.Load()
	if first := load.first.Load(); first != nil {
		f.FirstError = explain(*first, s.c.addr, s.cmd.Filter).Error()
	}
	all := load.latencies()
	f.Calls = int64(len(all))
	vectors := float64(f.Calls) * float64(s.cmd.NQ)
	f.QPS = round3(vectors / took.Seconds())
	f.P50, f.P95, f.P99 = quantile(all, 0.50), quantile(all, 0.95), quantile(all, 0.99)
	f.ServerVersion, f.ServerCPUs = after.GetVersion(), after.GetCpus()
	if vectors > 0 {
		if used := after.GetCpuSeconds() - before.GetCpuSeconds(); after.GetCpuSeconds() > 0 {
			used = round3(1e6*used/vectors) / 1e3
			f.CPU = &used
		}
		f.ClientCPU = round3(1e6*own.Seconds()/vectors) / 1e3
	}
	return nil
}

// load is requests that are sent by some workers at a time.
type load struct {
	requests [][]byte
	took     [][]time.Duration // by worker
	next     atomic.Int64
	failed   atomic.Int64
	first    atomic.Pointer[error]
}

func newLoad(requests [][]byte, workers int) *load {
	return &load{requests: requests, took: make([][]time.Duration, workers)}
}

// run sends for d and waits for the last answer.
func (l *load) run(ctx context.Context, conns []*grpc.ClientConn, d time.Duration) error {
	end := time.Now().Add(d)
	ctx, cancel := context.WithTimeout(ctx, d+answerTimeout)
	defer cancel()
	g := lifecycle.NewGroup(ctx, nil)
	var sending sync.WaitGroup
	for i := range l.took {
		sending.Add(1)
		if err := g.Go("send searches", func(ctx context.Context) error {
			defer sending.Done()
			l.send(ctx, conns[i%len(conns)], i, end)
			return nil
		}); err != nil {
			sending.Done()
			return err
		}
	}
	sending.Wait() // no longer than ctx: every call ends with it
	return errors.CombineErrors(g.Close(ctx), ctx.Err())
}

func (l *load) send(ctx context.Context, conn *grpc.ClientConn, worker int, end time.Time) {
	var answer rawMessage
	for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
		request := rawMessage{l.requests[int(l.next.Add(1)-1)%len(l.requests)]}
		err := conn.Invoke(ctx, qnpb.QueryService_Search_FullMethodName, &request, &answer, grpc.ForceCodecV2(rawCodec{}))
		done := time.Now()
		if err == nil {
			l.took[worker] = append(l.took[worker], done.Sub(now))
		} else if l.failed.Add(1) == 1 {
			l.first.Store(&err)
		}
		now = done
	}
}

// latencies of the calls that were answered, sorted.
func (l *load) latencies() []time.Duration {
	all := slices.Concat(l.took...)
	slices.Sort(all)
	return all
}

// quantile is one of the latencies, in milliseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return round3(float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]) / float64(time.Millisecond))
}

func round3(v float64) float64 { return math.Round(v*1000) / 1000 }

// show writes the figures.
func (s *servedBench) show() {
	f := &s.fig
	if s.c.out.JSON() {
		_ = s.c.out.Line(f)
		return
	}
	recall, cpu := "-", "-"
	if f.Recall != nil {
		recall = strconv.FormatFloat(*f.Recall, 'f', 4, 64)
	}
	if f.CPU != nil {
		cpu = strconv.FormatFloat(*f.CPU, 'f', 4, 64)
	}
	t := &console.Table{Columns: []console.Column{
		console.Right("QPS"), console.Right("recall"), console.Right("p50 ms"), console.Right("p95 ms"), console.Right("p99 ms"),
		console.Right("server CPU s/1k"), console.Right("ef"), console.Right("nprobe"), console.Right("calls"),
	}}
	t.Add(s.c.out.Paint(console.Strong, strconv.FormatFloat(f.QPS, 'f', 0, 64)), recall, f.P50, f.P95, f.P99, cpu, f.EF, f.Nprobe, console.Count(f.Calls))
	s.c.out.Table(t)
}
