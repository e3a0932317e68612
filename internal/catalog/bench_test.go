package catalog

import (
	"fmt"
	"testing"

	"github.com/querynode/querynode/internal/objstore"
)

// BenchmarkCommitFlush adds a segment to a channel that has n and removes it.
func BenchmarkCommitFlush(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := open(b, objstore.NewMem(nil))
			col := create(b, c, "movies")
			first := FlushCommit{Term: 1}
			for i := range n {
				first.AddSegments = append(first.AddSegments, segment(col, 0, int64(i+1)))
			}
			v := col.VChannels[0].Name
			_, err := c.CommitFlush(b.Context(), v, first)
			must(b, err)
			next := segment(col, 0, int64(n+1))
			for b.Loop() {
				_, err := c.CommitFlush(b.Context(), v, FlushCommit{Term: 1, AddSegments: []Segment{next}})
				must(b, err)
				_, err = c.CommitFlush(b.Context(), v, FlushCommit{Term: 1, RemoveSegments: []int64{next.ID}})
				must(b, err)
			}
		})
	}
}

func BenchmarkCollection(b *testing.B) {
	bucket, err := objstore.Open(b.Context(), b.TempDir(), objstore.Options{})
	must(b, err)
	c := open(b, bucket)
	create(b, c, "movies")
	for b.Loop() {
		_, err := c.Collection(b.Context(), "movies")
		must(b, err)
	}
}
