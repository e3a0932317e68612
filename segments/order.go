package segments

import (
	"cmp"
	"context"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// Order is one field of an order. Rows that are equal in all of them come in
// order of their keys. NaN is larger than every number.
type Order struct {
	FieldID    int64 // a scalar field
	Column     int   // instead of it, with GroupBy or Aggregates: the number of a column of the answer
	Descending bool
	NullsFirst bool // else nulls come last, whichever the direction
}

// compare orders two values of a column of type t.
func (o *Order) compare(t schema.Type, a, b value) int {
	if a.null || b.null {
		c := cmp.Compare(b2i(a.null), b2i(b.null))
		if o.NullsFirst {
			return -c
		}
		return c
	}
	if o.Descending {
		return compareIn(t, b, a)
	}
	return compareIn(t, a, b)
}

// sortedRows are rows of one target in the order asked for, with the values they
// are ordered by.
type sortedRows struct {
	target int32
	rows   []uint32
	cols   []*schema.Column // one per Order
	at     int              // the next one of a merge
}

// orderer sorts rows.
type orderer struct {
	*reader
	by     []Order
	fields []schema.Field
	most   int // rows of a target that can be in the answer; 0 = all
}

// ordered answers a query with an order.
func (x *reader) ordered(ctx context.Context, r *QueryRequest, res *QueryResult, emit func(*schema.Batch, uint64) error) error {
	o := &orderer{reader: x, by: r.OrderBy}
	if r.Limit > 0 {
		o.most = r.Offset + r.Limit
	}
	for _, by := range r.OrderBy {
		f, ok := x.info.Schema.FieldByID(by.FieldID)
		if !ok {
			return goneField(x.info.Schema, by.FieldID)
		}
		if !scalar(f.Type) {
			return errclass.New(errclass.Invalid, "order by field %d: want a scalar field", by.FieldID)
		}
		o.fields = append(o.fields, f)
	}
	stage := x.stage()
	sets, err := x.rowSets(ctx)
	if err != nil {
		return err
	}
	parts := make([]*sortedRows, len(x.targets))
	err = x.eachTarget(ctx, func(ctx context.Context, i int, t *target) (err error) {
		p := &sortedRows{target: int32(i)}
		for _, f := range o.fields {
			p.cols = append(p.cols, schema.NewColumn(f, 0))
		}
		parts[i] = p
		return blocks(ctx, sets[i], func(rows []uint32) error { return o.add(t, p, rows) })
	})
	if err != nil {
		return err
	}
	if err := x.eachTarget(ctx, func(_ context.Context, i int, _ *target) error { o.sort(parts[i]); return nil }); err != nil {
		return err
	}
	stage.end(&x.stats.Wall)
	var hits []hit
	if err := guard("merge in order", func() (err error) { hits, err = o.merge(ctx, parts); return err }); err != nil {
		return err
	}
	stage.end(&x.stats.Merge)
	res.Count = int64(len(hits))
	return x.emit(ctx, r, hits, emit)
}

// add adds rows to a part, and drops those that cannot be in the answer.
func (o *orderer) add(t *target, p *sortedRows, rows []uint32) error {
	if err := o.takes(int64(len(rows)) * (20 + o.rowBytes(o.ids()))); err != nil {
		return err
	}
	p.rows = append(p.rows, rows...)
	for _, c := range p.cols {
		t.gather(c, rows)
	}
	if o.most > 0 && len(p.rows) >= 2*o.most+blockRows {
		dropped := len(p.rows) - o.most
		o.sort(p)
		return o.takes(-int64(dropped) * (20 + o.rowBytes(o.ids())))
	}
	return nil
}

func (o *orderer) ids() []int64 {
	ids := make([]int64, len(o.by))
	for i := range o.by {
		ids[i] = o.by[i].FieldID
	}
	return ids
}

// compare orders row i of a part before row j of another.
func (o *orderer) compare(a *sortedRows, i int, b *sortedRows, j int) int {
	for k := range o.by {
		if c := o.by[k].compare(o.fields[k].Type, valueOf(a.cols[k], i), valueOf(b.cols[k], j)); c != 0 {
			return c
		}
	}
	x, xs := o.targets[a.target].key(a.rows[i])
	y, ys := o.targets[b.target].key(b.rows[j])
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(xs, ys))
}

// sort sorts a part and cuts what cannot be in the answer.
func (o *orderer) sort(p *sortedRows) {
	perm := make([]int32, len(p.rows))
	for i := range perm {
		perm[i] = int32(i)
	}
	slices.SortFunc(perm, func(i, j int32) int { return o.compare(p, int(i), p, int(j)) })
	if o.most > 0 {
		perm = perm[:min(o.most, len(perm))]
	}
	rows := make([]uint32, len(perm))
	for i, k := range perm {
		rows[i] = p.rows[k]
	}
	p.rows = rows
	for k, c := range p.cols {
		p.cols[k] = permuted(c, perm)
	}
}

// permuted returns the rows of a column in another order.
func permuted(c *schema.Column, perm []int32) *schema.Column {
	out := &schema.Column{FieldID: c.FieldID, Type: c.Type, Dim: c.Dim}
	for _, i := range perm {
		out.AppendRow(c, int(i))
	}
	return out
}

// merge merges the parts, up to what can be in the answer.
func (o *orderer) merge(ctx context.Context, parts []*sortedRows) ([]hit, error) {
	total := 0
	heap := parts[:0]
	for _, p := range parts {
		if p != nil && len(p.rows) > 0 && !o.targets[p.target].dead {
			heap = append(heap, p)
			total += len(p.rows)
		}
	}
	if o.most > 0 {
		total = min(total, o.most)
	}
	if err := o.takes(12 * int64(total)); err != nil {
		return nil, err
	}
	less := func(a, b *sortedRows) int { return o.compare(a, a.at, b, b.at) }
	slices.SortFunc(heap, less)
	hits := make([]hit, 0, total)
	for len(hits) < total {
		if len(hits)%4096 == 4095 && ctx.Err() != nil {
			return nil, errors.Wrap(ctx.Err(), "merge query")
		}
		p := heap[0]
		hits = append(hits, hit{target: p.target, row: p.rows[p.at]})
		if p.at++; p.at == len(p.rows) {
			heap[0] = heap[len(heap)-1]
			heap = heap[:len(heap)-1]
		}
		siftDown(heap, less)
	}
	return hits, nil
}
