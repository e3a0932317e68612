package scalarindex

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

// TestSpansAreTheRowsOfAnInterval, of few values that many rows have and of many, at and between marks.
func TestSpansAreTheRowsOfAnInterval(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{0, 1, markEvery - 1, markEvery, markEvery + 1, 5 * markEvery, 1000} {
		for _, distinct := range []int64{1, 3, 40, 5000} {
			ints, texts := make([]int64, n), make([]string, n)
			for i := range ints {
				ints[i] = rng.Int64N(distinct) * 3
				texts[i] = strconv.Itoa(int(ints[i]))
			}
			o, err := NewOrdered(t.Context(), ints, nil)
			if err != nil {
				t.Fatal(err)
			}
			s, err := NewOrdered(t.Context(), texts, nil)
			if err != nil {
				t.Fatal(err)
			}
			for range 50 {
				lo := rng.Int64N(3*distinct+4) - 2
				hi := lo + rng.Int64N(1+distinct) - 1
				checkSpan(t, o, ints, lo, hi)
				if equal := o.Equal(lo); equal.Rows() != o.Count(lo, lo) || equal.Rows() > 0 && equal != o.Span(lo, lo) {
					t.Fatalf("%d rows of %d values, %d: %v, want %v", n, distinct, lo, equal, o.Span(lo, lo))
				}
				checkSpan(t, s, texts, strconv.Itoa(int(lo)), strconv.Itoa(int(hi)))
			}
		}
	}
}

func checkSpan[T Value](t *testing.T, o *Ordered[T], values []T, lo, hi T) {
	t.Helper()
	var want, got []int
	from := 0
	for i, v := range values {
		if lo <= v && v <= hi {
			want = append(want, i)
		}
		if v >= lo {
			from++
		}
	}
	out := make([]uint64, (len(values)+63)/64)
	span := o.Span(lo, hi)
	o.AddSpan(span, out)
	for i := range values {
		if out[i>>6]>>(i&63)&1 == 1 {
			got = append(got, i)
		}
	}
	if !slices.Equal(got, want) || span.Rows() != len(want) || o.From(lo) != from {
		t.Fatalf("%d rows, %v to %v: %v, want %v; from there on %d, want %d", len(values), lo, hi, got, want, o.From(lo), from)
	}
}
