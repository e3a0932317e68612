package segments

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/pool"
)

func TestOptionsListAllProblems(t *testing.T) {
	_, err := New(Options{GrowingRows: -1, LoadConcurrency: -2, LoadTimeout: -3, QuarantineAfter: -4})
	wantClass(t, err, errclass.Invalid)
	for _, want := range []string{"Dir", "Pool", "GrowingRows", "LoadConcurrency", "LoadTimeout", "QuarantineAfter"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestAFolderThatCannotBeMade(t *testing.T) {
	p, err := pool.New(pool.Options{Workers: 1})
	must(t, err)
	defer func() { must(t, p.Close(context.Background())) }()
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := New(Options{Dir: filepath.Join(file, "segments"), Pool: p}); err == nil {
		t.Fatal("opened in a file")
	}
}

// TestLeftoversOfAKilledRunAreRemoved, and nothing else.
func TestLeftoversOfAKilledRunAreRemoved(t *testing.T) {
	p, err := pool.New(pool.Options{Workers: 1})
	must(t, err)
	dir := t.TempDir()
	for _, name := range []string{"17-abc1", "17-abc1.tmp", "notes", "17"} {
		must(t, os.MkdirAll(filepath.Join(dir, name, "x"), 0o755))
	}
	s, err := New(Options{Dir: dir, Pool: p})
	must(t, err)
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) != 2 || left[0].Name() != "17" || left[1].Name() != "notes" {
		t.Fatalf("left: %v", left)
	}
	must(t, s.Close(context.Background()))
	must(t, p.Close(context.Background()))
}

func TestCloseOfAnEmptySetAndAgain(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.close()
	r.close()
	if got := r.set.Add(CollectionInfo{ID: 2, Schema: items()}); len(r.set.Collections()) != 0 {
		t.Fatalf("%v was added to a closed set", got.Info())
	}
	_, err := r.set.Add(r.info()).Watch("v", Position{}, nil)
	wantClass(t, err, errclass.Closed)
	_, err = r.coll.Watch("v", Position{}, nil)
	wantClass(t, err, errclass.Closed)
	_, err = r.search(SearchRequest{Vectors: vectorOf(1, 0), TopK: 1})
	wantClass(t, err, errclass.Conflict)
	wantClass(t, r.load(1), errclass.Conflict)
	wantClass(t, r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: r.batch([]int64{1}, 0)}, r.tick()), errclass.Closed)
	if len(r.coll.Segments()) != 0 {
		t.Fatal("rows came into a closed set")
	}
}

func TestCloseWithSegmentsOfAllKinds(t *testing.T) {
	r := newRig(t, hnsw(index.L2))
	r.set.listsAfter = 64
	r.insert(1, seq(0, 3000/slower)...)
	r.handOff(1)
	r.insert(2, seq(3000, 3000+2000/slower)...) // its lists are being built
	r.insert(3, 1)
	r.seal(3)
	r.delete(seq(0, 100)...)
} // rig.close checks that nothing is left

// TestCloseLetsGoOfWhatWaitsForLists.
func TestCloseLetsGoOfWhatWaitsForLists(t *testing.T) {
	r := newRig(t, hnsw(index.L2))
	r.insert(1, 1)
	h, b := withRef(r.holderOf(1)), r.set.builder
	b.mu.Lock()
	b.mu.pending[h] = h.segment.(*Growing) // the builder has not been told yet
	b.mu.Unlock()
	r.close()
	b.put(h, h.segment.(*Growing))
	if len(b.mu.pending) != 0 {
		t.Fatal("taken on after Close")
	}
}

// TestCloseWaitsForReaders until its deadline, names what is held, and can be
// called again.
func TestCloseWaitsForReaders(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 10)...)
	r.handOff(1)
	r.insert(2, seq(10, 20)...)
	r.idle()
	held := r.coll.Acquire()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := r.set.Close(ctx)
	if err == nil || !strings.Contains(err.Error(), "2 segments are still held") {
		t.Fatalf("%v", err)
	}
	if _, err := os.Stat(r.sealedIn(held, 1).dir); err != nil {
		t.Fatalf("the files went under a reader: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- r.set.Close(context.Background()) }()
	held.Release()
	must(t, <-done)
}

func (r *rig) sealedIn(s *Snapshot, id int64) *Sealed {
	r.t.Helper()
	h, ok := s.view.find(id)
	if !ok {
		r.t.Fatalf("no segment %d", id)
	}
	return h.segment.(*Sealed)
}

// TestCloseWaitsForAReadThatWasAbandoned: its task still reads the segment.
func TestCloseWaitsForAReadThatWasAbandoned(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 10)...)
	r.handOff(1)
	in, out := make(chan struct{}), make(chan struct{})
	r.sabotage(1, func(segment) { close(in); <-out })
	ctx, cancel := context.WithCancel(t.Context())
	read := make(chan error, 1)
	go func() {
		_, err := r.coll.Search(ctx, &SearchRequest{FieldID: vectorField, Vectors: vectorOf(1, 0), NQ: 1, TopK: 1, Metric: index.L2})
		read <- err
	}()
	<-in
	closed := make(chan error, 1)
	go func() { closed <- r.set.Close(context.Background()) }()
	cancel()
	if err := <-read; !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	select {
	case err := <-closed:
		t.Fatalf("closed under a task: %v", err)
	default:
	}
	close(out)
	must(t, <-closed)
}

// TestCloseDuringALoadThatHangs ends the load, and its callers get Closed.
func TestCloseDuringALoadThatHangs(t *testing.T) {
	r := uploaded(t, rigOptions{})
	in := make(chan struct{})
	r.bucket.SetHook(func(c objstore.Call) objstore.Fault {
		if c.Key == vectorsKey {
			close(in)
			return objstore.Fault{Hang: true}
		}
		return objstore.Fault{}
	})
	done := r.loadLater(1)
	<-in
	r.close()
	wantClass(t, <-done, errclass.Closed)
}

// TestCloseWhileALoadWaitsForItsTurn.
func TestCloseWhileALoadWaitsForItsTurn(t *testing.T) {
	r := uploaded(t, rigOptions{set: func(o *Options) { o.LoadConcurrency = 1 }})
	r.set.loads.slots <- struct{}{} // somebody else's
	done := r.loadLater(1)
	for len(r.set.Loading()) == 0 {
		r.count(0)
	}
	r.close()
	wantClass(t, <-done, errclass.Closed)
}

// TestCloseWhileEverythingGoesOn: rows, deletes, reads and loads end with errors
// or answers, and nothing is left.
func TestCloseWhileEverythingGoesOn(t *testing.T) {
	r := uploaded(t, hnsw(index.L2))
	r.set.listsAfter = 64
	stop := make(chan struct{})
	done := make(chan struct{}, 3)
	during := func(do func(i int64) error) {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := int64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				err := do(i)
				switch errclass.Of(err) {
				case errclass.Closed, errclass.Conflict:
				default:
					if err != nil {
						t.Errorf("%v", err)
						return
					}
				}
			}
		}()
	}
	started := make(chan struct{})
	during(func(i int64) error {
		if i == 20 {
			close(started)
		}
		at := Position{Timestamp: 1_000_000 + uint64(i)}
		r.ch.ApplyDeletes(0, &schema.Column{FieldID: idField, Type: schema.Int64, Int: []int64{i}}, at)
		at.Timestamp += 500_000
		err := r.ch.ApplyRows(Rows{SegmentID: 5, PartitionID: 7, Batch: r.batch(seq(i*50, i*50+50), 0)}, Position{Timestamp: 2_000_000 + uint64(i)})
		r.ch.Advance(Position{Timestamp: 2_000_000 + uint64(i)})
		return err
	})
	during(func(i int64) error {
		_, err := r.search(SearchRequest{Vectors: vectorOf(i, 0), TopK: 5})
		return err
	})
	during(func(i int64) error {
		err := r.load(1)
		r.coll.Release(1)
		return err
	})
	<-started
	r.close()
	close(stop)
	for range 3 {
		<-done
	}
}
