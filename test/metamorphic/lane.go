package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// callTimeout bounds each request: far beyond what one takes.
const callTimeout = 2 * time.Minute

// lane is a line of operations on one collection at a time.
type lane struct {
	number int
	rig    *rig
	r      *rand.Rand // of the operations to come; nil in a replay
	nextID int
	left   int // operations until the collection is dropped
	marks  []int
	open   []int  // reads in pages that are not at their end, as far as is known
	model  *model // nil = there is no collection
	made   int    // collections so far
	done   []op   // what was run, the last one included
	tally  map[string]int
	spent  map[string]time.Duration
	recall recall
	crowd  recalls // the same of collections with a crowd
	crowds int     // one in how many collections has one
	lie    bool    // tests: the model forgets some deletes
	brief  bool    // nobody asks whether a difference lasts
}

// recall sums up what graphs found of what there was.
type recall struct {
	Found  int64 `json:"found"`
	Wanted int64 `json:"wanted"`
}

func (r *recall) add(o recall) {
	r.Found += o.Found
	r.Wanted += o.Wanted
}

// recalls are those of kinds of indexes.
type recalls map[string]*recall

func (r recalls) of(kind string) *recall {
	if r[kind] == nil {
		r[kind] = new(recall)
	}
	return r[kind]
}

// least is what searches of a kind must find.
func least(kind string) float64 {
	return pick(strings.HasSuffix(kind, muchMark), minByMuch, minInCrowds)
}

// worst is the kind that found least of what it must, of those with hits enough
// to tell; "" = none has.
func (r recalls) worst() string {
	worst := ""
	for _, kind := range slices.Sorted(maps.Keys(r)) {
		if r[kind].Wanted >= recallEnough && (worst == "" || r[kind].share()-least(kind) < r[worst].share()-least(worst)) {
			worst = kind
		}
	}
	return worst
}

// share is what was found of what was wanted; 1 if nothing was.
func (r *recall) share() float64 {
	if r.Wanted == 0 {
		return 1
	}
	return float64(r.Found) / float64(r.Wanted)
}

// difference is an answer that is not what the model says.
type difference struct {
	Op   op
	What string
}

// Error says what differs.
func (d *difference) Error() string {
	return fmt.Sprintf("operation %d of lane %d (%s): %s", d.Op.ID, d.Op.Lane, d.Op.Do, d.What)
}

func (o *op) differs(format string, args ...any) error {
	return &difference{Op: *o, What: fmt.Sprintf(format, args...)}
}

// run runs one operation. An operation that does not fit what is there, as some
// do in a script that was cut down, does nothing.
func (l *lane) run(ctx context.Context, o *op) error {
	l.done = append(l.done, *o)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	began := time.Now()
	err := l.do(ctx, o)
	l.tally[o.kind()]++
	l.spent[o.kind()] += time.Since(began)
	if st, ok := status.FromError(errors.Cause(err)); ok && err != nil && st.Code() != codes.OK {
		err = o.differs("the node refuses it: %v", err)
	}
	var d *difference
	if l.model != nil && errors.As(err, &d) {
		d.What += l.afterwards(ctx, o) + "; the collection has " + l.model.spec.describe() + "; " + l.rig.describe(ctx, l.model.spec.name)
	}
	return err
}

// afterwards says whether a read still differs a while later: what was not there for a moment is another matter than
// what is gone.
func (l *lane) afterwards(ctx context.Context, o *op) string {
	if l.brief || !slices.Contains([]string{opSearch, opHybrid, opQuery, opCount, opGet}, o.Do) || o.At != 0 {
		return ""
	}
	text := ""
	for _, wait := range []time.Duration{0, 3 * time.Second} {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return text
		}
		text += fmt.Sprintf("; %v later it ", wait)
		if err := l.do(ctx, o); err == nil {
			text += "does not differ"
		} else {
			text += "still differs"
		}
	}
	return text
}

// kind is what an operation is counted as.
func (o *op) kind() string { return o.Do + pick(o.Form == "", "", " "+o.Form) }

func (l *lane) do(ctx context.Context, o *op) error {
	m := l.model
	if o.Do == opCreate {
		return l.create(ctx, o)
	}
	if m == nil {
		return nil
	}
	switch o.Do {
	case opDrop:
		l.model, l.marks, l.open = nil, nil, nil
		if err := l.rig.complete(m.spec.name); err != nil {
			return o.differs("%v", err)
		}
		if _, err := l.rig.catalog.DropCollection(ctx, &qnpb.DropCollectionRequest{Collection: m.spec.name}); err != nil {
			return err
		}
		for _, alias := range m.spec.aliases {
			if err := l.unknown(ctx, o, alias); err != nil {
				return err
			}
		}
		return nil
	case opPartition, opDropPart:
		return l.partition(ctx, o)
	case opAddField, opDropField, opIndex, opReindex:
		return l.change(ctx, o)
	case opName:
		return l.rename(ctx, o)
	case opRefused:
		return l.refused(ctx, o)
	case opZone:
		return l.rezone(ctx, o)
	case opInsert, opCrowd, opUpsert, opDelete:
		return l.append(ctx, o)
	case opDeleteBy:
		return l.deleteBy(ctx, o)
	case opMark:
		return l.mark(ctx, o)
	case opSearch, opHybrid, opQuery, opCount, opGet, opPage:
		return l.read(ctx, o)
	}
	return l.move(ctx, o)
}

// move runs the operations that no answer may show.
func (l *lane) move(ctx context.Context, o *op) error {
	m := l.model
	switch o.Do {
	case opFlush:
		return l.flush(ctx, o)
	case opSettle:
		if err := l.flush(ctx, o); err != nil || !m.loaded {
			return err
		}
		return l.load(ctx)
	case opCompact: // besides those that the node does by itself
		if !m.loaded {
			return nil
		}
		_, err := l.rig.write.Compact(ctx, &qnpb.CompactRequest{Collection: m.spec.name})
		return err
	case opCool:
		return l.rig.cool(m.spec.name)
	case opRelease:
		m.loaded = false
		_, err := l.rig.control.ReleaseSegments(ctx, &qnpb.ReleaseSegmentsRequest{Collection: m.spec.name})
		return err
	case opLoad:
		m.loaded = true
		return l.load(ctx)
	case opPartial:
		return l.partial(ctx, o)
	}
	return errors.Newf("unknown operation %q", o.Do)
}

// flush has growing segments sealed; with o.Wait they are in the catalog then.
func (l *lane) flush(ctx context.Context, o *op) error {
	m := l.model
	if !m.loaded {
		return nil
	}
	_, err := l.rig.write.Flush(ctx, &qnpb.FlushRequest{Collection: m.spec.called(uint64(o.ID)), Wait: o.Wait})
	if err == nil && o.Wait {
		m.stored = o.ID
	}
	return err
}

// load has all served that the catalog has.
func (l *lane) load(ctx context.Context) error {
	m := l.model
	_, err := l.rig.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: m.spec.name})
	if err == nil {
		m.sealed = m.stored
	}
	return err
}

func (l *lane) create(ctx context.Context, o *op) error {
	if l.model != nil {
		return nil
	}
	l.made++
	s := newSpec(fmt.Sprintf("lane%d_%d", l.number, l.made), o.Seed)
	s.gather(min(o.Crowd, mostCrowd))
	l.model, l.marks, l.open = newModel(s, o.ID), nil, nil
	_, err := l.rig.catalog.CreateCollection(ctx, s.create())
	return err
}

func (l *lane) partition(ctx context.Context, o *op) error {
	m := l.model
	there := slices.Contains(m.parts, o.Part)
	switch {
	case o.Do == opPartition && !there:
		m.parts = append(m.parts, o.Part)
		_, err := l.rig.catalog.CreatePartition(ctx, &qnpb.CreatePartitionRequest{Collection: m.spec.name, Partition: o.Part})
		return err
	case o.Do == opDropPart && there:
		m.dropPartition(o.Part)
		_, err := l.rig.catalog.DropPartition(ctx, &qnpb.DropPartitionRequest{Collection: m.spec.name, Partition: o.Part})
		return err
	}
	return nil
}

// change changes the schema, or an index.
func (l *lane) change(ctx context.Context, o *op) error {
	m, r := l.model, rand.New(rand.NewPCG(o.Seed, 0xc4a2))
	switch o.Do {
	case opAddField:
		if r.IntN(2) == 0 && len(m.spec.vectors) < 5 {
			return l.addVector(ctx, r)
		}
		if len(m.spec.fields) > 8 {
			return nil
		}
		f := m.spec.later(o.Seed)
		_, err := l.rig.catalog.AddField(ctx, &qnpb.AddFieldRequest{Collection: m.spec.name, Field: f.schema()})
		m.addField(f)
		return err
	case opDropField:
		if r.IntN(3) == 0 {
			return l.dropVector(ctx, r)
		}
		f := m.spec.pick(r, func(f *field) bool { return !f.dynamic() && !m.spec.counted(f) })
		if f == nil || len(m.spec.fields) < 2 {
			return nil
		}
		_, err := l.rig.catalog.DropField(ctx, &qnpb.DropFieldRequest{Collection: m.spec.name, Field: f.name})
		m.dropField(m.spec.at(f))
		return err
	case opIndex:
		f := m.spec.pick(r, func(f *field) bool { return f.scalarIndexes() != nil })
		if f == nil {
			return nil
		}
		if f.index != "" {
			f.index = ""
			_, err := l.rig.catalog.DropIndex(ctx, &qnpb.DropIndexRequest{Collection: m.spec.name, Index: f.name + "_index"})
			return err
		}
		kinds := f.scalarIndexes()
		f.index = kinds[r.IntN(len(kinds))]
		_, err := l.rig.catalog.CreateIndex(ctx, &qnpb.CreateIndexRequest{Collection: m.spec.name, Index: &qnpb.IndexSpec{Field: f.name, Type: f.index}})
		return err
	}
	v := &m.spec.vectors[r.IntN(len(m.spec.vectors))]
	if _, err := l.rig.catalog.DropIndex(ctx, &qnpb.DropIndexRequest{Collection: m.spec.name, Index: v.name + "_index"}); err != nil {
		return err
	}
	v.reindex(r)
	clear(m.pages) // their tokens are of the metric of before
	_, err := l.rig.catalog.CreateIndex(ctx, &qnpb.CreateIndexRequest{Collection: m.spec.name, Index: v.indexSpec()})
	return err
}

// append writes. An insert of a key that is there is left out: two rows of one
// key are not told apart by what is promised of them.
func (l *lane) append(ctx context.Context, o *op) error {
	m := l.model
	if o.Part != "" && !slices.Contains(m.parts, o.Part) {
		return nil
	}
	req, rows := m.appendRequest(o)
	if req == nil {
		return nil
	}
	after := hybrid(time.Now())
	res, err := l.rig.write.Append(ctx, req)
	if err != nil {
		return err
	}
	m.last = max(m.last, res.GetTimestamp())
	if m.spec.auto && o.Do != opUpsert && o.Do != opDelete {
		if err := m.given(o, rows, res.GetIds().GetInts().GetValues()); err != nil {
			return err
		}
	}
	for _, x := range rows {
		x.after, x.upTo = min(after, m.last), m.last
	}
	m.put(rows, o.ID)
	if o.Do == opDelete {
		for _, k := range o.Keys {
			if x := m.live[k]; x != nil && (o.Part == "" || o.Part == x.part) && !(l.lie && k%5 == 0) {
				m.hide(k, o.ID)
			}
		}
	}
	return nil
}

// appendRequest makes a request and the rows that it writes; nil = there is nothing to do.
func (m *model) appendRequest(o *op) (req *qnpb.AppendRequest, rows []*row) {
	req = &qnpb.AppendRequest{Collection: m.spec.called(uint64(o.Ver)), Partition: o.Part}
	if o.Do == opDelete {
		req.Operation = &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{Ids: m.idsOf(o.Keys)}}
		return req, nil
	}
	omit := m.spec.omitted(o.Omit)
	for _, k := range o.keys() {
		if o.Do == opUpsert || m.live[k] == nil {
			rows = append(rows, m.spec.newRow(k, o.Ver, o.Part, omit))
		}
	}
	if len(rows) == 0 {
		return nil, nil
	}
	if m.spec.auto && o.Do != opUpsert {
		omit["id"] = true
	} else if m.spec.auto {
		m.replaces(rows)
	}
	data, n := m.spec.data(rows, omit), int64(len(rows))
	m.spec.fill(rows)
	if o.Do != opUpsert {
		req.Operation = &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: n, Fields: data}}
	} else {
		req.Operation = &qnpb.AppendRequest_Upsert{Upsert: &qnpb.UpsertOperation{Rows: n, Fields: data}}
	}
	return req, rows
}

func (l *lane) deleteBy(ctx context.Context, o *op) error {
	m := l.model
	if o.Part != "" && !slices.Contains(m.parts, o.Part) || !m.loaded || m.spec.ttl > 0 {
		return nil // which rows are too old is not known without the timestamp
	}
	f := m.spec.newFilter(o.Filter)
	q := read{filter: f}
	if o.Part != "" {
		q.parts = []string{o.Part}
	}
	gone := m.see(q)
	res, err := l.rig.write.Append(ctx, &qnpb.AppendRequest{Collection: m.spec.called(o.Filter), Partition: o.Part,
		Operation: &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{Filter: f.text, FilterValues: f.values}}})
	if err != nil {
		return err
	}
	m.last = max(m.last, res.GetTimestamp())
	if res.GetRows() != int64(len(gone)) {
		return o.differs("%d rows deleted by %s, want %d", res.GetRows(), f.text, len(gone))
	}
	for _, x := range gone {
		m.hide(x.key, o.ID)
	}
	return nil
}

// mark remembers this moment: after all that was written, before all that comes.
// Timestamps order the changes of one topic; those of two topics are ordered by
// the clock only, to the millisecond.
func (l *lane) mark(ctx context.Context, o *op) error {
	at, err := l.model.now(ctx)
	if err != nil {
		return err
	}
	l.model.marks[o.ID] = at
	l.marks = append(l.marks, o.ID)
	if len(l.marks) > 20 {
		l.marks = slices.Delete(l.marks, 0, 1)
	}
	return nil
}

// now is a read timestamp at which all is seen that was written.
func (m *model) now(ctx context.Context) (uint64, error) {
	for {
		if at := hybrid(time.Now()); at >= m.last {
			return at, nil
		}
		select {
		case <-time.After(200 * time.Microsecond):
		case <-ctx.Done():
			return 0, errors.Wrap(ctx.Err(), "wait for the clock")
		}
	}
}
