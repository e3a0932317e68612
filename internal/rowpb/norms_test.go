package rowpb

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestVectorsWhoseDistancesDoNotFit are refused, by row; those that are not finite are for
// others to name.
func TestVectorsWhoseDistancesDoNotFit(t *testing.T) {
	const most = 9.2e18 // its square is a little less than a quarter of the largest float32
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		values []float32 // two vectors of five values
		want   string
	}{
		{[]float32{1, 2, 3, 4, 5, -1, 0, 0, 0, 0}, ""},
		{[]float32{0, 0, 0, 0, most, 0, -most, 0, 0, 0}, ""},
		{[]float32{0, 0, 0, 0, 0, 0, 0, 0, 0, 1e19}, "row 1 has norm 1e+19"},
		{[]float32{most, most, 0, 0, 0, 0, 0, 0, 0, 0}, "row 0 has norm 1."},
		{[]float32{0, 0, 0, 0, 0, 3e38, 0, 0, 0, 0}, "row 1 has norm 3"},
		{[]float32{inf, 0, 0, 0, 0, 0, 0, 0, 0, 0}, ""},
	} {
		for _, typ := range []schema.Type{schema.FloatVector, schema.BFloat16Vector, schema.SparseFloatVector} {
			f := schema.Field{ID: 5, Name: "v", Type: typ, Dim: 5}
			d := &qnpb.FieldData{Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: 5, Values: c.values}}}
			if typ == schema.SparseFloatVector {
				f.Dim = 0
				d.Values = &qnpb.FieldData_SparseVectors{SparseVectors: &qnpb.SparseVectors{
					Lengths: []uint32{5, 5}, Indices: []uint32{1, 2, 3, 4, 5, 1, 2, 3, 4, 5}, Values: c.values}}
			}
			col, err := ToColumn(d, f)
			if err != nil {
				t.Fatal(err)
			}
			err = CheckNorms(col, f)
			if c.want == "" {
				if err != nil {
					t.Errorf("%s %v: %v", typ, c.values, err)
				}
				continue
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %v: %v, want an error with %q", typ, c.values, err, c.want)
				continue
			}
			wantInvalid(t, err)
		}
	}
}

// TestQueriesWhoseDistancesDoNotFit are refused as rows are.
func TestQueriesWhoseDistancesDoNotFit(t *testing.T) {
	f := schema.Field{ID: 5, Name: "v", Type: schema.BFloat16Vector, Dim: 2, Nullable: true}
	_, err := Queries(f, &qnpb.FloatVectors{Dim: 2, Values: []float32{1, 3e38}}, nil, nil)
	wantInvalid(t, err)
	if !strings.Contains(err.Error(), "norm") {
		t.Error(err)
	}
}

// TestQueriesAreFiniteAndFit, whatever their length and wherever the value is that does not fit.
func TestQueriesAreFiniteAndFit(t *testing.T) {
	for dim := 1; dim <= 20; dim++ {
		f := schema.Field{ID: 5, Name: "v", Type: schema.FloatVector, Dim: dim}
		good := make([]float32, 3*dim)
		for i := range good {
			good[i] = float32(i) - 1e6
		}
		if err := CheckQueries(good, f); err != nil {
			t.Fatalf("dimension %d: %v", dim, err)
		}
		for at := range good {
			for value, want := range map[float32]string{
				float32(math.NaN()):   fmt.Sprintf("vector %d, dimension %d is NaN", at/dim, at%dim),
				float32(math.Inf(-1)): fmt.Sprintf("vector %d, dimension %d is -Inf", at/dim, at%dim),
				-3e38:                 fmt.Sprintf("row %d has norm 3e+38", at/dim),
				1e19:                  fmt.Sprintf("row %d has norm 1e+19", at/dim),
			} {
				bad := slices.Clone(good)
				bad[at] = value
				err := CheckQueries(bad, f)
				wantInvalid(t, err)
				if !strings.Contains(err.Error(), want) {
					t.Fatalf("dimension %d: %v, want %q", dim, err, want)
				}
			}
		}
	}
}
