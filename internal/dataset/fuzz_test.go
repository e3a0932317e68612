package dataset

import (
	"bytes"
	"os"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// drain reads a source to its end and checks that it keeps its word.
func drain(t *testing.T, src source, err error) {
	t.Helper()
	if err != nil {
		if class := errclass.Of(err); class != errclass.Invalid {
			t.Fatalf("class %v: %v", class, err)
		}
		return
	}
	defer func() { _ = src.close() }()
	f := src.fields()[0]
	for row := int64(0); row < src.rows(); {
		n := int(min(100, src.rows()-row))
		c := schema.NewColumn(f, 0)
		if err := src.read([]*schema.Column{c}, row, n); err != nil {
			return
		}
		if c.Rows() != n {
			t.Fatalf("%d rows, want %d", c.Rows(), n)
		}
		row += int64(n)
	}
}

func FuzzNpy(f *testing.F) {
	f.Add(npyFile(f, "<f4", 3, 2, raw32(1, 2, 3, 4, 5, 6)))
	f.Add(npyFile(f, "<f2", 1, 2, []byte{1, 2, 3, 4}))
	f.Add(npyFile(f, "<f8", 1<<40, 1, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		src, err := openNpy(memory{bytes.NewReader(b)}, int64(len(b)), "v")
		drain(t, src, err)
	})
}

func FuzzVecs(f *testing.F) {
	f.Add(append(vec32(1, 2), vec32(3, 4)...), false)
	f.Add([]byte{3, 0, 0, 0, 1, 2, 255}, true)
	f.Add([]byte{0xff, 0xff, 0xff, 0x7f}, false)
	f.Fuzz(func(t *testing.T, b []byte, asBytes bool) {
		src, err := openVecs(memory{bytes.NewReader(b)}, int64(len(b)), "v", asBytes)
		drain(t, src, err)
	})
}

func FuzzParquet(f *testing.F) {
	f.Add(readFile(f, table(f, wideRows(5))))
	f.Fuzz(func(t *testing.T, b []byte) {
		src, err := openParquet(memory{bytes.NewReader(b)}, int64(len(b)), Options{})
		if err != nil {
			if class := errclass.Of(err); class != errclass.Invalid {
				t.Fatalf("class %v: %v", class, err)
			}
			return
		}
		defer func() { _ = src.close() }()
		var cols []*schema.Column
		for _, f := range src.fields() {
			cols = append(cols, schema.NewColumn(f, 0))
		}
		_ = src.read(cols, 0, int(min(src.rows(), 1000)))
	})
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
