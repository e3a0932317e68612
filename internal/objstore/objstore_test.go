package objstore_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"go.uber.org/goleak"

	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/objstore/objtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

func TestMem(t *testing.T) {
	objtest.Run(t, func(*testing.T) objstore.Bucket { return objstore.NewMem(nil) })
}

func TestFile(t *testing.T) {
	objtest.Run(t, func(t *testing.T) objstore.Bucket {
		return open(t, "file://"+t.TempDir(), objstore.Options{NoSync: true}) // fsync has a test of its own
	})
}

func TestS3(t *testing.T) {
	objtest.Run(t, func(t *testing.T) objstore.Bucket {
		url := fakeS3(t, nil)
		return open(t, url, fakeOptions())
	})
}

func open(t *testing.T, url string, o objstore.Options) objstore.Bucket {
	t.Helper()
	b, err := objstore.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fakeOptions() objstore.Options {
	return objstore.Options{AccessKey: "test", SecretKey: "secret-for-test"}
}

// fakeS3 starts an S3 server in this process; wrap (nil = none) may stand in front of it.
func fakeS3(t *testing.T, wrap func(http.Handler) http.Handler) (url string) {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("test"); err != nil {
		t.Fatal(err)
	}
	h := patchFake(gofakes3.New(backend).Server())
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return "s3://test/some/prefix?path_style=true&insecure=true&region=us-east-1&endpoint=" + strings.TrimPrefix(srv.URL, "http://")
}

// patchFake adds what the fake server lacks: it takes "Content-Length: 0" for a
// missing length, and knows no condition at the end of a multipart upload.
func patchFake(fake http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			r.Header.Set("Content-Length", "0")
		}
		if r.Method == http.MethodPost && r.Header.Get("If-None-Match") == "*" {
			head, rec := httptest.NewRequest(http.MethodHead, r.URL.Path, nil), httptest.NewRecorder()
			if fake.ServeHTTP(rec, head); rec.Code == http.StatusOK {
				w.WriteHeader(http.StatusPreconditionFailed)
				return
			}
		}
		fake.ServeHTTP(w, r)
	})
}
