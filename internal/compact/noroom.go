package compact

import (
	"cmp"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
)

// A job that has no room, in memory or on the disk, does not hold up the smaller ones of
// its channel: what it is about is left out until the channel is looked at again.

// errNoRoom marks the errors of jobs that were left out for want of room.
var errNoRoom = errors.New("it is left out for now")

// noRoom marks an error of a reservation.
func noRoom(err error) error {
	if errclass.Is(err, errclass.Exhausted) {
		return errors.Mark(err, errNoRoom)
	}
	return err
}

// leftOut is what is not tried again while jobs of a channel are done.
type leftOut struct {
	same   map[int64]bool // segments of which a rewrite would drop nothing
	noRoom map[int64]bool // segments that are in no job, for want of room
	deltas bool           // files of deletes are not made one, for want of room
	jobs   int            // that had no room
	first  error          // of them
}

func newLeftOut() *leftOut { return &leftOut{same: map[int64]bool{}, noRoom: map[int64]bool{}} }

// leave leaves out the larger half of a job's segments: there may be room for the others.
func (l *leftOut) leave(j *job, err error) {
	in := slices.Clone(j.inputs)
	slices.SortFunc(in, func(a, b catalog.Segment) int { return cmp.Compare(a.Rows, b.Rows) })
	for _, s := range in[len(in)/2:] {
		l.noRoom[s.ID] = true
	}
	l.note(err)
}

// leaveDeltas leaves the files of deletes as they are.
func (l *leftOut) leaveDeltas(err error) {
	l.deltas = true
	l.note(err)
}

func (l *leftOut) note(err error) {
	l.jobs++
	if l.first == nil {
		l.first = err
	}
}

// err tells what had no room; nil if all had.
func (l *leftOut) err() error {
	if l.jobs > 1 {
		return errors.Wrapf(l.first, "%d jobs were left out, the first", l.jobs)
	}
	return l.first
}
