package catalog

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// TestBadManifestsAreNamed puts something else in the place of each manifest.
func TestBadManifestsAreNamed(t *testing.T) {
	b := objstore.NewMem(nil)
	c := open(t, b)
	col := create(t, c, "movies")
	_, err := c.NextTerm(t.Context(), "dml-0", "me")
	must(t, err)
	v := col.VChannels[0].Name
	for key, read := range map[string]func() error{
		c.idsKey():              func() error { _, err := Open(t.Context(), c.o); return err },
		c.nameKey("movies"):     func() error { _, err := c.Collection(t.Context(), "movies"); return err },
		c.collectionKey(col.ID): func() error { _, err := c.CollectionByID(t.Context(), col.ID); return err },
		c.channelKey(v):         func() error { _, err := c.Channel(t.Context(), v); return err },
		c.pchannelKey("dml-0"):  func() error { _, err := c.PChannel(t.Context(), "dml-0"); return err },
	} {
		good, err := objstore.ReadAll(t.Context(), b, key, 1<<20)
		must(t, err)
		must(t, read())
		for name, x := range map[string]struct {
			content string
			class   errclass.Class
		}{
			"empty":              {"", errclass.Corrupt},
			"cut":                {string(good[:len(good)/2]), errclass.Corrupt},
			"not JSON":           {"hello", errclass.Corrupt},
			"another type":       {"[1]", errclass.Corrupt},
			"a second value":     {string(good) + "{}", errclass.Corrupt},
			"an unknown field":   {strings.Replace(string(good), "{", `{"surprise": 1,`, 1), errclass.Corrupt},
			"no version":         {strings.Replace(string(good), `"version": `, `"version": 0, "version_was": `, 1), errclass.Corrupt},
			"format 6":           {strings.Replace(string(good), `"format": 1`, `"format": 6, "surprise": [1]`, 1), errclass.Unimplemented},
			"format 0":           {strings.Replace(string(good), `"format": 1`, `"format": 0`, 1), errclass.Corrupt},
			"nothing but a head": {`{"format": 1, "version": 1}`, errclass.Corrupt},
			"too large":          {string(good) + strings.Repeat(" ", maxSmallManifest), errclass.Corrupt},
		} {
			if name == "too large" && (key == c.collectionKey(col.ID) || key == c.channelKey(v)) {
				continue // their limits are megabytes; the path is the same
			}
			putRaw(t, b, key, x.content)
			err := read()
			if !errclass.Is(err, x.class) || !strings.Contains(err.Error(), key) {
				t.Errorf("%s: %s: %v (class %v), want class %v and the key", key, name, err, errclass.Of(err), x.class)
			}
			if name == "format 6" && !strings.Contains(err.Error(), "format 6") {
				t.Errorf("%s: the error does not name the format: %v", key, err)
			}
		}
		putRaw(t, b, key, string(good))
		must(t, read())
	}
}

func TestAManifestOfAnotherIsNotTaken(t *testing.T) {
	b := objstore.NewMem(nil)
	c := open(t, b)
	one, two := create(t, c, "one"), create(t, c, "two")
	copyTo := func(from, to string) {
		data, err := objstore.ReadAll(t.Context(), b, from, 1<<20)
		must(t, err)
		putRaw(t, b, to, string(data))
	}
	copyTo(c.channelKey(one.VChannels[0].Name), c.channelKey(two.VChannels[0].Name))
	_, err := c.Channel(t.Context(), two.VChannels[0].Name)
	wantClass(t, err, errclass.Corrupt, two.VChannels[0].Name)
	_, err = c.CommitFlush(t.Context(), two.VChannels[0].Name, FlushCommit{})
	wantClass(t, err, errclass.Corrupt)
	copyTo(c.collectionKey(one.ID), c.collectionKey(two.ID))
	_, err = c.Collection(t.Context(), "two")
	wantClass(t, err, errclass.Corrupt)
	copyTo(c.nameKey("one"), c.nameKey("two"))
	_, err = c.Collection(t.Context(), "two")
	wantClass(t, err, errclass.Corrupt)
	_, err = c.Sweep(t.Context())
	wantClass(t, err, errclass.Corrupt, c.collectionKey(two.ID)) // reported, and left alone
	if _, err := b.Head(t.Context(), c.collectionKey(two.ID)); err != nil {
		t.Error(err)
	}
}

// FuzzManifest feeds every decoder. What it accepts it must write and read back
// the same.
func FuzzManifest(f *testing.F) {
	b := objstore.NewMem(nil)
	c := open(f, b)
	col := create(f, c, "movies")
	must(f, c.CreateAlias(f.Context(), "movies", "nick"))
	_, err := c.CommitFlush(f.Context(), col.VChannels[0].Name, FlushCommit{Term: 1, AddSegments: []Segment{segment(col, 0, 5)}, AddDeltas: []Delta{delta(1)}})
	must(f, err)
	_, err = c.NextTerm(f.Context(), "dml-0", "me")
	must(f, err)
	must(f, b.List(f.Context(), "", "", func(i objstore.Info) error {
		data, err := objstore.ReadAll(f.Context(), b, i.Key, 1<<20)
		f.Add(data)
		return err
	}))
	f.Add([]byte(`{"format":2,"version":1}`))
	f.Add([]byte(`{"format":1,"version":1,"next":9223372036854775807}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzOne[idCounter](t, data)
		fuzzOne[nameEntry](t, data)
		fuzzOne[Collection](t, data)
		fuzzOne[Channel](t, data)
		fuzzOne[PChannel](t, data)
	})
}

func fuzzOne[T any, M interface {
	*T
	manifest
}](t *testing.T, data []byte) {
	t.Helper()
	m, err := decode[T, M]("some/key.json", data)
	if err != nil {
		if class := errclass.Of(err); class != errclass.Corrupt && class != errclass.Unimplemented {
			t.Fatalf("class %v: %v", class, err)
		}
		return
	}
	out, err := encode("some/key.json", m, maxChannelBytes)
	if err != nil {
		t.Fatalf("what was read cannot be written: %v", err)
	}
	again, err := decode[T, M]("some/key.json", out)
	if err != nil {
		t.Fatalf("what was written cannot be read: %v\n%s", err, out)
	}
	// nil and empty are the same to everyone; compare what they are on disk.
	a, _ := json.Marshal(m)
	b, _ := json.Marshal(again)
	if !reflect.DeepEqual(a, b) {
		t.Fatalf("read back differently:\n%s\n%s", a, b)
	}
}
