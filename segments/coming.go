package segments

import (
	"slices"
	"sync"
	"unsafe"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// coming is what the ledger knows ahead of a channel: rows that this node has let into its log and that have not come
// out of it yet, and what building the indexes of its growing segments will take, with those rows. A log may be read much later than it is
// written; who lets rows in by what has been read of it lets in more than there is room for.
//
// What was written before the channel was watched is not in it, nor what another owner of the log has written.
type coming struct {
	ledger *Ledger
	info   func() CollectionInfo
	mu     struct {
		sync.Mutex
		closed   bool
		readTo   uint64             // all of the log has been read up to here
		written  []*Coming          // in the log, behind that, in order of their timestamps
		bytes    int64              // of those and of the ones on their way to the log
		segments map[int64]*toBuild // by id: those with rows here or to come
		workers  int                // that build indexes here; 0 = none do
		leaving  int                // of the segments, as the ledger was told
	}
}

// toBuild is a segment whose index is to be built, as the ledger has it.
type toBuild struct {
	rows    int  // read
	coming  int  // not yet
	workers int  // 0 = its index is not built here, or has been
	sealed  bool // and still here
	stored  bool // the catalog has it
}

// Coming is rows on their way through the log. Nil is none.
type Coming struct {
	of      *coming
	segment int64
	rows    int
	bytes   int64
	at      uint64 // timestamp; 0 = not known yet
}

func newComing(l *Ledger, info func() CollectionInfo, from uint64) *coming {
	x := &coming{ledger: l, info: info}
	x.mu.segments = map[int64]*toBuild{}
	x.mu.readTo = from
	return x
}

// Coming has the ledger know of rows that are about to be written to the log for a growing segment: of what they will
// take, and what building the segment's index here will take with them, with so many workers, until they have been read from it. The caller
// calls Settled once it is known what has become of them.
func (ch *Channel) Coming(segment int64, b *schema.Batch, workers int) *Coming {
	if workers > 0 && !ch.coming.here() {
		ch.ToBuild(workers) // who writes the log stores what is in it
	}
	return ch.coming.add(segment, b)
}

func (x *coming) add(segment int64, b *schema.Batch) *Coming {
	info := x.info()
	bytes := comingBytes + rowsBytes(&info, b)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.closed {
		return nil
	}
	s := x.segmentLocked(segment)
	c := &Coming{of: x, segment: segment, rows: b.Rows, bytes: bytes + chunksBytes(&info, s.rows+s.coming, b.Rows)}
	s.coming += b.Rows
	x.mu.bytes += c.bytes
	x.ledger.comes(c.bytes)
	x.expectLocked(s)
	return c
}

// Settled says that the rows are in the log, or may be, with a timestamp; 0 = they are not and will not be. It is called once.
func (c *Coming) Settled(at uint64) {
	if c == nil {
		return
	}
	x := c.of
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.mu.closed:
	case at <= x.mu.readTo: // also 0; or it has been read before the writer knew
		x.goneLocked(c)
	default:
		c.at = at
		i, _ := slices.BinarySearchFunc(x.mu.written, at, func(c *Coming, at uint64) int {
			if c.at < at {
				return -1
			}
			return 1
		})
		x.mu.written = slices.Insert(x.mu.written, i, c)
	}
}

// read says that all of the log has been read up to a timestamp, whatever has become of the rows: they are in a segment
// here, or set aside, or nobody's concern.
func (x *coming) read(to uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.mu.readTo = max(x.mu.readTo, to)
	n := 0
	for n < len(x.mu.written) && x.mu.written[n].at <= to {
		x.goneLocked(x.mu.written[n])
		n++
	}
	// The rest stays where it is, for a reader that is far behind has much of it: the next that is written and has no room behind it is
	// moved to other memory with what there is then.
	clear(x.mu.written[:n])
	x.mu.written = x.mu.written[n:]
}

func (x *coming) goneLocked(c *Coming) {
	x.mu.bytes -= c.bytes
	x.ledger.comes(-c.bytes)
	if s := x.mu.segments[c.segment]; s != nil {
		s.coming -= c.rows
		x.changedLocked(c.segment, s)
	}
}

// grows says how many rows of a segment are here.
func (x *coming) grows(segment int64, rows int) {
	x.change(segment, func(s *toBuild) { s.rows = rows })
}

// toBuild says with how many workers the index of a segment will be built here; 0 = it will not.
func (x *coming) toBuild(segment int64, workers int) {
	x.change(segment, func(s *toBuild) { s.workers = workers })
}

// seals says that a segment takes no more rows.
func (x *coming) seals(segment int64) { x.change(segment, func(s *toBuild) { s.sealed = true }) }

// stored says that the catalog has a segment: nobody builds its index here any more. It goes once what was stored is loaded; where that is not
// wanted, or fails, it stays, and nobody is to wait for it.
func (x *coming) stored(segment int64) {
	x.change(segment, func(s *toBuild) { s.workers, s.stored = 0, true })
}

// gone says that a segment's memory has been given back.
func (x *coming) gone(segment int64) {
	x.change(segment, func(s *toBuild) {
		s.rows, s.sealed, s.stored = 0, false, false
		if s.coming == 0 {
			s.workers = 0
		}
	})
}

func (x *coming) change(segment int64, how func(*toBuild)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.closed {
		return
	}
	s := x.segmentLocked(segment)
	how(s)
	x.changedLocked(segment, s)
}

// builders says with how many workers indexes are built here; 0 = they are not. Of segments with rows here, toBuild says it.
func (x *coming) builders(workers int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.closed || x.mu.workers == workers {
		return
	}
	x.mu.workers = workers
	for _, s := range x.mu.segments {
		if s.rows == 0 {
			s.workers = workers
			x.expectLocked(s)
		}
	}
	x.tellLeavingLocked()
}

// here reports whether this node builds the indexes of the channel: nobody else makes room for its rows.
func (x *coming) here() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mu.workers > 0
}

func (x *coming) segmentLocked(id int64) *toBuild {
	s := x.mu.segments[id]
	if s == nil {
		s = &toBuild{workers: x.mu.workers}
		x.mu.segments[id] = s
	}
	return s
}

func (x *coming) changedLocked(id int64, s *toBuild) {
	if s.rows == 0 && s.coming == 0 && !s.sealed {
		delete(x.mu.segments, id)
		s.workers = 0
	}
	x.expectLocked(s)
	x.tellLeavingLocked()
}

func (x *coming) expectLocked(s *toBuild) {
	var bytes int64
	if s.workers > 0 && s.rows+s.coming > 0 {
		bytes = BuildBytes(x.info(), s.rows+s.coming, s.workers)
	}
	x.ledger.expect(s, bytes)
}

func (x *coming) tellLeavingLocked() {
	n := 0
	for _, s := range x.mu.segments {
		if s.sealed && !s.stored && x.mu.workers > 0 && !x.mu.closed {
			n++
		}
	}
	x.ledger.leaves(n - x.mu.leaving)
	x.mu.leaving = n
}

// close forgets all: the channel is not watched any more.
func (x *coming) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.mu.closed {
		return
	}
	x.mu.closed = true
	x.ledger.comes(-x.mu.bytes)
	for _, s := range x.mu.segments {
		x.ledger.expect(s, 0)
	}
	x.tellLeavingLocked()
	x.mu.written, x.mu.bytes = nil, 0
	clear(x.mu.segments)
}

// comingBytes is what is kept of rows until they have been read.
const comingBytes = int64(unsafe.Sizeof(Coming{})) + 8

// rowsBytes is what the rows of b will take of a growing segment, besides chunksBytes.
func rowsBytes(info *CollectionInfo, b *schema.Batch) int64 {
	bytes := int64(b.Rows) * bytesPerKey
	for _, f := range info.Schema.Columns() {
		c := b.Column(f.ID)
		if c == nil || !f.Type.IsVector() {
			continue
		}
		if f.Type == schema.SparseFloatVector {
			bytes += 10*int64(b.Rows) + sparseBytes*int64(len(c.Indices))
			continue
		}
		row := int64(f.Type.RowBytes(f.Dim))
		if ix := info.index(f.ID); ix.Metric == index.Cosine {
			row += 4
		}
		if f.Nullable {
			row++
		}
		bytes += int64(b.Rows) * row
	}
	for _, c := range b.Columns {
		bytes += looseBytes(c)
	}
	return bytes
}

// chunksBytes is what chunks take that n more rows need of a growing segment which has so many.
func chunksBytes(info *CollectionInfo, rows, n int) int64 {
	more := chunksFor(rows+n) - chunksFor(rows)
	if more == 0 {
		return 0
	}
	var scalars []schema.Field
	for _, f := range info.Schema.Columns() {
		if !f.Type.IsVector() {
			scalars = append(scalars, f)
		}
	}
	return int64(more) * (chunkBytes(scalars) + chainBytes)
}
