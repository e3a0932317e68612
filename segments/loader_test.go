package segments

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
)

// uploaded returns a rig with segment 1 in the bucket and nothing in memory.
func uploaded(t *testing.T, o rigOptions) *rig {
	t.Helper()
	r := newRig(t, o)
	r.insert(1, seq(0, 100)...)
	r.seal(1)
	r.upload(1)
	r.ch.Forget(1)
	r.idle()
	return r
}

func (r *rig) read(key string) []byte {
	r.t.Helper()
	raw, err := objstore.ReadAll(r.t.Context(), r.bucket, key, 1<<30)
	must(r.t, err)
	return raw
}

// nothingLeft fails the test unless the folder is empty and the ledger as before.
func (r *rig) nothingLeft(before map[Kind]int64) {
	r.t.Helper()
	r.idle()
	if left, _ := filepath.Glob(filepath.Join(r.dir, "*")); len(left) > 0 {
		r.t.Errorf("left behind: %v", left)
	}
	used := r.set.Ledger().Used()
	maps.DeleteFunc(used, func(_ Kind, n int64) bool { return n == 0 })
	maps.DeleteFunc(before, func(_ Kind, n int64) bool { return n == 0 })
	if !maps.Equal(used, before) {
		r.t.Errorf("the ledger has %v, before it was %v", used, before)
	}
	if len(r.coll.Segments()) != 0 || r.coll.Loaded(1) || len(r.set.Loading()) != 0 {
		r.t.Errorf("segments %v, loading %v", r.coll.Segments(), r.set.Loading())
	}
}

// manifest rewrites the manifest, with right checksums of its own.
func (r *rig) manifest(change func(*segfile.Manifest)) {
	r.t.Helper()
	m, err := segfile.ParseManifest(r.read("segments/1/" + segfile.ManifestName))
	must(r.t, err)
	change(m)
	raw, err := m.Encode()
	must(r.t, err)
	r.object("segments/1/"+segfile.ManifestName, raw)
}

// sealBatch writes segment 1 by hand.
func (r *rig) sealBatch(timestamps []uint64, more func(*segfile.Writer) error) {
	r.t.Helper()
	dir := filepath.Join(r.t.TempDir(), "1")
	w, err := segfile.Create(dir, segfile.Meta{SegmentID: 1, CollectionID: 1, PartitionID: 7, VChannel: "v", Schema: *r.o.schema})
	must(r.t, err)
	b := r.batch(seq(0, int64(len(timestamps))), 0)
	b.Timestamps = timestamps
	must(r.t, w.Append(b))
	if more != nil {
		must(r.t, more(w))
	}
	m, err := w.Finish(r.t.Context())
	must(r.t, err)
	for _, name := range append(m.FileNames(), segfile.ManifestName) {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		must(r.t, err)
		r.object("segments/1/"+name, raw)
	}
}

func (r *rig) outOfOrder() { r.sealBatch([]uint64{5, 4}, nil) }

func (r *rig) badIndex() {
	r.sealBatch([]uint64{4, 5}, func(w *segfile.Writer) error {
		x := segfile.IndexMeta{FieldID: vectorField, Type: "HNSW", Metric: "L2"}
		return w.WriteIndex(x, func(out io.Writer) error {
			_, err := out.Write(bytes.Repeat([]byte("not a graph "), 100))
			return err
		})
	})
}

const vectorsKey = "segments/1/vector_103.npy"

func TestALoadThatFailsLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		name   string
		break_ func(r *rig)
		class  errclass.Class
	}{
		{"a flipped bit", func(r *rig) {
			raw := r.read(vectorsKey)
			raw[len(raw)-5] ^= 1
			r.object(vectorsKey, raw)
		}, errclass.Corrupt},
		{"a truncated file", func(r *rig) { raw := r.read(vectorsKey); r.object(vectorsKey, raw[:len(raw)-1]) }, errclass.Corrupt},
		{"a file with more", func(r *rig) { r.object(vectorsKey, append(r.read(vectorsKey), 0)) }, errclass.Corrupt},
		{"a missing file", func(r *rig) { must(r.t, r.bucket.Delete(r.t.Context(), vectorsKey)) }, errclass.NotFound},
		{"no manifest", func(r *rig) {
			must(r.t, r.bucket.Delete(r.t.Context(), "segments/1/"+segfile.ManifestName))
		}, errclass.NotFound},
		{"a manifest that is damaged", func(r *rig) {
			raw := r.read("segments/1/" + segfile.ManifestName)
			raw[len(raw)/2] ^= 4
			r.object("segments/1/"+segfile.ManifestName, raw)
		}, errclass.Corrupt},
		{"a newer version", func(r *rig) { r.manifest(func(m *segfile.Manifest) { m.Version = 99 }) }, errclass.Unimplemented},
		{"another segment", func(r *rig) { r.manifest(func(m *segfile.Manifest) { m.SegmentID = 2 }) }, errclass.Corrupt},
		{"another collection", func(r *rig) { r.manifest(func(m *segfile.Manifest) { m.CollectionID = 2 }) }, errclass.Corrupt},
		{"another channel", func(r *rig) { r.manifest(func(m *segfile.Manifest) { m.VChannel = "w" }) }, errclass.Corrupt},
		{"a manifest that wants all memory", func(r *rig) {
			r.set.Ledger().limit.Store(1 << 30)
			r.manifest(func(m *segfile.Manifest) { m.ScalarBytes = 1 << 40 })
		}, errclass.Exhausted},
		{"an index that is none", func(r *rig) { r.badIndex() }, errclass.Corrupt},
		{"rows out of order", func(r *rig) { r.outOfOrder() }, errclass.Corrupt},
		{"another schema", func(r *rig) {
			s := *r.o.schema
			s.Fields = append([]schema.Field(nil), s.Fields...)
			s.Fields[1].Type = schema.Double
			r.o.schema = &s
			r.coll.Update(r.info())
		}, errclass.Corrupt},
		{"a field that cannot be null", func(r *rig) {
			s := *r.o.schema
			s.Fields = append(append([]schema.Field(nil), s.Fields...), schema.Field{ID: 200, Name: "new", Type: schema.Int64})
			r.o.schema = &s
			r.coll.Update(r.info())
		}, errclass.Corrupt},
		{"storage that fails", func(r *rig) {
			r.bucket.SetHook(func(c objstore.Call) objstore.Fault {
				return objstore.Fault{Err: errclass.New(errclass.Retryable, "storage is down")}
			})
		}, errclass.Retryable},
		{"a connection that breaks", func(r *rig) {
			r.bucket.SetHook(func(c objstore.Call) objstore.Fault {
				if c.Key == vectorsKey {
					return objstore.Fault{Cut: 100}
				}
				return objstore.Fault{}
			})
		}, errclass.Retryable},
		{"a full disk", func(r *rig) {
			r.set.create = func(name string) (io.WriteCloser, error) {
				f, err := os.Create(name)
				return &fullDisk{f}, err
			}
		}, errclass.Exhausted},
		{"a full disk at the first file", func(r *rig) {
			r.set.create = func(string) (io.WriteCloser, error) { return nil, syscall.ENOSPC }
		}, errclass.Exhausted},
		{"a full disk that tells on close", func(r *rig) {
			r.set.create = func(name string) (io.WriteCloser, error) {
				f, err := os.Create(name)
				return &closesFull{f}, err
			}
		}, errclass.Exhausted},
		{"a file that shrinks after the copy", func(r *rig) {
			r.set.create = func(name string) (io.WriteCloser, error) {
				f, err := os.Create(name)
				return &shrinks{f}, err
			}
		}, errclass.Corrupt},
		{"no memory", func(r *rig) { r.set.Ledger().limit.Store(r.set.Ledger().Total() + 100) }, errclass.Exhausted},
		{"a panic", func(r *rig) { r.set.create = func(string) (io.WriteCloser, error) { panic("boom") } }, errclass.Panicked},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := uploaded(t, rigOptions{})
			c.break_(r)
			before := r.set.Ledger().Used()
			wantClass(t, r.load(1), c.class)
			r.nothingLeft(before)
		})
	}
}

type fullDisk struct{ *os.File }

func (f *fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func (f *fullDisk) ReadFrom(io.Reader) (int64, error) { return 0, syscall.ENOSPC }

type closesFull struct{ *os.File }

func (f *closesFull) Close() error { return errors.CombineErrors(syscall.EDQUOT, f.File.Close()) }

type shrinks struct{ *os.File }

func (f *shrinks) Close() error {
	if filepath.Ext(f.Name()) == ".npy" {
		if err := f.Truncate(5000); err != nil {
			return err
		}
	}
	return f.File.Close()
}

func TestDeltasThatCannotBeRead(t *testing.T) {
	r := uploaded(t, rigOptions{})
	before := r.set.Ledger().Used()
	text := r.delta("deltas/text", deletesAt(0, &schema.Column{FieldID: idField, Type: schema.VarChar, Str: []string{"x"}}, r.now))
	r.object("deltas/bad", []byte("no parquet"))
	for _, c := range []struct {
		delta Delta
		class errclass.Class
	}{
		{text, errclass.Corrupt},
		{Delta{Path: "deltas/bad", MaxTimestamp: r.now}, errclass.Corrupt},
		{Delta{Path: "deltas/none", MaxTimestamp: r.now}, errclass.NotFound},
	} {
		wantClass(t, r.load(1, c.delta), c.class)
		r.nothingLeft(before)
	}
	// Older than every row: not even read.
	must(t, r.load(1, Delta{Path: "deltas/none", MaxTimestamp: 1000}))
	r.check(r.now)
}

// TestASegmentWithItsOwnDeletes: they came with it from wherever it was built.
func TestASegmentWithItsOwnDeletes(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.sealBatch([]uint64{1005, 1005, 1010, 1020}, func(w *segfile.Writer) error {
		return w.WriteDeletes(&schema.Column{FieldID: idField, Type: schema.Int64, Int: []int64{1, 2, 3, 77}}, []uint64{1010, 1010, 1030, 5})
	})
	r.ch.Advance(Position{Timestamp: 1100})
	must(t, r.load(1))
	for at, want := range map[uint64][]int64{1005: {0, 1}, 1010: {0, 2}, 1025: {0, 2, 3}, 1030: {0, 2}} {
		if keys, _ := r.prices(QueryRequest{Read: Read{ReadTimestamp: at}}); !slices.Equal(keys, want) {
			t.Errorf("at %d: %v, want %v", at, keys, want)
		}
	}
}

func TestALoadIsFlownOnce(t *testing.T) {
	r := uploaded(t, rigOptions{})
	var gets atomic.Int64
	in, out := make(chan struct{}), make(chan struct{})
	r.bucket.SetHook(func(c objstore.Call) objstore.Fault {
		if c.Key == vectorsKey && gets.Add(1) == 1 {
			close(in)
			<-out
		}
		return objstore.Fault{}
	})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		gone <- r.coll.Load(ctx, LoadRequest{SegmentID: 1, VChannel: "v", Path: "segments/1"})
	}()
	<-in
	others := []<-chan error{r.loadLater(1), r.loadLater(1)}
	if got := r.set.Loading(); len(got) != 1 || got[0] != 1 {
		t.Fatalf("loading %v", got)
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) || !errclass.Of(err).Retry() {
		t.Fatalf("the caller whose context ended got %v", err)
	}
	if r.coll.Loaded(1) {
		t.Fatal("not yet")
	}
	close(out)
	for _, o := range others {
		must(t, <-o)
	}
	must(t, r.load(1))
	if n := gets.Load(); n != 1 {
		t.Fatalf("fetched %d times", n)
	}
	r.check(r.now)
}

func TestALoadOfHungStorageMeetsItsDeadline(t *testing.T) {
	r := uploaded(t, rigOptions{set: func(o *Options) { o.LoadTimeout = 20 * time.Millisecond }})
	before := r.set.Ledger().Used()
	for _, key := range []string{"segments/1/" + segfile.ManifestName, vectorsKey} {
		r.bucket.SetHook(func(c objstore.Call) objstore.Fault { return objstore.Fault{Hang: c.Key == key} })
		err := r.load(1)
		wantClass(t, err, errclass.Retryable)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v", err)
		}
		r.nothingLeft(before)
	}
	r.bucket.SetHook(nil)
	must(t, r.load(1))
}

func TestFewLoadsAtATime(t *testing.T) {
	r := newRig(t, rigOptions{set: func(o *Options) { o.LoadConcurrency = 1 }})
	for s := range int64(3) {
		r.insert(s, seq(s*10, s*10+10)...)
		r.seal(s)
		r.upload(s)
	}
	var now, most atomic.Int64
	r.bucket.SetHook(func(c objstore.Call) objstore.Fault {
		if filepath.Base(c.Key) == segfile.ManifestName {
			most.Store(max(most.Load(), now.Add(1)))
		}
		if filepath.Ext(c.Key) == ".npy" {
			now.Add(-1)
		}
		return objstore.Fault{}
	})
	var all []<-chan error
	for s := range int64(3) {
		all = append(all, r.loadLater(s))
	}
	for _, done := range all {
		must(t, <-done)
	}
	if most.Load() != 1 {
		t.Fatalf("%d loads at a time", most.Load())
	}
	r.check(r.now)
}

func TestLoadOfAChannelThatIsNotWatched(t *testing.T) {
	r := uploaded(t, rigOptions{})
	wantClass(t, r.coll.Load(t.Context(), LoadRequest{SegmentID: 1, VChannel: "w", Path: "segments/1"}), errclass.Conflict)
	stalled, goOn := r.stall()
	done := r.loadLater(1)
	<-stalled
	r.coll.Unwatch("v")
	goOn()
	wantClass(t, <-done, errclass.Conflict)
	r.nothingLeft(map[Kind]int64{})
}

func TestProgressOfALoad(t *testing.T) {
	r := uploaded(t, rigOptions{})
	var last, total int64
	must(t, r.coll.Load(t.Context(), LoadRequest{SegmentID: 1, VChannel: "v", Path: "segments/1", Progress: func(done, all int64) {
		if done <= last {
			t.Errorf("%d after %d", done, last)
		}
		last, total = done, all
	}}))
	if last != total || total == 0 {
		t.Fatalf("%d of %d bytes", last, total)
	}
	if got := r.status(1); got.MappedBytes == 0 || got.MemoryBytes == 0 || got.Rows != 100 || got.Indexes[vectorField] != "FLAT" {
		t.Fatalf("%+v", got)
	}
}

// TestABuildThatFailsLeavesNothing and tells what went wrong.
func TestABuildThatFailsLeavesNothing(t *testing.T) {
	r := newRig(t, rigOptions{index: VectorIndex{Type: "HNSW", Metric: index.L2}})
	rows := func(n int) func() (*schema.Batch, error) {
		b := r.batch(seq(0, int64(n)), 0)
		b.Timestamps = make([]uint64, n)
		return func() (*schema.Batch, error) {
			if b == nil {
				return nil, io.EOF
			}
			out := b
			b = nil
			return out, nil
		}
	}
	boom := errors.New("boom")
	ctx, cancel := context.WithCancel(t.Context())
	o := BuildOptions{Dir: filepath.Join(t.TempDir(), "1"), Meta: Meta{ID: 1, CollectionID: 1}, Info: r.info(), Workers: 3,
		Progress: func(int, int) { cancel() }}
	for _, c := range []struct {
		ctx  context.Context
		next func() (*schema.Batch, error)
		want error
	}{
		{t.Context(), func() (*schema.Batch, error) { return nil, boom }, boom},
		{ctx, rows(600), context.Canceled},
		{ctx, rows(600), context.Canceled},
	} {
		_, err := Build(c.ctx, o, c.next)
		if !errors.Is(err, c.want) {
			t.Fatalf("%v, want %v", err, c.want)
		}
		if _, err := os.Stat(o.Dir); !os.IsNotExist(err) {
			t.Fatalf("left behind: %v", err)
		}
	}
	o.Progress = nil
	m, err := Build(t.Context(), o, rows(600))
	must(t, err)
	if i := bytes.Index(must2(t, m), []byte(`"M":"16"`)); i < 0 {
		t.Fatal("the manifest does not say how the index was built")
	}
}

func must2(t *testing.T, m *segfile.Manifest) []byte {
	t.Helper()
	raw, err := m.Encode()
	must(t, err)
	return bytes.ReplaceAll(bytes.ReplaceAll(raw, []byte(" "), nil), []byte("\n"), nil)
}
