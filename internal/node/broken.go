package node

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/segments"
)

// Broken is a segment of the catalog that this node should serve and cannot
// load: its files are damaged, gone, or too new for this build. Reads that need
// it fail, or name it if they allow a partial answer; the rest goes on.
type Broken struct {
	SegmentID   int64
	PartitionID int64
	VChannel    string
	Rows        int64
	Err         error

	wait    time.Duration // until the keeper tries again
	retryAt time.Time
}

// The keeper tries a broken segment again now and then: an operator may have
// restored its files. Each try reads it whole.
const (
	firstRetry = time.Minute
	lastRetry  = time.Hour
)

// forGood reports whether loading a segment failed in a way that does not pass.
func forGood(err error) bool {
	switch errclass.Of(err) {
	case errclass.Corrupt, errclass.NotFound, errclass.Unimplemented:
		return true
	}
	return false
}

// noteLoad remembers how the load of a segment ended. A broken one is well again
// only when it is loaded: a load that failed for a passing reason changes nothing.
func (n *Node) noteLoad(s *serving, r segments.LoadRequest, seg catalog.Segment, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil && !forGood(err) {
		s.failing[r.SegmentID] = err
		return
	}
	wait := firstRetry
	if i := slices.IndexFunc(s.broken, func(b Broken) bool { return b.SegmentID == r.SegmentID }); i >= 0 {
		wait = min(2*s.broken[i].wait, lastRetry)
		s.broken = slices.Delete(s.broken, i, i+1)
		n.changedLocked()
	}
	if err == nil {
		n.arrivedLocked(s, r.SegmentID)
		return
	}
	delete(s.failing, r.SegmentID)
	n.changedLocked()
	defer n.newsLocked(s)
	s.broken = append(s.broken, Broken{SegmentID: r.SegmentID, PartitionID: seg.PartitionID, VChannel: r.VChannel, Rows: seg.Rows,
		Err: err, wait: wait, retryAt: n.o.Now().Add(wait)})
	n.o.Logger.Error("node: segment cannot be loaded; reads that need it fail", "segment", r.SegmentID, "path", r.Path,
		"rows", seg.Rows, "next_try", wait, "error", err)
}

// resting reports whether the keeper leaves the segment alone for now: it is
// broken and was tried a short while ago, or somebody released it.
func (n *Node) resting(s *serving, id int64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.released[id] {
		return true
	}
	i := slices.IndexFunc(s.broken, func(b Broken) bool { return b.SegmentID == id })
	return i >= 0 && n.o.Now().Before(s.broken[i].retryAt)
}

// askAgain says that somebody wants segments (no ids = all) to be tried now. What
// is broken stays known as broken until a load has succeeded: a read in between
// must not take the rows for gone.
func (n *Node) askAgain(s *serving, ids ...int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range s.broken {
		if len(ids) == 0 || slices.Contains(ids, s.broken[i].SegmentID) {
			s.broken[i].retryAt = time.Time{}
		}
	}
	if len(ids) == 0 {
		clear(s.released)
	}
	for _, id := range ids {
		delete(s.released, id)
	}
}

// letGo says that somebody released segments (no ids = all): reads do not miss them.
func (n *Node) letGo(s *serving, ids ...int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mendLocked(s, func(b Broken) bool { return len(ids) == 0 || slices.Contains(ids, b.SegmentID) })
	if len(ids) == 0 {
		clear(s.released)
	}
	for _, id := range ids {
		s.released[id] = true
		delete(s.asked, id)
	}
	n.newsLocked(s)
}

func (n *Node) mendLocked(s *serving, forget func(Broken) bool) {
	before := len(s.broken)
	if s.broken = slices.DeleteFunc(s.broken, forget); len(s.broken) < before {
		n.changedLocked()
	}
}

// prune forgets broken segments that the catalog does not list any more for a channel, and those of dropped partitions. It
// needs s.coll.
func (n *Node) prune(s *serving, c *catalog.Channel) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mendLocked(s, func(b Broken) bool {
		listed := slices.ContainsFunc(c.Segments, func(seg catalog.Segment) bool { return seg.ID == b.SegmentID })
		return b.VChannel == c.VChannel && (!listed || s.coll.Dropped(b.PartitionID))
	})
	n.replaceAbsentLocked(s, c)
}

// replaceAbsentLocked takes segments that the catalog does not list any more off
// the list of the absent, and puts what a compaction has made of them on it.
func (n *Node) replaceAbsentLocked(s *serving, c *catalog.Channel) {
	var gone []segments.Superseded
	for id, seg := range s.absent[c.VChannel] {
		if !slices.ContainsFunc(c.Segments, func(seg catalog.Segment) bool { return seg.ID == id }) {
			gone = append(gone, segments.Superseded{Meta: segments.Meta{ID: id, PartitionID: seg.PartitionID},
				MinTimestamp: seg.MinTimestamp, MaxTimestamp: seg.MaxTimestamp})
		}
	}
	for _, o := range gone {
		for _, seg := range c.Segments {
			if mayReplace(seg, o.PartitionID, []segments.Superseded{o}) && (s.coll == nil || !s.coll.Loaded(seg.ID)) {
				s.absent[c.VChannel][seg.ID] = seg
				s.asked[seg.ID] = s.asked[o.ID]
			}
		}
		n.arrivedLocked(s, o.ID)
	}
}

// Broken lists the segments of a collection that this node cannot load, in
// order of their ids.
func (n *Node) Broken(collectionID int64) []Broken {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.mu.serving[collectionID]
	if s == nil || len(s.broken) == 0 {
		return nil
	}
	out := slices.Clone(s.broken)
	slices.SortFunc(out, func(a, b Broken) int { return cmp.Compare(a.SegmentID, b.SegmentID) })
	return out
}

// lacking is what a read has to do without.
type lacking struct {
	broken  []Broken
	loading []catalog.Segment // not loaded yet
	rows    int64             // in both
	have    int64             // rows in the segments that can be read
}

// recheck is how often a read that waits for loads looks whether they are there,
// besides being told: a load that outlives its caller tells nobody.
const recheck = 50 * time.Millisecond

// lacks returns the segments that a read of the partitions (none = all) needs and
// cannot have: one whose rows are still in a growing segment is not missed.
// Unless the read allows a partial answer, it waits until ctx ends for those that
// are being loaded, and the first that is broken is its error.
func (n *Node) lacks(ctx context.Context, coll *catalog.Collection, served *segments.Collection, r *segments.Read) (lacking, error) {
	wanted := func(partition int64) bool {
		return slices.ContainsFunc(coll.Partitions, func(p catalog.Partition) bool { return p.ID == partition }) &&
			(len(r.Partitions) == 0 || slices.Contains(r.Partitions, partition))
	}
	for {
		broken, loading, news, why := n.look(coll, served, wanted)
		if len(broken)+len(loading) == 0 {
			return lacking{}, nil
		}
		l := weigh(served, broken, loading, wanted)
		switch {
		case len(l.broken) > 0 && !r.AllowPartial:
			b := l.broken[0]
			return lacking{}, errclass.With(errclass.Wrap(b.Err, errclass.Corrupt,
				"segment %d with %d rows cannot be read (set allow_partial to be answered without it, or restore its files and call LoadSegments)", b.SegmentID, b.Rows), errclass.Partial)
		case len(l.loading) == 0, r.AllowPartial:
			return l, nil
		}
		again := time.NewTimer(recheck)
		select {
		case <-news:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return lacking{}, stillLoading(coll, l.loading, why)
		}
		again.Stop()
	}
}

// weigh leaves of the broken and absent segments those whose rows are nowhere.
func weigh(served *segments.Collection, broken []Broken, loading []catalog.Segment, wanted func(int64) bool) lacking {
	var l lacking
	there := map[int64]bool{}
	for _, st := range served.Segments() {
		there[st.ID] = true
		if wanted(st.PartitionID) {
			l.have += int64(st.Rows)
		}
	}
	for _, b := range broken {
		if wanted(b.PartitionID) && !there[b.SegmentID] {
			there[b.SegmentID] = true
			l.broken = append(l.broken, b)
			l.rows += b.Rows
		}
	}
	for _, seg := range loading {
		if !there[seg.ID] {
			l.loading = append(l.loading, seg)
			l.rows += seg.Rows
		}
	}
	return l
}

// addTo tells of it in the answer.
func (l *lacking) addTo(s *segments.ReadStats) {
	for _, b := range l.broken {
		s.Failures = append(s.Failures, segments.Failure{SegmentID: b.SegmentID, VChannel: b.VChannel, Err: b.Err})
	}
	for _, seg := range l.loading {
		s.Failures = append(s.Failures, segments.Failure{SegmentID: seg.ID, VChannel: seg.VChannel,
			Err: errclass.New(errclass.Retryable, "segment %d is not loaded yet", seg.ID)})
	}
	if all := l.have + l.rows; all > 0 {
		s.SearchedShare *= float64(l.have) / float64(all)
	}
}
