package node

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/compact"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/segments"
)

// Properties of a collection that the node acts on. The first two are whole numbers of seconds.
const (
	// PropertyTTL is the age beyond which rows are invisible and dropped by
	// compactions. Absent or 0 = rows do not age.
	PropertyTTL = "collection.ttl.seconds"
	// PropertyRetention is how long reads in the past are answered. Absent = as the
	// node is configured; 0 = not at all.
	PropertyRetention = "collection.retention.seconds"
	// PropertyWarmup says when vectors and indexes of segments come to the local disk:
	// sync, async or none; see segments.Warmup. Absent = as the node is configured.
	PropertyWarmup = "collection.warmup"
	// PropertyTimezone is the IANA name of the zone that times in filters are of which
	// come without an offset. Absent = UTC.
	PropertyTimezone = "timezone"
)

// maxSeconds bounds both: a hundred years.
const maxSeconds = 100 * 366 * 24 * 3600

// checkProperties refuses values that cannot be acted on.
func checkProperties(m map[string]string) error {
	for _, key := range []string{PropertyTTL, PropertyRetention} {
		if _, _, err := seconds(m, key); err != nil {
			return err
		}
	}
	if name := m[PropertyTimezone]; name == "Local" { // the machine's: each node might have another
		return errclass.New(errclass.Invalid, "property %s is %q: want a name such as Asia/Shanghai or UTC", PropertyTimezone, name)
	} else if _, err := time.LoadLocation(name); err != nil {
		return errclass.Wrap(err, errclass.Invalid, "property %s: want a name such as Asia/Shanghai or UTC", PropertyTimezone)
	}
	_, err := segments.ParseWarmup(m[PropertyWarmup])
	return errclass.Wrap(err, errclass.Invalid, "property %s", PropertyWarmup)
}

// seconds reads a property; ok is false if it is absent or empty.
func seconds(m map[string]string, key string) (d time.Duration, ok bool, err error) {
	v := m[key]
	if v == "" {
		return 0, false, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > maxSeconds {
		return 0, false, errclass.New(errclass.Invalid, "property %s is %q: want a whole number of seconds, 0 to %d", key, v, int64(maxSeconds))
	}
	return time.Duration(n) * time.Second, true, nil
}

// lifetimes reads the properties into info. One that was stored before it was
// checked, and is no number, counts as absent.
func lifetimes(info *segments.CollectionInfo, m map[string]string) {
	if ttl, ok, err := seconds(m, PropertyTTL); ok && err == nil {
		info.TTL = ttl
	}
	if keep, ok, err := seconds(m, PropertyRetention); ok && err == nil {
		info.Retention = &keep
	}
	if how, err := segments.ParseWarmup(m[PropertyWarmup]); err == nil {
		info.Warmup = how
	}
}

// checkRetained refuses a read of a moment that is not retained any more: rows
// that were deleted since may be gone.
func (n *Node) checkRetained(coll *catalog.Collection, ts uint64) error {
	if ts == 0 {
		return nil
	}
	keep, own, err := seconds(coll.Properties, PropertyRetention)
	if !own || err != nil {
		keep = max(0, n.o.Compact.Retention)
	}
	// Late by a part of what compactions allow for reads under way: one as of now is
	// answered whatever the retention is.
	late := max(0, n.o.Compact.ReadSlack) / 4
	now := n.o.Now()
	if ts >= wal.FromTime(now.Add(-keep-late)) {
		return nil
	}
	return errclass.New(errclass.Invalid, "read_timestamp %d is %s ago, collection %q retains %s: read a later moment, or set its property %s beforehand",
		ts, now.Sub(wal.Time(ts)).Round(time.Millisecond), coll.Name, keep, PropertyRetention)
}

// compactable lists the channels whose logs this node owns.
func (n *Node) compactable() (list []compact.Channel) {
	for _, w := range n.watched() {
		if w.Unproven {
			continue
		}
		l, err := n.wals.Get(w.PChannel)
		if err == nil && l.State() == wal.Ready {
			list = append(list, compact.Channel{Channel: w.Channel, Term: l.Term()})
		}
	}
	return list
}

// CompactionJob is a job that has changed the catalog.
type CompactionJob = compact.Done

// Compact rewrites the segments of a collection as far as it gets better by that,
// and serves the new ones when it returns. This node must own the logs.
func (n *Node) Compact(ctx context.Context, collection string) ([]CompactionJob, error) {
	coll, err := n.Collection(ctx, collection)
	if err != nil {
		return nil, err
	}
	if err := n.settle(ctx, coll.ID); err != nil { // it may have been loaded a moment ago
		return nil, err
	}
	all := n.compactable()
	all = slices.DeleteFunc(all, func(c compact.Channel) bool { return c.Collection().Info().ID != coll.ID })
	if len(all) == 0 {
		return nil, errclass.New(errclass.Conflict, "compact: this node owns no log of collection %q, or has not loaded it: call the owner", coll.Name)
	}
	done, err := n.compactor.Run(ctx, all)
	if len(done) > 0 { // what was done is served, whatever failed
		err = errors.CombineErrors(err, n.takeOver(ctx, coll))
	}
	return done, err
}

// takeOver serves what a compaction has made, if the collection is served whole.
func (n *Node) takeOver(ctx context.Context, coll *catalog.Collection) error {
	s, leave, err := n.enter(ctx, coll, false)
	if err != nil {
		return err
	}
	defer leave()
	if !s.whole.Load() || s.coll == nil {
		return nil
	}
	_, err = n.load(ctx, s, coll, nil)
	return err
}

// Compaction tells what is compacted now and what was.
func (n *Node) Compaction() compact.Status { return n.compactor.Status() }
