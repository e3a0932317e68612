package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

func movies() schema.Schema {
	return schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: 101, Name: "plot", Type: schema.FloatVector, Dim: 4},
		{ID: 102, Name: "poster", Type: schema.FloatVector, Dim: 8},
	}}
}

func spec(name string) CollectionSpec {
	return CollectionSpec{Name: name, Schema: movies(), Shards: 3, PChannels: []string{"dml-0", "dml-1"}, CreatedTimestamp: 7}
}

func open(t testing.TB, b objstore.Bucket) *Catalog {
	t.Helper()
	c, err := Open(t.Context(), Options{Bucket: b})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// onBoth runs the story on memory and on a folder.
func onBoth(t *testing.T, story func(t *testing.T, b objstore.Bucket)) {
	t.Run("mem", func(t *testing.T) { story(t, objstore.NewMem(nil)) })
	t.Run("file", func(t *testing.T) {
		b, err := objstore.Open(t.Context(), t.TempDir(), objstore.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		story(t, b)
	})
}

func create(t testing.TB, c *Catalog, name string) *Collection {
	t.Helper()
	col, err := c.CreateCollection(t.Context(), spec(name))
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	return col
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}

func wantClass(t testing.TB, err error, class errclass.Class, words ...string) {
	t.Helper()
	if err == nil || !errclass.Is(err, class) {
		t.Errorf("got %v (class %v), want class %v", err, errclass.Of(err), class)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error %q does not mention %q", err, w)
		}
	}
}

func names(t testing.TB, c *Catalog) []string {
	t.Helper()
	all, err := c.ListCollections(t.Context())
	must(t, err)
	var out []string
	for _, col := range all {
		out = append(out, col.Name)
	}
	return out
}

func keys(t testing.TB, b objstore.Bucket) []string {
	t.Helper()
	var out []string
	must(t, b.List(context.Background(), "", "", func(i objstore.Info) error { out = append(out, i.Key); return nil }))
	return out
}

func TestACollectionIsCreatedDescribedAndDropped(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		c := open(t, b)
		made := create(t, c, "movies")
		got, err := open(t, b).Collection(t.Context(), "movies")
		must(t, err)
		if got.ID != made.ID || got.Version != 1 || got.Format != 1 || got.CreatedTimestamp != 7 || len(got.Schema.Fields) != 3 {
			t.Errorf("got %+v", got)
		}
		if len(got.Partitions) != 1 || got.Partitions[0].Name != DefaultPartition || got.Partitions[0].ID == got.ID {
			t.Errorf("partitions %+v", got.Partitions)
		}
		if len(got.Indexes) != 2 || got.Indexes[0].Name != "plot_index" || got.Indexes[0].Type != IndexAuto || got.Indexes[0].Metric != MetricCosine || !got.Indexes[0].Default {
			t.Errorf("default indexes %+v", got.Indexes)
		}
		channels, err := c.ListChannels(t.Context(), got.ID)
		must(t, err)
		if len(channels) != 3 || channels[1].VChannel != got.VChannels[1].Name || channels[0].PChannel == channels[1].PChannel || channels[0].CollectionID != got.ID {
			t.Errorf("channels %+v", channels)
		}
		if byID, err := c.CollectionByID(t.Context(), got.ID); err != nil || byID.Name != "movies" {
			t.Errorf("by id: %+v, %v", byID, err)
		}
		create(t, c, "books")
		if got := names(t, c); !slices.Equal(got, []string{"books", "movies"}) {
			t.Errorf("listed %q", got)
		}

		dropped, err := c.DropCollection(t.Context(), "movies", 99)
		must(t, err)
		if dropped.DroppedTimestamp != 99 || dropped.Version != 2 {
			t.Errorf("dropped %+v", dropped)
		}
		_, err = c.Collection(t.Context(), "movies")
		wantClass(t, err, errclass.NotFound, "movies")
		_, err = c.CollectionByID(t.Context(), made.ID)
		wantClass(t, err, errclass.NotFound)
		_, err = c.ListChannels(t.Context(), made.ID)
		wantClass(t, err, errclass.NotFound)
		_, err = c.DropCollection(t.Context(), "movies", 100)
		wantClass(t, err, errclass.NotFound)
		if again := create(t, c, "movies"); again.ID == made.ID {
			t.Error("the id was used twice")
		}
	})
}

func TestCreatingAgainIsExistsAndTellsWhetherItIsTheSame(t *testing.T) {
	c := open(t, objstore.NewMem(nil))
	made := create(t, c, "movies")
	same, err := c.CreateCollection(t.Context(), spec("movies"))
	wantClass(t, err, errclass.Exists, "movies")
	if same == nil || same.ID != made.ID {
		t.Errorf("the equal collection was not returned: %+v", same)
	}
	other := spec("movies")
	other.Schema.Fields[1].Dim = 5
	got, err := c.CreateCollection(t.Context(), other)
	wantClass(t, err, errclass.Exists)
	if got != nil {
		t.Error("a collection with another schema was returned as equal")
	}
}

func TestWhatCannotWorkIsRefusedWithAllReasons(t *testing.T) {
	c := open(t, objstore.NewMem(nil))
	for _, x := range []struct {
		change func(*CollectionSpec)
		words  []string
	}{
		{func(s *CollectionSpec) { s.Name = "no good" }, []string{"no good"}},
		{func(s *CollectionSpec) { s.Shards, s.PChannels = 65, nil }, []string{"65 shards", "no pchannels"}},
		{func(s *CollectionSpec) { s.PChannels = []string{"../x"} }, []string{"../x"}},
		{func(s *CollectionSpec) { s.Schema.Fields = s.Schema.Fields[1:] }, []string{"primary key"}},
		{func(s *CollectionSpec) { s.Indexes = []Index{{FieldID: 999}} }, []string{"not in the schema"}},
		{func(s *CollectionSpec) {
			s.Indexes = []Index{{FieldID: 100, Type: "HNSW", Metric: "L2", Params: map[string]string{"M": "8"}}}
		}, []string{`type "HNSW", want one of INVERTED, BITMAP, AUTOINDEX, STL_SORT for a field of type Int64`, `metric "L2"`, "parameters"}},
		{func(s *CollectionSpec) { s.Indexes = []Index{{FieldID: 101, Type: "IVF", Metric: "HAMMING"}} }, []string{"IVF", "HAMMING"}},
		{func(s *CollectionSpec) {
			s.Indexes = []Index{{FieldID: 101, Type: IndexHNSW, Params: map[string]string{"M": "1", "ef": "3"}}}
		}, []string{"M is", "ef"}},
		{func(s *CollectionSpec) { s.Indexes = []Index{{FieldID: 101}, {FieldID: 101, Name: "b"}} }, []string{"another index"}},
		{func(s *CollectionSpec) {
			s.Properties = map[string]string{"k": strings.Repeat("x", MaxPropertyBytes+1)}
		}, []string{"4097 bytes"}},
	} {
		s := spec("movies")
		x.change(&s)
		_, err := c.CreateCollection(t.Context(), s)
		wantClass(t, err, errclass.Invalid, x.words...)
	}
	_, err := c.AllocateIDs(t.Context(), 0)
	wantClass(t, err, errclass.Invalid)
	_, err = c.DropCollection(t.Context(), "movies", 0)
	wantClass(t, err, errclass.Invalid)
	_, err = Open(t.Context(), Options{CallTimeout: time.Minute, SweepAge: time.Second, MaxTries: -1})
	wantClass(t, err, errclass.Invalid, "bucket", "sweep age", "-1 tries")
	if n := c.o.Bucket.(*objstore.Mem).Len(); n != 0 {
		t.Errorf("%d objects were written", n)
	}
}

func TestIDsAreNeverDouble(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		var mu sync.Mutex
		seen := map[int64]bool{}
		var wg sync.WaitGroup
		for p := range 3 { // three processes
			c := open(t, b)
			c.o.IDBlock = 7
			for range 3 {
				wg.Go(func() {
					for i := range 12 {
						n := 1 + (i*5+p)%9
						first, err := c.AllocateIDs(context.Background(), n)
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						for id := first; id < first+int64(n); id++ {
							if seen[id] || id < 1 {
								t.Errorf("id %d was given twice", id)
							}
							seen[id] = true
						}
						mu.Unlock()
					}
				})
			}
		}
		wg.Wait()
	})
}

func TestIDsComeInBlocks(t *testing.T) {
	puts := 0
	c := open(t, objstore.NewMem(func(call objstore.Call) objstore.Fault {
		if call.Op == objstore.OpPut {
			puts++
		}
		return objstore.Fault{}
	}))
	for range 900 {
		_, err := c.AllocateIDs(t.Context(), 1)
		must(t, err)
	}
	if puts != 2 { // the counter is made, then moved
		t.Errorf("900 ids took %d puts", puts)
	}
	first, err := c.AllocateIDs(t.Context(), 5000)
	must(t, err)
	next, err := c.AllocateIDs(t.Context(), 1)
	must(t, err)
	if next < first+5000 {
		t.Errorf("%d was given after [%d, +5000)", next, first)
	}
}

func TestALostCounterIsNotStartedAgain(t *testing.T) {
	b := objstore.NewMem(nil)
	create(t, open(t, b), "movies")
	must(t, b.Delete(t.Context(), "catalog/ids.json"))
	_, err := open(t, b).AllocateIDs(t.Context(), 1)
	wantClass(t, err, errclass.Corrupt, "catalog/ids.json")
}

func TestPartitions(t *testing.T) {
	c := open(t, objstore.NewMem(nil))
	create(t, c, "movies")
	made, err := c.CreatePartition(t.Context(), "movies", "y2024", 8)
	must(t, err)
	again, err := c.CreatePartition(t.Context(), "movies", "y2024", 9)
	wantClass(t, err, errclass.Exists)
	if again != made {
		t.Errorf("the partition that is there: got %+v, want %+v", again, made)
	}
	_, err = c.CreatePartition(t.Context(), "movies", "no good", 9)
	wantClass(t, err, errclass.Invalid)
	_, err = c.CreatePartition(t.Context(), "none", "p", 9)
	wantClass(t, err, errclass.NotFound, "none")
	_, err = c.DropPartition(t.Context(), "movies", DefaultPartition)
	wantClass(t, err, errclass.Invalid)
	gone, err := c.DropPartition(t.Context(), "movies", "y2024")
	must(t, err)
	if gone != made {
		t.Errorf("dropped %+v, want %+v", gone, made)
	}
	_, err = c.DropPartition(t.Context(), "movies", "y2024")
	wantClass(t, err, errclass.NotFound, "_default")
}

func TestIndexes(t *testing.T) {
	c := open(t, objstore.NewMem(nil))
	create(t, c, "movies")
	hnsw := Index{FieldID: 101, Name: "fast", Type: IndexHNSW, Metric: MetricIP, Params: map[string]string{"M": "32"}}
	made, err := c.CreateIndex(t.Context(), "movies", hnsw) // replaces the default
	must(t, err)
	again, err := c.CreateIndex(t.Context(), "movies", hnsw)
	must(t, err)
	if made.Name != "fast" || again.Name != "fast" || made.Default {
		t.Errorf("%+v, %+v", made, again)
	}
	col, err := c.Collection(t.Context(), "movies")
	must(t, err)
	if x, ok := col.IndexOf(101); !ok || !sameIndex(x, made) || len(col.Indexes) != 2 {
		t.Errorf("indexes %+v", col.Indexes)
	}
	hnsw.Metric = MetricL2
	_, err = c.CreateIndex(t.Context(), "movies", hnsw)
	wantClass(t, err, errclass.Exists, "fast", "drop it")
	_, err = c.CreateIndex(t.Context(), "movies", Index{FieldID: 102, Name: "fast"})
	wantClass(t, err, errclass.Exists, "another field")
	_, err = c.CreateIndex(t.Context(), "movies", Index{FieldID: 101, Type: IndexFlat, Params: map[string]string{"M": "32"}})
	wantClass(t, err, errclass.Invalid, "FLAT")
	must(t, c.DropIndex(t.Context(), "movies", "fast"))
	wantClass(t, c.DropIndex(t.Context(), "movies", "fast"), errclass.NotFound)
}

func TestProperties(t *testing.T) {
	c := open(t, objstore.NewMem(nil))
	create(t, c, "movies")
	_, err := c.AlterProperties(t.Context(), "movies", map[string]string{"ttl": "60", "owner": "me"})
	must(t, err)
	col, err := c.AlterProperties(t.Context(), "movies", map[string]string{"ttl": "", "none": ""})
	must(t, err)
	if !maps.Equal(col.Properties, map[string]string{"owner": "me"}) {
		t.Errorf("properties %v", col.Properties)
	}
	version := col.Version
	col, err = c.AlterProperties(t.Context(), "movies", map[string]string{"owner": "me"})
	must(t, err)
	if col.Version != version {
		t.Error("a change that changes nothing was written")
	}
}

func TestTermsOnlyGrow(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		var mu sync.Mutex
		owner := map[uint64]string{}
		var wg sync.WaitGroup
		for p := range 4 {
			c, me := open(t, b), fmt.Sprint("node-", p)
			wg.Go(func() {
				last := uint64(0)
				for range 5 {
					term, err := c.NextTerm(context.Background(), "dml-0", me)
					if err != nil || term <= last {
						t.Errorf("term %d after %d: %v", term, last, err)
					}
					last = term
					mu.Lock()
					if owner[term] != "" {
						t.Errorf("term %d was given to %s and %s", term, owner[term], me)
					}
					owner[term] = me
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		p, err := open(t, b).PChannel(t.Context(), "dml-0")
		must(t, err)
		if p.Term != 20 || p.Owner != owner[20] {
			t.Errorf("%+v, want term 20 of %s", p, owner[20])
		}
	})
	_, err := open(t, objstore.NewMem(nil)).NextTerm(t.Context(), "a/b", "me")
	wantClass(t, err, errclass.Invalid)
}

func TestAHalfReadableCatalogIsListedAndReported(t *testing.T) {
	b := objstore.NewMem(nil)
	c := open(t, b)
	create(t, c, "good")
	bad := create(t, c, "bad")
	putRaw(t, b, c.collectionKey(bad.ID), "{")
	all, err := c.ListCollections(t.Context())
	wantClass(t, err, errclass.Corrupt, c.collectionKey(bad.ID))
	if len(all) != 1 || all[0].Name != "good" {
		t.Errorf("listed %+v", all)
	}
}

func putRaw(t testing.TB, b objstore.Bucket, key, content string) {
	t.Helper()
	_, err := b.Put(t.Context(), key, strings.NewReader(content), int64(len(content)), objstore.PutOptions{})
	must(t, err)
}
