package segments

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
)

const fullLimit = 1 << 20

// fullOfGrowing is a rig with little memory and a growing segment that is stored.
func fullOfGrowing(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, rigOptions{memory: fullLimit})
	r.insert(1, seq(0, 500)...)
	r.seal(1)
	r.upload(1)
	return r
}

// TestALoadThatFreesMemoryHasRoomForItsDeletes: what is growing may be more than the memory there is, as rows from the log are
// taken beyond it, and nothing else gives any back.
func TestALoadThatFreesMemoryHasRoomForItsDeletes(t *testing.T) {
	r := fullOfGrowing(t)
	at := r.delete(1, 2, 3)
	file := r.delta("deltas/1", deletesAt(0, &schema.Column{FieldID: idField, Type: schema.Int64, Int: []int64{1, 2, 3}}, at))
	rest := r.set.Ledger().Force(KindGrowing, fullLimit)
	defer rest.Release()
	must(t, r.load(1, file))
	rest.Release()
	res, err := r.coll.Query(t.Context(), &QueryRequest{CountOnly: true}, nil)
	must(t, err)
	if res.Count != 497 || !r.coll.Loaded(1) {
		t.Errorf("%d rows are left, want 497", res.Count)
	}
}

// TestALoadThatFreesMemoryHasRoomForManyDeletes, more than it frees and than there is memory: they are read from the local disk,
// a few at a time.
func TestALoadThatFreesMemoryHasRoomForManyDeletes(t *testing.T) {
	r := fullOfGrowing(t)
	at := r.delete(1, 2, 3)
	rnd, keys := rand.New(rand.NewPCG(1, 2)), make([]int64, 300_000)
	for i := range keys {
		keys[i] = rnd.Int64() | 1<<40
	}
	copy(keys[100_000:], []int64{1, 2, 3})
	file := r.delta("deltas/1", deletesAt(0, &schema.Column{FieldID: idField, Type: schema.Int64, Int: keys}, at))
	info, err := r.bucket.Head(t.Context(), file.Path)
	must(t, err)
	r.bucket.SetHook(func(c objstore.Call) objstore.Fault {
		if got := r.set.Ledger().Used()[KindDownload]; c.Key == file.Path && c.Op == objstore.OpGet && got != deltaBytes {
			t.Errorf("%d bytes of memory for a file of %d, want %d", got, info.Size, deltaBytes)
		}
		return objstore.Fault{}
	})
	rest := r.set.Ledger().Force(KindGrowing, fullLimit)
	defer rest.Release()
	must(t, r.load(1, file))
	rest.Release()
	if n := r.set.Ledger().Used()[KindDownload]; n != 0 {
		t.Errorf("after the load %d bytes are taken", n)
	}
	res, err := r.coll.Query(t.Context(), &QueryRequest{CountOnly: true}, nil)
	must(t, err)
	if res.Count != 497 || !r.coll.Loaded(1) {
		t.Errorf("%d rows are left, want 497", res.Count)
	}
	left, err := filepath.Glob(filepath.Join(r.set.o.Dir, "*", "*.tmp"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left on the disk: %v", left)
	}
	r.coll.Release(1) // what frees nothing is refused as ever
	wantClass(t, r.load(1, file), errclass.Exhausted)
}
