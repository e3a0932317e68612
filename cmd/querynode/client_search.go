package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/dataset"
	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type searchCmd struct {
	Collection      string   `arg:"" help:"Name or alias of the collection."`
	Vector          []string `sep:"none" xor:"what" placeholder:"'1,2,3'" help:"Vector to search for: numbers with commas or spaces between. May be repeated."`
	Text            []string `sep:"none" xor:"what" placeholder:"WORDS" help:"Words to search for, in a field that --bm25 made. May be repeated."`
	Vectors         string   `xor:"what" type:"path" placeholder:"FILE" help:"Vectors to search for: .npy, .fvecs, .bvecs or .parquet."`
	ID              []string `name:"id" sep:"none" xor:"what" placeholder:"KEY" help:"Search for what is near to the row with this key. May be repeated."`
	Field           string   `placeholder:"NAME" help:"Vector field; needed if there are several."`
	TopK            int64    `short:"k" default:"10" help:"Rows wanted for each vector."`
	Offset          int64    `help:"Rows to leave out at the front."`
	Metric          string   `placeholder:"L2|IP|COSINE" help:"Refused unless it is the index's."`
	EF              int32    `name:"ef" help:"HNSW, HNSW_SQ: size of the candidate list; 0 = chosen by the node."`
	Nprobe          int32    `help:"IVF_FLAT, IVF_SQ8, SCANN: lists to read; 0 = chosen by the node."`
	Recall          float32  `help:"Instead of --ef and --nprobe: share of the nearest rows that is wanted, 0.5 to 1; 1 = every row is looked at."`
	RefineK         float32  `name:"refine-k" help:"HNSW_SQ, IVF_SQ8, SCANN: rank this many times top_k rows by their vectors, so that scores are exact; 0 = by codes."`
	ReorderK        int32    `name:"reorder-k" help:"SCANN: rows to compare exactly at least; 0 = chosen by the node."`
	Radius          *float32 `placeholder:"SCORE" help:"Only rows nearer than this score."`
	RangeFilter     *float32 `placeholder:"SCORE" help:"Only rows no nearer than this score."`
	RoundDecimal    *int32   `placeholder:"0-6" help:"Decimals of the scores; -1 = all."`
	GroupBy         string   `placeholder:"FIELD" help:"Find groups of rows that share the field's value; --top-k and --offset count groups."`
	GroupSize       int64    `placeholder:"N" help:"Rows of each group; default 1."`
	StrictGroupSize bool     `help:"Fill each group if there are rows to fill it."`
	Pages           int      `placeholder:"N" help:"All rows in order, --top-k a page: show N pages, and the token to go on with."`
	All             bool     `help:"All pages."`
	Token           string   `placeholder:"TOKEN" help:"Go on behind the page that this token came with."`
	readFlags
	clientFlags
}

// Help is shown by --help.
func (searchCmd) Help() string {
	return `Finds the rows nearest to vectors. L2 scores are squared distances (smaller is nearer); for IP and COSINE
larger is nearer. With --json each query vector's answer is one line; {"missing": ...} follows where rows were left out.

Example:
  querynode search words --id 375 --output-fields word -k 5
  querynode search words --vectors queries.npy -k 100 --ef 200 --json
  querynode search words --vector '0.1, 0.2, 0.3' --filter 'length < 6'
  querynode search words --id 375 --explain
  querynode search words --id 375 --filter 'length < {most}' --param most=6
  querynode search posts --field words --text 'dogs and rivers' --output-fields body
  querynode search words --id 375 --group-by length --group-size 2
  querynode search words --id 375 -k 1000 --all --json`
}

// Run searches.
func (s *searchCmd) Run(a *app) error {
	if err := s.check(); err != nil {
		return err
	}
	if len(s.Vector) == 0 && s.Vectors == "" && len(s.ID) == 0 && len(s.Text) == 0 {
		return usage(errors.New("say what to search for: --vector, --vectors, --text or --id"))
	}
	if s.paged() && len(s.Vector)+len(s.ID)+len(s.Text) != 1 {
		return usage(errors.New("pages are of one --vector, --text or --id"))
	}
	return s.with(a, func(ctx context.Context, c *client) error {
		coll, err := c.describe(ctx, s.Collection)
		if err != nil {
			return err
		}
		field, err := pickVector(coll, s.Field)
		if err != nil {
			return err
		}
		if len(s.Text) > 0 {
			return s.search(ctx, c, coll, field, &qnpb.SearchRequest{Texts: s.Text}, s.Text)
		}
		if isSparse(field) && s.Vectors == "" && !(ofWords(coll.GetSchema(), field) && len(s.ID) > 0) {
			return s.sparse(ctx, c, coll, field)
		}
		for batch, labels := range s.batches(ctx, c, coll, field, &err) {
			what := &qnpb.SearchRequest{Vectors: rowpb.RawVectors(batch, int(field.GetDim()))}
			if field.GetType() == qnpb.DataType_DATA_TYPE_BINARY_VECTOR {
				what = &qnpb.SearchRequest{ByteVectors: packBits(batch, field.GetDim())}
			}
			if serr := s.search(ctx, c, coll, field, what, labels); serr != nil {
				return serr
			}
		}
		return err
	})
}

// maxSearch is how many vectors of a file go into one call.
const maxSearch = 256

// batches yields the query vectors, some at a time, with how they are called.
func (s *searchCmd) batches(ctx context.Context, c *client, coll *qnpb.Collection, f *qnpb.FieldSchema, failed *error) func(func([]float32, []string) bool) {
	return func(yield func([]float32, []string) bool) {
		switch {
		case s.Vectors != "":
			*failed = fileVectors(s.Vectors, f, yield)
		case len(s.ID) > 0:
			vectors, err := c.vectorsOf(ctx, coll, f, s.ID, s.AllowPartial)
			if *failed = err; err == nil {
				yield(vectors, s.ID)
			}
		default:
			var all []float32
			var labels []string
			for i, text := range s.Vector {
				v, err := parseVector(text)
				if err != nil {
					*failed = err
					return
				}
				if len(v) != int(f.GetDim()) {
					*failed = wrongDim(len(v), f)
					return
				}
				all, labels = append(all, v...), append(labels, strconv.Itoa(i))
			}
			yield(all, labels)
		}
	}
}

func wrongDim(got int, f *qnpb.FieldSchema) error {
	return &problem{text: fmt.Sprintf("the vector has %d values, field %q has vectors of %d", got, f.GetName(), f.GetDim())}
}

// pickVector returns the vector field called name; "" = the only one.
func pickVector(coll *qnpb.Collection, name string) (*qnpb.FieldSchema, error) {
	all := vectorsOf(coll.GetSchema())
	var names []string
	for _, f := range all {
		if f.GetName() == name || name == "" && len(all) == 1 {
			return f, nil
		}
		names = append(names, f.GetName())
	}
	if name == "" {
		return nil, &problem{text: fmt.Sprintf("%s has several vector fields: %s", coll.GetName(), strings.Join(names, ", ")), next: "choose one with --field"}
	}
	return nil, &problem{text: fmt.Sprintf("%s has no vector field %q; there is %s", coll.GetName(), name, strings.Join(names, ", "))}
}

func parseVector(text string) ([]float32, error) {
	parts := strings.FieldsFunc(strings.Trim(strings.TrimSpace(text), "[]"), func(r rune) bool { return r == ',' || r == ' ' || r == ';' || r == '\t' || r == '\n' })
	out := make([]float32, len(parts))
	for i, p := range parts {
		v, err := strconv.ParseFloat(p, 32)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, usage(errors.Newf("value %d of --vector is %q, want a finite number", i+1, p))
		}
		out[i] = float32(v)
	}
	if len(out) == 0 {
		return nil, usage(errors.New("--vector is empty"))
	}
	return out, nil
}

func fileVectors(path string, f *qnpb.FieldSchema, yield func([]float32, []string) bool) (err error) {
	r, err := dataset.Open(path, dataset.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.CombineErrors(err, r.Close()) }()
	for n := 0; ; {
		b, err := r.Next(maxSearch)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		col := vectorColumn(b, f)
		if col.Dim != int(f.GetDim()) {
			return wrongDim(col.Dim, f)
		}
		labels := make([]string, b.Rows)
		for i := range labels {
			labels[i] = strconv.Itoa(n + i)
		}
		n += b.Rows
		if !yield(col.Float, labels) {
			return nil
		}
	}
}

// vectorColumn is the first vector column of the right dimension, else the first.
func vectorColumn(b *schema.Batch, f *qnpb.FieldSchema) *schema.Column {
	var first *schema.Column
	for _, c := range b.Columns {
		if c.Type.IsVector() && c.Dim == int(f.GetDim()) {
			return c
		}
		if c.Type.IsVector() && first == nil {
			first = c
		}
	}
	return first
}

// paged reports whether the search goes page by page.
func (s *searchCmd) paged() bool { return s.Pages != 0 || s.All || s.Token != "" }

// sparse searches a field of sparse vectors.
func (s *searchCmd) sparse(ctx context.Context, c *client, coll *qnpb.Collection, f *qnpb.FieldSchema) error {
	if len(s.ID) > 0 {
		v, err := c.sparseOf(ctx, coll, f, s.ID, s.AllowPartial)
		if err != nil {
			return err
		}
		return s.search(ctx, c, coll, f, &qnpb.SearchRequest{SparseVectors: v}, s.ID)
	}
	v, err := parseSparse("--vector", s.Vector)
	if err != nil {
		return err
	}
	return s.search(ctx, c, coll, f, &qnpb.SearchRequest{SparseVectors: v}, s.Vector)
}

// search sends what is searched for in one call, or one for each page, and shows the answer.
func (s *searchCmd) search(ctx context.Context, c *client, coll *qnpb.Collection, f *qnpb.FieldSchema, what *qnpb.SearchRequest, labels []string) (err error) {
	req := &qnpb.SearchRequest{
		Collection: s.Collection, Partitions: s.Partition, Field: f.GetName(), Vectors: what.GetVectors(), ByteVectors: what.GetByteVectors(), SparseVectors: what.GetSparseVectors(), Texts: what.GetTexts(),
		TopK: s.TopK, Offset: s.Offset, Metric: strings.ToUpper(s.Metric), Filter: s.Filter, OutputFields: s.OutputFields, Ef: s.EF, Nprobe: s.Nprobe, ReorderK: s.ReorderK, RefineK: s.RefineK, Recall: s.Recall, Freshness: s.freshness(),
		Radius: s.Radius, RangeFilter: s.RangeFilter, RoundDecimal: s.RoundDecimal, IgnoreGrowing: s.IgnoreGrowing, AllowPartial: s.AllowPartial,
		GroupByField: s.GroupBy, GroupSize: s.GroupSize, StrictGroupSize: s.StrictGroupSize, Iterate: s.paged(), Token: s.Token, Explain: s.Explain,
	}
	if req.FilterValues, err = parseParams(s.Param); err != nil {
		return err
	}
	for page := 1; ; page++ {
		got, err := s.call(ctx, c, req)
		if err != nil {
			return explain(err, c.addr, s.Filter)
		}
		if err := s.answer(c, coll, got, labels); err != nil {
			return err
		}
		req.Token = got.GetNextToken()
		if req.Token == "" || page >= s.Pages && !s.All {
			return nil
		}
	}
}

func (s *searchCmd) call(ctx context.Context, c *client, req *qnpb.SearchRequest) (*qnpb.SearchResponse, error) {
	ctx, cancel := c.answer(ctx)
	defer cancel()
	return c.query.Search(ctx, req)
}

// answer shows the answer to one call.
func (s *searchCmd) answer(c *client, coll *qnpb.Collection, got *qnpb.SearchResponse, labels []string) error {
	types := typesOf(coll.GetSchema())
	from := 0
	for q, n := range got.GetCounts() {
		to := from + int(n)
		if q >= len(labels) || to > len(got.GetScores()) {
			return errors.Newf("the node's answer is inconsistent: %d hits of query %d, %d scores", n, q, len(got.GetScores()))
		}
		if c.out.JSON() {
			hits := make([]map[string]any, 0, n)
			for i := from; i < to; i++ {
				hit := types.row(got.GetFields(), i)
				hit["id"], hit["score"] = keyOf(got.GetIds(), i), got.GetScores()[i]
				if g := got.GetGroupValues(); g != nil {
					hit["group"] = types.cell(g, i)
				}
				hits = append(hits, hit)
			}
			line := map[string]any{"query": labels[q], "hits": hits, "read_timestamp": got.GetReadTimestamp()}
			if s.paged() {
				line["next_token"] = got.GetNextToken()
			}
			if err := c.out.Line(line); err != nil {
				return err
			}
		} else {
			s.show(c.out, types, got, labels[q], from, to, len(labels) > 1)
		}
		from = to
	}
	if t := got.GetNextToken(); t != "" && !s.All && !c.out.JSON() {
		c.out.Notef("%s", c.out.PaintNote(console.Faint, "go on with --token "+t))
	}
	return showStats(c.out, got.GetStats(), s.Explain)
}

func (s *searchCmd) show(out *console.Console, types fieldTypes, got *qnpb.SearchResponse, label string, from, to int, several bool) {
	t := &console.Table{Columns: []console.Column{console.Right("#"), console.Left("id"), console.Right("score")}}
	if several {
		t.Title = "query " + label
	}
	if g := got.GetGroupValues(); g != nil {
		t.Columns = append(t.Columns, console.Left("group by "+g.GetField()))
	}
	for _, d := range got.GetFields() {
		t.Columns = append(t.Columns, console.Left(d.GetField()))
	}
	for i := from; i < to; i++ {
		row := []any{i - from + 1 + int(s.Offset), cellText(keyOf(got.GetIds(), i)), strconv.FormatFloat(float64(got.GetScores()[i]), 'f', 4, 32)}
		if g := got.GetGroupValues(); g != nil {
			row = append(row, cellText(types.cell(g, i)))
		}
		for _, d := range got.GetFields() {
			row = append(row, cellText(types.cell(d, i)))
		}
		t.Add(row...)
	}
	showOrNone(out, t, "query "+label+": nothing found")
}
