package catalog

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// Where the owners of logs put what they write; see package flush. What others
// put into the bucket is none of Sweep's business.
const (
	segmentFolder = "segments/"
	deltaFolder   = "deltas/"
	// maxGivenID bounds the ids that the catalog gives. Segments that are built
	// elsewhere have larger ones, and may lie in the bucket before they are added.
	maxGivenID = 1 << 52
)

// orphanOf returns what a key belongs to: the folder of a segment that has an id
// of the catalog, or the file of deletes itself; "" = neither.
func orphanOf(key string) string {
	number := func(s string, limit int64) bool {
		n, err := strconv.ParseInt(s, 10, 64)
		return err == nil && n > 0 && n < limit && strconv.FormatInt(n, 10) == s
	}
	parts := strings.Split(key, "/")
	switch {
	case strings.HasPrefix(key, segmentFolder) && len(parts) == 4 && number(parts[1], 1<<62) && number(parts[2], maxGivenID):
		return strings.Join(parts[:3], "/")
	case strings.HasPrefix(key, deltaFolder) && len(parts) == 4 && number(parts[1], 1<<62) && strings.HasSuffix(key, ".parquet"):
		return key
	}
	return ""
}

// orphans removes files of segments and deletes that no manifest names: of
// uploads that were never committed, of compactions, of dropped partitions. A file
// goes if its object and all beside it are older than OrphanAge, and a sweep of
// this process found it unnamed at least DropGrace ago: others may still read by
// an older manifest.
func (s *sweep) orphans(ctx context.Context) error {
	// Files first, manifests afterwards: what is committed in between is named.
	youngest, err := s.files(ctx)
	if err != nil {
		return err
	}
	named, err := s.named(ctx)
	if err != nil {
		return errors.Wrap(err, "sweep files: not every manifest can be read")
	}
	c := s.c
	c.mu.Lock()
	before := c.mu.orphans
	c.mu.Unlock()
	now := map[string]time.Time{}
	var errs []error
	for what, at := range youngest {
		if named[what] || s.now.Sub(at) < c.o.OrphanAge {
			continue
		}
		since, ok := before[what]
		if !ok {
			since = s.now
		}
		now[what] = since
		if s.now.Sub(since) < c.o.DropGrace {
			continue
		}
		if err := s.removeOrphan(ctx, what); err != nil {
			errs = append(errs, errors.Wrapf(err, "sweep %s", what))
			continue
		}
		delete(now, what)
	}
	c.mu.Lock()
	c.mu.orphans = now
	c.mu.Unlock()
	if len(errs) > 0 {
		return errclass.Mark(errors.Join(errs...), errclass.Of(errs[0]))
	}
	return nil
}

func (s *sweep) removeOrphan(ctx context.Context, what string) error {
	remove := s.removeFile
	if strings.HasPrefix(what, segmentFolder) {
		remove = s.removeFolder
	}
	if err := remove(ctx, what); err != nil {
		return err
	}
	s.swept.Orphans++
	s.c.o.Logger.Info("catalog: swept files that no manifest names", slog.String("path", what))
	return nil
}

// files lists what owners of logs have written, each with its youngest object.
func (s *sweep) files(ctx context.Context) (map[string]time.Time, error) {
	out := map[string]time.Time{}
	for _, folder := range []string{segmentFolder, deltaFolder} {
		for last, more := "", true; more; {
			n := 0
			one, cancel := s.c.deadline(ctx)
			err := s.c.o.Bucket.List(one, folder, last, func(i objstore.Info) error {
				last = i.Key
				if what := orphanOf(i.Key); what != "" && i.ModTime.After(out[what]) {
					out[what] = i.ModTime
				}
				if n++; n == listPage {
					return errPageFull
				}
				return nil
			})
			cancel()
			more = errors.Is(err, errPageFull)
			if err != nil && !more {
				return nil, errors.Wrapf(err, "list %s", folder)
			}
		}
	}
	return out, nil
}

// named returns what the channels' manifests name, those of dropped collections
// included, after it has taken what is of dropped partitions out of them.
func (s *sweep) named(ctx context.Context) (map[string]bool, error) {
	found, err := s.c.list(ctx, "channels/")
	if err != nil {
		return nil, err
	}
	prefix := s.c.o.Prefix + "/channels/"
	var names []string
	for _, info := range found {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(info.Key, prefix), ".json"))
	}
	channels, errs := inParallel(ctx, names, func(ctx context.Context, name string) (*Channel, error) {
		ch, err := s.c.Channel(ctx, name)
		if err == nil {
			ch, err = s.dropPartitions(ctx, ch)
		}
		return ch, err
	})
	out := map[string]bool{}
	for i, ch := range channels {
		if errclass.Is(errs[i], errclass.NotFound) {
			continue // swept by another process
		}
		if errs[i] != nil {
			return nil, errs[i]
		}
		for _, seg := range ch.Segments {
			out[seg.Path] = true
			if parts := strings.SplitN(seg.Path, "/", 4); len(parts) == 4 {
				out[strings.Join(parts[:3], "/")] = true // it lies in the folder of another
			}
		}
		for _, d := range ch.Deltas {
			out[d.Path] = true
		}
	}
	return out, nil
}

// dropPartitions takes the segments and deletes of dropped partitions out of a
// channel's manifest. The collection is read after the channel: a partition is
// there before the first segment of it, and its id is never used again.
func (s *sweep) dropPartitions(ctx context.Context, ch *Channel) (*Channel, error) {
	ids := map[int64]bool{}
	for _, seg := range ch.Segments {
		ids[seg.PartitionID] = true
	}
	for _, d := range ch.Deltas {
		ids[d.PartitionID] = true
	}
	delete(ids, 0)
	if len(ids) == 0 {
		return ch, nil
	}
	one, cancel := s.c.deadline(ctx)
	defer cancel()
	col, err := s.c.loadLive(one, ch.CollectionID)
	if errclass.Is(err, errclass.NotFound) {
		return ch, nil // dropped as a whole
	}
	if err != nil {
		return nil, err
	}
	gone := func(id int64) bool {
		return id != 0 && ids[id] && !slices.ContainsFunc(col.Partitions, func(p Partition) bool { return p.ID == id })
	}
	if !slices.ContainsFunc(ch.Segments, func(seg Segment) bool { return gone(seg.PartitionID) }) &&
		!slices.ContainsFunc(ch.Deltas, func(d Delta) bool { return gone(d.PartitionID) }) {
		return ch, nil
	}
	key, removed := s.c.channelKey(ch.VChannel), 0
	ch, err = change(one, s.c, key, maxChannelBytes, func(m *Channel, _ bool) error {
		before := len(m.Segments) + len(m.Deltas)
		m.Segments = slices.DeleteFunc(m.Segments, func(seg Segment) bool { return gone(seg.PartitionID) })
		m.Deltas = slices.DeleteFunc(m.Deltas, func(d Delta) bool { return gone(d.PartitionID) })
		if removed = before - len(m.Segments) - len(m.Deltas); removed == 0 {
			return errUnchanged
		}
		return nil
	})
	if err == nil && removed > 0 {
		s.dropped.Add(int64(removed))
	}
	return ch, err
}
