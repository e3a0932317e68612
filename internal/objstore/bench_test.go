package objstore_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/querynode/querynode/internal/objstore"
)

func BenchmarkFile(b *testing.B) {
	bucket, err := objstore.Open(b.Context(), b.TempDir(), objstore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 16<<20)
	b.Run("put 1 KiB", func(b *testing.B) { benchPut(b, bucket, data[:1<<10]) })
	b.Run("put 16 MiB", func(b *testing.B) { benchPut(b, bucket, data) })
	b.Run("get 16 MiB", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		buf := make([]byte, 1<<20)
		for b.Loop() {
			r, err := bucket.Get(b.Context(), "k", 0, -1)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf); err != nil || n != int64(len(data)) {
				b.Fatal(n, err)
			}
			_ = r.Close()
		}
	})
}

func benchPut(b *testing.B, bucket objstore.Bucket, data []byte) {
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := bucket.Put(b.Context(), "k", bytes.NewReader(data), int64(len(data)), objstore.PutOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
