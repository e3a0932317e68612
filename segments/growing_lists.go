package segments

import (
	"sync/atomic"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/vec"
)

// growingLists is an inverted file over the first rows of a growing segment: a row
// costs about a microsecond to put in, a hundredth of what a graph takes, and a search
// reads the lists that may have something near. Codes of a byte a dimension tell what
// is worth an exact distance.
//
// Whether a list may have something is learnt from the rows. For a row x in a list
// with the middle c, and a query q,
//
//	|q-x|² = |q-c|² + |x-c|² - 2 |q-c| |x-c| cos(q-c, x-c)
//
// and the cosine is that of near rows at most. So a list is read if with that
// cosine it could have a row nearer than the worst that is wanted: few lists of
// rows that lie in heaps, all lists of rows that lie anywhere. Of the lists around a
// query, borders tell which may.
//
// One goroutine writes; readers take the state that was published last, which
// does not change.
type growingLists struct {
	codes   *byteCodes
	middles *centres
	cosine  float32  // of near rows, at most
	borders *borders // nil = there are none
	metric  index.Metric
	trained int  // rows there were
	coarse  bool // the codes do not tell near rows apart: those of a list are looked at themselves
	state   atomic.Pointer[listsState]
	memory  *Reservation
}

// listsState is what readers see.
type listsState struct {
	rows  int      // [0, rows) are in lists, or loose
	loose []uint32 // rows that the codes do not reach
	lists []codeList
}

// codeList is one list. What is behind the ends of its slices may be written.
type codeList struct {
	codes     []byte // whole panels
	bias      []float32
	rows      []uint32
	last      *panel  // the panel that is not full, never changed; nil = none
	near, far float32 // distances of rows from the middle: the least, the most
}

// some reports whether the list has rows.
func (l *codeList) some() bool { return len(l.rows) > 0 || l.last != nil }

// panel is vec.PanelRows codes or fewer.
type panel struct {
	n     int
	codes []byte
	bias  [vec.PanelRows]float32 // +Inf behind n
	rows  [vec.PanelRows]uint32
}

// rows is how many rows are in lists that readers see.
func (x *growingLists) rows() int { return x.state.Load().rows }
