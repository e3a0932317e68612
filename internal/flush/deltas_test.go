package flush

import (
	"context"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/segments"
)

// shelf is a bucket that looks around whenever something is put.
type shelf struct {
	objstore.Bucket
	look func()
}

func (s *shelf) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	s.look()
	return s.Bucket.Put(ctx, key, r, size, o)
}

// TestWritingDeletesTakesLittleMemory, and the ledger has it: they are written a part of the limit at a time, and a node that is
// full of deletes would be killed by writing them otherwise.
func TestWritingDeletesTakesLittleMemory(t *testing.T) {
	const limit, rows, batch = 192 << 20, 1_500_000, 10_000
	ledger := segments.NewLedger(limit)
	r := newRigWith(t, ledger)
	var batches []*segments.DeleteBatch
	for range rows / batch {
		d := &segments.DeleteBatch{Keys: &schema.Column{FieldID: 100, Type: schema.Int64}}
		for range batch {
			d.Keys.Int, d.Timestamps = append(d.Keys.Int, rand.Int64()), append(d.Timestamps, uint64(100+len(batches)))
		}
		batches = append(batches, d)
	}
	live := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, files := live(), 0
	r.f.o.Bucket = &shelf{r.f.o.Bucket, func() {
		files++
		told, taken := ledger.Used()[segments.KindDeletes], live()-before
		if told < taken || told > limit/4 {
			t.Errorf("file %d: %d MiB are taken, the ledger has %d", files, taken>>20, told>>20)
		}
	}}
	deltas, err := r.f.storeDeletes(t.Context(), r.ch, 3, batches, 100, 1000)
	must(t, err)
	stored := int64(0)
	for _, d := range deltas {
		stored += d.Rows
	}
	if stored != rows || files != len(deltas) || files < 2 || ledger.Total() != 0 {
		t.Errorf("%d deletes in %d of %d files, %d bytes are still told", stored, len(deltas), files, ledger.Total())
	}
	runtime.KeepAlive(batches)
}

// TestAFewDeletesAreManyWhereMemoryIsSmall: they are written from a part of the limit on.
func TestAFewDeletesAreManyWhereMemoryIsSmall(t *testing.T) {
	for _, c := range []struct{ limit, want int64 }{{0, 64 << 20}, {64 << 30, 64 << 20}, {192 << 20, 12 << 20}, {1 << 20, 1 << 20}} {
		r := newRigWith(t, segments.NewLedger(c.limit))
		if got := r.f.maxDeletes(r.coll.Ledger()); got != c.want {
			t.Errorf("of %d bytes %d, want %d", c.limit, got, c.want)
		}
	}
}
