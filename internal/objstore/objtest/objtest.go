// Package objtest is the conformance suite of objstore.Bucket: every
// implementation passes Run, and users may rely on nothing else.
package objtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// Run runs the suite. open returns an empty bucket for each call; the suite
// closes it.
func Run(t *testing.T, open func(t *testing.T) objstore.Bucket) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"what is put is got, described and deleted", putGetHeadDelete},
		{"an empty object is an object", emptyObject},
		{"ranges are cut at the end", ranges},
		{"an overwrite replaces the whole object and its ETag", overwrite},
		{"a big object survives", bigObject},
		{"what is absent is NotFound", absent},
		{"bad keys are refused", badKeys},
		{"a source of the wrong size stores nothing", wrongSize},
		{"a source that fails stores nothing", failingSource},
		{"IfNoneMatch puts only what is absent", ifNoneMatch},
		{"IfMatch puts only over the version named", ifMatch},
		{"of many IfNoneMatch puts one wins", raceIfNoneMatch},
		{"a counter by IfMatch loses no step", raceIfMatch},
		{"a list is complete and in key order", listOrder},
		{"a list of more than a page starts anywhere", listPages},
		{"a list stops with the error of its function", listStops},
		{"a context that has ended stops every call", cancelled},
		{"a context that ends stops a put and a read", cancelMidway},
		{"a reader may be closed early and twice", closeEarly},
		{"close refuses, cuts and is idempotent", closing},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			b := open(t)
			c.run(t, &suite{ctx: ctx, b: b})
			if err := b.Close(ctx); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

type suite struct {
	ctx context.Context
	b   objstore.Bucket
}

func (s *suite) put(t *testing.T, key, content string, o objstore.PutOptions) objstore.Info {
	t.Helper()
	info, err := s.b.Put(s.ctx, key, strings.NewReader(content), int64(len(content)), o)
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return info
}

func (s *suite) get(t *testing.T, key string, offset, length int64) string {
	t.Helper()
	r, err := s.b.Get(s.ctx, key, offset, length)
	if err != nil {
		t.Fatalf("get %s [%d,+%d]: %v", key, offset, length, err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %s [%d,+%d]: %v", key, offset, length, err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("close %s: %v", key, err)
	}
	return string(data)
}

func (s *suite) wantAbsent(t *testing.T, key string) {
	t.Helper()
	if _, err := s.b.Head(s.ctx, key); !errclass.Is(err, errclass.NotFound) {
		t.Errorf("head %s: got %v (%v), want not found", key, err, errclass.Of(err))
	}
}

func (s *suite) keys(t *testing.T, prefix, startAfter string) []string {
	t.Helper()
	var keys []string
	if err := s.b.List(s.ctx, prefix, startAfter, func(i objstore.Info) error {
		keys = append(keys, i.Key)
		return nil
	}); err != nil {
		t.Fatalf("list %q after %q: %v", prefix, startAfter, err)
	}
	return keys
}

func putGetHeadDelete(t *testing.T, s *suite) {
	const key, content = "segments/42/manifest.json", `{"rows":1}`
	before := time.Now().Add(-time.Minute)
	put := s.put(t, key, content, objstore.PutOptions{})
	if got := s.get(t, key, 0, -1); got != content {
		t.Errorf("got %q, put %q", got, content)
	}
	head, err := s.b.Head(s.ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if head.Key != key || head.Size != int64(len(content)) || head.ETag == "" || head.ModTime.Before(before) {
		t.Errorf("head: %+v", head)
	}
	if put.Key != key || put.Size != head.Size || put.ETag != head.ETag {
		t.Errorf("put said %+v, head says %+v", put, head)
	}
	data, info, err := objstore.ReadVersion(s.ctx, s.b, key, 1<<10)
	if err != nil || string(data) != content || info.ETag != head.ETag || info.Size != head.Size || info.Key != key {
		t.Errorf("ReadVersion: %q, %+v, %v", data, info, err)
	}
	if _, err := objstore.ReadAll(s.ctx, s.b, key, int64(len(content))-1); !errclass.Is(err, errclass.Exhausted) {
		t.Errorf("ReadAll over its limit: %v", err)
	}
	for range 2 { // the second one finds nothing, which is no error
		if err := s.b.Delete(s.ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	s.wantAbsent(t, key)
	if keys := s.keys(t, "", ""); len(keys) != 0 {
		t.Errorf("still listed: %q", keys)
	}
}

func emptyObject(t *testing.T, s *suite) {
	s.put(t, "empty", "", objstore.PutOptions{})
	for _, r := range [][2]int64{{0, -1}, {0, 0}, {0, 5}, {3, -1}, {3, 2}} {
		if got := s.get(t, "empty", r[0], r[1]); got != "" {
			t.Errorf("range %v: %q", r, got)
		}
	}
	if head, err := s.b.Head(s.ctx, "empty"); err != nil || head.Size != 0 {
		t.Errorf("head: %+v, %v", head, err)
	}
}

func ranges(t *testing.T, s *suite) {
	const content = "0123456789"
	s.put(t, "digits", content, objstore.PutOptions{})
	for _, c := range []struct {
		offset, length int64
		want           string
	}{
		{0, -1, content},
		{0, 10, content},
		{0, 1, "0"},
		{0, 0, ""},
		{3, 4, "3456"},
		{3, -1, "3456789"},
		{9, 1, "9"},
		{8, 100, "89"},
		{0, 1 << 62, content},
		{10, -1, ""},
		{10, 5, ""},
		{1000, -1, ""},
		{1000, 5, ""},
	} {
		r, err := s.b.Get(s.ctx, "digits", c.offset, c.length)
		if err != nil {
			t.Errorf("[%d,+%d]: %v", c.offset, c.length, err)
			continue
		}
		data, err := io.ReadAll(r)
		if string(data) != c.want || err != nil {
			t.Errorf("[%d,+%d]: got %q, %v, want %q", c.offset, c.length, data, err, c.want)
		}
		if info, ok := objstore.InfoOf(r); ok && info.Size != 10 {
			t.Errorf("[%d,+%d]: the object has 10 bytes, the reader says %d", c.offset, c.length, info.Size)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.b.Get(s.ctx, "digits", -1, 2); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("a negative offset: %v", err)
	}
}

func overwrite(t *testing.T, s *suite) {
	first := s.put(t, "k", "a long first version", objstore.PutOptions{})
	open, err := s.b.Get(s.ctx, "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	second := s.put(t, "k", "short", objstore.PutOptions{})
	if first.ETag == second.ETag {
		t.Error("the ETag did not change")
	}
	if got := s.get(t, "k", 0, -1); got != "short" {
		t.Errorf("got %q", got)
	}
	data, err := io.ReadAll(open)
	if err == nil && string(data) != "a long first version" {
		t.Errorf("a reader of the first version saw %q", data)
	}
	if err := open.Close(); err != nil {
		t.Error(err)
	}
}

func bigObject(t *testing.T, s *suite) {
	data := make([]byte, 20<<20+7)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(data)
	info, err := s.b.Put(s.ctx, "big/data.npy", bytes.NewReader(data), int64(len(data)), objstore.PutOptions{IfNoneMatch: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.b.Put(s.ctx, "big/data.npy", bytes.NewReader(data), int64(len(data)), objstore.PutOptions{IfNoneMatch: true}); !errors.Is(err, objstore.ErrPrecondition) {
		t.Errorf("IfNoneMatch over a big object: %v", err)
	}
	head, err := s.b.Head(s.ctx, "big/data.npy")
	if err != nil || head.Size != int64(len(data)) || info.Size != head.Size {
		t.Fatalf("head: %+v, %v; put said %+v", head, err, info)
	}
	if got := s.get(t, "big/data.npy", 0, -1); got != string(data) {
		t.Error("the object came back different")
	}
	for _, r := range [][2]int64{{8<<20 - 3, 6}, {20 << 20, 100}, {123_456, 3 << 20}} {
		want := data[r[0]:min(r[0]+r[1], int64(len(data)))]
		if got := s.get(t, "big/data.npy", r[0], r[1]); got != string(want) {
			t.Errorf("range %v came back different", r)
		}
	}
}

func absent(t *testing.T, s *suite) {
	s.put(t, "a/b/c", "x", objstore.PutOptions{})
	for _, key := range []string{"nothing", "a", "a/b", "a/b/c/d", "a/bb"} {
		for _, r := range [][2]int64{{0, -1}, {0, 0}, {5, 5}} {
			if _, err := s.b.Get(s.ctx, key, r[0], r[1]); !errclass.Is(err, errclass.NotFound) {
				t.Errorf("get %s %v: %v (%v), want not found", key, r, err, errclass.Of(err))
			}
		}
		s.wantAbsent(t, key)
		if err := s.b.Delete(s.ctx, key); err != nil {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	if got := s.get(t, "a/b/c", 0, -1); got != "x" {
		t.Errorf("deleting its neighbours changed the object: %q", got)
	}
}

func badKeys(t *testing.T, s *suite) {
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".tmp/a", "a/.b", "a\\b", "a\x00b", "a\nb",
		"\xff", strings.Repeat("a", 256), strings.Repeat("ab/", 400) + "c",
	} {
		_, getErr := s.b.Get(s.ctx, key, 0, -1)
		_, headErr := s.b.Head(s.ctx, key)
		_, putErr := s.b.Put(s.ctx, key, strings.NewReader("x"), 1, objstore.PutOptions{})
		for op, err := range map[string]error{"get": getErr, "head": headErr, "put": putErr, "delete": s.b.Delete(s.ctx, key)} {
			if !errclass.Is(err, errclass.Invalid) {
				t.Errorf("%s %q: %v, want an error of class invalid", op, key, err)
			}
		}
	}
	for _, prefix := range []string{"/", "../", "a//", "a/.tmp", ".tmp"} {
		if err := s.b.List(s.ctx, prefix, "", func(objstore.Info) error { return nil }); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("list %q: %v, want an error of class invalid", prefix, err)
		}
	}
	if _, err := s.b.Put(s.ctx, "k", strings.NewReader("x"), 1, objstore.PutOptions{IfNoneMatch: true, IfMatch: "e"}); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("both conditions: %v", err)
	}
	long := strings.Repeat("é", 100) + "/" + strings.Repeat("b", 255)
	s.put(t, long, "fits", objstore.PutOptions{})
	if got := s.get(t, long, 0, -1); got != "fits" {
		t.Errorf("the longest part: %q", got)
	}
}

func wrongSize(t *testing.T, s *suite) {
	for _, c := range []struct{ have, say int }{{5, 4}, {5, 6}, {0, 1}, {1, 0}, {5, -1}, {9 << 20, 9<<20 + 1}, {9<<20 + 1, 9 << 20}} {
		_, err := s.b.Put(s.ctx, "k", bytes.NewReader(make([]byte, c.have)), int64(c.say), objstore.PutOptions{})
		if !errclass.Is(err, errclass.Invalid) {
			t.Errorf("%d bytes announced as %d: %v (%v), want class invalid", c.have, c.say, err, errclass.Of(err))
		}
		s.wantAbsent(t, "k")
	}
	if keys := s.keys(t, "", ""); len(keys) != 0 {
		t.Errorf("listed: %q", keys)
	}
}

func failingSource(t *testing.T, s *suite) {
	boom := errors.New("the disk of the source broke")
	for _, n := range []int{0, 3, 9 << 20} {
		src := io.MultiReader(bytes.NewReader(make([]byte, n)), readerFunc(func([]byte) (int, error) { return 0, boom }))
		if _, err := s.b.Put(s.ctx, "k", src, 10<<20, objstore.PutOptions{}); !errors.Is(err, boom) {
			t.Errorf("after %d bytes: %v", n, err)
		}
		s.wantAbsent(t, "k")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func listOrder(t *testing.T, s *suite) {
	// In this order by bytes: '-' < '.' < '/' < '0' < 'Z' < 'a' < 'é'.
	keys := []string{"a-b", "a.b", "a/b", "a/b-c/d", "a/b/c", "a0", "aZ", "aa", "aé", "b/x", "b/y/z"}
	// The file bucket cannot hold an object "a/b" and the folder "a/b" at once.
	keys = slices.DeleteFunc(keys, func(k string) bool { return k == "a/b" })
	for _, i := range rand.Perm(len(keys)) {
		s.put(t, keys[i], keys[i], objstore.PutOptions{})
	}
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b/", "a/b/c", "b/", "b/y", "c", "a/b/c/d", "aé"} {
		for _, after := range append([]string{"", "a", "a/", "a/b", "a/b/zzz", "b", "zz"}, keys...) {
			var want []string
			for _, k := range keys {
				if strings.HasPrefix(k, prefix) && k > after {
					want = append(want, k)
				}
			}
			if got := s.keys(t, prefix, after); !slices.Equal(got, want) {
				t.Errorf("list %q after %q:\n got %q\nwant %q", prefix, after, got, want)
			}
		}
	}
	_ = s.b.List(s.ctx, "", "", func(i objstore.Info) error {
		if i.Size != int64(len(i.Key)) || i.ModTime.IsZero() {
			t.Errorf("listed %+v", i)
		}
		return nil
	})
}

func listPages(t *testing.T, s *suite) {
	const n = 1030
	var want []string
	var wg sync.WaitGroup
	todo := make(chan string)
	for range 8 {
		wg.Go(func() {
			for key := range todo {
				if _, err := s.b.Put(s.ctx, key, strings.NewReader("x"), 1, objstore.PutOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		key := fmt.Sprintf("list/%d/%05d", i%3, i)
		want = append(want, key)
		todo <- key
	}
	close(todo)
	wg.Wait()
	slices.Sort(want)
	for _, i := range []int{-1, 0, n - 1002, n - 1001, n - 1000, n - 1} {
		after := ""
		if i >= 0 {
			after = want[i]
		}
		if got := s.keys(t, "list/", after); !slices.Equal(got, want[i+1:]) {
			t.Errorf("after %q: %d keys, want %d", after, len(got), n-i-1)
		}
	}
}

func listStops(t *testing.T, s *suite) {
	for _, k := range []string{"a", "b", "c"} {
		s.put(t, k, k, objstore.PutOptions{})
	}
	enough, seen := errors.New("enough"), 0
	err := s.b.List(s.ctx, "", "", func(objstore.Info) error {
		if seen++; seen == 2 {
			return enough
		}
		return nil
	})
	if err != enough || seen != 2 { //nolint:errorlint // the very error is promised
		t.Errorf("got %v after %d keys", err, seen)
	}
}
