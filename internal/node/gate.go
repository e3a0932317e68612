package node

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/segments"
)

// absent are segments that the catalog had when their channel was watched: the
// channel does not replay their rows, so until they are loaded a read would miss
// them. A segment that is flushed later is not absent: its rows are in a growing
// one until its load takes that one's place, in one step.
//
// A segment leaves when it is loaded, released by a caller, or not in the
// catalog any more. One that is known as broken stays, and is told by that name.
type absent map[int64]catalog.Segment

// expect notes what a channel that is about to be watched will not replay.
func (n *Node) expect(s *serving, vchannel string, segs []catalog.Segment) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(segs) == 0 {
		delete(s.absent, vchannel)
		return
	}
	a := absent{}
	for _, seg := range segs {
		a[seg.ID] = seg
	}
	s.absent[vchannel] = a
}

// ask says that a caller wants segments to be read from now on, whatever else is
// served of the collection.
func (n *Node) ask(s *serving, ids ...int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		s.asked[id] = true
	}
}

// unask takes it back for those that are not loaded: the caller knows.
func (n *Node) unask(s *serving, ids ...int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		delete(s.asked, id)
	}
	n.newsLocked(s)
}

// askedOf lists them.
func (n *Node) askedOf(s *serving) []int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(s.asked))
}

// arrivedLocked takes a segment off the list of the absent.
func (n *Node) arrivedLocked(s *serving, id int64) {
	for vchannel, a := range s.absent {
		delete(a, id)
		if len(a) == 0 {
			delete(s.absent, vchannel)
		}
	}
	delete(s.asked, id)
	delete(s.failing, id)
	n.newsLocked(s)
}

// newsLocked wakes the reads that wait for loads.
func (n *Node) newsLocked(s *serving) {
	close(s.news)
	s.news = make(chan struct{})
}

// lacksNothing says that no segment of the collection is broken or absent.
func (n *Node) lacksNothing(coll *catalog.Collection) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.mu.serving[coll.ID]
	return s == nil || len(s.broken) == 0 && len(s.absent) == 0
}

// absentLocked lists what a read of the collection would miss, in order of ids:
// all that is absent if the collection is served whole, else what was asked for.
func (n *Node) absentLocked(s *serving, want func(partition int64) bool) (list []catalog.Segment) {
	for _, a := range s.absent {
		for id, seg := range a {
			if (s.whole.Load() || s.asked[id]) && !s.released[id] && want(seg.PartitionID) {
				list = append(list, seg)
			}
		}
	}
	slices.SortFunc(list, func(a, b catalog.Segment) int { return int(a.ID - b.ID) })
	return list
}

// gateShare is the part of a read's time, in tenths, that it waits for loads: the
// rest is for telling the caller what was missing.
const gateShare = 9

// gated makes the read wait, right before its snapshot, for the segments that it
// needs, and returns what will hold those that it has to do without: broken
// ones and, if it allows a partial answer, those that are still being loaded.
func (n *Node) gated(coll *catalog.Collection, served *segments.Collection, r *segments.Read) *lacking {
	found := &lacking{}
	r.Ready = func(ctx context.Context) error {
		if n.lacksNothing(coll) { // as nearly always: no timer for that
			return n.checkRetained(coll, r.ReadTimestamp)
		}
		limit := ctx
		if at, ok := ctx.Deadline(); ok && !r.AllowPartial {
			var cancel context.CancelFunc
			limit, cancel = context.WithTimeout(ctx, time.Until(at)*gateShare/10)
			defer cancel()
		}
		l, err := n.lacks(limit, coll, served, r)
		*found = l
		if err == nil {
			err = n.checkRetained(coll, r.ReadTimestamp) // again: it may have waited for long
		}
		return err
	}
	return found
}

// look returns the segments that a read would miss now, and a channel that is
// closed when that may have changed.
func (n *Node) look(coll *catalog.Collection, served *segments.Collection, want func(int64) bool) (broken []Broken, loading []catalog.Segment, news <-chan struct{}, why error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.mu.serving[coll.ID]
	if s == nil {
		return nil, nil, nil, nil
	}
	broken, loading, news = slices.Clone(s.broken), n.absentLocked(s, want), s.news
	for _, seg := range loading {
		if err := s.failing[seg.ID]; err != nil {
			why = err
			break
		}
	}
	return broken, loading, news, why
}

// stillLoading is the error of a read whose segments did not come in time.
func stillLoading(coll *catalog.Collection, segs []catalog.Segment, why error) error {
	const most = 10
	var names []string
	var rows int64
	for _, seg := range segs {
		if rows += seg.Rows; len(names) < most {
			names = append(names, strconv.FormatInt(seg.ID, 10))
		}
	}
	if len(segs) > most {
		names = append(names, "...")
	}
	text := strings.Join(names, ", ")
	noun, are, them := "segments", "are", "them"
	if len(segs) == 1 {
		noun, are, them = "segment", "is", "it"
	}
	if why != nil {
		return errclass.With(errclass.Wrap(why, errclass.Retryable, "%d %s of collection %q with %d rows %s not loaded yet: %s; try again, or set allow_partial to be answered without %s. The last try",
			len(segs), noun, coll.Name, rows, are, text, them), errclass.Partial)
	}
	return errclass.With(errclass.New(errclass.Retryable, "%d %s of collection %q with %d rows %s still being loaded: %s; try again, or set allow_partial to be answered without %s",
		len(segs), noun, coll.Name, rows, are, text, them), errclass.Partial)
}

// arrived says that a segment has been found loaded.
func (n *Node) arrived(s *serving, id int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.arrivedLocked(s, id)
}
