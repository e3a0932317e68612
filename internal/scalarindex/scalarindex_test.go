package scalarindex

import (
	"context"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/analyze"
)

func rowsOf(words []uint64) (rows []int) {
	for i, w := range words {
		for ; w != 0; w &= w - 1 {
			rows = append(rows, i*64+bits.TrailingZeros64(w))
		}
	}
	return rows
}

// Whatever the number of rows and of values, ranges are those of a scan.
func TestOrderedAgainstAScan(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 63, 64, 65, 1000, 70_000} {
		for _, distinct := range []int64{1, 2, 30, 1 << 40} {
			values := make([]float64, n)
			valid := make([]bool, n)
			for i := range values {
				values[i] = float64(r.Int64N(distinct))
				valid[i] = r.IntN(10) > 0
				if r.IntN(50) == 0 {
					values[i] = math.NaN()
				}
			}
			o, err := NewOrdered(context.Background(), values, valid)
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				lo := float64(r.Int64N(distinct)) - 1
				hi := lo + float64(r.Int64N(distinct))
				var want []int
				for i, v := range values {
					if valid[i] && lo <= v && v <= hi {
						want = append(want, i)
					}
				}
				out := make([]uint64, (n+63)/64)
				o.Add(lo, hi, out)
				if got := rowsOf(out); !slices.Equal(got, want) || o.Count(lo, hi) != len(want) {
					t.Fatalf("%d rows of %d values, [%g, %g]: %d rows, counted %d, want %d", n, distinct, lo, hi, len(got), o.Count(lo, hi), len(want))
				}
			}
		}
	}
}

// Rows that were there stay.
func TestAddAddsOnly(t *testing.T) {
	values := make([]int64, 10_000)
	for i := range values {
		values[i] = int64(i)
	}
	o, err := NewOrdered(context.Background(), values, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]uint64, (len(values)+63)/64)
	out[0] = 1
	o.Add(5000, 9000, out)
	o.AddBetween(100, &values[110], out)
	if got := rowsOf(out); len(got) != 1+10+4001 || got[0] != 0 || got[1] != 100 {
		t.Fatal(len(got), got[:3])
	}
}

func TestAtLeastAgainstCounting(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	texts := make([]string, 2000)
	letters := []string{"a", "b", "c", "d", "e"}
	for i := range texts {
		for range r.IntN(6) {
			texts[i] += letters[r.IntN(5)] + " "
		}
	}
	x, err := NewText(context.Background(), analyze.Analyzer{}, texts, nil)
	if err != nil {
		t.Fatal(err)
	}
	for need := 1; need <= 6; need++ {
		out := make([]uint64, (len(texts)+63)/64)
		x.AddAtLeast(letters, need, out)
		var want []int
		for i, text := range texts {
			n := 0
			for _, l := range letters {
				if slices.Contains(analyze.Analyzer{}.Tokens(text), l) {
					n++
				}
			}
			if n >= need {
				want = append(want, i)
			}
		}
		if got := rowsOf(out); !slices.Equal(got, want) {
			t.Fatalf("%d of the words: %d rows, want %d", need, len(got), len(want))
		}
	}
}

func TestABuildStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := NewOrdered(ctx, make([]int64, 10), nil); err == nil {
		t.Error("ordered")
	}
	if _, err := NewText(ctx, analyze.Analyzer{}, make([]string, 10), nil); err == nil {
		t.Error("text")
	}
	if _, err := NewTrigrams(ctx, make([]string, 10), nil); err == nil {
		t.Error("trigrams")
	}
	if _, err := NewMembers(ctx, make([]int64, 10), []int{0, 10}, nil); err == nil {
		t.Error("members")
	}
}

// What Bytes says is near what the index takes: the ledger relies on it.
func TestBytesOfARow(t *testing.T) {
	values := make([]int64, 1<<17)
	for _, distinct := range []int{100_003, 16_381, 1000, 3} {
		for i := range values {
			values[i] = int64(i * 7919 % distinct)
		}
		o, err := NewOrdered(context.Background(), values, nil)
		if err != nil {
			t.Fatal(err)
		}
		kept := 4*cap(o.rows) + 8*(cap(o.marks)+cap(o.heads)) + 4*cap(o.starts)
		for _, b := range append(o.below, o.valid) {
			kept += 8 * cap(b)
		}
		if per := float64(o.Bytes()) / float64(len(values)); distinct > 64 && (per < 10 || per > 14.1) || float64(kept) > 1.01*float64(o.Bytes()) {
			t.Fatalf("%d values: %.1f bytes a row, %d in all; kept are %d", distinct, per, o.Bytes(), kept)
		}
	}
}
