package segfile

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

// TestAFieldApart: a segment is read without the files of its vector fields, which
// come and go one by one.
func TestAFieldApart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "42")
	meta := fullMeta()
	b := batch(&meta.Schema, 0, 500)
	m := write(t, dir, meta, b)
	whole := open(t, dir)

	away := t.TempDir()
	all := m.BaseFiles()
	for _, f := range vectorFields(&meta.Schema) {
		files := m.FieldFiles(f.ID)
		if len(files) == 0 {
			t.Fatalf("field %d has no files", f.ID)
		}
		all = append(all, files...)
		for _, file := range files {
			if err := os.Rename(filepath.Join(dir, file.Name), filepath.Join(away, file.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(all) != len(m.Files) {
		t.Fatalf("%d files in parts, %d in all", len(all), len(m.Files))
	}
	s, err := Open(dir, Options{Apart: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if rows, err := s.Rows(context.Background()); err != nil || rows.Rows != 500 {
		t.Fatal(err)
	}
	for _, f := range vectorFields(&meta.Schema) {
		if !slices.Equal(s.Valid(f.ID), whole.Valid(f.ID)) {
			t.Errorf("field %d: nulls differ", f.ID)
		}
		if _, err := s.OpenField(f.ID, Options{}); !errclass.Is(err, errclass.Corrupt) {
			t.Errorf("field %d without its files: %v", f.ID, err)
		}
		for _, file := range m.FieldFiles(f.ID) {
			if err := os.Rename(filepath.Join(away, file.Name), filepath.Join(dir, file.Name)); err != nil {
				t.Fatal(err)
			}
		}
		field, err := s.OpenField(f.ID, Options{Populate: true})
		if err != nil {
			t.Fatal(err)
		}
		_, image, _ := field.Index(f.ID)
		_, want, _ := whole.Index(f.ID)
		sparse, _ := field.Sparse(f.ID)
		all, _ := whole.Sparse(f.ID)
		if !slices.Equal(field.RawVectors(f.ID), whole.RawVectors(f.ID)) || !slices.Equal(image, want) || !slices.Equal(sparse.Indices, all.Indices) {
			t.Errorf("field %d differs", f.ID)
		}
		if err := field.Close(); err != nil {
			t.Error(err)
		}
	}
}
