package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// queryAll reads a query to its end: all pieces but the last, and the last.
func (n *testNode) queryAll(r *qnpb.QueryRequest) (pieces []*qnpb.QueryResponse, last *qnpb.QueryResponse, err error) {
	st, err := n.query.Query(within(n.t), r)
	if err != nil {
		return nil, nil, err
	}
	for {
		p, err := st.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return pieces, last, nil
		case err != nil:
			return nil, nil, err
		case p.GetStats() != nil:
			last = p
		default:
			pieces = append(pieces, p)
		}
	}
}

// column returns the integers of one column of a query's answer.
func (n *testNode) column(r *qnpb.QueryRequest, i int) (out []int64) {
	n.t.Helper()
	pieces, _, err := n.queryAll(r)
	must(n.t, err)
	for _, p := range pieces {
		out = append(out, p.GetFields()[i].GetInts().GetValues()...)
	}
	return out
}

// byDistance are keys in order of the distance of their vectors at a version.
func byDistance(query []float32, versions map[int64]int64) []int64 {
	far := func(id int64) (d float64) {
		for i, v := range vectorOf(id, versions[id]) {
			d += (float64(v) - float64(query[i])) * (float64(v) - float64(query[i]))
		}
		return d
	}
	var ids []int64
	for id := range versions {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b int64) int { return cmp.Compare(far(a), far(b)) })
	return ids
}

// TestPagesGoOnWhateverHappensBetweenThem: rows are added, replaced and deleted,
// segments flushed, handed off, released and loaded, the node restarted; the pages
// of a search and of a query show the rows of the first page's moment, once each.
func TestPagesGoOnWhateverHappensBetweenThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options{shardTopics: 2}
	n := start(t, dir, o)
	n.items("items", 3)
	versions := map[int64]int64{}
	for id := range int64(300) {
		versions[id] = 0
	}
	n.insert("items", seq(0, 200))
	n.flush("items")
	n.insert("items", seq(200, 300))
	n.upsert("items", seq(50, 80), 3)
	for id := int64(50); id < 80; id++ {
		versions[id] = 3
	}
	n.delete("items", seq(100, 110))
	for id := int64(100); id < 110; id++ {
		delete(versions, id)
	}
	query := vectorOf(7777, 1)
	want := byDistance(query, versions)
	var keys []int64
	for id := range versions {
		keys = append(keys, id)
	}
	slices.Sort(keys)
	search := &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: query}, TopK: 23, Iterate: true, Freshness: strong}
	rows := &qnpb.QueryRequest{Collection: "items", OutputFields: []string{"price"}, Limit: 31, Iterate: true, Freshness: strong}
	var found, listed []int64
	changes := []func(){
		func() { n.insert("items", seq(1000, 1050)) },
		func() { n.flush("items") },
		func() { n.upsert("items", seq(0, 300), 9) },
		func() { n.delete("items", seq(0, 100)) },
		func() {
			must2(t)(n.control.ReleaseSegments(within(t), &qnpb.ReleaseSegmentsRequest{Collection: "items"}))
			must2(t)(n.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items"}))
		},
		func() { n.stop(); n = start(t, dir, o) },
		func() { n.flush("items") },
	}
	at := uint64(0)
	for step := 0; ; step++ {
		if search.Token != "" || step == 0 {
			r, err := n.query.Search(within(t), search)
			must(t, err)
			found = append(found, r.GetIds().GetInts().GetValues()...)
			if at == 0 {
				at = r.GetReadTimestamp()
			}
			if r.GetReadTimestamp() != at {
				t.Fatalf("page %d is of %d, the first of %d", step, r.GetReadTimestamp(), at)
			}
			search.Token = r.GetNextToken()
		}
		if rows.Token != "" || step == 0 {
			pieces, last, err := n.queryAll(rows)
			must(t, err)
			for _, p := range pieces {
				for i, id := range p.GetFields()[0].GetInts().GetValues() {
					listed = append(listed, id)
					if price := p.GetFields()[1].GetInts().GetValues()[i]; price != id*10+versions[id] {
						t.Fatalf("key %d costs %d, want %d", id, price, id*10+versions[id])
					}
				}
			}
			rows.Token = last.GetNextToken()
		}
		if search.Token == "" && rows.Token == "" {
			break
		}
		if step < len(changes) {
			changes[step]()
		}
	}
	if !slices.Equal(found, want) {
		t.Errorf("pages of the search: %v\nwant %v", found, want)
	}
	if !slices.Equal(listed, keys) {
		t.Errorf("pages of the query: %v\nwant %v", listed, keys)
	}
}

// TestPagesUnderConstantHandOffs: while writers insert and flush without end.
func TestPagesUnderConstantHandOffs(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.items("items", 2)
	n.insert("items", seq(0, 400))
	ctx, stop := context.WithCancel(within(t))
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := int64(0); ctx.Err() == nil; i++ {
			if _, err := n.write.Append(ctx, insertOf("items", 20, rows(seq(1000+i*20, 1020+i*20), 0)...)); err == nil {
				_, _ = n.write.Flush(ctx, &qnpb.FlushRequest{Collection: "items", Wait: true})
			}
		}
	})
	query := vectorOf(7777, 1)
	for range 3 {
		r := &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: query}, TopK: 40, Filter: "id < 400", Iterate: true, Freshness: strong}
		var found []int64
		for {
			page, err := n.query.Search(within(t), r)
			must(t, err)
			found = append(found, page.GetIds().GetInts().GetValues()...)
			if r.Token = page.GetNextToken(); r.Token == "" {
				break
			}
		}
		if len(found) != 400 {
			t.Fatalf("%d rows, want 400", len(found))
		}
		if slices.Sort(found); !slices.Equal(found, seq(0, 400)) {
			t.Fatalf("a row twice: %v", found)
		}
	}
	stop()
	wg.Wait()
}

// TestTokensOfOtherRequests are refused, as damaged ones are.
func TestTokensOfOtherRequests(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.items("items", 1)
	n.insert("items", seq(0, 50))
	first := func() *qnpb.SearchRequest {
		return &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(1, 1)}, TopK: 5, Iterate: true, Freshness: strong}
	}
	page, err := n.query.Search(within(t), first())
	must(t, err)
	token := page.GetNextToken()
	for what, change := range map[string]func(*qnpb.SearchRequest){
		"another filter": func(r *qnpb.SearchRequest) { r.Filter = "id < 7" },
		"another vector": func(r *qnpb.SearchRequest) { r.Vectors.Values = vectorOf(2, 1) },
		"a partition":    func(r *qnpb.SearchRequest) { r.Partitions = []string{"_default"} },
		"a range":        func(r *qnpb.SearchRequest) { x := float32(1); r.Radius = &x },
		"damage":         func(r *qnpb.SearchRequest) { r.Token = r.Token[:9] + strings.ToLower(r.Token[9:]) },
		"a cut":          func(r *qnpb.SearchRequest) { r.Token = r.Token[:len(r.Token)-3] },
		"no token":       func(r *qnpb.SearchRequest) { r.Token = "next please" },
		"an offset":      func(r *qnpb.SearchRequest) { r.Offset = 3 },
		"groups":         func(r *qnpb.SearchRequest) { r.GroupByField = "color" },
		"two vectors":    func(r *qnpb.SearchRequest) { r.Vectors.Values = append(vectorOf(1, 1), vectorOf(2, 1)...) },
	} {
		r := first()
		r.Token = token
		change(r)
		if _, err := n.query.Search(within(t), r); codeOf(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, _, err = n.queryAll(&qnpb.QueryRequest{Collection: "items", Limit: 5, Token: token})
	n.refuses(t, err, codes.InvalidArgument, "another request")
	// The size of a page and the output fields may change.
	r := first()
	r.Token, r.TopK, r.OutputFields = token, 45, []string{"color"}
	rest, err := n.query.Search(within(t), r)
	must(t, err)
	if len(rest.GetScores()) != 45 || rest.GetNextToken() != "" {
		t.Errorf("%d rows after the first five, token %q", len(rest.GetScores()), rest.GetNextToken())
	}
}

// TestGroupsOrdersAndAggregatesOfAnAnswer: from the request to the reply, over a
// growing and a sealed segment.
func TestGroupsOrdersAndAggregatesOfAnAnswer(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.items("items", 2)
	n.insert("items", seq(0, 90))
	n.flush("items")
	n.insert("items", seq(90, 120))
	query := vectorOf(7777, 1)
	g, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: query}, TopK: 5,
		GroupByField: "color", GroupSize: 4, StrictGroupSize: true, OutputFields: []string{"price"}, Explain: true, Freshness: strong})
	must(t, err)
	versions := map[int64]int64{}
	for id := range int64(120) {
		versions[id] = 0
	}
	var want []int64
	groups := map[int64][]int64{}
	var first []int64
	for _, id := range byDistance(query, versions) {
		if c := id % 3; len(groups[c]) < 4 {
			if len(groups[c]) == 0 {
				first = append(first, c)
			}
			groups[c] = append(groups[c], id)
		}
	}
	for _, c := range first {
		want = append(want, groups[c]...)
	}
	if got := g.GetIds().GetInts().GetValues(); !slices.Equal(got, want) || !slices.Equal(g.GetGroupCounts(), []int64{4, 4, 4}) || !slices.Equal(g.GetCounts(), []int64{12}) {
		t.Errorf("groups %v of %v, want %v", g.GetGroupCounts(), got, want)
	}
	if v := g.GetGroupValues(); v.GetField() != "color" || v.GetStrings().GetValues()[0] != []string{"red", "green", "blue"}[first[0]] {
		t.Errorf("values of groups: %v", v)
	}
	if st := g.GetStats(); len(st.GetSegments()) < 2 || st.GetSegments()[0].GetDistances() == 0 || st.GetMergeNanos() == 0 {
		t.Errorf("explained: %v", st)
	}
	order := &qnpb.QueryRequest{Collection: "items", OutputFields: []string{"price"}, Limit: 5, Offset: 1, Freshness: strong,
		OrderBy: []*qnpb.OrderBy{{Field: "color"}, {Field: "price", Descending: true}}}
	if got := n.column(order, 0); !slices.Equal(got, []int64{116, 113, 110, 107, 104}) {
		t.Errorf("blue ones, dearest first: %v", got)
	}
	sums := &qnpb.QueryRequest{Collection: "items", OutputFields: []string{"sum(price)", "color", "COUNT(*)", "max( id )"}, GroupByFields: []string{"color"},
		Filter: "id < 60", OrderBy: []*qnpb.OrderBy{{Field: "sum(price)", Descending: true}}, Freshness: strong}
	pieces, _, err := n.queryAll(sums)
	must(t, err)
	if len(pieces) != 1 || pieces[0].GetRows() != 3 {
		t.Fatalf("%v", pieces)
	}
	f := pieces[0].GetFields()
	if !slices.Equal(f[0].GetInts().GetValues(), []int64{sumOf(2, 60), sumOf(1, 60), sumOf(0, 60)}) {
		t.Errorf("sums %v", f[0])
	}
	if !slices.Equal(f[1].GetStrings().GetValues(), []string{"blue", "green", "red"}) || f[0].GetField() != "sum(price)" ||
		!slices.Equal(f[2].GetInts().GetValues(), []int64{20, 20, 20}) || !slices.Equal(f[3].GetInts().GetValues(), []int64{59, 58, 57}) {
		t.Errorf("%v", f)
	}
	if got := n.column(&qnpb.QueryRequest{Collection: "items", OutputFields: []string{"count(*)", "min(price)"}, Filter: "id >= 7", Freshness: strong}, 1); !slices.Equal(got, []int64{70}) {
		t.Errorf("the cheapest: %v", got)
	}
}

// sumOf is the sum of the prices of keys below n that leave a remainder of c.
func sumOf(c, n int64) (sum int64) {
	for id := c; id < n; id += 3 {
		sum += id * 10
	}
	return sum
}

// TestAHybridSearchOverTwoFields: one call, one moment, fields of all hits.
func TestAHybridSearchOverTwoFields(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	must2(t)(n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: "two", Shards: 2, Schema: &qnpb.CollectionSchema{
		Fields: []*qnpb.FieldSchema{{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true}, {Name: "price", Type: qnpb.DataType_DATA_TYPE_INT64},
			{Name: "text", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 4}, {Name: "image", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 3}}},
		Indexes: []*qnpb.IndexSpec{{Field: "text", Type: "HNSW", Metric: "COSINE"}, {Field: "image", Type: "FLAT", Metric: "L2"}}}))
	r := rand.New(rand.NewPCG(1, 1))
	draw := func(dim int) []float32 {
		v := make([]float32, dim)
		for i := range v {
			v[i] = r.Float32()*2 - 1
		}
		return v
	}
	var text, image []float32
	var prices []int64
	for id := range int64(60) {
		text, image, prices = append(text, draw(4)...), append(image, draw(3)...), append(prices, id*7)
	}
	must2(t)(n.write.Append(within(t), insertOf("two", 60, ints("id", seq(0, 60)...), ints("price", prices...), vectors("text", 4, text...), vectors("image", 3, image...))))
	subs := []*qnpb.SubSearch{
		{Field: "text", Vectors: &qnpb.FloatVectors{Dim: 4, Values: draw(4)}, TopK: 20, Filter: "price < {p}", FilterValues: map[string]*qnpb.Value{"p": {Kind: &qnpb.Value_IntValue{IntValue: 300}}}},
		{Field: "image", Vectors: &qnpb.FloatVectors{Dim: 3, Values: draw(3)}, TopK: 15},
	}
	points := map[int64]float64{}
	for _, s := range subs {
		one, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "two", Field: s.Field, Vectors: s.Vectors, TopK: s.TopK, Filter: s.Filter, FilterValues: s.FilterValues, Freshness: strong})
		must(t, err)
		for i, id := range one.GetIds().GetInts().GetValues() {
			points[id] += 1 / float64(60+i+1)
		}
	}
	req := &qnpb.HybridSearchRequest{Collection: "two", Searches: subs, TopK: 10, OutputFields: []string{"price"}, Freshness: strong, Explain: true}
	got, err := n.query.HybridSearch(within(t), req)
	must(t, err)
	if len(got.GetScores()) != 10 || got.GetReadTimestamp() == 0 || len(got.GetStats().GetSegments()) == 0 {
		t.Fatalf("%v", got)
	}
	for i, id := range got.GetIds().GetInts().GetValues() {
		if d := points[id] - float64(got.GetScores()[i]); d > 1e-6 || d < -1e-6 || got.GetFields()[0].GetInts().GetValues()[i] != id*7 {
			t.Errorf("hit %d: key %d has %v points and price %d, want %v and %d", i, id, got.GetScores()[i], got.GetFields()[0].GetInts().GetValues()[i], points[id], id*7)
		}
		if i > 0 && got.GetScores()[i] > got.GetScores()[i-1] {
			t.Errorf("hit %d is better than the one before", i)
		}
	}
	for what, change := range map[string]func(*qnpb.HybridSearchRequest){
		"no searches":       func(r *qnpb.HybridSearchRequest) { r.Searches = nil },
		"no vectors":        func(r *qnpb.HybridSearchRequest) { r.Searches = append(r.Searches, &qnpb.SubSearch{Field: "text"}) },
		"one weight of two": func(r *qnpb.HybridSearchRequest) { r.Ranker = weighted(0.5) },
		"a weight of 2":     func(r *qnpb.HybridSearchRequest) { r.Ranker = weighted(0.5, 2) },
		"no weights":        func(r *qnpb.HybridSearchRequest) { r.Ranker = weighted() },
		"k below 0": func(r *qnpb.HybridSearchRequest) {
			r.Ranker = &qnpb.HybridSearchRequest_Rrf{Rrf: &qnpb.RrfRanker{K: -1}}
		},
		"a batch of two": func(r *qnpb.HybridSearchRequest) {
			r.Searches = append(r.Searches, &qnpb.SubSearch{Field: "text", Vectors: &qnpb.FloatVectors{Dim: 4, Values: draw(8)}})
		},
		"17 searches": func(r *qnpb.HybridSearchRequest) {
			for range 15 {
				r.Searches = append(r.Searches, subs[0])
			}
		},
	} {
		bad := &qnpb.HybridSearchRequest{Collection: "two", Searches: slices.Clone(subs), TopK: 10}
		change(bad)
		if _, err := n.query.HybridSearch(within(t), bad); codeOf(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	for says, change := range map[string]func(*qnpb.HybridSearchRequest){
		"go with group_by_field":   func(r *qnpb.HybridSearchRequest) { r.StrictGroupSize = true },
		"want max, sum or avg":     func(r *qnpb.HybridSearchRequest) { r.GroupByField, r.RankGroupScorer = "price", "median" },
		"top_k * group_size":       func(r *qnpb.HybridSearchRequest) { r.GroupByField, r.GroupSize, r.Searches[0].TopK = "price", 1000, 20 },
		"top_k + offset) * group_": func(r *qnpb.HybridSearchRequest) { r.GroupByField, r.GroupSize, r.TopK = "price", 1000, 20 },
	} {
		bad := &qnpb.HybridSearchRequest{Collection: "two", Searches: []*qnpb.SubSearch{proto.CloneOf(subs[0])}, TopK: 10}
		change(bad)
		_, err := n.query.HybridSearch(within(t), bad)
		n.refuses(t, err, codes.InvalidArgument, says)
	}
	n.filledGroups(t, subs)
	req.Ranker = weighted(1, 0)
	got, err = n.query.HybridSearch(within(t), req)
	must(t, err)
	one, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "two", Field: "text", Vectors: subs[0].Vectors, TopK: 1, Filter: "price < 300", Freshness: strong})
	must(t, err)
	if got.GetIds().GetInts().GetValues()[0] != one.GetIds().GetInts().GetValues()[0] || got.GetScores()[0] != one.GetScores()[0] {
		t.Errorf("all weight on the text: %v, want %v", got, one)
	}
}

// filledGroups: of a hybrid search with groups, top_k counts these, of its searches too; strict ones are full.
func (n *testNode) filledGroups(t *testing.T, subs []*qnpb.SubSearch) {
	t.Helper()
	must2(t)(n.catalog.AddField(within(t), &qnpb.AddFieldRequest{Collection: "two", Field: &qnpb.FieldSchema{Name: "brand", Type: qnpb.DataType_DATA_TYPE_VARCHAR, Nullable: true}}))
	var text, image []float32
	var brands []string
	for id := range int64(60) {
		near := subs[0].Vectors.Values
		if brands = append(brands, "large"); id >= 50 { // ten rows of five brands, behind fifty of one
			brands[id], near = fmt.Sprint("small", id%5), []float32{-near[0], -near[1], -near[2], -near[3]}
		}
		text, image = append(text, near...), append(image, 1, 1, float32(id)/1000)
	}
	must2(t)(n.write.Append(within(t), insertOf("two", 60, ints("id", seq(1000, 1060)...), ints("price", seq(1000, 1060)...), texts("brand", brands...),
		vectors("text", 4, text...), vectors("image", 3, image...))))
	req := &qnpb.HybridSearchRequest{Collection: "two", Searches: []*qnpb.SubSearch{proto.CloneOf(subs[0]), proto.CloneOf(subs[1])}, TopK: 6, Freshness: strong,
		GroupByField: "brand", GroupSize: 2, StrictGroupSize: true, RankGroupScorer: "avg"}
	for _, s := range req.Searches {
		s.Filter, s.FilterValues, s.TopK = "id >= 1000", nil, 2
	}
	req.Searches[0].TopK = 6
	got, err := n.query.HybridSearch(within(t), req)
	must(t, err)
	if want := []int64{2, 2, 2, 2, 2, 2}; !slices.Equal(got.GetGroupCounts(), want) || len(got.GetScores()) != 12 {
		t.Errorf("groups of %v rows, want %v: %v", got.GetGroupCounts(), want, got)
	}
}

func weighted(w ...float32) *qnpb.HybridSearchRequest_Weighted {
	return &qnpb.HybridSearchRequest_Weighted{Weighted: &qnpb.WeightedRanker{Weights: w}}
}

// TestQueriesThatCannotBeAnswered say what is wrong.
func TestQueriesThatCannotBeAnswered(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.items("items", 1)
	n.insert("items", seq(0, 5))
	for _, c := range []struct {
		r    *qnpb.QueryRequest
		code codes.Code
		says string
	}{
		{&qnpb.QueryRequest{OutputFields: []string{"sum(color)"}}, codes.InvalidArgument, "no sum of VarChar"},
		{&qnpb.QueryRequest{OutputFields: []string{"sum(size)"}}, codes.NotFound, "size"},
		{&qnpb.QueryRequest{OutputFields: []string{"count(*)", "price"}}, codes.InvalidArgument, "group_by_fields"},
		{&qnpb.QueryRequest{GroupByFields: []string{"v"}}, codes.InvalidArgument, "single values"},
		{&qnpb.QueryRequest{GroupByFields: []string{"size"}}, codes.NotFound, "size"},
		{&qnpb.QueryRequest{OrderBy: []*qnpb.OrderBy{{Field: "v"}}}, codes.InvalidArgument, "single values"},
		{&qnpb.QueryRequest{OrderBy: []*qnpb.OrderBy{{Field: "price"}}, GroupByFields: []string{"color"}}, codes.InvalidArgument, "order_by"},
		{&qnpb.QueryRequest{Iterate: true}, codes.InvalidArgument, "limit"},
		{&qnpb.QueryRequest{Iterate: true, Limit: 5, Offset: 1}, codes.InvalidArgument, "offset"},
		{&qnpb.QueryRequest{Iterate: true, Limit: 5, OrderBy: []*qnpb.OrderBy{{Field: "price"}}}, codes.InvalidArgument, "order_by"},
		{&qnpb.QueryRequest{Iterate: true, Limit: 5, OutputFields: []string{"count(*)"}}, codes.InvalidArgument, "aggregates"},
		{&qnpb.QueryRequest{OutputFields: strings.Split(strings.Repeat("count(*) ", 300), " ")}, codes.InvalidArgument, "at most"},
	} {
		c.r.Collection = "items"
		_, _, err := n.queryAll(c.r)
		if codeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %s and %q", c.r, err, c.code, c.says)
		}
	}
	for _, r := range []*qnpb.SearchRequest{
		{GroupByField: "v"}, {GroupByField: "color", GroupSize: 2000}, {GroupByField: "color", GroupSize: 1024, TopK: 17}, {GroupSize: 2}, {StrictGroupSize: true},
	} {
		r.Collection, r.TopK, r.Vectors = "items", max(r.TopK, 3), &qnpb.FloatVectors{Dim: dim, Values: vectorOf(1, 1)}
		if _, err := n.query.Search(within(t), r); codeOf(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", r, err)
		}
	}
}
