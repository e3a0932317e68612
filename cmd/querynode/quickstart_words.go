package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/dataset"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
	"github.com/querynode/querynode/testdata"
)

// words are the rows of the quick start as they are in the file. Row i has the
// key i+1.
type words struct {
	dim     int
	ids     []int64
	text    []string
	length  []int64
	vectors []float32 // one after the other, as published
	byText  map[string]int
}

func (w *words) vector(row int) []float32 { return w.vectors[row*w.dim : (row+1)*w.dim] }

// readWords puts the file that is built into the program into the data folder,
// where "querynode insert" can use it too, and reads it.
func (q *quickstart) readWords(ctx context.Context) error {
	path := filepath.Join(q.cfg.Node.DataDir, testdata.GloVe)
	if err := unpack(path); err != nil {
		return err
	}
	w, err := readWords(ctx, path)
	if err != nil {
		return err
	}
	q.words = w
	return nil
}

// unpack writes the file unless it is there as it should be.
func unpack(path string) error {
	want, err := fs.ReadFile(testdata.FS, testdata.GloVe)
	if err != nil {
		return errors.Wrap(err, "read the built-in words")
	}
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, want) {
		return nil
	}
	// A run that is killed meanwhile leaves no half file under the name.
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, want, 0o640); err != nil {
		return errors.Wrap(err, "unpack the words")
	}
	return errors.Wrap(os.Rename(tmp, path), "unpack the words")
}

func readWords(ctx context.Context, path string) (w *words, err error) {
	r, err := dataset.Open(path, dataset.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.CombineErrors(err, r.Close()) }()
	sc := r.Schema()
	cols := map[string]schema.Field{}
	for _, name := range []string{"id", "word", "length", "vector"} {
		f, ok := sc.Field(name)
		if !ok {
			return nil, errors.Newf("%s has no column %q", path, name)
		}
		cols[name] = f
	}
	w = &words{dim: cols["vector"].Dim, byText: map[string]int{}}
	for ctx.Err() == nil {
		b, err := r.Next(4096)
		if errors.Is(err, io.EOF) {
			for row, t := range w.text {
				w.byText[t] = row
			}
			return w, nil
		}
		if err != nil {
			return nil, err
		}
		w.ids = append(w.ids, b.Column(cols["id"].ID).Int...)
		w.text = append(w.text, b.Column(cols["word"].ID).Str...)
		w.length = append(w.length, b.Column(cols["length"].ID).Int...)
		w.vectors = append(w.vectors, b.Column(cols["vector"].ID).Float...)
	}
	return nil, errors.Wrap(ctx.Err(), "read the words")
}

// exact compares with every row, to check what an index answers.
type exact struct {
	w *words
	k vec.Kernels
	// norms[i] is 1 / the length of vector i.
	norms  []float32
	scores []float32
}

func newExact(w *words) *exact {
	e := &exact{w: w, k: vec.Detect(), norms: make([]float32, len(w.ids)), scores: make([]float32, len(w.ids))}
	for i := range e.norms {
		e.norms[i] = e.k.InvNorm(w.vector(i))
	}
	return e
}

// cosines returns the cosine of the vector with each row; valid until the next call.
func (e *exact) cosines(v []float32) []float32 {
	e.k.DotRows(v, e.w.vectors, e.w.dim, e.scores)
	n := e.k.InvNorm(v)
	for i := range e.scores {
		e.scores[i] *= n * e.norms[i]
	}
	return e.scores
}

// note writes a faint remark.
func (q *quickstart) note(format string, args ...any) {
	q.out.Notef("%s", q.out.PaintNote(console.Faint, "  "+fmt.Sprintf(format, args...)))
}
