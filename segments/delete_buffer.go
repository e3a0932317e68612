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

// possibleKeys returns those of keys that rows may have. Of others there is nothing to hide, and a file of deletes does not take
// them.
func possibleKeys(pk schema.Field, keys *schema.Column) *schema.Column {
	if keys.Type != pk.Type {
		return keys.Slice(0, 0)
	}
	possible := func(i int) bool {
		return !keys.Null(i) && (keys.Str == nil || len(keys.Str[i]) <= schema.MaxVarChar)
	}
	n := 0
	for n < keys.Rows() && possible(n) {
		n++
	}
	if n == keys.Rows() {
		return keys
	}
	out := keys.New()
	for i := range keys.Rows() {
		if possible(i) {
			out.AppendRow(keys, i)
		}
	}
	return out
}

// deleteBuffer holds deletes in timestamp order: the newest in memory, the older ones in files once they are many. All of
// a batch have one timestamp. Batches are numbered in the order in which they come.
type deleteBuffer struct {
	files   []*DeleteFile // of the batches before those below, in the order in which they were written
	batches []*DeleteBatch
	bytes   int64 // of batches
	next    uint64
}

func (b *deleteBuffer) add(d *DeleteBatch) {
	if len(d.Timestamps) == 0 {
		return
	}
	b.batches = append(b.batches, d)
	b.bytes += d.bytes()
	b.next++
}

// batchBytes is what a batch takes besides its values: its column, and places in lists.
const batchBytes = 304

func (d *DeleteBatch) bytes() int64 { return d.Keys.Bytes() + 8*int64(len(d.Timestamps)) + batchBytes }

// first is the number of the first batch in memory.
func (b *deleteBuffer) first() uint64 { return b.next - uint64(len(b.batches)) }

// since returns what there is of the batches from a number on; some of the files' may be older. The number is one that next has been.
func (b *deleteBuffer) since(number uint64) (files []*DeleteFile, batches []*DeleteBatch) {
	for _, f := range b.files {
		if f.end > number {
			files = append(files, f)
		}
	}
	return files, slices.Clip(b.batches[max(number, b.first())-b.first():])
}

// upTo returns how many of the batches in memory are of timestamps up to ts.
func (b *deleteBuffer) upTo(ts uint64) int {
	return sort.Search(len(b.batches), func(i int) bool { return b.batches[i].Timestamps[0] > ts })
}

// drop forgets the batches in memory before a number.
func (b *deleteBuffer) drop(before uint64) {
	if before <= b.first() {
		return
	}
	n := int(before - b.first())
	for _, d := range b.batches[:n] {
		b.bytes -= d.bytes()
	}
	b.batches = slices.Clone(b.batches[n:])
}

// clear forgets all; numbers go on.
func (b *deleteBuffer) clear() { *b = deleteBuffer{next: b.next} }

// trim forgets deletes up to a timestamp, but for those that are in one file with later ones. It returns the files that are not
// the buffer's any more.
func (b *deleteBuffer) trim(upTo uint64) (gone []*DeleteFile) {
	b.drop(b.first() + uint64(b.upTo(upTo)))
	left := make([]*DeleteFile, 0, len(b.files))
	for _, f := range b.files {
		if f.MaxTimestamp <= upTo {
			gone = append(gone, f)
		} else {
			left = append(left, f)
		}
	}
	b.files = left
	return gone
}

// held is what the deletes after a timestamp would take in memory, in bytes; of files that have others, too, by their share of the
// time.
func (b *deleteBuffer) held(after uint64) (memory int64) {
	memory = b.bytes
	for _, f := range b.files {
		switch {
		case f.MinTimestamp > after:
			memory += f.memory
		case f.MaxTimestamp > after:
			memory += int64(float64(f.memory) * float64(f.MaxTimestamp-after) / float64(f.MaxTimestamp-f.MinTimestamp))
		}
	}
	return memory
}
