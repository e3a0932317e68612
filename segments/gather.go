package segments

import (
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// hit is one row of an answer.
type hit struct {
	target   int32
	row      uint32
	distance float32
}

// gather copies fields of hits out of the segments. A fault in mapped memory is
// an error, and counts against the segment it was in.
func (x *reader) gather(fields []int64, hits []hit) ([]*schema.Column, error) {
	out := make([]*schema.Column, 0, len(fields))
	at := -1 // target that is read
	err := guard("copy output fields", func() error {
		rows := make([]uint32, 0, len(hits))
		for _, id := range fields {
			f, ok := x.info.Schema.FieldByID(id)
			if !ok {
				return errclass.New(errclass.Invalid, "no field with id %d", id)
			}
			col := schema.NewColumn(f, len(hits))
			for i := 0; i < len(hits); {
				at = int(hits[i].target)
				rows = rows[:0]
				for ; i < len(hits) && int(hits[i].target) == at; i++ {
					rows = append(rows, hits[i].row)
				}
				x.targets[at].gather(col, rows)
			}
			out = append(out, col)
		}
		return nil
	})
	if err != nil && at >= 0 {
		x.coll.set.fault(x.targets[at].holder, err)
	}
	return out, err
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
