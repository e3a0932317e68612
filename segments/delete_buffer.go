package segments

import (
	"slices"
	"sort"

	"github.com/querynode/querynode/internal/schema"
)

// DeleteBatch is keys with the timestamps of their deletes.
type DeleteBatch struct {
	Partition  int64 // 0 = all
	Keys       *schema.Column
	Timestamps []uint64
}

// deletesAt returns the deletes of keys, all at ts.
func deletesAt(partition int64, keys *schema.Column, ts uint64) *DeleteBatch {
	d := &DeleteBatch{Partition: partition, Keys: keys, Timestamps: make([]uint64, keys.Rows())}
	for i := range d.Timestamps {
		d.Timestamps[i] = ts
	}
	return d
}

// deleteBuffer holds deletes in timestamp order; all of a batch have one timestamp.
type deleteBuffer struct {
	batches []*DeleteBatch
	bytes   int64
}

func (b *deleteBuffer) add(d *DeleteBatch) {
	if len(d.Timestamps) == 0 {
		return
	}
	b.batches = append(b.batches, d)
	b.bytes += d.bytes()
}

// batchBytes is what a batch takes besides its values: its column, and places in lists.
const batchBytes = 304

func (d *DeleteBatch) bytes() int64 { return d.Keys.Bytes() + 8*int64(len(d.Timestamps)) + batchBytes }

func (b *deleteBuffer) after(ts uint64) int {
	return sort.Search(len(b.batches), func(i int) bool { return b.batches[i].Timestamps[0] > ts })
}

func (b *deleteBuffer) between(after, upTo uint64) []*DeleteBatch {
	return slices.Clone(b.batches[b.after(after):max(b.after(after), b.after(upTo))])
}

func (b *deleteBuffer) trim(upTo uint64) {
	n := b.after(upTo)
	for _, d := range b.batches[:n] {
		b.bytes -= d.bytes()
	}
	b.batches = slices.Clone(b.batches[n:])
}
