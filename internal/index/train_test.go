package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/vec"
)

// TestASampleHasRowsOfEachKind: rows of several kinds come by turns, as from several producers.
func TestASampleHasRowsOfEachKind(t *testing.T) {
	const kinds, n = 4, 4 * trainRows
	base := make([]float32, n)
	for row := range base {
		base[row] = float32(row)
	}
	var seen [kinds]int
	last := float32(-1)
	for i, row := range sample(base, 1, trainRows).base {
		if row <= last {
			t.Fatalf("row %v comes after %v", row, last)
		}
		if last = row; int(row)/kinds != i {
			t.Fatalf("the rows are not spread evenly: %v is the one numbered %d", row, i)
		}
		seen[int(row)%kinds]++
	}
	for kind, got := range seen {
		if got < trainRows/kinds*9/10 || got > trainRows/kinds*11/10 {
			t.Errorf("%d of %d rows are of kind %d of %d", got, trainRows, kind, kinds)
		}
	}
	if got := sample(base[:7], 1, trainRows).base; len(got) != 7 || got[6] != 6 {
		t.Errorf("of seven rows: %v", got)
	}
}

// TestNothingIsCopiedOfRowsThatFitNoRecord: a sample of them would take as much memory as they do.
func TestNothingIsCopiedOfRowsThatFitNoRecord(t *testing.T) {
	const n, dim = 500, 2 * vec.SQ8MaxStride
	base := make([]float32, n*dim)
	k := vec.Detect()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := trainCoder(context.Background(), base, dim, L2, BuildOptions{Kernels: &k, Workers: 1})
	runtime.ReadMemStats(&after)
	if err != nil || got.ok {
		t.Fatalf("%+v, %v", got, err)
	}
	if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 4*n*dim/8 {
		t.Fatalf("%d bytes for rows of %d", bytes, 4*n*dim)
	}
}

func TestATrainingEndsWithItsContext(t *testing.T) {
	const n, dim = 3000, 100
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	k := vec.Detect()
	if _, err := trainCoder(ctx, clustered(rng(5), n, dim), dim, L2, BuildOptions{Kernels: &k, Workers: 1}); !errors.Is(err, context.Canceled) {
		t.Fatalf("trained: %v", err)
	}
}

// TestAGraphIsNotToBeTooLarge: three fifths of what hnswlib takes (650 bytes a row of 100
// dimensions, 3,440 of 784, links and all).
func TestAGraphIsNotToBeTooLarge(t *testing.T) {
	for _, c := range []struct {
		dim, stride int
		want        bool
	}{
		{100, 64, false}, {100, 128, true},
		{128, 64, false}, {128, 128, true},
		{784, 128, false}, {784, 192, false},
	} {
		if got := tooLarge(c.dim, c.stride); got != c.want {
			t.Errorf("records of %d bytes for %d dimensions: too large %v", c.stride, c.dim, got)
		}
	}
}

// TestLongVectorsAreTurned: of 3,072 values, as many an embedding has, few are needed.
func TestLongVectorsAreTurned(t *testing.T) {
	if raceEnabled {
		t.Skip("40 s of arithmetic that shares nothing but what shorter vectors do")
	}
	const n, rank, dim = longLeast, 8, longTurn + 64
	r, k := rng(31), vec.Detect()
	directions, base := make([]float32, rank*dim), make([]float32, n*dim)
	for i := range directions {
		directions[i] = float32(r.NormFloat64())
	}
	for row := range n {
		for i := range rank {
			x := float32(r.NormFloat64())
			for d := range dim {
				base[row*dim+d] += x * directions[i*dim+d]
			}
		}
	}
	got, err := trainCoder(t.Context(), base, dim, L2, BuildOptions{Kernels: &k, Workers: 2})
	if err != nil || !got.ok || got.coder.basis == nil || got.coder.stride != vec.SQ8Line {
		t.Fatalf("%s, %v", got.why, err)
	}
}

// TestAnImageSaysWhetherEarlierBuildsOpenIt: those that cannot have to see a version they do not
// know, not damage.
func TestAnImageSaysWhetherEarlierBuildsOpenIt(t *testing.T) {
	for _, c := range []struct {
		dim, flags, want uint32
	}{
		{1536, sqTurned, 5}, {1537, sqTurned, 6}, {1537, 0, 5}, {4092, 0, 5}, {4093, 0, 6}, {4096, sqTurned, 6},
	} {
		image := make([]byte, headerBytes)
		(&sqHeader{dim: c.dim, flags: c.flags}).encode(image)
		if got := binary.LittleEndian.Uint32(image[8:]); got != c.want {
			t.Errorf("%d dimensions, flags %d: version %d, want %d", c.dim, c.flags, got, c.want)
		}
	}
	for dim, want := range map[int]uint32{4092: 6, 4096: 7} {
		const n = 100
		base := gauss(3, n, dim)
		b, err := Build(t.Context(), Spec{Kind: KindScaNN, Metric: L2, Dim: dim}, base, BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var image bytes.Buffer
		if _, err := b.WriteTo(&image); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint32(image.Bytes()[8:]); got != want {
			t.Errorf("SCANN of %d dimensions: version %d, want %d", dim, got, want)
		}
		x, err := Open(image.Bytes(), base)
		if err != nil {
			t.Fatal(err)
		}
		if got := x.Search(base[5*dim:6*dim], &Query{K: 1}, &Scratch{}); len(got) != 1 || got[0].Row != 5 {
			t.Errorf("%d dimensions: %v", dim, got)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}
