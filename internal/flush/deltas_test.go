package flush

import (
	"math/rand/v2"
	"testing"

	"github.com/querynode/querynode/segments"
)

// TestDeletesTakeLittleMemory, though object storage takes none: a node that is full of them would be killed otherwise, and when it
// reads the log again.
func TestDeletesTakeLittleMemory(t *testing.T) {
	const limit, rows, batch = 192 << 20, 3_000_000, 10_000
	ledger := segments.NewLedger(limit)
	r := newRigWith(t, ledger)
	most := int64(0)
	for at := range uint64(rows / batch) {
		ids := make([]int64, batch)
		for i := range ids {
			ids[i] = rand.Int64()
		}
		r.remove(0, 101+at, ids...)
		most = max(most, ledger.Used()[segments.KindDeletes])
	}
	if want := 2*r.ch.MaxDeletes() + 1<<20; most > want || r.ch.DeleteBytes() < want {
		t.Errorf("%d MiB of %d are in memory, want at most %d", most>>20, r.ch.DeleteBytes()>>20, want>>20)
	}
	deltas, err := r.f.storeDeletes(t.Context(), r.ch, 3, 100, 1000)
	must(t, err)
	stored := int64(0)
	for _, d := range deltas {
		stored += d.Rows
	}
	if stored != rows || len(deltas) < 4 || ledger.Used()[segments.KindDeletes] != 0 {
		t.Errorf("%d deletes in %d files, %d bytes in memory", stored, len(deltas), ledger.Used()[segments.KindDeletes])
	}
	r.ch.TrimDeletes(1000)
	if used := ledger.Total(); used != 0 {
		t.Errorf("%d bytes are still told", used)
	}
}
