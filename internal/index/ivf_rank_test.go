package index

import (
	"bytes"
	"math"
	"testing"
)

// gauss is n rows of dim values that tell nothing of one another: short codes of them err a lot.
func gauss(seed uint64, n, dim int) []float32 {
	r, out := rng(seed), make([]float32, n*dim)
	for i := range out {
		out[i] = float32(r.NormFloat64())
	}
	return out
}

func TestASearchOfManyListsDoubtsItsCodesMore(t *testing.T) {
	const n, dim, queries, lists = 4000, 80, 150, 40 // in pairs
	base, asked := gauss(81, n, dim), gauss(82, queries, dim)
	f := newFlat(t, dim, IP, base)
	x := buildIVFFor(t, KindScaNN, IP, dim, lists, base)
	if x.doubt < doubtLeast || x.doubt > mostDoubt {
		t.Fatalf("the doubt measured is %v", x.doubt)
	}
	var out bytes.Buffer
	if _, err := x.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(alignedCopy(out.Bytes()), base)
	if err != nil {
		t.Fatal(err)
	}
	if got := opened.(*ivf).doubt; math.Abs(got-x.doubt) > 0.005 {
		t.Errorf("the image has a doubt of %v, not %v", got, x.doubt)
	}
	x.effort = lists / 4 // of which a search of all lists reads many times more
	if few, many := x.doubtOf(x.effort), x.doubtOf(lists); few != weighDoubt || many != x.doubt {
		t.Errorf("doubt %v of the lists that are read by default, %v of all", few, many)
	}
	missed := func(doubt float64) (rows float64) {
		old := x.doubt
		defer func() { x.doubt = old }()
		x.doubt = doubt
		var s, exact Scratch
		for i := range queries {
			v := asked[i*dim:][:dim]
			rows += 10 * (1 - recall(x.Search(v, &Query{K: 10, Effort: lists}, &s), f.Search(v, 10, nil, &exact)))
		}
		return math.Round(rows)
	}
	most, measured, none := missed(mostDoubt), missed(x.doubt), missed(0)
	if measured > most+6*doubtMiss*10*queries || none <= measured {
		t.Errorf("of %d rows %v are missed by doubt as measured, %v without, %v by the most", 10*queries, measured, none, most)
	}
}
