package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
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
	model  *model // nil = there is no collection
	made   int    // collections so far
	done   []op   // what was run, the last one included
	tally  map[string]int
	recall recall
	lie    bool // tests: the model forgets some deletes
}

// recall sums up what graphs found of what there was.
type recall struct{ Found, Wanted int64 }

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
	err := l.do(ctx, o)
	if st, ok := status.FromError(errors.Cause(err)); ok && err != nil && st.Code() != codes.OK {
		return o.differs("the node refuses it: %v", err)
	}
	return err
}

func (l *lane) do(ctx context.Context, o *op) error {
	l.tally[o.Do]++
	m := l.model
	if o.Do == opCreate {
		return l.create(ctx, o)
	}
	if m == nil {
		return nil
	}
	switch o.Do {
	case opDrop:
		l.model, l.marks = nil, nil
		_, err := l.rig.catalog.DropCollection(ctx, &qnpb.DropCollectionRequest{Collection: m.spec.name})
		return err
	case opPartition, opDropPart:
		return l.partition(ctx, o)
	case opInsert, opUpsert, opDelete:
		return l.append(ctx, o)
	case opDeleteBy:
		return l.deleteBy(ctx, o)
	case opFlush:
		if !m.loaded {
			return nil
		}
		_, err := l.rig.write.Flush(ctx, &qnpb.FlushRequest{Collection: m.spec.name, Wait: o.Wait})
		return err
	case opCompact:
		return l.compact(ctx, o)
	case opCool:
		return l.rig.cool(m.spec.name)
	case opRelease:
		m.loaded = false
		_, err := l.rig.control.ReleaseSegments(ctx, &qnpb.ReleaseSegmentsRequest{Collection: m.spec.name})
		return err
	case opLoad:
		m.loaded = true
		_, err := l.rig.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: m.spec.name})
		return err
	case opMark:
		return l.mark(ctx, o)
	case opSearch, opQuery, opCount, opGet:
		return l.read(ctx, o)
	}
	return errors.Newf("unknown operation %q", o.Do)
}

func (l *lane) create(ctx context.Context, o *op) error {
	if l.model != nil {
		return nil
	}
	l.made++
	s := newSpec(fmt.Sprintf("lane%d_%d", l.number, l.made), o.Seed)
	l.model, l.marks = newModel(s), nil
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

// append writes. An insert of a key that is there is left out: two rows of one
// key are not told apart by what is promised of them.
func (l *lane) append(ctx context.Context, o *op) error {
	m := l.model
	if o.Part != "" && !slices.Contains(m.parts, o.Part) {
		return nil
	}
	req := &qnpb.AppendRequest{Collection: m.spec.name, Partition: o.Part}
	var rows []*row
	if o.Do == opDelete {
		req.Operation = &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{Ids: m.spec.ids(o.Keys)}}
	} else {
		for _, k := range o.Keys {
			if o.Do == opInsert && m.live[k] != nil {
				continue
			}
			rows = append(rows, m.spec.newRow(k, o.Ver, o.Part))
		}
		if len(rows) == 0 {
			return nil
		}
		data, n := m.spec.data(rows), int64(len(rows))
		if o.Do == opInsert {
			req.Operation = &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: n, Fields: data}}
		} else {
			req.Operation = &qnpb.AppendRequest_Upsert{Upsert: &qnpb.UpsertOperation{Rows: n, Fields: data}}
		}
	}
	after := hybrid(time.Now())
	res, err := l.rig.write.Append(ctx, req)
	if err != nil {
		return err
	}
	m.last = max(m.last, res.GetTimestamp())
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
	res, err := l.rig.write.Append(ctx, &qnpb.AppendRequest{Collection: m.spec.name, Partition: o.Part,
		Operation: &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{Filter: f.text}}})
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

func (l *lane) read(ctx context.Context, o *op) error {
	m := l.model
	for _, p := range o.Parts {
		if !slices.Contains(m.parts, p) {
			return nil
		}
	}
	f := &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_STRONG}
	switch {
	case o.At != 0:
		at, ok := m.marks[o.At]
		if !ok {
			return nil
		}
		f = &qnpb.Freshness{ReadTimestamp: at}
	case m.spec.ttl > 0:
		now, err := m.now(ctx)
		if err != nil {
			return err
		}
		f = &qnpb.Freshness{ReadTimestamp: now}
	case o.ID%2 == 0:
		f = &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_SESSION, GuaranteeTimestamp: m.last}
	}
	began := time.Now()
	var err error
	switch o.Do {
	case opSearch:
		err = l.search(ctx, o, f)
	case opGet:
		err = l.get(ctx, o, f)
	default:
		err = l.queryRows(ctx, o, f)
	}
	if !m.loaded {
		if c := status.Code(err); c == codes.FailedPrecondition || c == codes.InvalidArgument && m.mayRefuse(f, time.Now()) {
			return nil
		}
		return o.differs("the collection is released, a read of it ends with %v", err)
	}
	refused := status.Code(err) == codes.InvalidArgument
	switch {
	case refused && m.mayRefuse(f, time.Now()):
		return nil
	case err == nil && m.mustRefuse(f, began):
		return o.differs("the read of %s ago is answered, the collection retains %v", time.Until(time.UnixMilli(int64(f.GetReadTimestamp()>>18))), m.spec.retain)
	}
	return err
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

// mayRefuse reports whether a read that ended then may have been refused for its age.
func (m *model) mayRefuse(f *qnpb.Freshness, end time.Time) bool {
	at := f.GetReadTimestamp()
	return at != 0 && at < hybrid(end.Add(time.Millisecond-m.spec.retain-slack/4))
}

// mustRefuse reports whether a read that began then must have been.
func (m *model) mustRefuse(f *qnpb.Freshness, began time.Time) bool {
	at := f.GetReadTimestamp()
	return at != 0 && at < hybrid(began.Add(-time.Millisecond-m.spec.retain-slack/4))
}

// query is what an op asks for, in the model's terms.
func (m *model) query(o *op, f *qnpb.Freshness) read {
	return read{at: o.At, parts: o.Parts, filter: m.spec.newFilter(o.Filter), timestamp: f.GetReadTimestamp()}
}

func (q *read) text() string {
	if q.filter == nil {
		return ""
	}
	return q.filter.text
}

func (l *lane) queryRows(ctx context.Context, o *op, f *qnpb.Freshness) error {
	m := l.model
	q := m.query(o, f)
	req := &qnpb.QueryRequest{Collection: m.spec.name, Partitions: o.Parts, Filter: q.text(), Limit: int64(o.K), Offset: int64(o.Offset),
		OutputFields: []string{"*"}, Freshness: f}
	if o.Do == opCount {
		req.OutputFields = []string{"count(*)"}
	}
	st, err := l.rig.query.Query(ctx, req)
	if err != nil {
		return err
	}
	var got []shown
	for {
		r, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return o.differs("the stream ended without its last piece")
		}
		if err != nil {
			return err
		}
		if r.GetStats() != nil {
			if !m.loaded || m.unclear(q) {
				return nil
			}
			want := m.see(q)
			if o.Do == opCount {
				if r.GetCount() != int64(len(want)) {
					return o.differs("count(*) where %q in %v at %d is %d, want %d", q.text(), o.Parts, o.At, r.GetCount(), len(want))
				}
				return nil
			}
			want = want[min(o.Offset, len(want)):]
			if o.K > 0 {
				want = want[:min(o.K, len(want))]
			}
			return m.compare(o, got, want)
		}
		got = append(got, shownRows(r.GetFields(), int(r.GetRows()))...)
	}
}

func (l *lane) get(ctx context.Context, o *op, f *qnpb.Freshness) error {
	m := l.model
	r, err := l.rig.query.Get(ctx, &qnpb.GetRequest{Collection: m.spec.name, Ids: m.spec.ids(o.Keys), OutputFields: []string{"*"}, Freshness: f})
	q := read{at: o.At, timestamp: f.GetReadTimestamp()}
	if err != nil || !m.loaded || m.unclear(q) {
		return err
	}
	want := slices.DeleteFunc(m.see(q), func(x *row) bool { return !slices.Contains(o.Keys, x.key) })
	return m.compare(o, shownRows(r.GetFields(), int(r.GetRows())), want)
}

// shown is a row of an answer: field to value.
type shown map[string]any

func shownRows(fields []*qnpb.FieldData, n int) []shown {
	out := make([]shown, n)
	for i := range out {
		out[i] = shown{}
	}
	for _, d := range fields {
		if v, ok := d.GetValues().(*qnpb.FieldData_Vectors); ok {
			dim := int(v.Vectors.GetDim())
			values := v.Vectors.GetValues()
			for i := range out {
				out[i][d.GetField()] = values[i*dim : (i+1)*dim]
			}
			continue
		}
		for i := range out {
			out[i][d.GetField()] = show(d, i)
		}
	}
	return out
}

func (m *model) keyOf(key int64) any {
	if m.spec.text {
		return textKey(key)
	}
	return key
}

// compare compares rows in order of their keys.
func (m *model) compare(o *op, got []shown, want []*row) error {
	var have, wish []any
	for _, g := range got {
		have = append(have, g["id"])
	}
	for _, w := range want {
		wish = append(wish, m.keyOf(w.key))
	}
	if !slices.Equal(have, wish) {
		return o.differs("where %q in %v at %d: got keys %v, want %v%s", o.Text, o.Parts, o.At, have, wish, lists(have, wish))
	}
	for i, w := range want {
		if err := m.compareRow(o, got[i], w, true); err != nil {
			return err
		}
	}
	return nil
}

// lists says what is in one list and not in the other.
func lists(have, wish []any) string {
	out := ""
	for _, k := range wish {
		if !slices.Contains(have, k) {
			out += fmt.Sprintf("; %v is missing", k)
		}
	}
	for i, k := range have {
		if !slices.Contains(wish, k) {
			out += fmt.Sprintf("; %v is too many", k)
		}
		if slices.Index(have, k) != i {
			out += fmt.Sprintf("; %v is there twice", k)
		}
	}
	return out
}

func (m *model) compareRow(o *op, got shown, want *row, vectors bool) error {
	for i, f := range m.spec.fields {
		if g, w := got[f.name], wanted(want.values[i]); g != w {
			return o.differs("row %v, version %d, field %s is %#v, want %#v", m.keyOf(want.key), want.version, f.name, g, w)
		}
	}
	for i, v := range m.spec.vectors {
		if g, ok := got[v.name].([]float32); vectors && (!ok || !slices.Equal(g, want.vectors[i])) {
			return o.differs("row %v, version %d, field %s is %v, want %v", m.keyOf(want.key), want.version, v.name, got[v.name], want.vectors[i])
		}
	}
	return nil
}

func (l *lane) search(ctx context.Context, o *op, f *qnpb.Freshness) error {
	m := l.model
	q := m.query(o, f)
	rows := m.see(q)
	v := &m.spec.vectors[o.Field]
	r := rand.New(rand.NewPCG(o.Seed, 0x5ea6c4))
	var queries [][]float32
	for range o.NQ {
		x := randomVector(r, v.dim)
		if at := r.IntN(1 << 20); o.Near && len(rows) > 0 {
			x = rows[at%len(rows)].vectors[o.Field]
		}
		queries = append(queries, x)
	}
	req := &qnpb.SearchRequest{Collection: m.spec.name, Partitions: o.Parts, Field: v.name, TopK: int64(o.K), Offset: int64(o.Offset),
		Filter: q.text(), OutputFields: []string{"*"}, Freshness: f,
		Vectors: &qnpb.FloatVectors{Dim: int32(v.dim), Values: slices.Concat(queries...)}}
	var radius *float32
	if o.Radius && v.metric != "COSINE" {
		x := float32(r.IntN(200) - 60)
		radius = &x
		req.Radius = radius
	}
	res, err := l.rig.query.Search(ctx, req)
	if err != nil || !m.loaded || m.unclear(q) {
		return err
	}
	if len(res.GetCounts()) != o.NQ {
		return o.differs("%d counts for %d vectors", len(res.GetCounts()), o.NQ)
	}
	ids := &qnpb.FieldData{Field: "id"}
	switch k := res.GetIds().GetKeys().(type) {
	case *qnpb.Ids_Ints:
		ids.Values = &qnpb.FieldData_Ints{Ints: k.Ints}
	case *qnpb.Ids_Strings:
		ids.Values = &qnpb.FieldData_Strings{Strings: k.Strings}
	}
	hits := shownRows(append([]*qnpb.FieldData{ids}, res.GetFields()...), len(res.GetScores()))
	scores := res.GetScores()
	for i, x := range queries {
		n := int(res.GetCounts()[i])
		if n > len(hits) {
			return o.differs("%d hits for vector %d, %d are left", n, i, len(hits))
		}
		if err := l.compareHits(o, v, x, rows, radius, hits[:n], scores[:n]); err != nil {
			return err
		}
		hits, scores = hits[n:], scores[n:]
	}
	return nil
}

func (l *lane) compareHits(o *op, v *vector, query []float32, rows []*row, radius *float32, hits []shown, scores []float32) error {
	m := l.model
	all := m.nearest(o.Field, query, rows)
	if radius != nil {
		all = slices.DeleteFunc(all, func(s scored) bool { return !v.better(s.score, float64(*radius)) })
	}
	byKey := map[any]scored{}
	for _, s := range all {
		byKey[m.keyOf(s.key)] = s
	}
	want := all[min(o.Offset, len(all)):]
	want = want[:min(o.K, len(want))]
	describe := func() string {
		return fmt.Sprintf("search of %s by %s (%s), k %d, offset %d, where %q in %v at %d", v.name, v.metric, v.index, o.K, o.Offset, o.Text, o.Parts, o.At)
	}
	seen := map[any]bool{}
	for i, h := range hits {
		k := h["id"]
		s, ok := byKey[k]
		switch {
		case !ok:
			return o.differs("%s: row %v must not be in the answer", describe(), k)
		case seen[k]:
			return o.differs("%s: row %v is there twice", describe(), k)
		case math.Abs(float64(scores[i])-s.score) > v.slack():
			return o.differs("%s: row %v, version %d has the score %v, want %v", describe(), k, s.version, scores[i], s.score)
		case i > 0 && v.better(float64(scores[i]), float64(scores[i-1])):
			return o.differs("%s: scores are not in order: %v", describe(), scores)
		}
		seen[k] = true
		if err := m.compareRow(o, h, s.row, false); err != nil {
			return err
		}
	}
	if v.exact() {
		if len(hits) != len(want) {
			return o.differs("%s: %d hits, want %d", describe(), len(hits), len(want))
		}
		for i, w := range want {
			if math.Abs(float64(scores[i])-w.score) > v.slack() {
				return o.differs("%s: hit %d has the score %v, want %v (row %v): got %v", describe(), i, scores[i], w.score, m.keyOf(w.key), scores)
			}
		}
		return nil
	}
	l.recall.Wanted += int64(len(want))
	for i := range min(len(hits), len(want)) {
		// What is as near as the last that is wanted counts.
		if last := want[len(want)-1].score; !v.better(last, float64(scores[i])+sign(v)*v.slack()) {
			l.recall.Found++
		}
	}
	return nil
}

// sign is the direction in which a score gets better.
func sign(v *vector) float64 {
	if v.metric == "L2" {
		return -1
	}
	return 1
}

// compact asks for a compaction. Compactions by themselves go on besides.
func (l *lane) compact(ctx context.Context, _ *op) error {
	if !l.model.loaded {
		return nil
	}
	_, err := l.rig.write.Compact(ctx, &qnpb.CompactRequest{Collection: l.model.spec.name})
	return err
}
