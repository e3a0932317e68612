package e2e

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// done is an acknowledged change: of keys to a version, or of keys that a filter found to nothing.
type done struct {
	at      uint64
	keys    []int64
	version int64 // 0 = deleted
}

// TestUpsertsThatRaceDeletesByFilter: eight clients upsert and delete by filter, while segments are flushed and merged. What is seen then,
// now and at any moment before, is what the acknowledged changes up to that moment say, in order of their timestamps.
func TestUpsertsThatRaceDeletesByFilter(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.items("items", 1) // one shard: small changes are one entry of the log, and have one timestamp
	const keys, clients, changes = 400, 8, 40
	var mu sync.Mutex
	var all []done
	var wait, tidy sync.WaitGroup
	over := make(chan struct{})
	for c := range clients {
		wait.Go(func() {
			r := rand.New(rand.NewPCG(uint64(c), 3))
			for i := range int64(changes) {
				one := done{version: 1 + i*clients + int64(c)}
				change := &qnpb.AppendRequest{Collection: "items"}
				if r.IntN(3) > 0 {
					one.keys = seq(0, keys)
					r.Shuffle(keys, func(a, b int) { one.keys[a], one.keys[b] = one.keys[b], one.keys[a] })
					one.keys = one.keys[:1+r.IntN(30)]
					change.Operation = &qnpb.AppendRequest_Upsert{Upsert: &qnpb.UpsertOperation{Rows: int64(len(one.keys)), Fields: rows(one.keys, one.version)}}
				} else {
					filter := fmt.Sprintf(`price %% 7 == %d and id < %d`, r.IntN(7), r.IntN(keys))
					change.Operation = &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{Filter: filter}}
				}
				a, err := n.write.Append(within(t), change)
				if err != nil {
					t.Error(err)
					return
				}
				if one.at = a.GetTimestamp(); change.GetDelete() != nil {
					one.keys, one.version = a.GetIds().GetInts().GetValues(), 0
				}
				mu.Lock()
				all = append(all, one)
				mu.Unlock()
			}
		})
	}
	tidy.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
			}
			n.flush("items")
			if _, err := n.write.Compact(within(t), &qnpb.CompactRequest{Collection: "items"}); err != nil {
				t.Errorf("compact: %v", err)
				return
			}
		}
	})
	wait.Wait()
	close(over)
	tidy.Wait()
	all = slices.DeleteFunc(all, func(d done) bool { return len(d.keys) == 0 }) // a filter that found nothing
	slices.SortFunc(all, func(a, b done) int { return cmp.Compare(a.at, b.at) })
	seen := func(f *qnpb.Freshness) map[int64]int64 {
		ids := n.column(&qnpb.QueryRequest{Collection: "items", OutputFields: []string{"price"}, Freshness: f}, 0)
		prices := n.column(&qnpb.QueryRequest{Collection: "items", OutputFields: []string{"price"}, Freshness: f}, 1)
		got := map[int64]int64{}
		for i, id := range ids {
			if _, twice := got[id]; twice {
				t.Errorf("key %d is there twice", id)
			}
			got[id] = prices[i] - 10*id
		}
		return got
	}
	want := map[int64]int64{}
	for i, d := range all {
		if i > 0 && d.at == all[i-1].at {
			t.Fatalf("two changes have the timestamp %d", d.at)
		}
		for _, k := range d.keys {
			if d.version == 0 {
				delete(want, k)
			} else {
				want[k] = d.version
			}
		}
		f := &qnpb.Freshness{ReadTimestamp: d.at}
		switch {
		case i == len(all)-1:
			f = strong
		case i%8 != 0:
			continue
		}
		got := seen(f)
		for k := range int64(keys) {
			if got[k] != want[k] {
				t.Errorf("after change %d of %d: key %d has version %d, want %d", i, len(all), k, got[k], want[k])
			}
		}
		if t.Failed() {
			return
		}
	}
}
