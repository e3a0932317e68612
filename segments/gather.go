package segments

import (
	"context"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// hit is one row of an answer.
type hit struct {
	target   int32
	row      uint32
	distance float32
}

// goneField is the error about a field that is not there. Where fields have come or
// gone, it may have been dropped after the read was planned: another try tells.
func goneField(s *schema.Schema, id int64) error {
	if s.Version <= 1 {
		return errclass.New(errclass.Invalid, "no field with id %d", id)
	}
	return errclass.New(errclass.Retryable, "field %d is not there any more: try again", id)
}

// has reports a field that the read was planned with and that has been dropped since:
// rows that came while the read waited may be without it. Those of its snapshot are of
// a schema that the collection has by now.
func (x *reader) has(fieldID int64) error {
	if _, ok := x.info.Schema.FieldByID(fieldID); !ok {
		return goneField(x.info.Schema, fieldID)
	}
	if s := x.coll.schema(); s != x.info.Schema {
		if _, ok := s.FieldByID(fieldID); !ok {
			return goneField(s, fieldID)
		}
	}
	return nil
}

// hasOutput is has for the vector fields to return. It is asked once, before an answer
// begins: what is dropped later the rows of the snapshot have.
func (x *reader) hasOutput() error {
	for _, id := range x.read.OutputFields {
		if f, ok := x.info.Schema.FieldByID(id); ok && f.Type.IsVector() {
			if err := x.has(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// gather copies fields of hits out of the segments.
func (x *reader) gather(ctx context.Context, fields []int64, hits []hit) ([]*schema.Column, error) {
	out := make([]*schema.Column, 0, len(fields))
	for i, id := range fields {
		if before := slices.Index(fields[:i], id); before >= 0 {
			out = append(out, out[before])
			continue
		}
		f, ok := x.info.Schema.FieldByID(id)
		if !ok {
			return nil, goneField(x.info.Schema, id)
		}
		var col *schema.Column
		var err error
		if f.Type.IsVector() {
			col, err = x.gatherVectors(ctx, f, hits)
		} else {
			col, err = x.copyRows(ctx, f, hits)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, col)
	}
	return out, nil
}

// copyRows copies one field of hits. A fault in mapped memory is an error, and counts
// against the segment it was in.
func (x *reader) copyRows(ctx context.Context, f schema.Field, hits []hit) (col *schema.Column, err error) {
	at := -1 // target that is read
	err = guard("copy output fields", func() error {
		rows := make([]uint32, 0, min(len(hits), checkRows))
		checked := 0
		col = schema.NewColumn(f, len(hits))
		for i := 0; i < len(hits); {
			at = int(hits[i].target)
			rows = rows[:0]
			for ; i < len(hits) && int(hits[i].target) == at && len(rows) < checkRows; i++ {
				rows = append(rows, hits[i].row)
			}
			if i-checked >= checkRows {
				checked = i
				if err := ended(ctx, "copy output fields"); err != nil {
					return err
				}
			}
			if err := x.copyRun(&x.targets[at], f, col, rows); err != nil {
				return err
			}
		}
		if isText(col) {
			return nil // counted as it came
		}
		return x.room.add(valueBytes(col))
	})
	if err != nil && at >= 0 {
		x.coll.set.fault(x.targets[at].holder, err)
	}
	return col, err
}

// textRows is how many rows of text are copied at a time.
const textRows = 16

// copyRun copies a field of rows of one target. What text takes is not known before it
// is looked at: it is accounted as it comes, twice, since it is encoded after.
func (x *reader) copyRun(t *target, f schema.Field, col *schema.Column, rows []uint32) error {
	if !isText(col) {
		t.gather(col, rows)
		return nil
	}
	for some := range slices.Chunk(rows, textRows) {
		n, before := int64(0), len(col.Str)
		t.gather(col, some)
		for _, s := range col.Str[before:] {
			n += 2 * int64(len(s))
		}
		if err := x.takes(n); err != nil {
			return errors.Wrapf(err, "field %q", f.Name)
		}
		if err := x.room.add(n / 2); err != nil {
			return err
		}
	}
	return nil
}

// isText reports whether the values of a column are texts, or lists of them.
func isText(c *schema.Column) bool {
	kind := c.ValueType()
	return kind == schema.VarChar || kind == schema.JSON
}

// gatherVectors copies a vector field of hits, of some targets after the others if
// their files have to be fetched.
func (x *reader) gatherVectors(ctx context.Context, f schema.Field, hits []hit) (col *schema.Column, err error) {
	skip := slices.Repeat([]bool{true}, len(x.targets))
	for _, h := range hits {
		skip[h.target] = false
	}
	parts := make([]*schema.Column, len(x.targets))
	err = x.waves(ctx, f.ID, skip, func(out []bool) (err error) {
		if slices.Equal(out, skip) {
			col, err = x.copyRows(ctx, f, hits)
			return err
		}
		if err := x.takes(int64(len(hits)) * x.rowBytes([]int64{f.ID})); err != nil {
			return err
		}
		for t := range out {
			if out[t] {
				continue
			}
			some := slices.DeleteFunc(slices.Clone(hits), func(h hit) bool { return int(h.target) != t })
			if parts[t], err = x.copyRows(ctx, f, some); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || col != nil {
		return col, err
	}
	col = schema.NewColumn(f, len(hits))
	next := make([]int, len(x.targets))
	for _, h := range hits {
		if parts[h.target] == nil { // a row of the answer cannot be left out any more
			return nil, x.stats.Failures[len(x.stats.Failures)-1].Err
		}
		col.AppendRow(parts[h.target], next[h.target])
		next[h.target]++
	}
	return col, nil
}

// rowBytes estimates the memory that one row of these fields takes in an answer.
func (x *reader) rowBytes(fields []int64) (n int64) {
	for _, id := range fields {
		if f, ok := x.info.Schema.FieldByID(id); ok {
			n += max(16, 4*int64(f.Dim))
			if f.Type == schema.Array || f.Type == schema.SparseFloatVector {
				n += 1 << 10
			}
		}
	}
	return n
}
