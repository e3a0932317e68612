package index

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// imageOf returns the image of h in memory that starts at a multiple of 8.
func imageOf(tb testing.TB, h *HNSW) []byte {
	tb.Helper()
	var b bytes.Buffer
	n, err := h.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		tb.Fatalf("%d of %d bytes, %v", n, b.Len(), err)
	}
	return alignedCopy(b.Bytes())
}

func alignedCopy(b []byte) []byte {
	words := make([]uint64, len(b)/8+1)
	out := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)[:len(b)]
	copy(out, b)
	return out
}

// withChecksum makes the checksum of the header right.
func withChecksum(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[124:], castagnoli(b[:124]))
	return b
}

// smallHNSW has several levels and some twins.
func smallHNSW(tb testing.TB, m Metric, n int) (*HNSW, []float32) {
	tb.Helper()
	const dim = 4
	base := clustered(rng(20), n, dim)
	for i := 5; i < n; i += 9 {
		copy(base[i*dim:][:dim], base[:dim])
	}
	h := newHNSW(tb, HNSWOptions{Dim: dim, Metric: m, Capacity: n, M: 3, EfConstruction: 12, Seed: 3}, base)
	insertAll(tb, h, n, 1)
	return h, base
}

func TestImageAnswersAsTheIndexItWasWrittenFrom(t *testing.T) {
	for m := L2; m <= Cosine; m++ {
		h, base := smallHNSW(t, m, 400)
		image := imageOf(t, h)
		opened, err := OpenHNSW(image, base)
		if err != nil {
			t.Fatal(err)
		}
		if len(image)%sectionAlign != 0 || opened.Len() != h.Len() || opened.Dim() != 4 || opened.Metric() != m {
			t.Fatalf("%d bytes, %d rows, dimension %d, %s", len(image), opened.Len(), opened.Dim(), opened.Metric())
		}
		odd := bitset.New(400)
		for i := 1; i < 400; i += 2 {
			odd.Add(i)
		}
		var s Scratch
		for q := 0; q < 400; q += 13 {
			for _, allowed := range []*bitset.Set{nil, odd} {
				want := slices.Clone(h.Search(base[q*4:][:4], 7, 9, allowed, &s))
				if got := opened.Search(base[q*4:][:4], 7, 9, allowed, &s); !slices.Equal(got, want) {
					t.Fatalf("%s, query %d: got %v, want %v", m, q, got, want)
				}
			}
		}
		if again := imageOf(t, opened); !bytes.Equal(again, image) {
			t.Fatalf("%s: an opened image is written differently", m)
		}
		if err := opened.Insert(0, &s); !errclass.Is(err, errclass.Conflict) {
			t.Fatalf("insert into an image: %v", err)
		}
		if repaired(t, opened) != 0 {
			t.Fatal("an image was repaired")
		}
	}
}

func TestImageOfNothing(t *testing.T) {
	h := newHNSW(t, HNSWOptions{Dim: 3, Metric: Cosine, Capacity: 10}, make([]float32, 30))
	opened, err := OpenHNSW(imageOf(t, h), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := opened.Search([]float32{1, 2, 3}, 5, 5, allOf(10), new(Scratch)); len(got) != 0 || opened.Len() != 0 {
		t.Fatal(got)
	}
}

func TestImageIsRefused(t *testing.T) {
	h, base := smallHNSW(t, Cosine, 40)
	image := imageOf(t, h)
	change := func(at int, x uint32) []byte {
		b := alignedCopy(image)
		binary.LittleEndian.PutUint32(b[at:], x)
		return withChecksum(b)
	}
	flipped := alignedCopy(image)
	flipped[20] ^= 1
	moved := make([]byte, len(image)+9)
	off := 1
	for uintptr(unsafe.Pointer(&moved[off]))%4 == 0 {
		off++
	}
	copy(moved[off:], image)
	for name, c := range map[string]struct {
		image []byte
		base  []float32
		want  errclass.Class
		says  string
	}{
		"empty":              {nil, base, errclass.Corrupt, "magic"},
		"header cut":         {image[:100], base, errclass.Corrupt, "magic"},
		"body cut":           {image[:len(image)-1], base, errclass.Corrupt, "bytes"},
		"wrong magic":        {change(0, 1), base, errclass.Corrupt, "magic"},
		"newer version":      {change(8, 2), base, errclass.Unimplemented, "has version 2: this build reads version 1"},
		"header length":      {change(12, 64), base, errclass.Corrupt, "64"},
		"no dimension":       {change(16, 0), base, errclass.Corrupt, "dimension 0"},
		"huge dimension":     {change(16, 1<<31), base, errclass.Corrupt, "dimension"},
		"metric":             {change(20, 77), base, errclass.Corrupt, "metric 77"},
		"M":                  {change(24, 1<<30), base, errclass.Corrupt, "M 1073741824"},
		"links below M":      {change(28, 2), base, errclass.Corrupt, "2 links"},
		"start level":        {change(36, 99), base, errclass.Corrupt, "level 98"},
		"start row":          {change(40, 40), base, errclass.Corrupt, "row 40"},
		"no start":           {change(36, 0), base, errclass.Corrupt, "level -1"},
		"twins":              {change(44, 2), base, errclass.Corrupt, "out of range"},
		"rows":               {change(52, 1), base, errclass.Corrupt, "out of range"},
		"blocks":             {change(56, 5), base, errclass.Corrupt, "its counts"},
		"size":               {change(72, 5), base, errclass.Corrupt, "says 5"},
		"flipped header bit": {flipped, base, errclass.Corrupt, "checksum"},
		"not aligned":        {moved[off:], base, errclass.Invalid, "multiple of 4"},
		"small base":         {image, base[:len(base)-1], errclass.Invalid, "base has"},
	} {
		_, err := OpenHNSW(c.image, c.base)
		if !errclass.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want class %v and %q", name, err, c.want, c.says)
		}
	}
}

func TestImageNeedsAllRowsInPlace(t *testing.T) {
	base := clustered(rng(21), 10, 2)
	h := newHNSW(t, HNSWOptions{Dim: 2, Metric: L2, Capacity: 10}, base)
	var s Scratch
	for _, row := range []uint32{0, 1, 5} {
		if err := h.Insert(row, &s); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := h.WriteTo(&b); !errclass.Is(err, errclass.Conflict) || b.Len() > 0 {
		t.Fatalf("rows 0, 1 and 5: %v, %d bytes", err, b.Len())
	}
	insertAll(t, newHNSW(t, HNSWOptions{Dim: 2, Metric: L2, Capacity: 10}, base), 7, 1)
	h.running.Add(1)
	if _, err := h.WriteTo(&b); !errclass.Is(err, errclass.Conflict) {
		t.Fatalf("while an insert runs: %v", err)
	}
}

// TestPartlyFilledIndexIsWritten makes an image of fewer rows than there is room for.
func TestPartlyFilledIndexIsWritten(t *testing.T) {
	base := clustered(rng(22), 200, 3)
	h := newHNSW(t, HNSWOptions{Dim: 3, Metric: L2, Capacity: 200, M: 2}, base)
	insertAll(t, h, 120, 1)
	opened, err := OpenHNSW(imageOf(t, h), base[:120*3])
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := meanRecall(t, opened, newFlat(t, 3, L2, base[:120*3]), base[:30], 5, 20, nil); got < 0.9 {
		t.Fatalf("recall@5 is %.2f", got)
	}
}

type failingWriter struct{ left int }

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, errors.New("disk full")
	}
	return len(b), nil
}

func TestWriteErrorIsReported(t *testing.T) {
	h, _ := smallHNSW(t, L2, 3000)
	if _, err := h.WriteTo(&failingWriter{left: 70_000}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Fatal(err)
	}
}

// searchHostile does all that a search can do; it must neither panic nor hang.
func searchHostile(h *HNSW) {
	var s Scratch
	q := make([]float32, h.Dim())
	q[0] = 1
	set := bitset.New(h.Len())
	for i := 0; i < h.Len(); i += 3 {
		set.Add(i)
	}
	for _, allowed := range []*bitset.Set{nil, set} {
		for _, ef := range []int{1, 50} {
			h.Search(q, 3, ef, allowed, &s)
		}
	}
	// The cost model may have scanned: walk as well, both ways.
	if row, level, ok := h.start(); ok {
		h.s0(q, row, level, &s)
		h.walk(q, 1, 0, 10, &s)
		s.top.Reset(20)
		for _, key := range s.pool {
			h.offer(vec.Key(0, poolRow(key)), nil, &s)
		}
		h.s0(q, row, level, &s)
		h.walkAllowed(q, 1, Neighbor{Row: row}, 10, set.Words(), noBudget, &s)
	}
}

// s0 descends to level 0 and leaves the row found there in the pool.
func (h *HNSW) s0(q []float32, row uint32, level int, s *Scratch) {
	s.begin(h.m0)
	row, d := h.descend(q, 1, row, level, 0, s)
	s.seen.reset(h.capacity)
	s.seen.add(row)
	s.pool = append(s.pool[:0], poolKey(d, row))
}

func TestDamagedGraphNeitherPanicsNorHangs(t *testing.T) {
	for _, m := range []Metric{L2, Cosine} {
		h, base := smallHNSW(t, m, 60)
		image := imageOf(t, h)
		r := rand.New(rand.NewPCG(30, 31))
		for range 300 {
			b := alignedCopy(image)
			for range 1 + r.IntN(200) {
				at := headerBytes + 4*r.IntN((len(b)-headerBytes)/4)
				x := []uint32{0, 1, 60, 61, 59, 1 << 31, 1<<32 - 1, r.Uint32(), uint32(r.IntN(70))}[r.IntN(9)]
				binary.LittleEndian.PutUint32(b[at:], x)
			}
			opened, err := OpenHNSW(b, base)
			if err != nil {
				t.Fatal(err)
			}
			searchHostile(opened)
		}
	}
}

func FuzzOpenHNSW(f *testing.F) {
	for m := L2; m <= Cosine; m++ {
		h, _ := smallHNSW(f, m, 30)
		f.Add(imageOf(f, h))
	}
	empty := newHNSW(f, HNSWOptions{Dim: 1, Metric: L2}, nil)
	f.Add(imageOf(f, empty))
	f.Fuzz(func(t *testing.T, data []byte) {
		b := alignedCopy(data)
		if len(b) >= headerBytes {
			withChecksum(b) // or else no mutation of the header gets further
		}
		hd, err := decodeHeader(b)
		if err != nil {
			return
		}
		if hd.rows*uint64(hd.dim) > 1<<16 {
			t.Skip("too many vectors")
		}
		base := make([]float32, hd.rows*uint64(hd.dim))
		for i := range base {
			base[i] = float32(i%7) - 3
		}
		h, err := OpenHNSW(b, base)
		if err != nil {
			t.Fatal(err)
		}
		searchHostile(h)
	})
}
