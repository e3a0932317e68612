package segfile

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/querynode/querynode/internal/schema"
)

// benchBatch is rows of 128 dimensions with a key, a tag and a text.
func benchBatch(rows int) (Meta, *schema.Batch) {
	s := schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: 100, Name: "k", Type: schema.Int64, PrimaryKey: true}, {ID: 101, Name: "v", Type: schema.FloatVector, Dim: 128},
		{ID: 102, Name: "tag", Type: schema.VarChar}, {ID: 103, Name: "text", Type: schema.VarChar}, {ID: 104, Name: "price", Type: schema.Double},
	}}
	b := batch(&s, 0, rows)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range rows {
		b.Columns[2].Str[i] = fmt.Sprintf("tag %d", r.IntN(50))
		b.Columns[3].Str[i] = fmt.Sprintf("%x %x %x", r.Uint64(), r.Uint64(), r.Uint64())
		b.Columns[4].Double[i] = r.Float64()
	}
	return Meta{SegmentID: 1, Schema: s}, b
}

func benchSegment(b *testing.B, rows int) (string, *Manifest) {
	b.Helper()
	meta, data := benchBatch(rows)
	dir := filepath.Join(b.TempDir(), "1")
	w, err := Create(dir, meta)
	if err != nil {
		b.Fatal(err)
	}
	if err := w.Append(data); err != nil {
		b.Fatal(err)
	}
	m, err := w.Finish(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	return dir, m
}

func BenchmarkWrite(b *testing.B) {
	meta, data := benchBatch(100_000)
	b.SetBytes(data.Bytes())
	dir := filepath.Join(b.TempDir(), "1")
	for b.Loop() {
		w, err := Create(dir, meta)
		if err == nil {
			err = w.Append(data)
		}
		if err == nil {
			_, err = w.Finish(context.Background())
		}
		if err == nil {
			err = os.RemoveAll(dir)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	dir, m := benchSegment(b, 100_000)
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			s, err := Open(dir, Options{})
			if err == nil {
				err = s.Close()
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.SetBytes(m.DiskBytes())
		for b.Loop() {
			if err := m.Verify(context.Background(), dir, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("rows", func(b *testing.B) {
		s, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		b.SetBytes(m.ScalarBytes)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Rows(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("maybe", func(b *testing.B) {
		s, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		n := int64(0)
		for b.Loop() {
			n++
			s.MayHaveInt(n % 100_000)
		}
	})
}
