package e2e

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestPagesGoOnWhileRowsExpire: what is seen at a moment is what had not expired by then. Rows that expire between two pages, and
// are compacted away for reads of now, come once, in pages by key and by distance, by offset, and in counts and groups.
func TestPagesGoOnWhileRowsExpire(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.items("items", 2)
	first := n.insert("items", seq(0, 40)).GetTimestamp()
	n.flush("items")
	last := n.insert("items", seq(40, 60)).GetTimestamp()
	const second = 1000 << 18
	ttl := (last-first)/second + 1
	must2(t)(n.catalog.AlterCollection(within(t), &qnpb.AlterCollectionRequest{Collection: "items", Properties: map[string]string{"collection.ttl.seconds": strconv.FormatUint(ttl, 10)}}))
	for _, c := range []struct {
		at   uint64
		want []int64
	}{{last, seq(0, 60)}, {first + ttl*second, seq(40, 60)}} {
		pages := &qnpb.QueryRequest{Collection: "items", OutputFields: []string{"price"}, Limit: 7, Iterate: true, Freshness: &qnpb.Freshness{ReadTimestamp: c.at}}
		near := &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(1, 1)}, TopK: 7, Iterate: true, Freshness: pages.Freshness}
		var byKey, byDistance, byOffset []int64
		for begun := false; !begun || pages.Token != "" || near.Token != ""; begun = true {
			if !begun || pages.Token != "" {
				pieces, end, err := n.queryAll(pages)
				must(t, err)
				for _, p := range pieces {
					byKey = append(byKey, p.GetFields()[0].GetInts().GetValues()...)
				}
				pages.Token, pages.Freshness = end.GetNextToken(), strong // the token has the moment
			}
			if !begun || near.Token != "" {
				r, err := n.query.Search(within(t), near)
				must(t, err)
				byDistance = append(byDistance, r.GetIds().GetInts().GetValues()...)
				near.Token, near.Freshness = r.GetNextToken(), strong
			}
			eventually(t, "all rows expire", func() bool { return n.count("items") == 0 })
			n.flush("items")
			must2(t)(n.write.Compact(within(t), &qnpb.CompactRequest{Collection: "items"}))
		}
		at := &qnpb.Freshness{ReadTimestamp: c.at}
		for from := int64(0); ; from += 7 {
			some := n.column(&qnpb.QueryRequest{Collection: "items", OrderBy: []*qnpb.OrderBy{{Field: "color"}}, Limit: 7, Offset: from, Freshness: at}, 0)
			if byOffset = append(byOffset, some...); len(some) < 7 {
				break
			}
		}
		slices.Sort(byDistance)
		slices.Sort(byOffset)
		for what, got := range map[string][]int64{"by key": byKey, "by distance": byDistance, "by offset": byOffset} {
			if !slices.Equal(got, c.want) {
				t.Errorf("pages %s: %v, want %v", what, got, c.want)
			}
		}
		groups := n.column(&qnpb.QueryRequest{Collection: "items", GroupByFields: []string{"color"}, OutputFields: []string{"count(*)"}, Freshness: at}, 0)
		all := n.column(&qnpb.QueryRequest{Collection: "items", OutputFields: []string{"count(id)", "sum(id)"}, Freshness: at}, 0)
		if len(groups) != 3 || groups[0]+groups[1]+groups[2] != int64(len(c.want)) || !slices.Equal(all, []int64{int64(len(c.want))}) {
			t.Errorf("groups of %v rows, %v in all, want %d", groups, all, len(c.want))
		}
	}
}

// TestAggregatesOfNothing are what SQL makes of it: counts are 0, all else is null, there are no groups; null is a group.
func TestAggregatesOfNothing(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	ask := func(r *qnpb.QueryRequest) []string {
		t.Helper()
		r.Collection, r.Freshness = "rich", strong
		pieces, _, err := n.queryAll(r)
		must(t, err)
		var cells []string
		for _, p := range pieces {
			for _, f := range p.GetFields() {
				for i := range p.GetRows() {
					switch {
					case len(f.GetValid()) > 0 && !f.GetValid()[i]:
						cells = append(cells, "null")
					case f.GetInts() != nil:
						cells = append(cells, strconv.FormatInt(f.GetInts().GetValues()[i], 10))
					case f.GetDoubles() != nil:
						cells = append(cells, strconv.FormatFloat(f.GetDoubles().GetValues()[i], 'g', -1, 64))
					default:
						cells = append(cells, f.GetStrings().GetValues()[i])
					}
				}
			}
		}
		return cells
	}
	every := []string{"count(*)", "count(small)", "sum(small)", "min(small)", "max(note)", "avg(small)", "count(doc)"}
	check := func(what string, got []string, want string) {
		t.Helper()
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", what, s, want)
		}
	}
	check("no rows", ask(&qnpb.QueryRequest{Filter: "id < 0", OutputFields: every}), "0 0 null null null null 0")
	check("no groups", ask(&qnpb.QueryRequest{Filter: "id < 0", GroupByFields: []string{"note"}, OutputFields: every}), "")
	must2(t)(n.write.Append(within(t), upsertOf("rich", 1, richRow(0, nulls(texts("note", ""), false))...)))
	must2(t)(n.write.Append(within(t), upsertOf("rich", 1, richRow(1, texts("note", ""))...)))
	for _, state := range []string{"growing", "sealed"} {
		check(state, ask(&qnpb.QueryRequest{OutputFields: every}), "10 10 45 0 n 4.5 10")
		check(state+", only a null", ask(&qnpb.QueryRequest{Filter: "id == 0", OutputFields: []string{"count(note)", "min(note)", "count(*)"}}), "0 null 1")
		check(state+", groups", ask(&qnpb.QueryRequest{GroupByFields: []string{"note"}, OutputFields: []string{"note", "count(*)", "avg(small)"}}), " n null 1 8 1 1 5.5 0")
		check(state+", groups in an order", ask(&qnpb.QueryRequest{GroupByFields: []string{"note"}, OutputFields: []string{"min(note)", "count(note)"},
			OrderBy: []*qnpb.OrderBy{{Field: "min(note)", Descending: true, NullsFirst: true}}, Limit: 2}), "null n 0 8")
		n.flush("rich")
		n.handedOff("rich")
	}
	must2(t)(n.catalog.DropField(within(t), &qnpb.DropFieldRequest{Collection: "rich", Field: "small"}))
	must2(t)(n.catalog.AddField(within(t), &qnpb.AddFieldRequest{Collection: "rich", Field: &qnpb.FieldSchema{Name: "later", Type: qnpb.DataType_DATA_TYPE_INT64, Nullable: true}}))
	check("a field that came later", ask(&qnpb.QueryRequest{GroupByFields: []string{"later"}, OutputFields: []string{"later", "count(*)", "count(later)", "sum(later)"}}), "null 10 0 null")
	for _, c := range []struct {
		r    *qnpb.QueryRequest
		says string
	}{
		{&qnpb.QueryRequest{OutputFields: []string{"sum(small)"}}, `no field "small"`},
		{&qnpb.QueryRequest{OutputFields: []string{`max(doc["a"])`}}, "paths in JSON"},
		{&qnpb.QueryRequest{GroupByFields: []string{`doc["a"]`}}, "paths in JSON"},
		{&qnpb.QueryRequest{OrderBy: []*qnpb.OrderBy{{Field: "whatever"}}}, "dynamic"},
	} {
		c.r.Collection = "rich"
		_, _, err := n.queryAll(c.r)
		n.refuses(t, err, codes.NotFound, c.says)
	}
}
