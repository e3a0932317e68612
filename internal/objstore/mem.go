package objstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// Op names a method of a Bucket in a Call.
type Op string

// The methods that a fault hook sees.
const (
	OpGet    Op = "get"
	OpHead   Op = "head"
	OpPut    Op = "put"
	OpDelete Op = "delete"
	OpList   Op = "list"
)

// Call is a call of a Mem that is about to run.
type Call struct {
	Op  Op
	Key string // List: the prefix
}

// Fault says how a call of a Mem goes wrong. The zero value: not at all.
type Fault struct {
	Err   error // returned instead of running the call
	After bool  // the call runs first and Err is returned all the same: a lost answer
	Hang  bool  // the call waits until its context ends or the bucket is closed
	Cut   int64 // Get: the body fails with io.ErrUnexpectedEOF after this many bytes; 0 = whole
}

// Mem is a Bucket in memory, for tests of what uses buckets. It copies what is
// put; ETags are never used twice.
type Mem struct {
	gate *gate
	mu   struct {
		sync.Mutex
		hook    func(Call) Fault
		objects map[string]memObject
		version uint64
	}
}

type memObject struct {
	data []byte // never written
	info Info
}

// NewMem returns an empty bucket in memory. hook (nil = none) is asked before
// each call how it goes wrong; it may be called from many goroutines at once.
func NewMem(hook func(Call) Fault) *Mem {
	m := &Mem{gate: newGate()}
	m.mu.objects = map[string]memObject{}
	m.mu.hook = hook
	return m
}

// SetHook replaces the fault hook.
func (m *Mem) SetHook(hook func(Call) Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.hook = hook
}

// Len is the number of objects.
func (m *Mem) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.mu.objects)
}

// enter admits a call and applies what the hook says. after is the error to
// return once the call has run.
func (m *Mem) enter(ctx context.Context, op Op, key string) (_ context.Context, leave func(), f Fault, _ error) {
	ctx, leave, err := m.gate.enter(ctx, string(op), key)
	if err != nil {
		return nil, nil, Fault{}, err
	}
	m.mu.Lock()
	hook := m.mu.hook
	m.mu.Unlock()
	if hook != nil {
		f = hook(Call{op, key})
	}
	if f.Hang {
		<-ctx.Done()
		leave()
		return nil, nil, f, errors.Wrapf(ended(ctx, ctx.Err()), "%s %s", op, key)
	}
	if f.Err != nil && !f.After {
		leave()
		return nil, nil, f, errors.Wrapf(f.Err, "%s %s", op, key)
	}
	return ctx, leave, f, nil
}

// Get implements Bucket.
func (m *Mem) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := errors.CombineErrors(CheckKey(key), checkRange(key, offset)); err != nil {
		return nil, err
	}
	ctx, leave, f, err := m.enter(ctx, OpGet, key)
	if err != nil {
		return nil, err
	}
	o, err := m.find(key)
	if err == nil && f.Err != nil {
		err = errors.Wrapf(f.Err, "get %s", key)
	}
	if err != nil {
		leave()
		return nil, err
	}
	data := o.data[min(offset, int64(len(o.data))):]
	if length >= 0 && length < int64(len(data)) {
		data = data[:length]
	}
	cut := f.Cut > 0 && f.Cut < int64(len(data))
	if cut {
		data = data[:f.Cut]
	}
	return &memReader{ctx: ctx, leave: leave, info: o.info, cut: cut, data: data}, nil
}

type memReader struct {
	ctx   context.Context
	leave func()
	info  Info
	cut   bool
	data  []byte // what is left
}

func (r *memReader) Info() Info { return r.info }

func (r *memReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, errors.Wrapf(ended(r.ctx, err), "read %s", r.info.Key)
	}
	if len(r.data) == 0 && r.cut {
		return 0, errclass.Wrap(io.ErrUnexpectedEOF, errclass.Retryable, "read %s", r.info.Key)
	}
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

func (r *memReader) Close() error {
	r.leave()
	return nil
}

func (m *Mem) find(key string) (memObject, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.mu.objects[key]
	if !ok {
		return memObject{}, notFound(key)
	}
	return o, nil
}

// Head implements Bucket.
func (m *Mem) Head(ctx context.Context, key string) (Info, error) {
	if err := CheckKey(key); err != nil {
		return Info{}, err
	}
	_, leave, f, err := m.enter(ctx, OpHead, key)
	if err != nil {
		return Info{}, err
	}
	defer leave()
	o, err := m.find(key)
	if err == nil && f.Err != nil {
		err = errors.Wrapf(f.Err, "head %s", key)
	}
	return o.info, err
}

// Put implements Bucket.
func (m *Mem) Put(ctx context.Context, key string, r io.Reader, size int64, o PutOptions) (Info, error) {
	if err := checkPut(key, size, o); err != nil {
		return Info{}, err
	}
	ctx, leave, f, err := m.enter(ctx, OpPut, key)
	if err != nil {
		return Info{}, err
	}
	defer leave()
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(&exactReader{r: &ctxReader{ctx, r}, key: key, want: size}); err != nil {
		return Info{}, errors.Wrapf(ended(ctx, err), "put %s", key)
	}
	info, err := m.store(key, buf.Bytes(), o)
	if err == nil && f.Err != nil {
		err = errors.Wrapf(f.Err, "put %s", key)
	}
	return info, err
}

func (m *Mem) store(key string, data []byte, o PutOptions) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, there := m.mu.objects[key]
	if o.IfNoneMatch && there || o.IfMatch != "" && old.info.ETag != o.IfMatch {
		return Info{}, errors.Wrapf(ErrPrecondition, "put %s", key)
	}
	m.mu.version++
	info := Info{Key: key, Size: int64(len(data)), ETag: fmt.Sprintf("m%d", m.mu.version), ModTime: time.Now()}
	m.mu.objects[key] = memObject{data: data, info: info}
	return info, nil
}

// Delete implements Bucket.
func (m *Mem) Delete(ctx context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	_, leave, f, err := m.enter(ctx, OpDelete, key)
	if err != nil {
		return err
	}
	defer leave()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mu.objects, key)
	return errors.Wrapf(f.Err, "delete %s", key)
}

// List implements Bucket.
func (m *Mem) List(ctx context.Context, prefix, startAfter string, fn func(Info) error) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	ctx, leave, f, err := m.enter(ctx, OpList, prefix)
	if err != nil {
		return err
	}
	defer leave()
	for _, info := range m.matching(prefix, startAfter) {
		if err := ctx.Err(); err != nil {
			return errors.Wrapf(ended(ctx, err), "list %s", prefix)
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return errors.Wrapf(f.Err, "list %s", prefix)
}

func (m *Mem) matching(prefix, startAfter string) []Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []Info
	for key, o := range m.mu.objects {
		if strings.HasPrefix(key, prefix) && key > startAfter {
			found = append(found, o.info)
		}
	}
	slices.SortFunc(found, func(a, b Info) int { return strings.Compare(a.Key, b.Key) })
	return found
}

// Close implements Bucket.
func (m *Mem) Close(ctx context.Context) error { return m.gate.shut(ctx) }
