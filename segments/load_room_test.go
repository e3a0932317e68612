package segments

import (
	"testing"

	"github.com/querynode/querynode/internal/schema"
)

// TestALoadThatFreesMemoryHasRoomForItsDeletes: what is growing may be more than the memory there is, as rows from the log are
// taken beyond it, and nothing else gives any back.
func TestALoadThatFreesMemoryHasRoomForItsDeletes(t *testing.T) {
	const limit = 1 << 20
	r := newRig(t, rigOptions{memory: limit})
	r.insert(1, seq(0, 500)...)
	r.seal(1)
	r.upload(1)
	at := r.delete(1, 2, 3)
	file := r.delta("deltas/1", deletesAt(0, &schema.Column{FieldID: idField, Type: schema.Int64, Int: []int64{1, 2, 3}}, at))
	rest := r.set.Ledger().Force(KindGrowing, limit)
	defer rest.Release()
	must(t, r.load(1, file))
	rest.Release()
	res, err := r.coll.Query(t.Context(), &QueryRequest{CountOnly: true}, nil)
	must(t, err)
	if res.Count != 497 || !r.coll.Loaded(1) {
		t.Errorf("%d rows are left, want 497", res.Count)
	}
}
