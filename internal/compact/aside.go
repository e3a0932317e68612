package compact

import (
	"cmp"
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
)

// A file that is damaged, gone or too new is set aside for a while, and what can be
// compacted without it is. Nothing of it is lost: a segment stays in the catalog, and
// so does a file of deletes, with the segments that have rows for it.

// asideFor is how long a file that cannot be read is left alone: somebody may have put
// it right by then.
const asideFor = time.Hour

// Aside is a segment or a file of deletes that is set aside.
type Aside struct {
	VChannel  string    `json:"vchannel"`
	SegmentID int64     `json:"segment_id,omitempty"` // 0 = a file of deletes
	Path      string    `json:"path"`
	Error     string    `json:"error"`
	Until     time.Time `json:"until"`
}

// errAside marks the errors of jobs of which an input was set aside: the next job is
// one without it.
var errAside = errors.New("it is set aside")

// setAside remembers a file that cannot be read, and marks the error. Errors that may
// pass are returned as they are.
func (c *Compactor) setAside(a Aside, err error) error {
	switch errclass.Of(err) {
	case errclass.Corrupt, errclass.NotFound, errclass.Unimplemented:
	default:
		return err
	}
	a.Error, a.Until = err.Error(), c.o.Now().Add(asideFor)
	c.o.Logger.Error("compact: a file that cannot be read is set aside", "vchannel", a.VChannel, "segment", a.SegmentID, "path", a.Path, "for", asideFor, "error", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.aside[a.Path] = a
	return errors.Mark(err, errAside)
}

// isAside reports whether a file is left alone for now.
func (c *Compactor) isAside(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.mu.aside[path]
	return ok
}

// usable returns a test of the segments of a channel that can be compacted: they can
// be read, and so can all files of deletes that may hide rows of theirs.
func (c *Compactor) usable(entry *catalog.Channel) func(*catalog.Segment) bool {
	var away []catalog.Delta
	for _, d := range entry.Deltas {
		if c.isAside(d.Path) {
			away = append(away, d)
		}
	}
	return func(s *catalog.Segment) bool {
		return !c.isAside(s.Path) && !slices.ContainsFunc(away, func(d catalog.Delta) bool { return concerns(&d, s) })
	}
}

// concerns reports whether a file of deletes may hide rows of a segment that are not
// hidden by the segment's own file.
func concerns(d *catalog.Delta, s *catalog.Segment) bool {
	return d.MaxTimestamp > max(s.FoldedTimestamp, s.MinTimestamp) && (d.PartitionID == 0 || d.PartitionID == s.PartitionID)
}

// putBack forgets what of a channel has been aside for long enough, or is not in its
// catalog any more.
func (c *Compactor) putBack(entry *catalog.Channel) {
	there := map[string]bool{}
	for _, s := range entry.Segments {
		there[s.Path] = true
	}
	for _, d := range entry.Deltas {
		there[d.Path] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for path, a := range c.mu.aside {
		if a.VChannel == entry.VChannel && (!there[path] || !c.o.Now().Before(a.Until)) {
			delete(c.mu.aside, path)
		}
	}
}

// asideLocked lists what is set aside.
func (c *Compactor) asideLocked() (list []Aside) {
	for _, a := range c.mu.aside {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b Aside) int { return cmp.Or(cmp.Compare(a.VChannel, b.VChannel), cmp.Compare(a.Path, b.Path)) })
	return list
}
