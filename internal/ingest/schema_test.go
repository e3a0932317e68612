package ingest

import (
	"context"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

// later is the rig's schema with a field more.
func (r *rig) later() segments.CollectionInfo {
	info := r.coll.Info()
	s := *info.Schema
	s.Version++
	s.Fields = append(s.Fields[:len(s.Fields):len(s.Fields)], schema.Field{ID: 103, Name: "price", Type: schema.Int64, Default: "5"})
	info.Schema = &s
	return info
}

// laterRows are rows written with that schema.
func (r *rig) laterRows(key, price int64) mq.Message {
	s := r.later().Schema
	b := &schema.Batch{Rows: 1, Columns: []*schema.Column{
		{FieldID: 100, Type: schema.Int64, Int: []int64{key}}, {FieldID: 101, Type: schema.FloatVector, Dim: 2, Float: []float32{1, 2}},
		{FieldID: 102, Type: schema.VarChar, Str: []string{""}}, {FieldID: 103, Type: schema.Int64, Int: []int64{price}},
	}}
	return r.message(wal.Insert, &qnpb.WalRows{CollectionId: 1, PartitionId: 7, SegmentId: 1, Rows: 1, SchemaVersion: s.Version, Fields: rowpb.FromBatch(b, s)})
}

// prices are those of all rows, in order of the keys.
func (r *rig) prices() (out []int64) {
	r.t.Helper()
	_, err := r.coll.Query(r.t.Context(), &segments.QueryRequest{Read: segments.Read{OutputFields: []int64{103}}}, func(b *schema.Batch, _ uint64) error {
		out = append(out, b.Columns[0].Int...)
		return nil
	})
	must(r.t, err)
	return out
}

// TestRowsOfALaterSchema are not applied before the schema is there: their values
// of the new field would be lost.
func TestRowsOfALaterSchema(t *testing.T) {
	r := newRig(t, 0)
	r.apply(r.rows(wal.Insert, 1, 7, 1))
	info, m := r.later(), r.laterRows(2, 77)
	asked := 0
	r.sink.o.Refresh = func(_ context.Context, id int64) error {
		if asked++; asked == 1 {
			return errclass.Mark(errors.New("catalog away"), errclass.Retryable)
		}
		if id != 1 {
			t.Errorf("asked for collection %d", id)
		}
		r.coll.Update(info)
		return nil
	}
	if err := r.sink.Apply(t.Context(), []mq.Message{m}); !errclass.Is(err, errclass.Retryable) {
		t.Fatalf("%v", err)
	}
	r.apply(m, r.laterRows(3, 78))
	if asked != 2 || r.sink.Quarantined() != 0 {
		t.Fatalf("asked %d times, %d set aside", asked, r.sink.Quarantined())
	}
	if got := r.prices(); len(got) != 3 || got[0] != 5 || got[1] != 77 || got[2] != 78 {
		t.Fatalf("prices %v", got)
	}
	// An older schema does not take the place of a newer one.
	older := r.coll.Info()
	s := *older.Schema
	s.Version, s.Fields = 1, s.Fields[:3]
	older.Schema = &s
	r.coll.Update(older)
	if v := r.coll.Info().Schema.Version; v != 2 {
		t.Fatalf("version %d", v)
	}
}

func TestRowsOfASchemaThatNobodyHas(t *testing.T) {
	r := newRig(t, 0)
	r.apply(r.laterRows(1, 2), r.rows(wal.Insert, 1, 7, 5))
	if r.sink.Quarantined() != 1 {
		t.Fatalf("%d set aside", r.sink.Quarantined())
	}
	r.want(5)
}
