package segments

import (
	"context"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/schema"
)

// ApplyDeletes takes deletes at position at, all with its timestamp.
func (ch *Channel) ApplyDeletes(partition int64, keys *schema.Column, at Position) {
	defer ch.spillDue()
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if at.Timestamp <= ch.mu.applied.Timestamp || ch.mu.closed {
		return
	}
	ch.deleteLocked(deletesAt(partition, possibleKeys(ch.coll.Info().Schema.Primary(), keys), at.Timestamp))
	ch.mu.applied = at
}

// deleteLocked hides rows in every segment of the channel and remembers the
// deletes for segments that are loaded later.
func (ch *Channel) deleteLocked(d *DeleteBatch) {
	ch.mu.buffer.add(d)
	ch.tellBufferLocked()
	snap := ch.coll.Acquire()
	defer snap.Release()
	for _, h := range snap.view.segments {
		if m := h.Meta(); m.VChannel == ch.name && (d.Partition == 0 || d.Partition == m.PartitionID) {
			ch.coll.set.hide(h, d)
		}
	}
}

// PinDeletes keeps the delete buffer from being trimmed until the returned
// function is called. A load pins it before it asks the catalog which deletes
// are in files, so that each delete is in one of the two.
func (ch *Channel) PinDeletes() (unpin func()) {
	ch.mu.Lock()
	ch.mu.pins++
	ch.mu.Unlock()
	return sync.OnceFunc(func() {
		ch.mu.Lock()
		ch.mu.pins--
		gone := ch.trimLocked()
		ch.mu.Unlock()
		ch.coll.set.removeFiles(gone)
	})
}

// applyBuffered applies the buffered deletes from a number on to segments that nobody else has yet. The caller has pinned them. It
// returns the number up to which it has.
func (ch *Channel) applyBuffered(ctx context.Context, add []*holder, from uint64) (upTo uint64, err error) {
	ch.mu.Lock()
	files, batches := ch.mu.buffer.since(from)
	upTo = ch.mu.buffer.next
	ch.mu.Unlock()
	if len(files) > 0 {
		memory := ch.coll.set.o.Ledger.Force(KindDeletes, deltaBytes)
		defer memory.Release()
	}
	for _, h := range add {
		s, _ := h.segment.(*Sealed)
		for _, f := range files {
			if err := s.applySpilled(ctx, f); err != nil {
				if !ch.Watched() {
					err = errclass.Mark(ch.unwatched(), errclass.Conflict) // it has taken them along
				}
				return 0, err
			}
		}
		for _, d := range batches {
			h.applyDeletes(d)
		}
	}
	return upTo, nil
}

// MaxDeletes is how many bytes of deletes a channel keeps before its growing segments are to be sealed, so that the deletes can
// go to object storage: Options.DeleteBytes, or a sixteenth of the memory limit if that is less. While that is not possible, as
// object storage is away or their seal is still to be read from the log, they go to the local disk from twice as much on.
func (ch *Channel) MaxDeletes() int64 {
	const share = 16
	return ch.coll.set.o.Ledger.ShareOf(ch.coll.set.o.DeleteBytes, share)
}

// tellBufferLocked tells ledger and set what the buffer takes in memory.
func (ch *Channel) tellBufferLocked() {
	bytes := ch.mu.buffer.bytes
	ch.bufferMemory.Commit(bytes)
	ch.coll.set.buffered.Add(bytes - ch.mu.told)
	ch.mu.told = bytes
}

// spillAgain is when deletes that could not be written to the local disk are written again.
const spillAgain = 30 * time.Second

// spillPiece is how many bytes of deletes are written to files at a time; then memory has them no more.
const spillPiece = 16 << 20

// spillDue writes the deletes in memory to the local disk if they are many, be it with those of other channels. Only who applies
// messages calls it: the next message waits, also where somebody else writes them and twice as many have come.
func (ch *Channel) spillDue() {
	set, most := ch.coll.set, 2*ch.MaxDeletes()
	ch.mu.Lock()
	bytes := ch.mu.buffer.bytes
	share := most / (2 * max(set.watched.Load(), 1))
	due := (bytes > most || bytes > share && set.buffered.Load() > most) && !time.Now().Before(ch.mu.unspilt)
	ch.mu.Unlock()
	if !due {
		return
	}
	select {
	case ch.spilling <- struct{}{}:
	default:
		if bytes <= 2*most {
			return // somebody does
		}
		select {
		case ch.spilling <- struct{}{}:
		case <-ch.gone:
			return
		}
	}
	defer func() { <-ch.spilling }()
	if err := lifecycle.Call("write deletes to the local disk", func() error { return ch.spill(Latest) }); err != nil {
		ch.mu.Lock()
		ch.mu.unspilt = time.Now().Add(spillAgain)
		ch.mu.Unlock()
		set.o.Logger.Warn("segments: deletes that should go to the local disk stay in memory", "vchannel", ch.name, "bytes", bytes, "again_in", spillAgain, "error", err)
	}
}

// spill writes the deletes in memory up to a timestamp to the local disk, a piece at a time. The caller has the turn to. What
// was written before an error is there.
func (ch *Channel) spill(upTo uint64) error {
	for {
		ch.mu.Lock()
		n, first := ch.mu.buffer.upTo(upTo), ch.mu.buffer.first()
		batches := ch.mu.buffer.batches[:n:n]
		ch.mu.Unlock()
		if n == 0 {
			return nil
		}
		piece := ch.piece(batches)
		if err := ch.spillBatches(piece, first+uint64(len(piece))); err != nil {
			return err
		}
	}
}

// piece returns as many of batches, one at least, as are written at a time.
func (ch *Channel) piece(batches []*DeleteBatch) []*DeleteBatch {
	room := min(spillPiece, ch.MaxDeletes()/2)
	for i, b := range batches {
		if room -= b.bytes(); room < 0 {
			return batches[:max(i, 1)]
		}
	}
	return batches
}

// spillBatches writes the oldest batches in memory, those before the number end, to the local disk.
func (ch *Channel) spillBatches(batches []*DeleteBatch, end uint64) error {
	files, err := ch.writeBatches(batches, end)
	ch.coll.set.takeFiles(files)
	gone := files
	defer func() { ch.coll.set.removeFiles(gone) }() // once the channel is unlocked
	if err != nil {
		return err
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.mu.closed {
		return nil
	}
	ch.mu.buffer.files = append(ch.mu.buffer.files, files...)
	ch.mu.buffer.drop(end)
	gone = ch.trimLocked() // meanwhile
	ch.tellBufferLocked()
	return nil
}

// writeBatches writes deletes to files on the local disk. It returns those that it has written also after an error.
func (ch *Channel) writeBatches(batches []*DeleteBatch, end uint64) (files []*DeleteFile, err error) {
	var bytes int64
	for _, b := range batches {
		bytes += b.bytes()
	}
	ledger := ch.coll.set.o.Ledger
	memory := ledger.Force(KindDeletes, min(DeleteFileMemory/2+2*bytes, DeleteFileMemory))
	defer memory.Release()
	pk := ch.coll.Info().Schema.Primary()
	for _, part := range split(batches, deleteFileRows, maxDeleteFile(ledger)) {
		f, err := writeDeletes(ch.coll.set.deletesName(), pk, part)
		if err != nil {
			return files, err
		}
		f.end = end
		files = append(files, f)
	}
	return files, nil
}

// DeleteFiles returns the deletes that are not known to be in object storage, with timestamps in (after, upTo], in files on the local disk;
// those that were in memory have been written there. A file may have older and newer ones besides. The caller has pinned the deletes, and
// reads the files no longer than that.
func (ch *Channel) DeleteFiles(ctx context.Context, after, upTo uint64) (files []*DeleteFile, err error) {
	select {
	case ch.spilling <- struct{}{}:
		defer func() { <-ch.spilling }()
	case <-ctx.Done():
		return nil, errors.Wrap(ctx.Err(), "wait until deletes are on the local disk")
	}
	if err := lifecycle.Call("write deletes to the local disk", func() error { return ch.spill(upTo) }); err != nil {
		return nil, err
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for _, f := range ch.mu.buffer.files {
		if f.MaxTimestamp > after && f.MinTimestamp <= upTo {
			files = append(files, f)
		}
	}
	return files, nil
}

// DeleteBytes is what the deletes that are not known to be in object storage take in memory, or did before they went to the local
// disk, in bytes.
func (ch *Channel) DeleteBytes() int64 {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.mu.buffer.held(ch.mu.whole)
}

// TrimDeletes forgets buffered deletes up to upTo, which are in object storage; while they are
// pinned that is put off.
func (ch *Channel) TrimDeletes(upTo uint64) {
	ch.mu.Lock()
	ch.mu.trimTo = max(ch.mu.trimTo, upTo)
	gone := ch.trimLocked()
	ch.mu.Unlock()
	ch.coll.set.removeFiles(gone)
}

// trimLocked returns the files that are to be removed once the channel is unlocked.
func (ch *Channel) trimLocked() (gone []*DeleteFile) {
	if ch.mu.pins > 0 || ch.mu.closed {
		return nil
	}
	ch.mu.whole = max(ch.mu.whole, ch.mu.trimTo)
	gone = ch.mu.buffer.trim(ch.mu.whole)
	ch.tellBufferLocked()
	return gone
}
