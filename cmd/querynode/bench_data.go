package main

import (
	"bufio"
	enc "encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/dataset"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile/npy"
)

// matrix is a number of vectors, row after row.
type matrix struct {
	values []float32
	dim    int
}

func (m *matrix) rows() int { return len(m.values) / m.dim }

func (m *matrix) row(i int) []float32 { return m.values[i*m.dim : (i+1)*m.dim] }

// readMatrix reads all vectors of a file, at most limit; 0 = all.
func readMatrix(path string, limit int64) (m *matrix, err error) {
	r, err := dataset.Open(path, dataset.Options{Limit: limit})
	if err != nil {
		return nil, usage(err)
	}
	defer func() { err = errors.CombineErrors(err, r.Close()) }()
	m = &matrix{}
	s := r.Schema()
	for _, f := range s.Fields {
		if f.Type.IsVector() && m.dim == 0 {
			m.dim = f.Dim
		}
	}
	if m.dim == 0 || r.Rows() == 0 {
		return nil, usage(errors.Newf("%s: no vectors in it", path))
	}
	m.values = make([]float32, 0, int(r.Rows())*m.dim)
	for {
		b, err := r.Next(4096)
		if err == io.EOF {
			return m, nil
		}
		if err != nil {
			return nil, err
		}
		m.values = append(m.values, vectorsIn(b)...)
	}
}

// vectorsIn is the first vector column.
func vectorsIn(b *schema.Batch) []float32 {
	for _, c := range b.Columns {
		if c.Type.IsVector() {
			return c.Float
		}
	}
	return nil
}

// answers are the rows nearest to each query, nearest first.
type answers struct {
	rows []int64
	k    int // per query
}

func (t *answers) of(query, k int) []int64 { return t.rows[query*t.k : query*t.k+min(k, t.k)] }

// maxTruth bounds the neighbours of a query in a file of them.
const maxTruth = 1 << 20

// readTruth reads row numbers: .npy of int32 or int64 with two dimensions, or .ivecs.
func readTruth(path string) (*answers, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usage(errors.Wrap(err, "--truth"))
	}
	defer f.Close()
	var t *answers
	switch strings.ToLower(filepath.Ext(path)) {
	case ".npy":
		t, err = readIntNpy(f)
	case ".ivecs":
		t, err = readIvecs(f)
	default:
		err = errors.New("want .npy (int32 or int64) or .ivecs")
	}
	return t, usage(errors.Wrapf(err, "--truth %s", path))
}

func readIntNpy(f *os.File) (*answers, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	head := make([]byte, min(st.Size(), npy.MaxHeader))
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, err
	}
	h, err := npy.Parse(head)
	if err != nil {
		return nil, err
	}
	size, ok := map[string]int64{"<i4": 4, "<i8": 8, "<u4": 4}[h.Descr]
	if !ok || h.Fortran || len(h.Shape) != 2 {
		return nil, errors.Newf("%s of shape %v: want int32 or int64 with two dimensions, row-major", h.Descr, h.Shape)
	}
	rows, k := h.Shape[0], h.Shape[1]
	if rows < 1 || k < 1 || k > maxTruth || rows > (st.Size()-h.Offset)/(k*size) {
		return nil, errors.Newf("shape %v does not fit a file of %d bytes", h.Shape, st.Size())
	}
	raw := make([]byte, rows*k*size)
	if _, err := f.ReadAt(raw, h.Offset); err != nil {
		return nil, err
	}
	t := &answers{rows: make([]int64, rows*k), k: int(k)}
	for i := range t.rows {
		if size == 8 {
			t.rows[i] = int64(enc.LittleEndian.Uint64(raw[8*i:]))
		} else {
			t.rows[i] = int64(int32(enc.LittleEndian.Uint32(raw[4*i:])))
		}
	}
	return t, nil
}

// readIvecs reads what the TEXMEX corpora keep their truth in: per query its
// number of neighbours (int32) and so many int32.
func readIvecs(f io.Reader) (*answers, error) {
	in := bufio.NewReader(f)
	t := &answers{}
	for {
		var n int32
		if err := enc.Read(in, enc.LittleEndian, &n); err == io.EOF && t.k > 0 {
			return t, nil
		} else if err != nil {
			return nil, err
		}
		if n < 1 || n > maxTruth || t.k != 0 && int(n) != t.k {
			return nil, errors.Newf("query %d has %d neighbours, want the same number in each", len(t.rows)/max(t.k, 1), n)
		}
		t.k = int(n)
		row := make([]int32, n)
		if err := enc.Read(in, enc.LittleEndian, row); err != nil {
			return nil, err
		}
		for _, r := range row {
			t.rows = append(t.rows, int64(r))
		}
	}
}
