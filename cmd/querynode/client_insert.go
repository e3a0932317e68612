package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/dataset"
	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type insertCmd struct {
	Collection string `arg:"" help:"Name or alias of the collection."`
	File       string `arg:"" type:"existingfile" help:"Rows to insert: .jsonl, .csv, .parquet, .npy, .fvecs or .bvecs; - = standard input."`
	Format     string `enum:",jsonl,csv" default:"" help:"jsonl = one JSON object a line, csv = fields named in the first line. Empty: by the name of the file."`
	Partition  string `placeholder:"NAME" help:"Partition to insert into; it must exist."`
	Upsert     bool   `help:"Replace rows of the same keys."`
	Batch      int    `default:"1000" help:"Rows in one call."`
	Limit      int64  `help:"Rows to insert at most; 0 = all."`
	clientFlags
}

// Help is shown by --help.
func (insertCmd) Help() string {
	return `Inserts the rows of a file. Keys of JSON and columns of CSV and Parquet files go to the fields of the same name, keys
beyond them to the dynamic field, if there is one; files of vectors alone go to the vector field, with the row number as
key. In CSV an empty cell is no value, and lists, vectors, sparse vectors and JSON are written as JSON. What is
acknowledged is durable; if the command is interrupted, repeat it with --upsert: no row is there twice.

Example:
  querynode insert words words.parquet
  querynode insert images base.fvecs --upsert
  querynode insert posts posts.csv
  echo '{"id": 1, "body": "Dogs swim in rivers"}' | querynode insert posts - --format jsonl`
}

// Run inserts.
func (s *insertCmd) Run(a *app) error {
	if s.Batch < 1 || s.Limit < 0 {
		return usage(errors.New("--batch wants 1 or more, --limit 0 or more"))
	}
	format, err := textFormat(s.File, s.Format)
	if err != nil {
		return err
	}
	return s.with(a, func(ctx context.Context, c *client) error {
		coll, err := c.describe(ctx, s.Collection)
		if err != nil {
			return err
		}
		return s.insert(ctx, a, c, coll, format)
	})
}

// rowSource gives the rows of a file.
type rowSource struct {
	rows  int64 // 0 = unknown
	read  func(n int) (*rowBatch, error)
	close func() error
}

func (s *insertCmd) open(a *app, c *client, sc *schema.Schema, format string) (*rowSource, error) {
	if format != "" {
		t, err := openTexts(s.File, format, a.stdin, sc, s.Upsert, s.Limit)
		if err != nil {
			return nil, err
		}
		return &rowSource{read: t.read, close: t.close}, nil
	}
	r, err := openFor(s.File, sc, s.Limit)
	if err != nil {
		return nil, err
	}
	m, err := mapColumns(r, sc, s.Upsert)
	if err != nil {
		return nil, errors.CombineErrors(err, r.Close())
	}
	for _, x := range m.skipped {
		c.out.Notef("column %q is left out: %s", x.Column, x.Why)
	}
	return &rowSource{rows: r.Rows(), close: r.Close, read: func(n int) (*rowBatch, error) {
		b, err := r.Next(n)
		if err != nil {
			return nil, err
		}
		return &rowBatch{rows: b.Rows, bytes: b.Bytes(), fields: m.fields(b)}, nil
	}}, nil
}

func (s *insertCmd) insert(ctx context.Context, a *app, c *client, coll *qnpb.Collection, format string) (err error) {
	sc, err := schemaOf(coll.GetSchema())
	if err != nil {
		return err
	}
	src, err := s.open(a, c, &sc, format)
	if err != nil {
		return err
	}
	defer func() { err = errors.CombineErrors(err, src.close()) }()
	bar := c.out.Bar("insert into "+s.Collection, src.rows, console.Rows)
	done, last, err := s.send(ctx, c, src, bar)
	if err != nil {
		bar.Fail()
		return stopped(err, c.addr, done)
	}
	bar.Done()
	if c.out.JSON() {
		return c.out.Document(map[string]any{"rows": done, "timestamp": last})
	}
	if done == 0 {
		c.out.Printf("nothing was written to %s: there are no rows", s.Collection)
		return nil
	}
	c.out.Printf("%s written to %s (timestamp %d)", console.Several(done, "row"), s.Collection, last)
	return nil
}

// send writes the rows in batches, each acknowledged before the next.
func (s *insertCmd) send(ctx context.Context, c *client, src *rowSource, bar *console.Bar) (done int64, last uint64, err error) {
	size := s.Batch
	for {
		b, err := src.read(size)
		if errors.Is(err, io.EOF) {
			return done, last, nil
		}
		if err != nil {
			return done, last, err
		}
		// Large rows: keep a call well below what a node accepts.
		size = max(1, min(s.Batch, int(int64(maxCallBytes)*int64(b.rows)/max(1, b.bytes))))
		req := &qnpb.AppendRequest{Collection: s.Collection, Partition: s.Partition,
			Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: int64(b.rows), Fields: b.fields}}}
		if s.Upsert {
			req.Operation = &qnpb.AppendRequest_Upsert{Upsert: &qnpb.UpsertOperation{Rows: int64(b.rows), Fields: b.fields}}
		}
		call, cancel := c.answer(ctx)
		got, err := c.write.Append(call, req)
		cancel()
		if err != nil {
			return done, last, errors.Mark(err, errSent)
		}
		done, last = done+int64(b.rows), got.GetTimestamp()
		bar.Set(done)
	}
}

// maxCallBytes is what one call to insert should hold at most.
const maxCallBytes = 16 << 20

// errSent marks errors of rows that were sent: some, or all, may have been written.
var errSent = errors.New("rows were sent")

// stopped says how far an interrupted insert came.
func stopped(err error, addr string, done int64) error {
	sent, counted := errors.Is(err, errSent), ""
	if sent && done > 0 && status.Code(errors.UnwrapAll(err)) == codes.InvalidArgument {
		counted = fmt.Sprintf("; rows are counted from row %d of the file on, the first that was not written", done)
	}
	switch status.Code(errors.UnwrapAll(err)) {
	case codes.InvalidArgument, codes.NotFound, codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated:
		sent = false // it was refused as a whole
	}
	err = explain(err, addr, "")
	var p *problem
	if !errors.As(err, &p) {
		p = &problem{text: err.Error(), cause: err}
	}
	out := *p
	switch {
	case done == 0 && !sent:
		out.text += " (nothing was written)"
		return &out
	case done == 0:
		out.text += " (it is not known whether the first rows were written)"
	default:
		out.text += fmt.Sprintf(" (%s written before, and safe%s)", console.Several(done, "row"), counted)
	}
	hint := "repeat with --upsert: rows that are there already are not doubled"
	out.next = strings.TrimPrefix(out.next+"; then "+hint, "; then ")
	return &out
}

// openFor opens a data file so that its columns have the names of the schema.
func openFor(path string, sc *schema.Schema, limit int64) (*dataset.Reader, error) {
	o := dataset.Options{Limit: limit, NoVectors: true}
	var vectors []schema.Field
	for _, f := range sc.Given() {
		if f.Type.IsVector() {
			vectors = append(vectors, f)
			o.NoVectors = o.NoVectors && f.MayBeAbsent()
		}
		if f.Type == schema.Array {
			o.Arrays = append(o.Arrays, f.Name)
		}
	}
	if strings.EqualFold(filepath.Ext(path), ".parquet") {
		if pk := sc.Primary(); !pk.AutoID {
			o.PrimaryKey = pk.Name
		}
	} else if len(vectors) == 1 {
		o.Vector = vectors[0].Name
	}
	r, err := dataset.Open(path, o)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// mapping says which column of a file goes to which field.
type mapping struct {
	to      []schema.Field // per column of the file; ID 0 = left out
	skipped []dataset.Skipped
}

// mapColumns matches columns to fields by name; the key of a file without one
// goes to the primary key.
func mapColumns(r *dataset.Reader, sc *schema.Schema, upsert bool) (*mapping, error) {
	m := &mapping{skipped: r.Skipped()}
	got := map[int64]bool{}
	for _, f := range r.Schema().Fields {
		to, why := target(f, sc, upsert)
		if why != "" {
			m.skipped = append(m.skipped, dataset.Skipped{Column: f.Name, Why: why})
		}
		got[to.ID] = true
		m.to = append(m.to, to)
	}
	for _, f := range sc.Given() {
		if !got[f.ID] && !f.MayBeAbsent() && (!f.AutoID || upsert) {
			return nil, &problem{text: fmt.Sprintf("the file has no column for field %q (%s), which is not nullable and has no default value", f.Name, f.Type),
				next: "the file's columns: " + columnNames(r)}
		}
	}
	return m, nil
}

// isMade reports whether a function makes the field.
func isMade(sc *schema.Schema, f schema.Field) bool {
	_, made := sc.FunctionOf(f.ID)
	return made
}

func target(f schema.Field, sc *schema.Schema, upsert bool) (to schema.Field, why string) {
	to, ok := sc.Field(f.Name)
	if !ok && f.PrimaryKey {
		to, ok = sc.Primary(), true
	}
	switch {
	case !ok:
		return schema.Field{}, "the collection has no such field"
	case isMade(sc, to):
		return schema.Field{}, "a function makes the field"
	case to.AutoID && !upsert:
		return schema.Field{}, "the node gives the keys"
	case to.Type == schema.Array || f.Type == schema.Array:
		if to.Type != f.Type || to.Element != f.Element && !(to.Element.IsInt() && f.Element.IsInt()) {
			return schema.Field{}, fmt.Sprintf("it is %s, the field %s", fieldType(f), fieldType(to))
		}
	case to.Type == f.Type, to.Type.IsInt() && f.Type.IsInt():
	case to.Type == schema.JSON && f.Type == schema.VarChar, to.Type == schema.Double && f.Type == schema.Float, to.Type == schema.Float && f.Type == schema.Double:
	default:
		return schema.Field{}, fmt.Sprintf("it is %s, the field %s", f.Type, to.Type)
	}
	if to.Type.IsVector() && to.Dim != f.Dim {
		return schema.Field{}, fmt.Sprintf("its vectors have %d values, the field's %d", f.Dim, to.Dim)
	}
	return to, ""
}

func columnNames(r *dataset.Reader) string {
	var names []string
	for _, f := range r.Schema().Fields {
		names = append(names, f.Name+" "+f.Type.String())
	}
	return strings.Join(names, ", ")
}

// fields is the batch in the form of the API.
func (m *mapping) fields(b *schema.Batch) []*qnpb.FieldData {
	var out []*qnpb.FieldData
	for _, c := range m.columns(b) {
		f := m.field(c.FieldID)
		d := rowpb.FromColumn(c, f)
		if f.Type.IsVector() {
			d.Values = &qnpb.FieldData_Vectors{Vectors: rowpb.RawVectors(c.Float, c.Dim)}
		}
		out = append(out, d)
	}
	return out
}

func (m *mapping) field(id int64) schema.Field {
	for _, f := range m.to {
		if f.ID == id {
			return f
		}
	}
	return schema.Field{}
}

// columns are the columns that are not left out, as those of their fields.
func (m *mapping) columns(b *schema.Batch) []*schema.Column {
	var out []*schema.Column
	for i, c := range b.Columns {
		f := m.to[i]
		if f.ID == 0 {
			continue
		}
		n := *c
		n.FieldID, n.Type, n.Element = f.ID, f.Type, f.Element
		switch {
		case f.Type == schema.Double && c.Type == schema.Float:
			n.Float, n.Double = nil, make([]float64, len(c.Float))
			for k, v := range c.Float {
				n.Double[k] = float64(v)
			}
		case f.Type == schema.Float && c.Type == schema.Double:
			n.Double, n.Float = nil, make([]float32, len(c.Double))
			for k, v := range c.Double {
				n.Float[k] = float32(v)
			}
		}
		out = append(out, &n)
	}
	return out
}
