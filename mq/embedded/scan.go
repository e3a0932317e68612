package embedded

import (
	"io"
	"sort"

	"github.com/cockroachdb/errors"
)

// scanned is what is in a segment.
type scanned struct {
	end           int64  // of what counts; behind it is a write that was cut short
	last          int64  // where the last batch before end begins
	next          uint64 // number of the message to come
	maxTimestamp  uint64
	lastTimestamp uint64
	index         []indexEntry
	damages       int     // stretches of damage before end
	first         *damage // the first of them
	seal          bool    // the file ends in damage: do not append to it
}

func (r *scanned) add(ds []*damage) {
	if r.damages == 0 && len(ds) > 0 {
		r.first = ds[0]
	}
	r.damages += len(ds)
}

// scan reads all frames of seg in src up to size. Everything before durable was
// on disk once, so that nothing there is a torn write.
func (seg *segment) scan(src io.ReaderAt, size int64, window int, durable mark) (scanned, error) {
	c := cursor{src: src, salt: seg.salt, off: segmentHeaderBytes, limit: size, seq: seg.base, window: window}
	r := scanned{end: segmentHeaderBytes, last: segmentHeaderBytes, next: seg.base, maxTimestamp: seg.maxTimestamp, lastTimestamp: seg.lastTimestamp}
	batch := r            // what r was before the batch that is not complete
	open := false         // a batch is not complete
	var pending []*damage // since the last good frame
	for {
		at := c.off
		f, err := c.next()
		var d *damage
		if errors.As(err, &d) {
			pending = append(pending, d)
			continue
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return scanned{}, err
		}
		damaged := len(pending) > 0
		if damaged { // a batch with a hole stays as far as it is there
			r.add(pending)
			pending, open = nil, false
		}
		if !open {
			batch = r
			batch.end, batch.next, batch.seal = at, f.seq, damaged
			r.last = at
		}
		open = f.left > 0
		r.index = addIndex(r.index, at, f.seq, r.maxTimestamp)
		r.end, r.next = c.off, f.seq+1
		r.lastTimestamp, r.maxTimestamp = f.timestamp, max(r.maxTimestamp, f.timestamp)
	}
	torn, err := tornTail(src, pending, size, window)
	if err != nil {
		return scanned{}, err
	}
	if torn != nil {
		pending = pending[:len(pending)-1]
	}
	switch {
	case len(pending) > 0:
		last := pending[len(pending)-1]
		r.add(pending)
		r.end, r.next = last.to, last.upTo()
		r.seal = true
	case open:
		batch.index = r.index[:sort.Search(len(r.index), func(i int) bool { return r.index[i].off >= batch.end })]
		r = batch
	}
	if known := min(durable.Length, size); durable.Base == seg.base && r.end < known {
		r.add([]*damage{{from: r.end, to: known, first: r.next, why: "what was durable is damaged"}})
		r.end, r.next, r.seal = known, max(r.next, durable.Next), true
		r.maxTimestamp, r.lastTimestamp = max(r.maxTimestamp, durable.MaxTimestamp), durable.LastTimestamp
	}
	return r, nil
}

// upTo bounds the numbers that may have stood in d. A number that a reader may
// have seen is not given out again.
func (d *damage) upTo() uint64 {
	if d.next != 0 {
		return d.next
	}
	return d.first + max(1, uint64(d.to-d.from)/frameHeaderBytes)
}

// tornTail returns the last damage if it is a write that was cut short: it ends
// with the file and is part of a frame, or all zeros (a size that reached the disk
// before its data). Damage that is neither may have been acknowledged.
func tornTail(src io.ReaderAt, ds []*damage, size int64, window int) (*damage, error) {
	if len(ds) == 0 {
		return nil, nil
	}
	d := ds[len(ds)-1]
	if d.to != size || d.next != 0 {
		return nil, nil
	}
	if d.cut || d.to-d.from < frameHeaderBytes {
		return d, nil
	}
	buf := make([]byte, min(int64(window), d.to-d.from))
	for at := d.from; at < d.to; {
		n, err := src.ReadAt(buf[:min(int64(len(buf)), d.to-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if n == 0 {
			break
		}
		for _, b := range buf[:n] {
			if b != 0 {
				return nil, nil
			}
		}
		at += int64(n)
	}
	return d, nil
}
