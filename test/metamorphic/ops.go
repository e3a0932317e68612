package main

import (
	"bufio"
	"encoding/json"
	"io"
	"math/rand/v2"
	"slices"

	"github.com/cockroachdb/errors"
)

// op is one operation: a request to the node, or something done to it. It says
// all there is to say: running it needs no random numbers but those of its seeds.
type op struct {
	ID     int      `json:"id"`             // grows along a lane; barriers have one too
	Lane   int      `json:"lane,omitempty"` // 0 = a barrier: all lanes wait
	Do     string   `json:"do"`
	Seed   uint64   `json:"seed,omitempty"`   // of a schema, a field, or the form of a read
	Filter uint64   `json:"filter,omitempty"` // seed of a filter
	Text   string   `json:"text,omitempty"`   // of the filter, for who reads the script
	Part   string   `json:"part,omitempty"`
	Parts  []string `json:"parts,omitempty"`
	Keys   []int64  `json:"keys,omitempty"`
	Ver    int64    `json:"ver,omitempty"`
	Omit   uint64   `json:"omit,omitempty"` // seed of the fields that rows leave out
	At     int      `json:"at,omitempty"`   // id of a mark, or of the first page; 0 = now
	NQ     int      `json:"nq,omitempty"`
	K      int      `json:"k,omitempty"`
	Offset int      `json:"offset,omitempty"`
	Form   string   `json:"form,omitempty"`  // of a search or query; "" = the plain one
	Level  string   `json:"level,omitempty"` // of consistency; "" = all that was written is seen
	Wait   bool     `json:"wait,omitempty"`
	Sealed bool     `json:"sealed,omitempty"` // ignore_growing
	Crowd  int      `json:"crowd,omitempty"`  // rows of the collection's crowd; see opCrowd
}

// The operations.
const (
	opCreate    = "create"
	opDrop      = "drop"
	opAddField  = "add_field"
	opDropField = "drop_field"
	opIndex     = "index"   // of a scalar field: built or dropped
	opReindex   = "reindex" // of a vector field: another index, another metric
	opPartition = "partition"
	opDropPart  = "drop_partition"
	opCrowd     = "crowd" // one insert of thousands of rows, for indexes that are worth it
	opInsert    = "insert"
	opUpsert    = "upsert"
	opDelete    = "delete"
	opDeleteBy  = "delete_by_filter"
	opFlush     = "flush"
	opSettle    = "settle" // what was written is served as sealed from now on
	opCompact   = "compact"
	opName      = "name"    // the collection, or an alias: made, dropped, led elsewhere and back
	opZone      = "zone"    // of times in filters
	opRefused   = "refused" // a request that is wrong
	opCool      = "cool"    // its segments are served from mapped files
	opRelease   = "release"
	opLoad      = "load"
	opMark      = "mark" // a moment to come back to
	opSearch    = "search"
	opHybrid    = "hybrid"
	opQuery     = "query"
	opCount     = "count"
	opGet       = "get"
	opPage      = "page"    // the next one of a search or query in pages
	opPartial   = "partial" // a segment cannot be read
	opRestart   = "restart" // barrier: stop and start
	opCrash     = "crash"   // barrier: the same while object storage fails
	opMeet      = "meet"    // barrier
)

// The forms of searches and queries.
const (
	formRange     = "range"
	formGroups    = "groups"
	formPages     = "pages"
	formOrder     = "order"
	formAggregate = "aggregate"
	formSample    = "sample"
)

// The levels of consistency that may show less than what was written.
const (
	levelBounded    = "bounded"
	levelEventually = "eventually"
)

// weights of the operations on a collection that is there and loaded.
var weights = []struct {
	do string
	w  int
}{
	{opInsert, 18}, {opUpsert, 15}, {opDelete, 9}, {opDeleteBy, 3}, {opFlush, 2}, {opSettle, 1}, {opCompact, 1}, {opCool, 1}, {opRelease, 1},
	{opPartition, 1}, {opDropPart, 1}, {opMark, 4}, {opAddField, 1}, {opDropField, 1}, {opIndex, 2}, {opReindex, 1}, {opName, 1}, {opZone, 1}, {opRefused, 3}, {opPartial, 1},
	{opSearch, 34}, {opHybrid, 7}, {opQuery, 24}, {opCount, 5}, {opGet, 6}, {opPage, 8},
}

func total() (n int) {
	for _, x := range weights {
		n += x.w
	}
	return n
}

// next draws the next operation of a lane. What it looks at of the model follows
// from the operations before it.
func (l *lane) next() op {
	l.nextID++
	o := op{ID: l.nextID, Lane: l.number}
	r, m := l.r, l.model
	switch {
	case m == nil:
		o.Do, o.Seed = opCreate, r.Uint64()
		l.left = 150 + r.IntN(900)
		if r.IntN(l.crowds) == 0 {
			o.Crowd = 7_000 + r.IntN(2_000)
			l.left = 40 + r.IntN(160)
		}
		return o
	case m.spec.crowd > 0 && m.crowd < crowdServed:
		o.Do, o.Crowd, o.Part, o.Wait = opCrowd, m.spec.crowd, m.parts[0], m.crowd == crowdThere
		if o.Wait {
			o.Do, o.Crowd, o.Part = opSettle, 0, ""
		}
		m.crowd++
		m.version++
		o.Ver = m.version
		return o
	case l.left == 0 && m.loaded:
		o.Do = opDrop
		return o
	case !m.loaded && r.IntN(3) == 0:
		o.Do = opLoad
		return o
	}
	l.left = max(0, l.left-1)
	n := r.IntN(total())
	for _, x := range weights {
		if n -= x.w; n < 0 {
			o.Do = x.do
			break
		}
	}
	l.fill(&o, r, m)
	return o
}

func (l *lane) fill(o *op, r *rand.Rand, m *model) {
	switch o.Do {
	case opInsert, opUpsert:
		o.Keys, o.Part = m.someKeys(r), l.place(r, m)
		if r.IntN(4) == 0 {
			o.Omit = 1 + r.Uint64N(1<<32)
		}
		m.version++
		o.Ver = m.version
	case opDelete:
		o.Keys = m.someKeys(r)
		if r.IntN(3) == 0 {
			o.Part = l.place(r, m)
		}
	case opDeleteBy:
		o.Filter = 1 + r.Uint64N(1<<32)
		if r.IntN(3) == 0 {
			o.Part = l.place(r, m)
		}
	case opFlush:
		o.Wait = r.IntN(3) > 0
	case opSettle:
		o.Wait = true
	case opPartition, opDropPart:
		o.Part = []string{"p1", "p2"}[r.IntN(2)]
	case opAddField, opDropField, opIndex, opReindex, opPartial, opName, opZone, opRefused:
		o.Seed = r.Uint64()
	case opPage:
		if len(l.open) > 0 {
			o.At = l.open[r.IntN(len(l.open))]
		}
		o.K = 1 + r.IntN(120)
	case opSearch, opHybrid, opQuery, opCount, opGet:
		l.fillRead(o, r, m)
	}
	o.Text = ""
	if f := m.spec.newFilter(o.Filter); f != nil {
		o.Text = f.text
	}
}

func (l *lane) fillRead(o *op, r *rand.Rand, m *model) {
	o.Seed = r.Uint64()
	if len(l.marks) > 0 && r.IntN(3) == 0 {
		o.At = l.marks[r.IntN(len(l.marks))]
	}
	if o.Do == opGet {
		o.Keys = m.someKeys(r)
		return
	}
	if r.IntN(2) == 0 {
		o.Filter = 1 + r.Uint64N(1<<32)
	}
	if r.IntN(4) == 0 {
		o.Parts = []string{l.place(r, m)}
	}
	switch o.Do {
	case opSearch:
		o.NQ, o.K = 1, 1+r.IntN(30)
		if r.IntN(4) == 0 {
			o.NQ = 2 + r.IntN(3)
		}
		if r.IntN(6) == 0 {
			o.Offset = 1 + r.IntN(8)
		}
		o.Form = []string{"", "", "", "", "", "", "", "", formRange, formRange, formGroups, formGroups, formPages, formPages, formSample}[r.IntN(15)]
		o.Sealed = r.IntN(10) == 0
		if m.spec.crowd > 0 && o.NQ == 1 && (o.Form == "" || o.Form == formRange) && r.IntN(6) == 0 {
			o.K = wideFrom + r.IntN(2_001-wideFrom)
		}
	case opHybrid:
		o.NQ, o.K = 1, 1+r.IntN(40)
		if r.IntN(4) == 0 {
			o.NQ = 2 + r.IntN(2)
		}
		if r.IntN(4) == 0 {
			o.Offset = 1 + r.IntN(8)
		}
		if r.IntN(3) == 0 {
			o.K = 1 + r.IntN(5) // fewer than there are groups
		}
		o.Sealed = r.IntN(10) == 0
	case opQuery:
		o.Form = []string{"", "", "", "", formOrder, formOrder, formAggregate, formAggregate, formAggregate, formPages, formPages, formSample}[r.IntN(12)]
		if o.Form == formPages || o.Form != formSample && r.IntN(3) == 0 {
			o.K, o.Offset = 1+r.IntN(40), r.IntN(2)*r.IntN(10)
		}
		o.Sealed = o.Form != formSample && r.IntN(8) == 0
	case opCount:
		o.Sealed = r.IntN(8) == 0
		if !o.Sealed && r.IntN(6) == 0 {
			o.Form = formSample
		}
	}
	if o.Do == opSearch && o.Form == formPages || o.Do == opQuery && o.Form == formPages {
		o.NQ, o.Offset = 1, 0
	}
	if o.Do == opQuery && o.Form == "" && o.At == 0 && !o.Sealed && r.IntN(6) == 0 {
		o.Level, o.K, o.Offset = []string{levelBounded, levelEventually}[r.IntN(2)], 0, 0
	}
}

func (l *lane) place(r *rand.Rand, m *model) string { return m.parts[r.IntN(len(m.parts))] }

func (m *model) someKeys(r *rand.Rand) []int64 {
	space := int64(keySpace)
	if r.IntN(2) == 0 {
		space += int64(m.spec.crowd)
	}
	n := 1 + r.IntN(4)
	if r.IntN(4) == 0 {
		n = 1 + r.IntN(60)
	}
	var keys []int64
	for range n {
		if k := r.Int64N(space); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// writeScript writes one operation a line.
func writeScript(w io.Writer, ops []op) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	for i := range ops {
		if err := e.Encode(&ops[i]); err != nil {
			return errors.Wrap(err, "write script")
		}
	}
	return errors.Wrap(b.Flush(), "write script")
}

// readScript reads what writeScript wrote.
func readScript(r io.Reader) ([]op, error) {
	var ops []op
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	for {
		var o op
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return ops, nil
		}
		if err != nil {
			return nil, errors.Wrapf(err, "read script, operation %d", len(ops)+1)
		}
		ops = append(ops, o)
	}
}
