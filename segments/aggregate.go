package segments

import (
	"context"
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
	"slices"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// Func is what an Aggregate computes.
type Func uint8

// The aggregate functions. All but Count pass over nulls; of no values at all the
// result is null.
const (
	Count Func = iota // of rows; of values that are not null if a field is given
	Min               // NaN is larger than every number
	Max
	Sum // of integers exactly; an error if it does not fit into 64 bits
	Avg
)

// String returns the name as it stands in a query.
func (f Func) String() string { return [...]string{"count", "min", "max", "sum", "avg"}[f] }

// Aggregate is a function of the values of a field.
type Aggregate struct {
	Func    Func
	FieldID int64 // 0 with Count: rows
}

// ResultType is the type of the result over a field of a type; schema.None if
// there is none. Count takes any field.
func (f Func) ResultType(t schema.Type) schema.Type {
	number := t.IsInt() && t != schema.Timestamptz
	switch {
	case f == Count:
		return schema.Int64
	case (f == Min || f == Max) && scalar(t) && t != schema.Bool:
		return t
	case f == Sum && number:
		return schema.Int64
	case (f == Sum || f == Avg) && (t == schema.Float || t == schema.Double), f == Avg && number:
		return schema.Double
	}
	return schema.None
}

// acc is one aggregate of one group on its way.
type acc struct {
	n    int64  // values
	lo   uint64 // sum of integers, 128 bits
	hi   int64
	sum  float64 // of floating-point numbers, with what rounding lost
	lost float64
	best value // least or greatest
}

// plus adds a number (Neumaier, "Rundungsfehleranalyse einiger Verfahren zur
// Summation endlicher Summen", 1974): the result hardly depends on the order.
func (a *acc) plus(v float64) {
	t := a.sum + v
	if math.Abs(a.sum) >= math.Abs(v) {
		a.lost += (a.sum - t) + v
	} else {
		a.lost += (v - t) + a.sum
	}
	a.sum = t
}

func (a *acc) total() float64 {
	if t := a.sum + a.lost; t == t {
		return t
	}
	return a.sum // infinities leave nothing to correct
}

func (a *acc) plusInt(hi int64, lo uint64) {
	var carry uint64
	a.lo, carry = bits.Add64(a.lo, lo, 0)
	a.hi += hi + int64(carry)
}

// table is the groups of some rows and their aggregates.
type table struct {
	g      *aggregator
	ids    map[value]int  // of a single field
	codes  map[string]int // of several fields
	groups []*schema.Column
	accs   []acc // of group i: [i*len(aggregates), (i+1)*len(aggregates))
	taken  int   // groups that memory was taken for
	code   []byte
}

// aggregator answers a query with aggregates.
type aggregator struct {
	*reader
	by         []schema.Field
	aggregates []Aggregate
	fields     []schema.Field // of aggregates; zero for count(*)
	results    []schema.Field
}

// aggregate answers a query with GroupBy or Aggregates.
func (x *reader) aggregate(ctx context.Context, r *QueryRequest, emit func(*schema.Batch, uint64) error) error {
	g := &aggregator{reader: x, aggregates: r.Aggregates}
	if err := g.resolve(r); err != nil {
		return err
	}
	stage := x.stage()
	sets, err := x.rowSets(ctx)
	if err != nil {
		return err
	}
	parts := make([]*table, len(x.targets))
	err = x.eachTarget(ctx, func(ctx context.Context, i int, t *target) error {
		parts[i] = g.table()
		return parts[i].read(ctx, t, sets[i])
	})
	if err != nil {
		return err
	}
	stage.end(&x.stats.Wall)
	var out *schema.Batch
	if err := guard("merge groups", func() (err error) { out, err = g.merge(ctx, parts, r); return err }); err != nil {
		return err
	}
	stage.end(&x.stats.Merge)
	for from := 0; from < out.Rows; from += r.batchRows() {
		to := min(from+r.batchRows(), out.Rows)
		b := &schema.Batch{Rows: to - from}
		for _, c := range out.Columns {
			b.Columns = append(b.Columns, c.Slice(from, to))
		}
		if err := emit(b, x.at); err != nil {
			return err
		}
	}
	return nil
}

// resolve finds the fields and checks that they can be used so.
func (g *aggregator) resolve(r *QueryRequest) error {
	for _, id := range r.GroupBy {
		f, ok := g.info.Schema.FieldByID(id)
		if !ok {
			return goneField(g.info.Schema, id)
		}
		if !scalar(f.Type) {
			return errclass.New(errclass.Invalid, "group by field %d: want a scalar field", id)
		}
		g.by = append(g.by, f)
	}
	for _, a := range r.Aggregates {
		f, ok := g.info.Schema.FieldByID(a.FieldID)
		if !ok && a.FieldID != 0 {
			return goneField(g.info.Schema, a.FieldID)
		}
		t := a.Func.ResultType(f.Type)
		if t == schema.None || !ok && a.Func != Count {
			return errclass.New(errclass.Invalid, "%s of field %d, which is %s: there is no such thing", a.Func, a.FieldID, f.Type)
		}
		g.fields = append(g.fields, f)
		g.results = append(g.results, schema.Field{ID: a.FieldID, Type: t, Nullable: true})
	}
	return nil
}

func (g *aggregator) table() *table {
	t := &table{g: g, ids: map[value]int{}, codes: map[string]int{}}
	for _, f := range g.by {
		t.groups = append(t.groups, schema.NewColumn(f, 0))
	}
	if len(g.by) == 0 {
		t.accs = make([]acc, len(g.aggregates))
	}
	return t
}

// rows is the number of groups.
func (t *table) rows() int {
	switch {
	case len(t.groups) > 0:
		return t.groups[0].Rows()
	}
	return 1
}

// read adds the rows of a set.
func (t *table) read(ctx context.Context, from *target, set *bitset.Set) error {
	g := t.g
	by := make([]*schema.Column, len(g.by))
	for i, f := range g.by {
		by[i] = schema.NewColumn(f, blockRows)
	}
	args := make([]*schema.Column, len(g.aggregates))
	for i, f := range g.fields {
		if g.aggregates[i].FieldID != 0 {
			args[i] = schema.NewColumn(f, blockRows)
		}
	}
	in := make([]int, blockRows)
	return blocks(ctx, set, func(rows []uint32) error {
		for _, c := range by {
			truncate(c)
			from.gather(c, rows)
		}
		for i := range rows {
			in[i] = t.group(by, i)
		}
		if err := t.take(); err != nil {
			return err
		}
		for k, c := range args {
			if c == nil {
				for i := range rows {
					t.accs[in[i]*len(args)+k].n++
				}
				continue
			}
			if !scalar(c.Type) { // only counted
				c = schema.NewColumn(g.fields[k], len(rows))
			} else {
				truncate(c)
			}
			from.gather(c, rows)
			t.addColumn(k, c, in[:len(rows)])
		}
		return nil
	})
}

// take accounts the memory of new groups.
func (t *table) take() error {
	n := t.rows() - t.taken
	if n <= 0 {
		return nil
	}
	t.taken += n
	bytes := int64(n) * int64(64+72*len(t.g.aggregates)+48*len(t.g.by))
	for _, c := range t.groups {
		for _, s := range c.Str[len(c.Str)-min(n, len(c.Str)):] {
			bytes += 2 * int64(len(s))
		}
	}
	return t.g.takes(bytes)
}

// group returns the number of the group that row i of the columns is in.
func (t *table) group(by []*schema.Column, i int) int {
	switch len(by) {
	case 0:
		return 0
	case 1:
		v := valueOf(by[0], i)
		n, ok := t.ids[v]
		if !ok {
			n = len(t.ids)
			t.ids[v] = n
			t.newGroup(by, i)
		}
		return n
	}
	t.code = t.code[:0]
	for _, c := range by {
		v := valueOf(c, i)
		t.code = append(t.code, byte(b2i(v.null)))
		t.code = binary.LittleEndian.AppendUint64(t.code, uint64(v.i))
		t.code = binary.AppendUvarint(t.code, uint64(len(v.s)))
		t.code = append(t.code, v.s...)
	}
	n, ok := t.codes[string(t.code)]
	if !ok {
		n = len(t.codes)
		t.codes[string(t.code)] = n
		t.newGroup(by, i)
	}
	return n
}

func (t *table) newGroup(by []*schema.Column, i int) {
	for k, c := range by {
		appendValue(t.groups[k], valueOf(c, i))
	}
	t.accs = append(t.accs, make([]acc, len(t.g.aggregates))...)
}

// addColumn adds values to aggregate k, row i to group in[i].
func (t *table) addColumn(k int, c *schema.Column, in []int) {
	step, f := len(t.g.aggregates), t.g.aggregates[k].Func
	for i, group := range in {
		if c.Null(i) {
			continue
		}
		a := &t.accs[group*step+k]
		a.n++
		switch {
		case f == Min || f == Max:
			if v := valueOf(c, i); a.n == 1 || t.better(f, c.Type, v, a.best) {
				a.best = v
			}
		case f == Count:
		case c.Type == schema.Float:
			a.plus(float64(c.Float[i]))
		case c.Type == schema.Double:
			a.plus(c.Double[i])
		default:
			a.plusInt(c.Int[i]>>63, uint64(c.Int[i]))
		}
	}
}

func (t *table) better(f Func, typ schema.Type, a, b value) bool {
	c := compareIn(typ, a, b)
	return c < 0 && f == Min || c > 0 && f == Max
}

// add adds the groups of another table.
func (t *table) add(ctx context.Context, o *table) error {
	step := len(t.g.aggregates)
	for i := range o.rows() {
		n := t.group(o.groups, i)
		for k := range step {
			a, b := &t.accs[n*step+k], &o.accs[i*step+k]
			if b.n > 0 && (a.n == 0 || t.better(t.g.aggregates[k].Func, t.g.fields[k].Type, b.best, a.best)) {
				a.best = b.best
			}
			a.n += b.n
			a.plusInt(b.hi, b.lo)
			a.plus(b.sum)
			a.lost += b.lost
		}
		if i%blockRows == blockRows-1 {
			if err := ended(ctx, "merge groups"); err != nil {
				return err
			}
			if err := t.take(); err != nil {
				return err
			}
		}
	}
	return t.take()
}

// merge puts the parts together and returns the answer, in order and cut.
func (g *aggregator) merge(ctx context.Context, parts []*table, r *QueryRequest) (*schema.Batch, error) {
	all := g.table()
	for i, p := range parts {
		if p == nil || g.targets[i].dead {
			continue
		}
		if err := all.add(ctx, p); err != nil {
			return nil, err
		}
	}
	n := all.rows()
	if err := g.takes(int64(n) * int64(4+24*len(g.results))); err != nil {
		return nil, err
	}
	cols := all.groups
	for k, f := range g.results {
		c := schema.NewColumn(f, n)
		for i := range n {
			if i%checkRows == checkRows-1 {
				if err := ended(ctx, "merge groups"); err != nil {
					return nil, err
				}
			}
			v, err := all.accs[i*len(g.results)+k].result(g.aggregates[k].Func, g.fields[k].Type)
			if err != nil {
				return nil, errclass.Wrap(err, errclass.Invalid, "%s of field %q", g.aggregates[k].Func, g.fields[k].Name)
			}
			appendValue(c, v)
		}
		cols = append(cols, c)
	}
	perm := make([]int32, n)
	for i := range perm {
		perm[i] = int32(i)
	}
	order := slices.Clone(r.OrderBy)
	for i := range g.by { // what is left in order of the groups
		order = append(order, Order{Column: i})
	}
	slices.SortFunc(perm, func(i, j int32) int {
		for k := range order {
			c := cols[order[k].Column]
			if d := order[k].compare(c.Type, valueOf(c, int(i)), valueOf(c, int(j))); d != 0 {
				return d
			}
		}
		return 0
	})
	perm = perm[min(r.Offset, n):]
	if r.Limit > 0 {
		perm = perm[:min(r.Limit, len(perm))]
	}
	out := &schema.Batch{Rows: len(perm)}
	for _, c := range cols {
		if err := ended(ctx, "sort groups"); err != nil {
			return nil, err
		}
		out.Columns = append(out.Columns, permuted(c, perm))
	}
	return out, nil
}

// result is the value of an aggregate over values of type t.
func (a *acc) result(f Func, t schema.Type) (value, error) {
	float := t == schema.Float || t == schema.Double
	switch {
	case f == Count:
		return value{i: a.n}, nil
	case a.n == 0:
		return value{null: true}, nil
	case f == Min || f == Max:
		return a.best, nil
	case f == Sum && float:
		return floatValue(a.total()), nil
	case f == Sum:
		if a.hi != int64(a.lo)>>63 {
			return value{}, errclass.New(errclass.Invalid, "the sum does not fit into 64 bits")
		}
		return value{i: int64(a.lo)}, nil
	case float:
		return floatValue(a.total() / float64(a.n)), nil
	}
	return floatValue(a.mean()), nil
}

// mean is the number nearest to the mean of integers: means of other groups compare with it as they are.
func (a *acc) mean() float64 {
	const whole = 1 << 53 // up to here a float64 is every integer
	if sum := int64(a.lo); a.hi == sum>>63 && sum >= -whole && sum <= whole {
		return float64(sum) / float64(a.n)
	}
	sum := new(big.Int).Lsh(big.NewInt(a.hi), 64)
	mean, _ := new(big.Rat).SetFrac(sum.Add(sum, new(big.Int).SetUint64(a.lo)), big.NewInt(a.n)).Float64()
	return mean
}
