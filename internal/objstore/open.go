package objstore

import (
	"cmp"
	"context"
	"log/slog"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// Options configures Open. The zero value is good for local use.
type Options struct {
	// AccessKey, SecretKey and SessionToken for S3. Empty: AWS_ACCESS_KEY_ID and
	// its companions, MINIO_ROOT_USER, the shared credentials file, the machine's
	// or pod's role, anonymous; in that order.
	AccessKey, SecretKey, SessionToken string
	// CallTimeout bounds every call but the transfer of a body; each part of an
	// upload counts as a call. S3 tries again within it. 0 = 30 s.
	CallTimeout time.Duration
	// IdleTimeout bounds each wait for bytes of a body from S3. 0 = 20 s.
	IdleTimeout time.Duration
	// UploadParallel is how many parts of one object are sent at once to S3; each
	// takes 8 MiB of memory. 0 = 4.
	UploadParallel int
	// NoSync leaves out fsync in the file bucket: a power failure may then lose or
	// tear objects. Only for tests and data that can be made again.
	NoSync bool
	// Logger; nil = silent. Neither credentials nor query strings are logged.
	Logger *slog.Logger
}

// EnsureDefaults replaces zero values by the defaults.
func (o *Options) EnsureDefaults() {
	o.CallTimeout = cmp.Or(o.CallTimeout, 30*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 20*time.Second)
	o.UploadParallel = cmp.Or(o.UploadParallel, 4)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate reports all problems in one error of class Invalid.
func (o *Options) Validate() error {
	var errs []error
	if (o.AccessKey == "") != (o.SecretKey == "") {
		errs = append(errs, errors.New("object storage: access key and secret key go together"))
	}
	if o.CallTimeout < 0 || o.IdleTimeout < 0 {
		errs = append(errs, errors.Newf("object storage: timeouts (%v, %v) cannot be negative", o.CallTimeout, o.IdleTimeout))
	}
	if o.UploadParallel < 0 || o.UploadParallel > 64 {
		errs = append(errs, errors.Newf("object storage: %d uploads at once, want 1 to 64", o.UploadParallel))
	}
	return errclass.Mark(errors.Join(errs...), errclass.Invalid)
}

// Open opens the bucket that the URL names:
//
//	/path, ./path, file:///path                      a folder, made if absent
//	s3://bucket/prefix?endpoint=host:port            S3 and what speaks it; the
//	    &region=...&path_style=true&insecure=true    bucket must exist; insecure = plain HTTP
//
// endpoint defaults to Amazon's, region to AWS_REGION, then us-east-1. The S3
// bucket is not contacted before the first call. The caller closes the bucket.
func Open(ctx context.Context, rawURL string, o Options) (Bucket, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	scheme, _, hasScheme := strings.Cut(rawURL, "://")
	if !hasScheme {
		if rawURL == "" {
			return nil, errclass.New(errclass.Invalid, "object storage: the URL is empty; want file:///path or s3://bucket/prefix")
		}
		return openFileBucket(ctx, rawURL, o)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		// The error of url.Parse quotes the URL, which may hold a secret.
		return nil, errclass.New(errclass.Invalid, "object storage: the %s:// URL is malformed", scheme)
	}
	if u.User != nil {
		return nil, errclass.New(errclass.Invalid, "object storage: credentials do not belong into the URL; use the environment")
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || u.RawQuery != "" || !filepath.IsAbs(filepath.FromSlash(u.Path)) {
			return nil, errclass.New(errclass.Invalid, "object storage: want file:///absolute/path")
		}
		return openFileBucket(ctx, filepath.FromSlash(u.Path), o)
	case "s3":
		l, err := parseS3(u)
		if err != nil {
			return nil, err
		}
		return openS3(l, o)
	}
	return nil, errclass.New(errclass.Invalid, "object storage: unknown scheme %q; want file or s3", u.Scheme)
}

// openFileBucket keeps a typed nil out of the interface.
func openFileBucket(ctx context.Context, root string, o Options) (Bucket, error) {
	f, err := OpenFile(ctx, root, o)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// s3Location is what an s3:// URL says.
type s3Location struct {
	bucket    string
	prefix    string // "" or ends with a slash
	endpoint  string
	region    string
	pathStyle bool
	insecure  bool
}

func parseS3(u *url.URL) (s3Location, error) {
	l := s3Location{bucket: u.Host, endpoint: "s3.amazonaws.com"}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, errors.Newf("s3 URL: "+format, args...)) }
	if l.bucket == "" {
		bad("the bucket is missing; want s3://bucket/prefix")
	}
	if p := strings.Trim(u.Path, "/"); p != "" {
		if err := CheckKey(p); err != nil || len(p) > 100 {
			bad("prefix %q: want parts joined by single slashes, at most 100 bytes", p)
		}
		l.prefix = p + "/"
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		bad("the query is malformed")
	}
	for k, v := range query {
		switch k {
		case "endpoint":
			l.endpoint = v[0]
			if l.endpoint == "" || strings.ContainsAny(l.endpoint, "/@?") {
				bad("endpoint: want host or host:port")
			}
		case "region":
			l.region = v[0]
		case "path_style":
			l.pathStyle, err = strconv.ParseBool(v[0])
		case "insecure":
			l.insecure, err = strconv.ParseBool(v[0])
		default:
			bad("unknown key %q; want endpoint, region, path_style, insecure", k)
		}
		if err != nil {
			bad("%s: want true or false", k)
			err = nil
		}
		if len(v) > 1 {
			bad("%s is there twice", k)
		}
	}
	return l, errclass.Mark(errors.Join(errs...), errclass.Invalid)
}
