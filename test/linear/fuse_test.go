package linear

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/mq"
)

// fuse is the life of one incarnation of the node. Once blown, the incarnation
// reaches neither queue nor object storage: for them its process is dead. Calls
// under way end as they may.
type fuse struct{ blown atomic.Bool }

var errKilled = errors.New("the process is dead")

func (f *fuse) check() error {
	if f.blown.Load() {
		return errKilled
	}
	return nil
}

// fusedQueue is a queue as seen by one incarnation.
type fusedQueue struct {
	mq.Queue
	fuse *fuse
}

func (q fusedQueue) OpenProducer(ctx context.Context, topic string, o mq.ProducerOptions) (mq.Producer, error) {
	if err := q.fuse.check(); err != nil {
		return nil, err
	}
	p, err := q.Queue.OpenProducer(ctx, topic, o)
	if err != nil {
		return nil, err
	}
	return fusedProducer{p, q.fuse}, nil
}

func (q fusedQueue) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	if err := q.fuse.check(); err != nil {
		return nil, err
	}
	return q.Queue.OpenReader(ctx, topic, o)
}

func (q fusedQueue) Trim(ctx context.Context, topic string, pos mq.Position) error {
	if err := q.fuse.check(); err != nil {
		return err
	}
	return q.Queue.Trim(ctx, topic, pos)
}

type fusedProducer struct {
	mq.Producer
	fuse *fuse
}

func (p fusedProducer) Append(ctx context.Context, msgs ...mq.Message) ([]mq.Position, error) {
	if err := p.fuse.check(); err != nil {
		return nil, err
	}
	return p.Producer.Append(ctx, msgs...)
}

// fusedBucket is object storage as seen by one incarnation.
type fusedBucket struct {
	objstore.Bucket
	fuse *fuse
}

func (b fusedBucket) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	if err := b.fuse.check(); err != nil {
		return objstore.Info{}, err
	}
	return b.Bucket.Put(ctx, key, r, size, o)
}

func (b fusedBucket) Delete(ctx context.Context, key string) error {
	if err := b.fuse.check(); err != nil {
		return err
	}
	return b.Bucket.Delete(ctx, key)
}

// copyQueue copies the queue's folder as a process that dies now leaves it: a
// write under way may be there in part. Files are copied in the order of their
// names, which is that of their messages, so that there is no hole.
func copyQueue(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // trimmed meanwhile
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o750)
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || d.Name() == "LOCK" {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o640)
	})
}
