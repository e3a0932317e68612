package segments

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
)

// stored is a rig with rows of keys 1 to n in the bucket, as segment 1 of partition 7, and none growing.
func stored(t *testing.T, n int64, o rigOptions) *rig {
	t.Helper()
	r := newRig(t, o)
	r.insert(1, seq(1, n+1)...)
	r.seal(1)
	r.upload(1)
	r.ch.Forget(1)
	return r
}

func intKeys(keys ...int64) *schema.Column {
	return &schema.Column{FieldID: idField, Type: schema.Int64, Int: keys}
}

// TestDeletesOfAnotherPartitionHideNothing, whatever keys they name: the file is not even read.
func TestDeletesOfAnotherPartitionHideNothing(t *testing.T) {
	r := stored(t, 3, rigOptions{})
	at := r.tick().Timestamp
	other := r.delta("deltas/8", &DeleteBatch{Partition: 8, Keys: intKeys(1, 2, 3), Timestamps: []uint64{at, at, at}})
	own := r.delta("deltas/7", &DeleteBatch{Partition: 7, Keys: intKeys(2), Timestamps: []uint64{at}})
	r.bucket.SetHook(func(c objstore.Call) objstore.Fault {
		if c.Key == other.Path {
			t.Errorf("%s of deletes of another partition", c.Op)
		}
		return objstore.Fault{}
	})
	must(t, r.load(1, other, own))
	r.ch.Advance(r.tick())
	if n := r.count(0); n != 2 {
		t.Errorf("%d rows are left of 3, want 2: one was deleted in their partition", n)
	}
}

// TestARowThatWasDeletedManyTimesIsHiddenFromTheFirstOn: a key may come back again and again, in other segments, and a file of deletes
// have more entries of it than the segment has rows.
func TestARowThatWasDeletedManyTimesIsHiddenFromTheFirstOn(t *testing.T) {
	r := stored(t, 2, rigOptions{})
	const times = 5000
	d := &DeleteBatch{Keys: intKeys(), Timestamps: nil}
	add := func(key int64, at uint64) {
		d.Keys.Int, d.Timestamps = append(d.Keys.Int, key), append(d.Timestamps, at)
	}
	first := r.now + 10
	add(2, first)
	for i := range uint64(times) {
		add(1, first+times-i) // the latest comes first
	}
	must(t, r.load(1, r.delta("deltas/1", d)))
	r.now = first + times
	r.ch.Advance(r.tick())
	for _, c := range []struct {
		at   uint64
		want int64
	}{{first - 1, 2}, {first, 1}, {first + 1, 0}, {r.now, 0}} {
		if n := r.count(c.at); n != c.want {
			t.Errorf("%d rows are seen %d after the first delete, want %d", n, int64(c.at-first), c.want)
		}
	}
}

// TestALoadThatIsGivenUpReadsNoMoreDeletes: a file of them may be large.
func TestALoadThatIsGivenUpReadsNoMoreDeletes(t *testing.T) {
	r := stored(t, 2, rigOptions{})
	must(t, r.load(1))
	snap := r.coll.Acquire()
	defer snap.Release()
	h, ok := snap.view.find(1)
	if !ok {
		t.Fatal("the segment is not loaded")
	}
	keys := intKeys(seq(1, 4000)...)
	raw, err := segfile.EncodeDeletes(keys, make([]uint64, keys.Rows()))
	must(t, err)
	name := filepath.Join(t.TempDir(), "deletes")
	must(t, os.WriteFile(name, raw, 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	must(t, h.segment.(*Sealed).applyFile(ctx, name, int64(len(raw)), 0))
	cancel()
	if err := h.segment.(*Sealed).applyFile(ctx, name, int64(len(raw)), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller has gone: %v", err)
	}
}

// TestTheRoomToReadDeletes is what they may take unpacked, up to that of a few pages; where one kind of it is lacking the other is given back.
func TestTheRoomToReadDeletes(t *testing.T) {
	const limit = 32 << 20
	r := newRig(t, rigOptions{memory: limit, set: func(o *Options) { o.DiskBytes = 1 << 20 }})
	held := func() (memory, disk int64) { return r.set.Ledger().Used()[KindDownload], r.set.disk.mu.used }
	for _, c := range []struct {
		what         string
		size         int64
		keys         schema.Type
		memory, disk int64
	}{
		{"few", 1000, schema.Int64, 4000, 1000},
		{"few of text, which may be much alike", 1000, schema.VarChar, 64_000, 1000},
		{"many", 1 << 20, schema.VarChar, deltaBytes, 1 << 20},
	} {
		free, err := r.coll.roomForDelta(1, c.size, c.keys)
		must(t, err)
		if memory, disk := held(); memory != c.memory || disk != c.disk {
			t.Errorf("%s: %d bytes of memory and %d of the disk, want %d and %d", c.what, memory, disk, c.memory, c.disk)
		}
		free()
		if memory, disk := held(); memory != 0 || disk != 0 {
			t.Errorf("%s: %d bytes of memory and %d of the disk are left", c.what, memory, disk)
		}
	}
	_, err := r.coll.roomForDelta(1, 2<<20, schema.Int64)
	wantClass(t, err, errclass.Exhausted)
	if memory, disk := held(); memory != 0 || disk != 0 {
		t.Errorf("with too little disk: %d bytes of memory and %d of the disk are taken", memory, disk)
	}
	rest := r.set.Ledger().Force(KindGrowing, limit)
	defer rest.Release()
	_, err = r.coll.roomForDelta(1, 1000, schema.Int64)
	wantClass(t, err, errclass.Exhausted)
	if memory, disk := held(); memory != 0 || disk != 0 {
		t.Errorf("with too little memory: %d bytes of memory and %d of the disk are taken", memory, disk)
	}
}

// TestOnlyALoadThatFreesMemoryGoesBeyondTheLimit: of a growing segment, and of more than the sealed one takes.
func TestOnlyALoadThatFreesMemoryGoesBeyondTheLimit(t *testing.T) {
	r := newRig(t, rigOptions{memory: 1 << 20})
	r.insert(1, 1, 2, 3)
	r.seal(1)
	r.upload(1)
	freed, ok := r.coll.grows(1)
	if !ok || freed <= 1 {
		t.Fatalf("a growing segment of %d bytes (%v)", freed, ok)
	}
	rest := r.set.Ledger().Force(KindGrowing, 1<<20)
	defer rest.Release()
	less, err := r.coll.roomFor(1, freed-1)
	must(t, err)
	less.Release()
	_, err = r.coll.roomFor(1, freed)
	wantClass(t, err, errclass.Exhausted)
	rest.Release()
	must(t, r.load(1))
	if n, ok := r.coll.grows(1); ok || n != 0 {
		t.Errorf("once it is loaded it still grows, with %d bytes", n)
	}
	if _, ok := r.coll.grows(2); ok {
		t.Error("a segment grows that nobody knows of")
	}
}
