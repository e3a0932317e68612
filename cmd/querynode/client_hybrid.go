package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/rowpb"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type hybridCmd struct {
	Collection      string    `arg:"" help:"Name or alias of the collection."`
	Search          []string  `sep:"none" xor:"what" placeholder:"FIELD=1,2,3" help:"Search a vector field for this vector (FIELD=3:0.5,17:1 if it is sparse), or one that --bm25 made for these words. May be repeated, for the same field too."`
	ID              string    `name:"id" xor:"what" placeholder:"KEY" help:"Search every vector field for what is near to the row with this key."`
	TopK            int64     `short:"k" default:"10" help:"Rows wanted."`
	Offset          int64     `help:"Rows to leave out at the front."`
	Ranked          int64     `placeholder:"N" help:"Hits of each search that are ranked; 0 = --top-k + --offset."`
	RRFK            float32   `name:"rrf-k" placeholder:"60" help:"Fuse by ranks: number n of a search gets 1/(k+n)."`
	Weights         []float32 `placeholder:"0.7,0.3" help:"Fuse by scores instead: the weight of each search, 0 to 1."`
	NormScore       bool      `help:"With --weights: bring IP and COSINE scores between 0 and 1 first."`
	GroupBy         string    `placeholder:"FIELD" help:"Find groups of rows that share the field's value; --top-k, --offset and --ranked count groups."`
	GroupSize       int64     `placeholder:"N" help:"Rows of each group; default 1."`
	StrictGroupSize bool      `help:"Fill each group if there are rows to fill it."`
	GroupScorer     string    `placeholder:"max|sum|avg" help:"What groups are ordered by: the points of their best row (the default), the sum of those of their rows, the mean."`
	RoundDecimal    *int32    `placeholder:"0-6" help:"Decimals of the scores; -1 = all."`
	EF              int32     `name:"ef" help:"HNSW, HNSW_SQ: size of the candidate list; 0 = chosen by the node."`
	readFlags
	clientFlags
}

// Help is shown by --help.
func (hybridCmd) Help() string {
	return `Runs several searches at one point in time and fuses their hits into one ranking, by ranks (the default) or by
weighted scores. --filter goes for all of them.

Example:
  querynode hybrid products --search 'text=0.1,0.2,0.3' --search 'image=0.5,0.1' -k 10
  querynode hybrid products --id 375 --weights 0.7,0.3 --norm-score --output-fields name --explain
  querynode hybrid products --id 375 --group-by brand --group-size 2 --strict-group-size`
}

// Run searches.
func (h *hybridCmd) Run(a *app) error {
	if err := h.check(); err != nil {
		return err
	}
	if len(h.Search) == 0 && h.ID == "" {
		return usage(errors.New("say what to search for: --search or --id"))
	}
	if h.RRFK != 0 && len(h.Weights) > 0 {
		return usage(errors.New("--rrf-k fuses by ranks, --weights by scores: choose one"))
	}
	return h.with(a, func(ctx context.Context, c *client) error {
		coll, err := c.describe(ctx, h.Collection)
		if err != nil {
			return err
		}
		req := &qnpb.HybridSearchRequest{
			Collection: h.Collection, Partitions: h.Partition, TopK: h.TopK, Offset: h.Offset, OutputFields: h.OutputFields, RoundDecimal: h.RoundDecimal,
			IgnoreGrowing: h.IgnoreGrowing, AllowPartial: h.AllowPartial, Freshness: h.freshness(), Explain: h.Explain,
			GroupByField: h.GroupBy, GroupSize: h.GroupSize, StrictGroupSize: h.StrictGroupSize, RankGroupScorer: h.GroupScorer,
		}
		if len(h.Weights) > 0 {
			req.Ranker = &qnpb.HybridSearchRequest_Weighted{Weighted: &qnpb.WeightedRanker{Weights: h.Weights, NormScore: h.NormScore}}
		} else if h.RRFK != 0 {
			req.Ranker = &qnpb.HybridSearchRequest_Rrf{Rrf: &qnpb.RrfRanker{K: h.RRFK}}
		}
		if req.Searches, err = h.searches(ctx, c, coll); err != nil {
			return err
		}
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.query.HybridSearch(ctx, req)
		if err != nil {
			return explain(err, c.addr, h.Filter)
		}
		return h.show(c, coll, got)
	})
}

// searches makes the searches that were asked for.
func (h *hybridCmd) searches(ctx context.Context, c *client, coll *qnpb.Collection) (out []*qnpb.SubSearch, err error) {
	values, err := parseParams(h.Param)
	if err != nil {
		return nil, err
	}
	add := func(f *qnpb.FieldSchema, what *qnpb.SubSearch) {
		what.Field, what.TopK, what.Filter, what.FilterValues = f.GetName(), h.Ranked, h.Filter, values
		if what.Vectors != nil {
			what.Ef = h.EF
		}
		out = append(out, what)
	}
	if h.ID != "" {
		for _, f := range vectorsOf(coll.GetSchema()) {
			if ofWords(coll.GetSchema(), f) {
				continue // a row has no words that could be searched for
			}
			what, err := h.ofRow(ctx, c, coll, f)
			if err != nil {
				return nil, err
			}
			add(f, what)
		}
		return out, nil
	}
	for _, text := range h.Search {
		name, numbers, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usage(errors.Newf("--search %q: want FIELD=1,2,3", text))
		}
		f, err := pickVector(coll, strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		if ofWords(coll.GetSchema(), f) {
			add(f, &qnpb.SubSearch{Texts: []string{numbers}})
			continue
		}
		what, err := typedVector(f, numbers)
		if err != nil {
			return nil, err
		}
		add(f, what)
	}
	return out, nil
}

// ofRow searches for the vector of the row --id.
func (h *hybridCmd) ofRow(ctx context.Context, c *client, coll *qnpb.Collection, f *qnpb.FieldSchema) (*qnpb.SubSearch, error) {
	if isSparse(f) {
		v, err := c.sparseOf(ctx, coll, f, []string{h.ID}, h.AllowPartial)
		return &qnpb.SubSearch{SparseVectors: v}, err
	}
	v, err := c.vectorsOf(ctx, coll, f, []string{h.ID}, h.AllowPartial)
	if err != nil {
		return nil, err
	}
	return denseSearch(f, v)
}

// typedVector searches for a vector as it is typed.
func typedVector(f *qnpb.FieldSchema, text string) (*qnpb.SubSearch, error) {
	if isSparse(f) {
		v, err := parseSparse("--search", []string{text})
		return &qnpb.SubSearch{SparseVectors: v}, err
	}
	v, err := parseVector(text)
	if err != nil {
		return nil, err
	}
	return denseSearch(f, v)
}

func denseSearch(f *qnpb.FieldSchema, v []float32) (*qnpb.SubSearch, error) {
	if len(v) != int(f.GetDim()) {
		return nil, wrongDim(len(v), f)
	}
	if f.GetType() == qnpb.DataType_DATA_TYPE_BINARY_VECTOR {
		return &qnpb.SubSearch{ByteVectors: packBits(v, f.GetDim())}, nil
	}
	return &qnpb.SubSearch{Vectors: rowpb.RawVectors(v, len(v))}, nil
}

func (h *hybridCmd) show(c *client, coll *qnpb.Collection, got *qnpb.HybridSearchResponse) error {
	types := typesOf(coll.GetSchema())
	n := len(got.GetScores())
	if !slices.Equal(got.GetCounts(), []int64{int64(n)}) {
		return errors.Newf("the node's answer is inconsistent: %v hits, %d scores", got.GetCounts(), n)
	}
	if c.out.JSON() {
		hits := make([]map[string]any, 0, n)
		for i := range n {
			hit := types.row(got.GetFields(), i)
			hit["id"], hit["score"] = keyOf(got.GetIds(), i), got.GetScores()[i]
			if g := got.GetGroupValues(); g != nil {
				hit["group"] = types.cell(g, i)
			}
			hits = append(hits, hit)
		}
		if err := c.out.Line(map[string]any{"hits": hits, "read_timestamp": got.GetReadTimestamp()}); err != nil {
			return err
		}
		return showStats(c.out, got.GetStats(), h.Explain)
	}
	t := &console.Table{Columns: []console.Column{console.Right("#"), console.Left("id"), console.Right("score")}}
	if g := got.GetGroupValues(); g != nil {
		t.Columns = append(t.Columns, console.Left("group by "+g.GetField()))
	}
	for _, d := range got.GetFields() {
		t.Columns = append(t.Columns, console.Left(d.GetField()))
	}
	for i := range n {
		row := []any{fmt.Sprint(i + 1 + int(h.Offset)), cellText(keyOf(got.GetIds(), i)), strconv.FormatFloat(float64(got.GetScores()[i]), 'f', 4, 32)}
		if g := got.GetGroupValues(); g != nil {
			row = append(row, cellText(types.cell(g, i)))
		}
		for _, d := range got.GetFields() {
			row = append(row, cellText(types.cell(d, i)))
		}
		t.Add(row...)
	}
	showOrNone(c.out, t, "nothing found")
	return showStats(c.out, got.GetStats(), h.Explain)
}
