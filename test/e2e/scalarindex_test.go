package e2e

import (
	"maps"
	"slices"
	"testing"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// An index of a scalar field is asked for when the collection is made or later;
// segments that are there get it too. It changes no answer, and its type says what a
// user of Milvus would write.
func TestScalarIndexes(t *testing.T) {
	n := start(t, t.TempDir(), options{})
	n.items("items", 1)
	n.insert("items", seq(0, 900))
	n.flush("items")
	n.handedOff("items")
	filters := []string{"price > 100 and price < 2500", `color like "%ee%"`, `color == "red" and price in [0, 30, 60]`, "not (price > 5)"}
	before := map[string]map[int64]int64{}
	for _, f := range filters {
		if before[f] = n.all("items", f); len(before[f]) == 0 {
			t.Fatalf("%s finds nothing", f)
		}
	}
	for field, kind := range map[string]string{"price": "STL_SORT", "color": "NGRAM"} {
		_, err := n.catalog.CreateIndex(within(t), &qnpb.CreateIndexRequest{Collection: "items", Index: &qnpb.IndexSpec{Field: field, Type: kind}})
		must(t, err)
	}
	n.eventually("the segment has both indexes", func(d *qnpb.Distribution) bool {
		return slices.ContainsFunc(d.GetSegments(), func(s *qnpb.SegmentStatus) bool {
			return s.GetIndexes()["price"] == "order" && s.GetIndexes()["color"] == "grams"
		})
	})
	for _, f := range filters {
		if after := n.all("items", f); !maps.Equal(after, before[f]) {
			t.Errorf("%s: %d rows with indexes, %d without", f, len(after), len(before[f]))
		}
	}
	r, err := n.catalog.DescribeIndex(within(t), &qnpb.DescribeIndexRequest{Collection: "items", Index: "price_index"})
	must(t, err)
	if x := r.GetIndexes()[0]; x.GetType() != "STL_SORT" || x.GetMetric() != "" || x.GetField() != "price" {
		t.Fatal(x)
	}
}
