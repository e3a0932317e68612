package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq/embedded"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type benchAppendCmd struct {
	Writers  int           `default:"64" help:"Writers, each of which waits until its row is durable before it sends the next."`
	Size     int           `default:"1024" help:"Bytes of one row."`
	Duration time.Duration `default:"10s" help:"How long to write."`
	DataDir  string        `name:"data-dir" type:"path" placeholder:"DIR" help:"Measure the write-ahead log by itself, in a new folder in DIR that is removed afterwards. Default: in the current folder."`
	Addr     string        `placeholder:"HOST:PORT" help:"Measure inserts into a node instead, into a collection that is dropped afterwards."`
	TLS      bool          `name:"tls" help:"Speak TLS with the node, with the certificates that the system trusts."`
	TLSCA    string        `name:"tls-ca" type:"existingfile" placeholder:"FILE" help:"Speak TLS with the node, with the certificates in this PEM file trusted."`
	outputFlags
}

// Help is shown by --help.
func (benchAppendCmd) Help() string {
	return `Says how many rows become durable in a second and how long each takes: acknowledged by the write-ahead log on the
embedded queue, with an fdatasync for each group of rows that come at the same time; or, with --addr, by a node.

Example:
  querynode bench append --writers 64 --size 1024 --data-dir /var/lib/querynode
  querynode bench append --addr 127.0.0.1:19530 --json`
}

// appendFigures is what bench append measures.
type appendFigures struct {
	Target     string  `json:"target"` // "wal" or the node's address
	PerSecond  float64 `json:"appends_per_s"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Max        float64 `json:"max_ms"`
	Appends    int     `json:"appends"`
	Errors     int64   `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	Seconds    float64 `json:"duration_s"`
	Writers    int     `json:"writers"`
	Size       int     `json:"size"`
	PerBatch   float64 `json:"entries_per_sync,omitempty"` // of the log; not known of a node
}

// Run measures.
func (b *benchAppendCmd) Run(a *app) error {
	switch {
	case b.Writers < 1 || b.Writers > 10_000:
		return usage(errors.New("--writers: want 1 to 10000"))
	case b.Size < 16 || b.Size > 4<<20:
		return usage(errors.New("--size: want 16 to 4194304 bytes"))
	case b.Duration <= 0 || b.Duration > time.Hour:
		return usage(errors.New("--duration: want more than 0 and at most 1h"))
	case b.Addr != "" && b.DataDir != "":
		return usage(errors.New("--addr measures a node, --data-dir the log by itself: give one of them"))
	}
	f := &appendFigures{Target: "wal", Writers: b.Writers, Size: b.Size}
	measure := b.log
	if b.Addr != "" {
		f.Target, measure = b.Addr, b.node
	}
	if err := measure(a, f); err != nil {
		return err
	}
	b.show(b.console(a), f)
	if f.Errors > 0 {
		return errors.Newf("%d of %d appends failed, the first with: %s", f.Errors, int64(f.Appends)+f.Errors, f.FirstError)
	}
	return nil
}

// log measures a write-ahead log on a queue of its own.
func (b *benchAppendCmd) log(a *app, f *appendFigures) (err error) {
	ctx, cancel := a.context()
	defer cancel()
	parent := b.DataDir
	if parent == "" {
		parent = "."
	}
	if err := os.MkdirAll(parent, 0o750); err != nil {
		return errors.Wrap(err, "--data-dir")
	}
	dir, err := os.MkdirTemp(parent, "bench-append-")
	if err != nil {
		return errors.Wrap(err, "--data-dir")
	}
	defer func() { err = errors.CombineErrors(err, os.RemoveAll(dir)) }()
	queue, err := embedded.Open(embedded.Options{Dir: dir})
	if err != nil {
		return err
	}
	stop, cancelStop := context.WithTimeout(context.Background(), answerTimeout)
	defer cancelStop()
	defer func() { err = errors.CombineErrors(err, queue.Close(stop)) }()
	w, err := wal.Open(wal.Options{Queue: queue, PChannel: "bench", Term: 1, Owner: "bench"})
	if err != nil {
		return err
	}
	defer func() { err = errors.CombineErrors(err, w.Close(stop)) }()
	if err := w.Ready(ctx); err != nil {
		return err
	}
	row := wal.Entry{Type: wal.Insert, VChannel: "bench_1v0", Body: bytes.Repeat([]byte{'x'}, b.Size)}
	err = b.write(ctx, f, func(ctx context.Context) error { _, err := w.Append(ctx, row); return err })
	if s := w.Stats(); s.Batches > 0 {
		f.PerBatch = round3(float64(s.Appended) / float64(s.Batches))
	}
	return err
}

// node measures inserts of one row each through the API of a node.
func (b *benchAppendCmd) node(a *app, f *appendFigures) error {
	flags := clientFlags{Addr: b.Addr, TLS: b.TLS, TLSCA: b.TLSCA, outputFlags: b.outputFlags}
	return flags.with(a, func(ctx context.Context, c *client) (err error) {
		name := "bench_append_" + strconv.FormatInt(time.Now().UnixNano(), 36)
		dim := max(2, b.Size/4)
		_, err = c.catalog.CreateCollection(ctx, &qnpb.CreateCollectionRequest{Name: name, Shards: 1,
			Indexes: []*qnpb.IndexSpec{{Field: "v", Type: "FLAT", Metric: "L2"}},
			Schema: &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{
				{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true, AutoId: true},
				{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: int32(dim)},
			}}})
		if err != nil {
			return err
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
			defer cancel()
			_, derr := c.catalog.DropCollection(ctx, &qnpb.DropCollectionRequest{Collection: name})
			err = errors.CombineErrors(err, errors.Wrapf(derr, "drop collection %s", name))
		}()
		row := &qnpb.AppendRequest{Collection: name, Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: 1,
			Fields: []*qnpb.FieldData{{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: int32(dim), Values: make([]float32, dim)}}}}}}}
		return b.write(ctx, f, func(ctx context.Context) error { _, err := c.write.Append(ctx, row); return err })
	})
}

// write has the writers append for a while and notes how it went.
func (b *benchAppendCmd) write(ctx context.Context, f *appendFigures, appendOne func(context.Context) error) error {
	took := make([][]time.Duration, b.Writers)
	var failed atomic.Int64
	var first atomic.Pointer[error]
	call, cancel := context.WithTimeout(ctx, b.Duration+answerTimeout)
	defer cancel()
	g := lifecycle.NewGroup(call, nil)
	var writing sync.WaitGroup
	start := time.Now()
	end := start.Add(b.Duration)
	for i := range took {
		writing.Add(1)
		err := g.Go("writer", func(ctx context.Context) error {
			defer writing.Done()
			for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
				err := appendOne(ctx)
				done := time.Now()
				if err == nil {
					took[i] = append(took[i], done.Sub(now))
				} else if failed.Add(1) == 1 {
					first.Store(&err)
				}
				now = done
			}
			return nil
		})
		if err != nil {
			writing.Done()
			return err
		}
	}
	writing.Wait() // each append ends with its context
	f.Seconds = time.Since(start).Seconds()
	all := slices.Concat(took...)
	slices.Sort(all)
	f.Appends, f.Errors = len(all), failed.Load()
	if e := first.Load(); e != nil {
		f.FirstError = fmt.Sprint(*e)
	}
	f.PerSecond = round3(float64(len(all)) / f.Seconds)
	f.P50, f.P99, f.Max = quantile(all, 0.50), quantile(all, 0.99), quantile(all, 1)
	return errors.CombineErrors(ctx.Err(), g.Close(call))
}

// show writes the figures.
func (b *benchAppendCmd) show(out *console.Console, f *appendFigures) {
	if out.JSON() {
		_ = out.Line(f)
		return
	}
	t := &console.Table{Columns: []console.Column{
		console.Right("appends/s"), console.Right("p50 ms"), console.Right("p99 ms"), console.Right("max ms"),
		console.Right("MB/s"), console.Right("per sync"), console.Right("appends"),
	}}
	per := "-"
	if f.PerBatch > 0 {
		per = strconv.FormatFloat(f.PerBatch, 'f', 1, 64)
	}
	t.Add(out.Paint(console.Strong, strconv.FormatFloat(f.PerSecond, 'f', 0, 64)), f.P50, f.P99, f.Max,
		strconv.FormatFloat(f.PerSecond*float64(f.Size)/1e6, 'f', 1, 64), per, console.Count(int64(f.Appends)))
	out.Table(t)
}
