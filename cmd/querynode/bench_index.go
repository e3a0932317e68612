package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/dataset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/internal/vec"
)

type benchIndexCmd struct {
	Base    string `required:"" type:"existingfile" placeholder:"FILE" help:"Vectors to index: .npy, .fvecs, .bvecs or .parquet."`
	Queries string `required:"" type:"existingfile" placeholder:"FILE" help:"Vectors to search for."`
	Truth   string `type:"existingfile" placeholder:"FILE" help:"Rows nearest to each query, .npy or .ivecs. Default: found out by exact search."`
	Metric  string `required:"" placeholder:"l2|ip|cosine" help:"l2, ip or cosine."`

	Index          string `default:"AUTOINDEX" placeholder:"KIND" help:"What index to build: AUTOINDEX, HNSW, FLAT or another that the node knows."`
	M              int    `name:"m" help:"Links of a row in a graph; 0 = the kind's default."`
	EFConstruction int    `name:"ef-construction" help:"Candidates while a graph is built; 0 = the kind's default."`
	Lists          int    `help:"Lists of an inverted file; 0 = chosen by rows."`

	Threads      int       `short:"t" default:"1" help:"Goroutines that search."`
	BuildThreads int       `default:"0" help:"Goroutines that build; 0 = as many as there are processors."`
	Recall       []float64 `default:"0.9,0.95,0.99" help:"Shares of the nearest rows to find; for each, the least effort that does is searched for."`
	TopK         int       `short:"k" default:"10" help:"Rows wanted for each query."`
	Batch        int       `default:"1000" help:"Query vectors in one call of the batch form; 0 = leave it out."`
	FilterShare  float64   `placeholder:"0.1" help:"Search only among this share of the rows; default: all."`
	FilterShape  string    `enum:"random,clustered" default:"random" help:"Which rows: random ones, or those around one row."`
	FilterNew    bool      `help:"Each search has a filter of its own that the index has not met: the same rows, but other bits behind the last. Default: all have one."`
	Default      bool      `name:"default-effort" help:"Measure searches that ask for no effort, too: default in place of a recall."`
	Limit        int64     `help:"Rows of --base to take; 0 = all."`
	QueryLimit   int64     `default:"1000" help:"Query vectors to take; 0 = all."`
	Seconds      float64   `default:"0.5" help:"How long each of the three measurements of a setting takes at least."`
	Bound        bool      `help:"Measure how long a query's reads of memory take if it does nothing else."`
	CPUProfile   string    `name:"cpu-profile" type:"path" placeholder:"FILE" help:"Write a processor profile of the measured searches to this file."`
	Dir          string    `type:"path" placeholder:"DIR" help:"Folder for the index while it is measured. Default: one for temporary files."`
	outputFlags
}

// Help is shown by --help.
func (benchIndexCmd) Help() string {
	return `Builds an index over vectors in a file, as a sealed segment has it, opens it again and searches it: queries a second at
given recall, time and processor time of the build, size, and the time from the opened file to the first answer. No
node is involved. A hit counts for the recall if it is as near as the last of the k nearest rows: ties count.

Example:
  querynode bench index --base b.npy --queries q.npy --truth gt.npy --metric l2 --threads 1 --recall 0.9,0.95,0.99 --json`
}

// indexFigures is what bench index measures. Maps are keyed by recall.
type indexFigures struct {
	Kind   string            `json:"index"`
	Why    string            `json:"why,omitempty"`
	Params map[string]string `json:"params"`
	Metric string            `json:"metric"`
	Rows   int               `json:"rows"`
	Dim    int               `json:"dim"`
	TopK   int               `json:"top_k"`

	Threads  int                 `json:"threads"`
	QPS      map[string]*float64 `json:"qps"`       // one query a call; null = not reached
	QPSBatch map[string]*float64 `json:"qps_batch"` // --batch queries a call
	Batch    int                 `json:"batch"`
	Found    map[string]float64  `json:"recall"` // at the effort used
	Effort   map[string]int      `json:"effort"`
	P50      map[string]float64  `json:"p50_us"`
	P99      map[string]float64  `json:"p99_us"`
	// What a query does, one query a call.
	Work  map[string]*effortFigures `json:"work"`
	Share float64                   `json:"filter_share"`
	Shape string                    `json:"filter_shape,omitempty"`
	New   bool                      `json:"filter_new,omitempty"` // to each search

	BuildSeconds  float64  `json:"build_s"`
	BuildCPU      float64  `json:"build_cpu_s"`
	BuildThreads  int      `json:"build_threads"`
	DiskBytes     float64  `json:"disk_bytes_per_vector"`     // vectors and index
	IndexBytes    float64  `json:"index_bytes_per_vector"`    // index alone
	ResidentBytes *float64 `json:"resident_bytes_per_vector"` // after all searches; null = the system does not tell
	OpenedBytes   *float64 `json:"resident_bytes_per_vector_opened"`
	LoadSeconds   float64  `json:"load_s"` // from the file to the first answer
	Truth         string   `json:"truth"`
	SIMD          string   `json:"simd"`
	Version       string   `json:"version"`
	ForeignCPU    float64  `json:"foreign_cpu"` // processors that others used meanwhile, at worst
}

// Run measures.
func (b *benchIndexCmd) Run(a *app) error {
	metric, err := b.check()
	if err != nil {
		return err
	}
	ctx, cancel := a.context()
	defer cancel()
	queries, err := readMatrix(b.Queries, b.QueryLimit)
	if err != nil {
		return err
	}
	x := &indexBench{cmd: b, out: b.console(a), metric: metric, queries: queries, kernels: vec.Detect()}
	x.fig = indexFigures{
		Metric: metric.String(), TopK: b.TopK, Threads: b.Threads, Batch: b.Batch, BuildThreads: b.BuildThreads, Share: 1, Truth: "exact",
		QPS: map[string]*float64{}, QPSBatch: map[string]*float64{}, Found: map[string]float64{}, Effort: map[string]int{},
		P50: map[string]float64{}, P99: map[string]float64{}, Work: map[string]*effortFigures{}, SIMD: x.kernels.Level().String(), Version: a.version,
	}
	if x.fig.BuildThreads == 0 {
		x.fig.BuildThreads = runtime.GOMAXPROCS(0)
	}
	if err := x.run(ctx); err != nil {
		return err
	}
	x.show()
	return nil
}

func (b *benchIndexCmd) check() (index.Metric, error) {
	metric, err := index.ParseMetric(strings.ToUpper(b.Metric))
	switch {
	case err != nil:
		return 0, usage(errors.Wrap(err, "--metric"))
	case !metric.Valid():
		return 0, usage(errors.Newf("--metric %s: want l2, ip or cosine", b.Metric))
	case b.Threads < 1 || b.BuildThreads < 0 || b.TopK < 1 || b.Batch < 0 || b.Limit < 0 || b.QueryLimit < 0:
		return 0, usage(errors.New("--threads and -k are at least 1, --build-threads, --batch and limits at least 0"))
	case b.FilterShare < 0 || b.FilterShare > 1:
		return 0, usage(errors.New("--filter-share: want 0 to 1"))
	case b.Seconds <= 0 || b.Seconds > 600:
		return 0, usage(errors.New("--seconds: want more than 0, at most 600"))
	case b.FilterNew && b.FilterShare == 0:
		return 0, usage(errors.New("--filter-new is of searches with --filter-share"))
	case b.FilterShare > 0 && b.Bound:
		return 0, usage(errors.New("--bound is of searches without --filter-share"))
	case b.FilterShare > 0 && b.Truth != "":
		return 0, usage(errors.New("--truth is of all rows: leave it out with --filter-share"))
	case slices.ContainsFunc(b.Recall, func(r float64) bool { return r <= 0 || r > 1 }):
		return 0, usage(errors.New("--recall: want numbers above 0, at most 1"))
	}
	return metric, nil
}

// indexBench is one run.
type indexBench struct {
	scratch []index.Scratch // of each worker, for batches
	cmd     *benchIndexCmd
	out     *console.Console
	metric  index.Metric
	queries *matrix
	kernels vec.Kernels
	seg     *segfile.Segment
	base    *matrix
	field   int64
	search  index.Searcher
	allowed *bitset.Set // nil = all
	truth   *truth
	met     atomic.Uint64 // filters that were new
	stats   index.Stats   // of the last pass that was not timed
	fig     indexFigures
}

func (x *indexBench) run(ctx context.Context) (err error) {
	dir := x.cmd.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "querynode-bench-"); err != nil {
			return errors.Wrap(err, "folder for the index")
		}
		defer func() { err = errors.CombineErrors(err, os.RemoveAll(dir)) }()
	}
	dir = filepath.Join(dir, "segment")
	if err := x.build(ctx, dir); err != nil {
		return err
	}
	defer func() { err = errors.CombineErrors(err, os.RemoveAll(dir)) }()
	debug.FreeOSMemory()
	before := residentBytes()
	if err := x.open(dir); err != nil {
		return err
	}
	defer func() { err = errors.CombineErrors(err, x.seg.Close()) }()
	x.fig.OpenedBytes = x.perVector(residentBytes() - before)
	// The queries first, the truth after: what exact search reads is not what the index needs.
	if err := x.warm(ctx); err != nil {
		return err
	}
	x.fig.ResidentBytes = x.perVector(residentBytes() - before)
	if err := x.findTruth(ctx); err != nil {
		return err
	}
	if err := x.sweep(ctx); err != nil {
		return err
	}
	return x.countAll(ctx)
}

func (x *indexBench) perVector(bytes int64) *float64 {
	if bytes <= 0 {
		return nil
	}
	v := round3(float64(bytes) / float64(x.fig.Rows))
	return &v
}

// build writes a segment as the node does.
func (x *indexBench) build(ctx context.Context, dir string) (err error) {
	rows, err := dataset.Open(x.cmd.Base, dataset.Options{Limit: x.cmd.Limit})
	if err != nil {
		return usage(err)
	}
	defer func() { err = errors.CombineErrors(err, rows.Close()) }()
	sc, field := vectorsOnly(rows.Schema())
	switch {
	case field == nil:
		return usage(errors.Newf("%s has no vectors", x.cmd.Base))
	case field.Dim != x.queries.dim:
		return usage(errors.Newf("vectors of dimension %d, queries of %d", field.Dim, x.queries.dim))
	}
	x.field, x.fig.Rows, x.fig.Dim = field.ID, int(rows.Rows()), field.Dim
	w, err := segfile.Create(dir, segfile.Meta{SegmentID: 1, CollectionID: 1, PartitionID: 1, VChannel: "local_1v0", Schema: sc})
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			err = errors.CombineErrors(err, w.Abort())
		}
	}()
	if err := x.copyRows(ctx, rows, &sc, w); err != nil {
		return err
	}
	if err := x.buildIndex(ctx, w, field); err != nil {
		return err
	}
	m, err := w.Finish(ctx)
	if err != nil {
		return err
	}
	done = true
	for _, v := range m.FileNames() {
		st, err := os.Stat(filepath.Join(dir, v))
		if err != nil {
			return errors.Wrap(err, "size of the segment")
		}
		switch {
		case strings.HasPrefix(v, "index_"):
			x.fig.IndexBytes = round3(float64(st.Size()) / float64(x.fig.Rows))
			x.fig.DiskBytes += x.fig.IndexBytes
		case strings.HasPrefix(v, "vector_"):
			x.fig.DiskBytes += float64(st.Size()) / float64(x.fig.Rows)
		}
	}
	x.fig.DiskBytes = round3(x.fig.DiskBytes)
	return nil
}

// vectorsOnly is the schema with the key and the first vectors alone.
func vectorsOnly(s schema.Schema) (schema.Schema, *schema.Field) {
	out := schema.Schema{Version: s.Version}
	at := -1
	for _, f := range s.Fields {
		if f.PrimaryKey || f.Type.IsVector() && at < 0 {
			if f.Type.IsVector() {
				at = len(out.Fields)
			}
			out.Fields = append(out.Fields, f)
		}
	}
	if at < 0 {
		return out, nil
	}
	return out, &out.Fields[at]
}

func (x *indexBench) copyRows(ctx context.Context, rows *dataset.Reader, sc *schema.Schema, w *segfile.Writer) error {
	bar := x.out.Bar("read "+filepath.Base(x.cmd.Base), rows.Rows(), console.Rows)
	defer bar.Fail()
	for n := int64(0); ; {
		b, err := rows.Next(buildRows)
		if err == io.EOF {
			bar.Done()
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return errors.Wrap(err, "read rows")
		}
		part := &schema.Batch{Rows: b.Rows, Timestamps: slices.Repeat([]uint64{1}, b.Rows)}
		for _, f := range sc.Fields {
			part.Columns = append(part.Columns, b.Column(f.ID))
		}
		if err := w.Append(part); err != nil {
			return err
		}
		n += int64(b.Rows)
		bar.Set(n)
	}
}

func (x *indexBench) buildIndex(ctx context.Context, w *segfile.Writer, f *schema.Field) (err error) {
	base, err := w.Vectors(f.ID)
	if err != nil {
		return err
	}
	bar := x.out.Bar("build index", int64(x.fig.Rows), console.Rows)
	defer bar.Fail()
	spec := index.Spec{
		Kind: index.Kind(strings.ToUpper(x.cmd.Index)), Metric: x.metric, Dim: f.Dim,
		M: x.cmd.M, EfConstruction: x.cmd.EFConstruction, Lists: x.cmd.Lists,
	}
	start, cpu := time.Now(), cpuTime()
	built, err := index.Build(ctx, spec, base, index.BuildOptions{
		Workers: x.fig.BuildThreads, Progress: func(done, _ int) { bar.Set(int64(done)) },
	})
	if err != nil {
		return err
	}
	x.fig.BuildSeconds, x.fig.BuildCPU = round3(time.Since(start).Seconds()), round3((cpuTime() - cpu).Seconds())
	defer func() { err = errors.CombineErrors(err, built.Close()) }()
	bar.Done()
	info := built.Info()
	x.fig.Kind, x.fig.Why, x.fig.Params = string(info.Kind), info.Why, info.Params
	if x.fig.Params == nil {
		x.fig.Params = map[string]string{}
	}
	if info.Kind == index.KindFlat {
		return nil
	}
	meta := segfile.IndexMeta{FieldID: f.ID, Type: string(info.Kind), Metric: info.Metric.String(), Params: info.Params}
	return w.WriteIndex(meta, func(out io.Writer) error {
		_, err := built.WriteTo(out)
		return err
	})
}

// open maps the segment and asks for the first answer.
func (x *indexBench) open(dir string) (err error) {
	start := time.Now()
	few := index.RanksByCodes(index.Kind(x.fig.Kind), x.fig.Dim)
	if x.seg, err = segfile.Open(dir, segfile.Options{WillNeed: true, HugePages: true, Scattered: few}); err != nil {
		return err
	}
	x.base = &matrix{values: x.seg.Vectors(x.field), dim: x.fig.Dim}
	if _, image, ok := x.seg.Index(x.field); ok {
		x.search, err = index.Open(image, x.base.values)
	} else {
		x.search, err = index.OpenFlat(x.fig.Dim, x.metric, x.base.values)
	}
	if err != nil {
		return errors.CombineErrors(err, x.seg.Close())
	}
	var s index.Scratch
	x.search.Search(x.queries.row(0), &index.Query{K: x.cmd.TopK}, &s)
	x.fig.LoadSeconds = time.Since(start).Seconds()
	return nil
}

func recallKey(r float64) string { return strconv.FormatFloat(r, 'g', -1, 64) }

// show writes the figures.
func (x *indexBench) show() {
	f := &x.fig
	if x.out.JSON() {
		_ = x.out.Line(f)
		return
	}
	orNone := func(v *float64) string {
		if v == nil {
			return "-"
		}
		return console.Count(int64(*v))
	}
	t := &console.Table{
		Title: f.Kind + " over " + console.Count(int64(f.Rows)) + " x " + strconv.Itoa(f.Dim) + ", " + f.Metric + ", " + strconv.Itoa(f.Threads) + " threads",
		Columns: []console.Column{console.Right("recall"), console.Right("QPS"), console.Right("QPS in batches"), console.Right("p50 us"),
			console.Right("p99 us"), console.Right("effort"), console.Right("recall found")},
	}
	for _, k := range x.settings() {
		t.Add(k, x.out.Paint(console.Strong, orNone(f.QPS[k])), x.out.Paint(console.Strong, orNone(f.QPSBatch[k])),
			f.P50[k], f.P99[k], f.Effort[k], strconv.FormatFloat(f.Found[k], 'f', 4, 64))
	}
	x.out.Table(t)
	t = &console.Table{Title: "Index", Columns: []console.Column{console.Right("build s"), console.Right("CPU s"),
		console.Right("bytes/vector on disk"), console.Right("resident"), console.Right("load ms")}}
	t.Add(f.BuildSeconds, f.BuildCPU, f.DiskBytes, orNone(f.ResidentBytes), strconv.FormatFloat(1000*f.LoadSeconds, 'f', 1, 64))
	x.out.Table(t)
	x.showWork()
	if f.Why != "" {
		x.out.Notef("%s: %s", f.Kind, f.Why)
	}
}
