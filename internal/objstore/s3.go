package objstore

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/querynode/querynode/internal/errclass"
)

const (
	s3Tries    = 5    // of one call, within CallTimeout
	s3PageSize = 1000 // keys of one page of a listing
)

// S3 is a Bucket in an S3 bucket, or under a prefix in one.
//
// Retries are this package's, not the client library's: only so is it known
// that a conditional put failed after an earlier try of it had got through.
type S3 struct {
	core      *minio.Core
	transport *http.Transport
	bucket    string
	prefix    string
	o         Options
	gate      *gate
}

func openS3(l s3Location, o Options) (Bucket, error) {
	s := &S3{bucket: l.bucket, prefix: l.prefix, o: o, gate: newGate()}
	s.transport = newTransport(s.tryTimeout())
	lookup := minio.BucketLookupAuto
	if l.pathStyle {
		lookup = minio.BucketLookupPath
	}
	var err error
	s.core, err = minio.NewCore(l.endpoint, &minio.Options{
		Creds:        newCredentials(o),
		Secure:       !l.insecure,
		Transport:    s.transport,
		Region:       firstOf(l.region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"), "us-east-1"),
		BucketLookup: lookup,
		MaxRetries:   1,
	})
	if err != nil {
		return nil, errclass.Wrap(err, errclass.Invalid, "open s3 bucket %s at %s", l.bucket, l.endpoint)
	}
	return s, nil
}

func newTransport(headerTimeout time.Duration) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: headerTimeout,
		ExpectContinueTimeout: time.Second,
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       time.Minute,
		ReadBufferSize:        64 << 10,
		WriteBufferSize:       64 << 10,
		// Segments do not compress, and a silently unpacked body has the wrong length.
		DisableCompression: true,
	}
}

func newCredentials(o Options) *credentials.Credentials {
	if o.AccessKey != "" {
		return credentials.NewStaticV4(o.AccessKey, o.SecretKey, o.SessionToken)
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{},
		&credentials.EnvMinio{},
		&credentials.FileAWSCredentials{},
		&credentials.IAM{Client: &http.Client{Timeout: 5 * time.Second}},
	})
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// tryTimeout bounds one try of a call: a dead connection must leave time for others.
func (s *S3) tryTimeout() time.Duration { return s.o.CallTimeout / 3 }

// call runs one request of the call until it succeeds, fails for good, or
// CallTimeout passes. try gets its own deadline and says how often it has been
// tried before.
func (s *S3) call(ctx context.Context, op, key string, try func(ctx context.Context, n int) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.CallTimeout, errTimeout)
	defer cancel()
	for n := 0; ; n++ {
		tryCtx, cancelTry := context.WithTimeoutCause(ctx, s.tryTimeout(), errTimeout)
		err := s3Error(tryCtx, try(tryCtx, n), op, key)
		cancelTry()
		if !errclass.Is(err, errclass.Retryable) || n+1 == s3Tries || !pause(ctx, n) {
			return err
		}
	}
}

// pause waits before try n+1, longer each time and at random; false = ctx ended.
func pause(ctx context.Context, n int) bool {
	longest := min(50*time.Millisecond<<n, 2*time.Second)
	t := time.NewTimer(longest/2 + rand.N(longest/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Head implements Bucket.
func (s *S3) Head(ctx context.Context, key string) (Info, error) {
	if err := CheckKey(key); err != nil {
		return Info{}, err
	}
	ctx, leave, err := s.gate.enter(ctx, "head", key)
	if err != nil {
		return Info{}, err
	}
	defer leave()
	info, _, err := s.head(ctx, key)
	return info, err
}

func (s *S3) head(ctx context.Context, key string) (info Info, meta map[string]string, _ error) {
	err := s.call(ctx, "head", key, func(ctx context.Context, _ int) error {
		o, err := s.core.StatObject(ctx, s.bucket, s.prefix+key, minio.StatObjectOptions{})
		info, meta = s.info(o), o.UserMetadata
		return err
	})
	if err != nil {
		return Info{}, nil, err
	}
	info.Key = key
	return info, meta, nil
}

func (s *S3) info(o minio.ObjectInfo) Info {
	return Info{Key: strings.TrimPrefix(o.Key, s.prefix), Size: o.Size, ETag: o.ETag, ModTime: o.LastModified}
}

// Delete implements Bucket.
func (s *S3) Delete(ctx context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	ctx, leave, err := s.gate.enter(ctx, "delete", key)
	if err != nil {
		return err
	}
	defer leave()
	err = s.call(ctx, "delete", key, func(ctx context.Context, _ int) error {
		return s.core.RemoveObject(ctx, s.bucket, s.prefix+key, minio.RemoveObjectOptions{})
	})
	if errclass.Is(err, errclass.NotFound) {
		return nil
	}
	return err
}

// List implements Bucket. It reads a page of 1000 keys before it hands them to
// fn, so that fn may take its time.
func (s *S3) List(ctx context.Context, prefix, startAfter string, fn func(Info) error) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	ctx, leave, err := s.gate.enter(ctx, "list", prefix)
	if err != nil {
		return err
	}
	defer leave()
	for {
		page, err := s.page(ctx, prefix, startAfter)
		if err != nil {
			return err
		}
		for _, info := range page {
			if err := ctx.Err(); err != nil {
				return errors.Wrapf(ended(ctx, err), "list %s", prefix)
			}
			if strings.HasSuffix(info.Key, "/") {
				continue // a folder marker that some tool left; never an object of ours
			}
			if err := fn(info); err != nil {
				return err
			}
		}
		if len(page) < s3PageSize {
			return nil
		}
		startAfter = page[len(page)-1].Key
	}
}

func (s *S3) page(ctx context.Context, prefix, startAfter string) ([]Info, error) {
	after := startAfter
	if after != "" {
		after = s.prefix + after
	}
	noOwner := false
	var page []Info
	err := s.call(ctx, "list", prefix, func(ctx context.Context, _ int) error {
		page = page[:0]
		for o := range s.core.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{
			Prefix: s.prefix + prefix, Recursive: true, MaxKeys: s3PageSize, StartAfter: after, FetchOwner: &noOwner,
		}) {
			if o.Err != nil {
				return o.Err
			}
			if info := s.info(o); info.Key > startAfter { // some servers include the key itself
				page = append(page, info)
			}
			if len(page) == s3PageSize {
				return nil
			}
		}
		return ctx.Err() // the iterator ends silently when ctx does
	})
	return page, err
}

// Close implements Bucket.
func (s *S3) Close(ctx context.Context) error {
	err := s.gate.shut(ctx)
	s.transport.CloseIdleConnections()
	return err
}

var _ io.ReadCloser = (*s3Reader)(nil)
