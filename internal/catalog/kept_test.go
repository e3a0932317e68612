package catalog

import (
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
)

// counted is a bucket that counts the objects that are read.
func counted() (b *objstore.Mem, gets *atomic.Int64) {
	gets = &atomic.Int64{}
	return objstore.NewMem(func(c objstore.Call) objstore.Fault {
		if c.Op == objstore.OpGet {
			gets.Add(1)
		}
		return objstore.Fault{}
	}), gets
}

// TestWhatHasNotChangedIsNotReadAgain: a list costs listings, and the reads of what
// others have changed.
func TestWhatHasNotChangedIsNotReadAgain(t *testing.T) {
	b, gets := counted()
	mine, other := open(t, b), open(t, b)
	for i := range 10 {
		create(t, other, fmt.Sprintf("films_%d", i))
	}
	list := func() []*Collection {
		t.Helper()
		all, err := mine.ListCollections(t.Context())
		if err != nil || len(all) != 10 {
			t.Fatalf("%d collections, %v", len(all), err)
		}
		return all
	}
	list()
	gets.Store(0)
	list()
	if n := gets.Load(); n != 0 {
		t.Errorf("%d reads, though nothing has changed", n)
	}
	if _, err := other.AlterProperties(t.Context(), "films_3", map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	gets.Store(0)
	if got := list()[3].Properties["a"]; got != "b" {
		t.Errorf("what another process changed is not seen: %q", got)
	}
	if n := gets.Load(); n != 2 { // the manifest and its name
		t.Errorf("%d reads of one collection that has changed", n)
	}
	// What was written here is not read either.
	if _, err := mine.AlterProperties(t.Context(), "films_4", map[string]string{"a": "c"}); err != nil {
		t.Fatal(err)
	}
	gets.Store(0)
	if got := list()[4].Properties["a"]; got != "c" || gets.Load() != 0 {
		t.Errorf("%q after %d reads", got, gets.Load())
	}
}

// TestDropsAndNewOnesAreSeenAtOnce, whatever is kept.
func TestDropsAndNewOnesAreSeenAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		mine, other := open(t, b), open(t, b)
		names := func() string {
			all, err := mine.ListCollections(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, c := range all {
				out = append(out, c.Name)
			}
			return strings.Join(out, " ")
		}
		old := create(t, other, "a")
		create(t, other, "b")
		if got := names(); got != "a b" {
			t.Fatal(got)
		}
		if _, err := other.RenameCollection(t.Context(), "b", "c"); err != nil {
			t.Fatal(err)
		}
		if got := names(); got != "a c" {
			t.Fatal(got)
		}
		if _, err := other.DropCollection(t.Context(), "a", 9); err != nil {
			t.Fatal(err)
		}
		if got := names(); got != "c" {
			t.Fatal(got)
		}
		if _, err := mine.CollectionByID(t.Context(), old.ID); !errclass.Is(err, errclass.NotFound) {
			t.Fatal(err)
		}
		create(t, other, "a") // the name leads elsewhere
		if got := names(); got != "a c" {
			t.Fatal(got)
		}
		if _, err := mine.CollectionByID(t.Context(), old.ID); !errclass.Is(err, errclass.NotFound) {
			t.Fatal(err)
		}
	})
}

// TestACollectionThatIsRenamedMeanwhileIsListed: between the reads of its manifest and
// of its name.
func TestACollectionThatIsRenamedMeanwhileIsListed(t *testing.T) {
	b := objstore.NewMem(nil)
	other := open(t, b)
	create(t, other, "a")
	mine := open(t, b)
	b.SetHook(func(c objstore.Call) objstore.Fault {
		if c.Op == objstore.OpGet && c.Key == mine.nameKey("a") {
			b.SetHook(nil)
			if _, err := other.RenameCollection(t.Context(), "a", "b"); err != nil {
				t.Error(err)
			}
		}
		return objstore.Fault{}
	})
	all, err := mine.ListCollections(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "b" {
		t.Fatalf("%v, %v", all, err)
	}
}

// TestWhatIsReturnedBelongsToTheCaller: nobody else sees what is done to it.
func TestWhatIsReturnedBelongsToTheCaller(t *testing.T) {
	b := objstore.NewMem(nil)
	c := open(t, b)
	col := create(t, c, "films")
	if _, err := c.AlterProperties(t.Context(), "films", map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	v := col.VChannels[0].Name
	putRaw(t, b, "segments/1/7/manifest.json", "x")
	if _, err := c.CommitFlush(t.Context(), v, FlushCommit{Term: 1, AddSegments: []Segment{{ID: 7, CollectionID: col.ID, PartitionID: 1, VChannel: v, Path: "segments/1/7"}}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := c.Collection(t.Context(), "films")
		if err != nil || got.Properties["a"] != "b" || got.Schema.Fields[0].Name != "id" || got.Partitions[0].Name != DefaultPartition {
			t.Fatalf("%+v, %v", got, err)
		}
		all, err := c.ListCollections(t.Context())
		if err != nil || !reflect.DeepEqual(all[0], got) {
			t.Fatalf("%+v, %v", all, err)
		}
		ch, err := c.Channel(t.Context(), v)
		if err != nil || ch.Segments[0].ID != 7 {
			t.Fatalf("%+v, %v", ch, err)
		}
		for _, x := range []*Collection{got, all[0]} {
			x.Properties["a"], x.Schema.Fields[0].Name, x.Partitions[0].Name, x.VChannels[0].Name = "x", "x", "x", "x"
		}
		ch.Segments[0].ID = 8
	}
}

// TestCopiesShareNothing that can be changed: one for each kind of manifest that is
// kept, with all its fields set. A field that is added to a type is seen here.
func TestCopiesShareNothing(t *testing.T) {
	for _, m := range []copier{&Collection{}, &Channel{}, &nameEntry{}} {
		fill(t, reflect.ValueOf(m).Elem())
		out := m.copied()
		if !reflect.DeepEqual(m, out) {
			t.Errorf("%+v became %+v", m, out)
		}
		apart(t, fmt.Sprintf("%T", m), reflect.ValueOf(m), reflect.ValueOf(out))
	}
}

// fill sets everything below v.
func fill(t *testing.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k"), reflect.ValueOf("v"))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(1)
	default:
		t.Fatalf("the test does not know %s", v.Type())
	}
}

// apart reports what a and b share.
func apart(t *testing.T, name string, a, b reflect.Value) {
	switch a.Kind() {
	case reflect.Struct:
		for i := range a.NumField() {
			apart(t, name+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
		}
		return
	case reflect.Pointer, reflect.Map, reflect.Slice:
	default:
		return
	}
	if a.Pointer() == b.Pointer() {
		t.Errorf("%s is shared", name)
	}
	switch a.Kind() {
	case reflect.Pointer:
		apart(t, name, a.Elem(), b.Elem())
	case reflect.Slice:
		apart(t, name+"[0]", a.Index(0), b.Index(0))
	}
}

// TestWhatIsKeptIsBounded.
func TestWhatIsKeptIsBounded(t *testing.T) {
	var k kept
	k.put("large", keptManifest{etag: "1", m: &Channel{}, bytes: keptLargest + 1})
	if _, ok := k.get("large", "1"); ok {
		t.Error("one that is too large is kept")
	}
	for i := range 100 {
		k.put(fmt.Sprint(i), keptManifest{etag: "1", m: &Channel{}, bytes: keptLargest})
		k.put(fmt.Sprint(i), keptManifest{etag: "2", m: &Channel{}, bytes: keptLargest})
	}
	if n := int64(len(k.mu.of)); k.mu.bytes > keptBytes || k.mu.bytes != n*keptLargest || n < 2 {
		t.Errorf("%d manifests of %d bytes", n, k.mu.bytes)
	}
	for key := range k.mu.of {
		k.drop(key)
	}
	if k.mu.bytes != 0 {
		t.Errorf("%d bytes of nothing", k.mu.bytes)
	}
}

// TestManifestsWithoutETagsAreNotKept: they could be any version.
func TestManifestsWithoutETagsAreNotKept(t *testing.T) {
	var k kept
	k.put("a", keptManifest{m: &Channel{}, bytes: 1})
	if m := keptOf[Channel](&k, "a", ""); m != nil || k.mu.bytes != 0 {
		t.Error("kept")
	}
}

// TestCheckpointsAreThoseOfLiveCollections on that pchannel, and of no other that
// is called nearly so.
func TestCheckpointsAreThoseOfLiveCollections(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		mine, other := open(t, b), open(t, b)
		at := func(pchannel string) string {
			t.Helper()
			all, err := mine.Checkpoints(t.Context(), pchannel)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, c := range all {
				out = append(out, fmt.Sprintf("%s@%s", c.VChannel, c.Position))
			}
			return strings.Join(out, " ")
		}
		make := func(name, pchannel string) string {
			t.Helper()
			col, err := other.CreateCollection(t.Context(), CollectionSpec{Name: name, Schema: schema.Schema{Version: 1, Fields: movies().Fields}, Shards: 1, PChannels: []string{pchannel}})
			if err != nil {
				t.Fatal(err)
			}
			return col.VChannels[0].Name
		}
		if got := at("p"); got != "" {
			t.Fatal(got)
		}
		x, y := make("x", "p"), make("y", "p")
		z := make("z", "p_1")
		if got := at("p"); got != x+"@ "+y+"@" {
			t.Fatal(got)
		}
		if _, err := other.CommitFlush(t.Context(), y, FlushCommit{Term: 1, Checkpoint: "5", CheckpointTimestamp: 5}); err != nil {
			t.Fatal(err)
		}
		if got := at("p"); got != x+"@ "+y+"@5" {
			t.Fatal(got)
		}
		if got := at("p_1"); got != z+"@" {
			t.Fatal(got)
		}
		if _, err := other.DropCollection(t.Context(), "x", 9); err != nil {
			t.Fatal(err)
		}
		if got := at("p"); got != y+"@5" {
			t.Fatal(got)
		}
	})
}

// TestACollectionThatComesMeanwhileHoldsTheTopic: its first row may be older than
// the checkpoints that are read after it was made.
func TestACollectionThatComesMeanwhileHoldsTheTopic(t *testing.T) {
	b := objstore.NewMem(nil)
	mine, other := open(t, b), open(t, b)
	create := func(name string) string {
		col, err := other.CreateCollection(t.Context(), CollectionSpec{Name: name, Schema: movies(), Shards: 1, PChannels: []string{"p"}})
		if err != nil {
			t.Fatal(err)
		}
		return col.VChannels[0].Name
	}
	x := create("x")
	for i, step := range []objstore.Call{{Op: objstore.OpList, Key: "catalog/channels/p_"}, {Op: objstore.OpGet, Key: mine.channelKey(x)}, {Op: objstore.OpList, Key: "catalog/collections/"}} {
		y := ""
		if _, err := other.CommitFlush(t.Context(), x, FlushCommit{Term: 1, Checkpoint: "5", CheckpointTimestamp: uint64(2*i + 1)}); err != nil {
			t.Fatal(err)
		}
		b.SetHook(func(c objstore.Call) objstore.Fault {
			if c == step && y == "" {
				b.SetHook(nil)
				y = create(fmt.Sprintf("y%d", i))
				if _, err := other.CommitFlush(t.Context(), x, FlushCommit{Term: 1, Checkpoint: "7", CheckpointTimestamp: uint64(2*i + 2)}); err != nil {
					t.Error(err)
				}
			}
			return objstore.Fault{}
		})
		all, err := mine.Checkpoints(t.Context(), "p")
		if err != nil || y == "" {
			t.Fatalf("%q, %v", y, err)
		}
		there := false
		for _, c := range all {
			there = there || c.VChannel == y
		}
		if !there {
			t.Errorf("%v: %s is missing in %v", step, y, all)
		}
	}
}
