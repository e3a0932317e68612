package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/rowpb"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

const (
	wordsCollection = "words"
	writeBatch      = 1000 // rows in one append
)

// strong reads see everything that was acknowledged before them.
func strong() *qnpb.Freshness {
	return &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_STRONG}
}

// ensureCollection creates the collection unless an earlier run has.
func (q *quickstart) ensureCollection(ctx context.Context) error {
	ctx, cancel := q.c.answer(ctx)
	defer cancel()
	got, err := q.c.catalog.DescribeCollection(ctx, &qnpb.DescribeCollectionRequest{Collection: wordsCollection})
	if err == nil {
		return q.checkCollection(got.GetCollection())
	}
	if status.Code(err) != codes.NotFound {
		return err
	}
	bar := q.out.Bar("create collection "+wordsCollection, 0, console.Steps)
	defer bar.Fail()
	_, err = q.c.catalog.CreateCollection(ctx, &qnpb.CreateCollectionRequest{
		Name: wordsCollection, Schema: wordsSchema(q.words.dim),
		Indexes: []*qnpb.IndexSpec{{Field: "vector", Type: "HNSW", Metric: "COSINE", Params: map[string]string{"M": "16", "efConstruction": "200"}}},
	})
	if err != nil {
		return err
	}
	bar.Done()
	return nil
}

func wordsSchema(dim int) *qnpb.CollectionSchema {
	return &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{
		{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
		{Name: "word", Type: qnpb.DataType_DATA_TYPE_VARCHAR, MaxLength: 64},
		{Name: "length", Type: qnpb.DataType_DATA_TYPE_INT32},
		{Name: "vector", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: int32(dim)},
	}}
}

// checkCollection refuses to write into what somebody else has made.
func (q *quickstart) checkCollection(have *qnpb.Collection) error {
	want := wordsSchema(q.words.dim)
	same := slices.EqualFunc(want.GetFields(), have.GetSchema().GetFields(), func(a, b *qnpb.FieldSchema) bool {
		return a.GetName() == b.GetName() && a.GetType() == b.GetType() && a.GetPrimaryKey() == b.GetPrimaryKey() && a.GetDim() == b.GetDim()
	})
	if !same {
		return &problem{text: fmt.Sprintf("there is another collection %q in %s", wordsCollection, q.cfg.Node.DataDir), next: "choose another folder with --data-dir"}
	}
	return nil
}

// ingest writes the rows that are not there yet and checks that all are.
func (q *quickstart) ingest(ctx context.Context) error {
	begin := time.Now()
	missing, have, err := q.missing(ctx)
	if err != nil {
		return err
	}
	switch {
	case len(missing) == 0:
		q.fig.Reused = true
		q.note("%s already has all %s rows, from an earlier run", wordsCollection, console.Count(int64(len(q.words.ids))))
	case have > 0:
		q.note("an earlier run was stopped after %s of %s rows: writing the rest", console.Count(have), console.Count(int64(len(q.words.ids))))
	}
	if err := q.write(ctx, missing, have > 0); err != nil {
		return err
	}
	if q.fig.Rows, err = q.count(ctx); err != nil {
		return err
	}
	if want := have + int64(len(missing)); q.fig.Rows != want {
		return errors.Newf("%s rows are in %s, want %s: rows were lost or doubled", console.Count(q.fig.Rows), wordsCollection, console.Count(want))
	}
	q.fig.Written = int64(len(missing))
	q.fig.Seconds.Write = time.Since(begin).Seconds()
	return nil
}

// missing returns the rows that the collection does not have, and how many it has.
func (q *quickstart) missing(ctx context.Context) (rows []int, have int64, err error) {
	ctx, cancel := q.c.answer(ctx)
	defer cancel()
	stream, err := q.c.query.Query(ctx, &qnpb.QueryRequest{Collection: wordsCollection, OutputFields: []string{"id"}, Freshness: strong()})
	if err != nil {
		return nil, 0, err
	}
	there := make(map[int64]bool, len(q.words.ids))
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, 0, err
		}
		for _, d := range piece.GetFields() {
			if d.GetField() != "id" {
				continue
			}
			for _, id := range d.GetInts().GetValues() {
				there[id] = true
			}
		}
	}
	for row, id := range q.words.ids {
		if !there[id] {
			rows = append(rows, row)
		}
	}
	return rows, int64(len(there)), nil
}

// write appends the rows; when it returns they are durable.
func (q *quickstart) write(ctx context.Context, rows []int, upsert bool) error {
	if len(rows) == 0 {
		return nil
	}
	bar := q.out.Bar("write through the log", int64(len(rows)), console.Rows)
	defer bar.Fail()
	done := 0
	for batch := range slices.Chunk(rows, writeBatch) {
		req := &qnpb.AppendRequest{Collection: wordsCollection}
		n, fields := int64(len(batch)), q.fields(batch)
		req.Operation = &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: n, Fields: fields}}
		if upsert {
			// Safe whatever the killed run had under way.
			req.Operation = &qnpb.AppendRequest_Upsert{Upsert: &qnpb.UpsertOperation{Rows: n, Fields: fields}}
		}
		call, cancel := q.c.answer(ctx)
		_, err := q.c.write.Append(call, req)
		cancel()
		if err != nil {
			return err
		}
		if err := q.acknowledged(batch); err != nil {
			return err
		}
		done += len(batch)
		bar.Set(int64(done))
	}
	bar.Done()
	return nil
}

// acknowledged notes the keys of rows that are durable now, one line a batch.
func (q *quickstart) acknowledged(rows []int) error {
	if q.ack == nil {
		return nil
	}
	var line []byte
	for _, row := range rows {
		line = append(strconv.AppendInt(line, q.words.ids[row], 10), ' ')
	}
	line[len(line)-1] = '\n'
	_, err := q.ack.Write(line)
	return errors.Wrap(err, "QUERYNODE_TEST_ACK_FILE")
}

// fields is the given rows in the form of the API.
func (q *quickstart) fields(rows []int) []*qnpb.FieldData {
	w := q.words
	ids, lengths := make([]int64, 0, len(rows)), make([]int64, 0, len(rows))
	text, vectors := make([]string, 0, len(rows)), make([]float32, 0, len(rows)*w.dim)
	for _, row := range rows {
		ids, lengths = append(ids, w.ids[row]), append(lengths, w.length[row])
		text, vectors = append(text, w.text[row]), append(vectors, w.vector(row)...)
	}
	return []*qnpb.FieldData{
		{Field: "id", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: ids}}},
		{Field: "word", Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: text}}},
		{Field: "length", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: lengths}}},
		{Field: "vector", Values: &qnpb.FieldData_Vectors{Vectors: rowpb.RawVectors(vectors, w.dim)}},
	}
}

// count is the number of rows, all acknowledged ones included.
func (q *quickstart) count(ctx context.Context) (int64, error) {
	ctx, cancel := q.c.answer(ctx)
	defer cancel()
	stream, err := q.c.query.Query(ctx, &qnpb.QueryRequest{Collection: wordsCollection, OutputFields: []string{"count(*)"}, Freshness: strong()})
	if err != nil {
		return 0, err
	}
	n := int64(0)
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		n += piece.GetCount()
	}
}
