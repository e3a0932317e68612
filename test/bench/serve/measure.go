//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/rowpb"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// report is what was measured. Ratios compare medians.
type report struct {
	Concurrency int       `json:"concurrency"`
	Recall      float64   `json:"recall"`
	EF          int       `json:"ef"`
	Nprobe      int       `json:"nprobe"`
	Floor       []figures `json:"floor"`
	Node        []figures `json:"node"`
	Inserting   []figures `json:"node_while_inserting,omitempty"`
	InsertRate  int       `json:"insert_rate"`
	Inserted    float64   `json:"inserted_rows_per_s"`
	CPURatio    float64   `json:"cpu_per_query_of_floor"`
	QPSRatio    float64   `json:"qps_while_inserting_of_qps"`
}

// measure runs everything.
func measure(ctx context.Context, o *options) (_ *report, err error) {
	if o.rounds < 1 || o.concurrency < 1 || o.duration <= 0 || o.insertRate < 0 || (o.base == "") != (o.queries == "") {
		return nil, errors.New("rounds, concurrency and duration are above 0, and base and queries are given together")
	}
	r, err := open(ctx, o)
	defer func() { err = errors.CombineErrors(err, r.close()) }()
	if err != nil {
		return nil, err
	}
	if err := r.noTruth(); err != nil {
		return nil, err
	}
	out := &report{Concurrency: o.concurrency, InsertRate: o.insertRate}
	first, err := r.bench(ctx, r.nodeAddr, "--duration", "1ms", "--recall", strconv.FormatFloat(o.recall, 'g', -1, 64))
	if err != nil {
		return nil, err
	}
	out.EF, out.Nprobe, out.Recall = first.EF, first.Nprobe, first.Recall
	truthful := append(first.effort(), "--concurrency", strconv.Itoa(o.concurrency), "--duration", seconds(o.duration), "--limit", "1000")
	for i := range o.rounds {
		fmt.Fprintf(o.progress, "round %d of %d\n", i+1, o.rounds)
		if err := r.round(ctx, out, truthful); err != nil {
			return nil, err
		}
	}
	if o.profile != "" {
		if _, err := r.profile(ctx, truthful, o.profile); err != nil {
			return nil, err
		}
	}
	for i := 0; i < o.rounds && o.insertRate > 0; i++ { // last: the rows stay
		fmt.Fprintf(o.progress, "round %d of %d with inserts\n", i+1, o.rounds)
		if err := r.insertRound(ctx, out, truthful); err != nil {
			return nil, err
		}
	}
	out.CPURatio = median(out.Node, cpuOf) / median(out.Floor, cpuOf)
	if len(out.Inserting) > 0 {
		out.QPSRatio = median(out.Inserting, qpsOf) / median(out.Node, qpsOf)
	}
	return out, nil
}

// round measures each server once.
func (r *rig) round(ctx context.Context, out *report, args []string) error {
	f, err := r.bench(ctx, r.floorAt, args...)
	if err != nil {
		return err
	}
	out.Floor = append(out.Floor, f)
	args = append(slices.Clone(args), "--truth", r.truth) // its recall is known
	if f, err = r.bench(ctx, r.nodeAddr, args...); err != nil {
		return err
	}
	out.Node = append(out.Node, f)
	return nil
}

// insertRound measures the node while rows are inserted.
func (r *rig) insertRound(ctx context.Context, out *report, args []string) error {
	args = append(slices.Clone(args), "--truth", r.truth)
	var rows int64
	var f figures
	took := time.Now()
	err := r.inserting(ctx, &rows, func() (err error) {
		if r.o.profile != "" {
			f, err = r.profile(ctx, args, r.o.profile+".inserting")
		} else {
			f, err = r.bench(ctx, r.nodeAddr, args...)
		}
		return err
	})
	if err != nil {
		return err
	}
	out.Inserted = float64(rows) / time.Since(took).Seconds()
	out.Inserting = append(out.Inserting, f)
	return nil
}

// inserting runs fn while rows are inserted, fifty calls a second at most.
func (r *rig) inserting(ctx context.Context, rows *int64, fn func() error) error {
	conn, err := grpc.NewClient(r.nodeAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return errors.Wrap(err, "connect")
	}
	defer func() { _ = conn.Close() }()
	coll, err := qnpb.NewCatalogServiceClient(conn).DescribeCollection(ctx, &qnpb.DescribeCollectionRequest{Collection: collection})
	if err != nil {
		return errors.Wrap(err, "describe the collection")
	}
	dim := 0
	for _, f := range coll.GetCollection().GetSchema().GetFields() {
		dim = max(dim, int(f.GetDim()))
	}
	w := &writer{client: qnpb.NewWriteServiceClient(conn), dim: dim, per: max(1, r.o.insertRate/50), rows: rows,
		key: time.Now().UnixNano(), rng: rand.New(rand.NewPCG(3, uint64(time.Now().UnixNano())))}
	ended := make(chan error, 1)
	g := lifecycle.NewGroup(ctx, func(_ string, err error) { ended <- err })
	if err := g.Go("insert rows", func(ctx context.Context) error { return w.run(ctx, r.o.insertRate) }); err != nil {
		return err
	}
	err = fn()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.CombineErrors(err, errors.CombineErrors(g.Close(closing), <-ended))
}

// writer inserts random rows.
type writer struct {
	client   qnpb.WriteServiceClient
	dim, per int
	key      int64
	rng      *rand.Rand
	rows     *int64
}

// run inserts rate rows a second until ctx ends.
func (w *writer) run(ctx context.Context, rate int) error {
	tick := time.NewTicker(time.Duration(float64(w.per) / float64(rate) * float64(time.Second)))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		keys, values := make([]int64, w.per), make([]float32, w.per*w.dim)
		for i := range keys {
			w.key++
			keys[i] = w.key
		}
		for i := range values {
			values[i] = float32(w.rng.NormFloat64())
		}
		_, err := w.client.Append(ctx, &qnpb.AppendRequest{Collection: collection, Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{
			Rows: int64(w.per),
			Fields: []*qnpb.FieldData{
				{Field: "id", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: keys}}},
				{Field: "vector", Values: &qnpb.FieldData_Vectors{Vectors: rowpb.RawVectors(values, w.dim)}},
			},
		}}})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return errors.Wrap(err, "insert")
		}
		*w.rows += int64(w.per)
	}
}

// profile measures the node and takes a processor profile of it meanwhile.
func (r *rig) profile(ctx context.Context, args []string, path string) (figures, error) {
	ended := make(chan error, 1)
	g := lifecycle.NewGroup(ctx, func(_ string, err error) { ended <- err })
	if err := g.Go("profile", func(ctx context.Context) error {
		if err := pause(ctx, r.o.duration/3); err != nil {
			return err
		}
		half := max(1, int(r.o.duration.Seconds()/2))
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", r.admin, half), nil)
		if err != nil {
			return errors.Wrap(err, "profile")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return errors.Wrap(err, "profile")
		}
		defer func() { _ = resp.Body.Close() }()
		raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
		if err != nil {
			return errors.Wrap(err, "profile")
		}
		return errors.Wrap(os.WriteFile(path, raw, 0o600), "profile")
	}); err != nil {
		return figures{}, err
	}
	f, err := r.bench(ctx, r.nodeAddr, args...)
	err = errors.CombineErrors(err, <-ended)
	return f, errors.CombineErrors(err, g.Close(context.WithoutCancel(ctx)))
}

func cpuOf(f figures) float64    { return f.CPU }
func qpsOf(f figures) float64    { return f.QPS }
func p50Of(f figures) float64    { return f.P50 }
func p99Of(f figures) float64    { return f.P99 }
func clientOf(f figures) float64 { return f.ClientCPU }

func median(all []figures, of func(figures) float64) float64 {
	var v []float64
	for _, f := range all {
		v = append(v, of(f))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func (r *report) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "server\tQPS\tp50 ms\tp99 ms\tserver CPU s/1k\tclient CPU s/1k\t\n")
	for _, row := range []struct {
		name string
		f    []figures
	}{{"floor", r.Floor}, {"node", r.Node}, {"node, " + strconv.Itoa(r.InsertRate) + " rows/s", r.Inserting}} {
		if len(row.f) > 0 {
			fmt.Fprintf(w, "%s\t%.0f\t%.2f\t%.2f\t%.4f\t%.4f\t\n", row.name, median(row.f, qpsOf), median(row.f, p50Of), median(row.f, p99Of), median(row.f, cpuOf), median(row.f, clientOf))
		}
	}
	fmt.Fprintf(w, "\nrecall@10 %.4f at ef %d, nprobe %d, concurrency %d; processor time per query: %.2f x the floor\n", r.Recall, r.EF, r.Nprobe, r.Concurrency, r.CPURatio)
	if len(r.Inserting) > 0 {
		fmt.Fprintf(w, "while %.0f rows/s are inserted: %.0f %% of the QPS\n", r.Inserted, 100*r.QPSRatio)
	}
	return w.Flush()
}

func writeValues[T int32 | float32](b *bytes.Buffer, values []T) error {
	b.Grow(4 * len(values))
	return binary.Write(b, binary.LittleEndian, values)
}
