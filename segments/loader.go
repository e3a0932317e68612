package segments

import (
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/segfile"
)

// LoadRequest names a sealed segment in object storage.
type LoadRequest struct {
	SegmentID int64
	VChannel  string  // must be watched: its deletes apply to the segment
	Path      string  // folder in the bucket
	Deltas    []Delta // files of deletes in the bucket, for the whole channel
	Progress  func(done, total int64)
}

// loads makes sure that a segment is loaded once at a time, and few at once.
type loads struct {
	slots chan struct{}
	mu    struct {
		sync.Mutex
		flying map[int64]*flight
	}
}

type flight struct {
	done chan struct{}
	err  error
}

func newLoads(n int) *loads {
	l := &loads{slots: make(chan struct{}, n)}
	l.mu.flying = map[int64]*flight{}
	return l
}

// Loading returns the ids of segments that are being loaded.
func (s *Set) Loading() []int64 {
	s.loads.mu.Lock()
	defer s.loads.mu.Unlock()
	ids := make([]int64, 0, len(s.loads.mu.flying))
	for id := range s.loads.mu.flying {
		ids = append(ids, id)
	}
	return ids
}

// Load makes a sealed segment searchable: fetch, verify, open, apply deletes,
// publish. Callers of the same id share one load; a segment that is loaded is
// left as it is. The load runs on the Set's own context: a caller whose ctx ends
// stops waiting, the load goes on for the others.
//
// The caller has pinned the channel's deletes (Channel.PinDeletes) before it
// looked up Deltas.
func (c *Collection) Load(ctx context.Context, r LoadRequest) error {
	if c.Loaded(r.SegmentID) {
		return nil
	}
	l := c.set.loads
	l.mu.Lock()
	f, ok := l.mu.flying[r.SegmentID]
	if !ok {
		f = &flight{done: make(chan struct{})}
		err := c.set.group.Go("load segment "+strconv.FormatInt(r.SegmentID, 10), func(ctx context.Context) error {
			c.fly(ctx, f, r)
			return nil
		})
		if err != nil {
			l.mu.Unlock()
			return err
		}
		l.mu.flying[r.SegmentID] = f
	}
	l.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return errors.Wrapf(ctx.Err(), "wait for the load of segment %d, which goes on", r.SegmentID)
	}
}

// fly runs one load and answers everyone who waits for it, whatever happens.
func (c *Collection) fly(ctx context.Context, f *flight, r LoadRequest) {
	l := c.set.loads
	f.err = errclass.New(errclass.Internal, "load of segment %d ended without a result", r.SegmentID)
	defer func() {
		l.mu.Lock()
		delete(l.mu.flying, r.SegmentID)
		l.mu.Unlock()
		close(f.done)
	}()
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-ctx.Done():
		f.err = errclass.Wrap(ctx.Err(), errclass.Closed, "load segment %d", r.SegmentID)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.set.o.LoadTimeout)
	defer cancel()
	f.err = guard("load segment "+strconv.FormatInt(r.SegmentID, 10), func() error { return c.load(ctx, r) })
	f.err = errors.Wrapf(f.err, "load segment %d from %s", r.SegmentID, r.Path)
}

func (c *Collection) load(ctx context.Context, r LoadRequest) error {
	ch, ok := c.Channel(r.VChannel)
	if !ok {
		return errclass.New(errclass.Conflict, "channel %s is not watched on this node", r.VChannel)
	}
	start := time.Now()
	m, err := c.fetchManifest(ctx, r)
	if err != nil {
		return err
	}
	// What the scalars take in memory is in the manifest; keys and deletes are put right below.
	heap, err := c.set.o.Ledger.Reserve(KindSealed, m.ScalarBytes+16*m.Rows)
	if err != nil {
		return err
	}
	mapped := c.set.o.Ledger.Force(KindMapped, m.MappedBytes())
	dir, err := c.fetch(ctx, r, m)
	if err != nil {
		heap.Release()
		mapped.Release()
		return err
	}
	s, err := openSealed(ctx, dir, c.Info())
	if err != nil {
		heap.Release()
		mapped.Release()
		return errors.CombineErrors(err, os.RemoveAll(dir))
	}
	s.heap, s.mapped = heap, mapped
	c.set.opened()
	h := &holder{segment: s}
	if err := c.finish(ctx, ch, h, s, r); err != nil {
		c.set.discard(h)
		return err
	}
	heap.Commit(s.bytes())
	c.set.o.Logger.Info("segments: loaded", "segment", s.meta.ID, "rows", s.rows.Rows, "bytes", m.DiskBytes(), "took", time.Since(start))
	return nil
}

func (c *Collection) finish(ctx context.Context, ch *Channel, h *holder, s *Sealed, r LoadRequest) error {
	for _, d := range r.Deltas {
		if err := c.applyDelta(ctx, s, d); err != nil {
			return err
		}
	}
	return ch.publish(h)
}

func (c *Collection) fetchManifest(ctx context.Context, r LoadRequest) (*segfile.Manifest, error) {
	raw, err := objstore.ReadAll(ctx, c.set.o.Bucket, path.Join(r.Path, segfile.ManifestName), segfile.MaxManifestBytes)
	if err != nil {
		return nil, err
	}
	m, err := segfile.ParseManifest(raw)
	if err != nil {
		return nil, err
	}
	if m.SegmentID != r.SegmentID || m.CollectionID != c.Info().ID || m.VChannel != r.VChannel {
		return nil, errclass.New(errclass.Corrupt, "the manifest is of segment %d, collection %d, channel %s; want %d, %d, %s",
			m.SegmentID, m.CollectionID, m.VChannel, r.SegmentID, c.Info().ID, r.VChannel)
	}
	return m, nil
}

// Loaded reports whether the sealed segment is searchable.
func (c *Collection) Loaded(id int64) bool {
	snap := c.Acquire()
	defer snap.Release()
	h, ok := snap.view.find(id)
	return ok && !h.growing
}

// fetch copies the files into the run's folder and verifies them on the way:
// into tmp first, then renamed, so that a folder without ".tmp" is complete.
func (c *Collection) fetch(ctx context.Context, r LoadRequest, m *segfile.Manifest) (dir string, err error) {
	dir = c.set.segmentDir(m.SegmentID) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	tmp := dir + ".tmp"
	defer func() {
		if err != nil {
			err = errors.CombineErrors(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return "", diskError(err, "create %s", tmp)
	}
	var done int64
	total := m.DiskBytes()
	for _, f := range m.Files {
		err := c.fetchFile(ctx, path.Join(r.Path, f.Name), filepath.Join(tmp, f.Name), f, m, func(n int64) {
			done += n
			if r.Progress != nil {
				r.Progress(done, total)
			}
		})
		if err != nil {
			return "", err
		}
	}
	raw, err := m.Encode()
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(tmp, segfile.ManifestName), raw, 0o644); err != nil {
		return "", diskError(err, "write manifest in %s", tmp)
	}
	// The files are a copy: after a crash the whole run folder is thrown away,
	// so they need not be synced.
	return dir, diskError(os.Rename(tmp, dir), "rename %s", tmp)
}

func (c *Collection) fetchFile(ctx context.Context, key, dst string, f segfile.File, m *segfile.Manifest, add func(int64)) (err error) {
	in, err := c.set.o.Bucket.Get(ctx, key, 0, -1)
	if err != nil {
		return errors.Wrapf(err, "get %s", key)
	}
	defer func() { err = errors.CombineErrors(err, in.Close()) }()
	out, err := os.Create(dst)
	if err != nil {
		return diskError(err, "create %s", dst)
	}
	defer func() { err = errors.CombineErrors(err, out.Close()) }()
	sum, err := m.Checker(f.Name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.MultiWriter(out, sum, countWriter(add)), in); err != nil {
		return diskError(err, "copy %s", key)
	}
	return errors.Wrapf(sum.Close(), "copy %s", key)
}

type countWriter func(int64)

func (w countWriter) Write(p []byte) (int, error) {
	w(int64(len(p)))
	return len(p), nil
}

// applyDelta fetches one file of deletes and hides the rows of s that it names.
func (c *Collection) applyDelta(ctx context.Context, s *Sealed, d Delta) error {
	if d.MaxTimestamp <= s.rows.Timestamps[0] {
		return nil // older than every row
	}
	raw, err := objstore.ReadAll(ctx, c.set.o.Bucket, d.Path, segfile.MaxDeletesBytes)
	if err != nil {
		return errors.Wrapf(err, "get deletes %s", d.Path)
	}
	keys, ts, err := segfile.DecodeDeletes(raw)
	if err != nil {
		return errors.Wrapf(err, "deletes %s", d.Path)
	}
	if keys.Type != s.pk.Type {
		return errclass.New(errclass.Corrupt, "deletes %s: keys of type %s, want %s", d.Path, keys.Type, s.pk.Type)
	}
	s.applyDeletes(&DeleteBatch{Partition: d.PartitionID, Keys: keys, Timestamps: ts})
	return nil
}

// Delta is a file of deletes in object storage.
type Delta struct {
	Path         string
	PartitionID  int64  // rows of this partition only; 0 = all
	MaxTimestamp uint64 // of its deletes
}
