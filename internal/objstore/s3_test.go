package objstore_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// s3With opens a bucket on the fake server behind a handler that may misbehave.
func s3With(t *testing.T, timeout time.Duration, misbehave func(w http.ResponseWriter, r *http.Request, fake http.Handler)) objstore.Bucket {
	t.Helper()
	url := fakeS3(t, func(fake http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { misbehave(w, r, fake) })
	})
	o := fakeOptions()
	o.CallTimeout, o.IdleTimeout = timeout, 50*time.Millisecond
	b := open(t, url, o)
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
}

func TestS3TriesAgainWhatUsuallyPasses(t *testing.T) {
	var n atomic.Int32
	b := s3With(t, 20*time.Second, func(w http.ResponseWriter, r *http.Request, fake http.Handler) {
		switch n.Add(1) % 3 {
		case 1:
			refuse(w, http.StatusServiceUnavailable, "SlowDown")
		case 2:
			panic(http.ErrAbortHandler) // the connection is cut
		default:
			fake.ServeHTTP(w, r)
		}
	})
	put(t, b, "k", "content")
	if data, err := objstore.ReadAll(t.Context(), b, "k", 100); err != nil || string(data) != "content" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := b.Head(t.Context(), "k"); err != nil {
		t.Error(err)
	}
	if err := b.Delete(t.Context(), "k"); err != nil {
		t.Error(err)
	}
}

func TestS3Classes(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		class  errclass.Class
	}{
		{403, "AccessDenied", errclass.Denied},
		{403, "SignatureDoesNotMatch", errclass.Denied},
		{404, "NoSuchKey", errclass.NotFound},
		{404, "NoSuchBucket", errclass.Invalid},
		{500, "InternalError", errclass.Retryable},
		{503, "SlowDown", errclass.Retryable},
		{507, "XMinioStorageFull", errclass.Exhausted},
		{400, "EntityTooLarge", errclass.Invalid},
		{501, "NotImplemented", errclass.Unimplemented},
	} {
		timeout := 20 * time.Second
		if c.class == errclass.Retryable {
			timeout = 100 * time.Millisecond // it is tried again until then
		}
		b := s3With(t, timeout, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { refuse(w, c.status, c.code) })
		_, err := b.Get(t.Context(), "k", 0, -1)
		if !errclass.Is(err, c.class) || !strings.Contains(err.Error(), "k") {
			t.Errorf("%d %s: %v (class %v), want class %v", c.status, c.code, err, errclass.Of(err), c.class)
		}
		if strings.Contains(fmt.Sprintf("%+v", err), "secret-for-test") {
			t.Error("the error shows the secret")
		}
	}
}

// TestS3LostAnswerOfAConditionalPut drops the answer to a put that was done: the
// second try meets the first one's object and must see that it is its own.
func TestS3LostAnswerOfAConditionalPut(t *testing.T) {
	for name, body := range map[string]string{"single": "mine", "multipart": strings.Repeat("m", 9<<20)} {
		var lost atomic.Bool
		b := s3With(t, 20*time.Second, func(w http.ResponseWriter, r *http.Request, fake http.Handler) {
			last := r.Method == http.MethodPut && !r.URL.Query().Has("partNumber") || r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
			if last && lost.CompareAndSwap(false, true) {
				fake.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			fake.ServeHTTP(w, r)
		})
		only := objstore.PutOptions{IfNoneMatch: true}
		if _, err := b.Put(t.Context(), "k", strings.NewReader(body), int64(len(body)), only); err != nil {
			t.Errorf("%s: our own object was taken for another's: %v", name, err)
		}
		if !lost.Load() {
			t.Errorf("%s: no answer was lost", name)
		}
		if _, err := b.Put(t.Context(), "k", strings.NewReader("other"), 5, only); !errors.Is(err, objstore.ErrPrecondition) {
			t.Errorf("%s: another's put: %v", name, err)
		}
	}
}

func TestS3HungServerEndsWithTheTimeout(t *testing.T) {
	b := s3With(t, 150*time.Millisecond, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	_, getErr := b.Get(t.Context(), "k", 0, -1)
	_, headErr := b.Head(t.Context(), "k")
	_, putErr := b.Put(t.Context(), "k", strings.NewReader("x"), 1, objstore.PutOptions{})
	for op, err := range map[string]error{
		"get": getErr, "head": headErr, "put": putErr, "delete": b.Delete(t.Context(), "k"),
		"list": b.List(t.Context(), "", "", func(objstore.Info) error { return nil }),
	} {
		if !errclass.Is(err, errclass.Retryable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v (class %v)", op, err, errclass.Of(err))
		}
	}
}

func TestS3TakesUpABrokenTransferWhereItBroke(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	var gets atomic.Int32
	var silent atomic.Bool
	b := s3With(t, 20*time.Second, func(w http.ResponseWriter, r *http.Request, fake http.Handler) {
		if r.Method != http.MethodGet || gets.Add(1) > 3 {
			fake.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		fake.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.Header().Set("Content-Length", fmt.Sprint(rec.Body.Len()))
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		if silent.Load() {
			<-r.Context().Done() // silent in the middle of the body, until the client gives up
		}
		panic(http.ErrAbortHandler)
	})
	put(t, b, "k", string(content))
	for _, mode := range []bool{false, true} {
		gets.Store(0)
		silent.Store(mode)
		if data, err := objstore.ReadAll(t.Context(), b, "k", 2<<20); err != nil || !bytes.Equal(data, content) {
			t.Errorf("silent %v: %d bytes, %v", mode, len(data), err)
		}
		gets.Store(0)
		r, err := b.Get(t.Context(), "k", 1000, 500_000)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, content[1000:501_000]) {
			t.Errorf("silent %v: a range: %d bytes, %v", mode, len(data), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestS3DoesNotMixVersionsAfterABreak(t *testing.T) {
	var cut atomic.Bool
	b := s3With(t, 20*time.Second, func(w http.ResponseWriter, r *http.Request, fake http.Handler) {
		// The fake ignores If-Match on GET, which real servers know.
		if m := r.Header.Get("If-Match"); r.Method == http.MethodGet && m != "" {
			refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
			return
		}
		if r.Method == http.MethodGet && cut.CompareAndSwap(false, true) {
			rec := httptest.NewRecorder()
			fake.ServeHTTP(rec, r)
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			w.Header().Set("Content-Length", fmt.Sprint(rec.Body.Len()))
			_, _ = w.Write(rec.Body.Bytes()[:10])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		fake.ServeHTTP(w, r)
	})
	put(t, b, "k", strings.Repeat("a", 1000))
	r, err := b.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	put(t, b, "k", strings.Repeat("b", 1000))
	data, err := io.ReadAll(r)
	wantClass(t, err, errclass.Conflict)
	if strings.Contains(string(data), "b") {
		t.Errorf("read a mix of two versions: %q", data)
	}
}

func TestOpenRefusesBadURLs(t *testing.T) {
	for url, word := range map[string]string{
		"":                                     "empty",
		"gs://bucket":                          "gs",
		"file://relative":                      "absolute",
		"file:///x?y=z":                        "absolute",
		"s3://":                                "bucket is missing",
		"s3://b/../x":                          "prefix",
		"s3://b?endpint=x":                     "endpint",
		"s3://b?insecure=maybe":                "insecure",
		"s3://b?region=a&region=b":             "twice",
		"s3://b?endpoint=http://h":             "endpoint",
		"s3://user:hunter2@b/p":                "credentials",
		"s3://b?endpoint=user:hunter2@h":       "endpoint",
		"s3://b/%zz?endpoint=user:hunter2@h:1": "malformed",
	} {
		_, err := objstore.Open(t.Context(), url, objstore.Options{})
		wantClass(t, err, errclass.Invalid)
		if err != nil && (!strings.Contains(err.Error(), word) || strings.Contains(fmt.Sprintf("%+v", err), "hunter2")) {
			t.Errorf("%q: %v; want %q in it, and no secret", url, err, word)
		}
	}
	_, err := objstore.Open(t.Context(), t.TempDir(), objstore.Options{AccessKey: "a", CallTimeout: -1, UploadParallel: 100})
	wantClass(t, err, errclass.Invalid)
	for _, word := range []string{"secret key", "timeouts", "100 uploads"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not mention %q", err, word)
		}
	}
}

func FuzzOpenURL(f *testing.F) {
	for _, s := range []string{"s3://b/p?endpoint=h:1&region=r&path_style=true&insecure=true", "s3://b", "s3://u:p@b", "s3://b/%2e%2e/x", "s3://[::1]/x?%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !strings.HasPrefix(s, "s3://") {
			t.Skip() // anything else may name a folder
		}
		b, err := objstore.Open(t.Context(), s, objstore.Options{AccessKey: "a", SecretKey: "s"})
		if err != nil {
			if !errclass.Is(err, errclass.Invalid) {
				t.Fatalf("class %v: %v", errclass.Of(err), err)
			}
			return
		}
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzCheckKey(f *testing.F) {
	for _, s := range []string{"a", "a/b.json", "../a", "a//b", ".tmp/x", "é/ü", "a\x00"} {
		f.Add(s)
	}
	root := f.TempDir()
	b, err := objstore.Open(f.Context(), root, objstore.Options{NoSync: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key string) {
		ok := objstore.CheckKey(key) == nil
		_, err := b.Put(t.Context(), key, strings.NewReader("x"), 1, objstore.PutOptions{})
		if ok != (err == nil) {
			if ok && errclass.Is(err, errclass.Invalid) {
				t.Skip() // a folder of an earlier key
			}
			t.Fatalf("key %q: valid %v, put says %v", key, ok, err)
		}
		if !ok {
			return
		}
		var listed []string
		if err := b.List(t.Context(), key, "", func(i objstore.Info) error { listed = append(listed, i.Key); return nil }); err != nil || len(listed) == 0 || listed[0] != key {
			t.Fatalf("key %q is listed as %q, %v", key, listed, err)
		}
		if err := b.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	})
}
