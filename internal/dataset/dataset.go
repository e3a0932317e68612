// Package dataset reads vectors that users bring in files, as batches of rows:
//
//	.npy     two dimensions, row-major, float16, float32 or float64
//	.fvecs   per vector its dimension (int32) and so many float32, little-endian
//	.bvecs   the same with bytes
//	.parquet flat columns, and lists of floats, which become vectors
//
// The schema follows from the file. Files are streamed: memory depends on the
// size of a batch, and for Parquet on that of its pages. Errors are of class
// Invalid and name the file, the row or byte, and what is expected there.
package dataset

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// Names of fields where the file has none.
const (
	DefaultKey    = "id"
	DefaultVector = "vector"
)

// Options say how to read a file. The zero value reads everything.
type Options struct {
	// PrimaryKey is the column that holds the keys: integers or text. Empty: the
	// column "id" if there is one of such a type, else the row numbers from 0.
	// Keys are not checked to be unique.
	PrimaryKey string
	// Vector is the column of a Parquet file to read as vectors; empty: every
	// list of floats. In other files it names the field; empty: "vector".
	Vector string
	// Arrays are the columns of a Parquet file to read as arrays although they
	// hold lists of floats; other lists are arrays anyway.
	Arrays []string
	// NoVectors allows a Parquet file without a column of vectors, for collections
	// whose vectors are made from other columns.
	NoVectors bool
	// Limit is the number of rows to read at most; 0: all.
	Limit int64
}

// Skipped is a column that is in the file but not in the schema.
type Skipped struct {
	Column string
	Why    string
}

// Reader streams the rows of a file. Not safe for concurrent use.
type Reader struct {
	path     string
	schema   schema.Schema
	rows     int64
	row      int64 // next
	numbered bool  // the key is the row number
	src      source
	err      error // sticky
}

// source is what the kinds of files have in common.
type source interface {
	// fields lists the columns, without ids and without a key that is made up.
	fields() []schema.Field
	// rows is the number of rows in the file.
	rows() int64
	// read appends the next n rows, which exist, to cols: one per field. row is
	// the number of the first.
	read(cols []*schema.Column, row int64, n int) error
	skipped() []Skipped
	close() error
}

// Open opens the file; its extension says what it is. The caller closes the
// reader. A file that is not there is class NotFound.
func Open(path string, o Options) (*Reader, error) {
	r, err := open(path, o)
	return r, errors.Wrapf(err, "data set %s", path)
}

func open(path string, o Options) (*Reader, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errclass.Mark(err, errclass.NotFound)
	}
	if err != nil {
		return nil, err
	}
	r := &Reader{path: path}
	if err := r.init(f, o); err != nil {
		return nil, errors.CombineErrors(err, f.Close())
	}
	return r, nil
}

func (r *Reader) init(f *os.File, o Options) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errclass.New(errclass.Invalid, "want a regular file")
	}
	if o.Limit < 0 {
		return errclass.New(errclass.Invalid, "limit of %d rows, want 0 (all) or more", o.Limit)
	}
	vector := o.Vector
	if vector == "" {
		vector = DefaultVector
	}
	switch ext := strings.ToLower(filepath.Ext(r.path)); ext {
	case ".npy":
		r.src, err = openNpy(f, st.Size(), vector)
	case ".fvecs", ".bvecs":
		r.src, err = openVecs(f, st.Size(), vector, ext == ".bvecs")
	case ".parquet":
		r.src, err = openParquet(f, st.Size(), o)
	default:
		return errclass.New(errclass.Invalid, "extension %q: want .npy, .fvecs, .bvecs or .parquet", ext)
	}
	if err != nil {
		return err
	}
	r.rows = r.src.rows()
	if o.Limit > 0 {
		r.rows = min(r.rows, o.Limit)
	}
	return r.makeSchema(o)
}

// makeSchema numbers the fields of the source and finds or makes the key.
func (r *Reader) makeSchema(o Options) error {
	fields := r.src.fields()
	key := -1
	taken := map[string]bool{}
	for i, f := range fields {
		taken[f.Name] = true
		usable := f.Type.IsInt() || f.Type == schema.VarChar
		if o.PrimaryKey == f.Name && !usable {
			return errclass.New(errclass.Invalid, "primary key %q is of type %s, want integers or text", f.Name, f.Type)
		}
		if usable && (f.Name == o.PrimaryKey || o.PrimaryKey == "" && f.Name == DefaultKey) {
			key = i
		}
	}
	if key < 0 && o.PrimaryKey != "" {
		return errclass.New(errclass.Invalid, "no column %q for the primary key; there are %s", o.PrimaryKey, names(fields, r.src.skipped()))
	}
	r.schema = schema.Schema{Version: 1}
	if key < 0 {
		name := DefaultKey
		for taken[name] {
			name = "row_" + name
		}
		r.numbered = true
		r.schema.Fields = append(r.schema.Fields, schema.Field{Name: name, Type: schema.Int64, PrimaryKey: true})
	}
	for i, f := range fields {
		if i == key {
			f.PrimaryKey, f.Nullable = true, false
			if f.Type.IsInt() {
				f.Type = schema.Int64
			}
		}
		r.schema.Fields = append(r.schema.Fields, f)
	}
	for i := range r.schema.Fields {
		r.schema.Fields[i].ID = schema.FirstFieldID + int64(i)
	}
	rules := r.schema
	if o.NoVectors {
		// What a collection has to have, but for this.
		name := DefaultVector
		for taken[name] {
			name = "row_" + name
		}
		rules.Fields = append(slices.Clone(rules.Fields), schema.Field{ID: schema.FirstFieldID + int64(len(rules.Fields)), Name: name, Type: schema.SparseFloatVector})
	}
	return rules.Validate()
}

func names(fields []schema.Field, skipped []Skipped) string {
	var all []string
	for _, f := range fields {
		all = append(all, f.Name+" ("+f.Type.String()+")")
	}
	for _, s := range skipped {
		all = append(all, s.Column+" (skipped: "+s.Why+")")
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// InferSchema returns the schema that Open with zero Options gives the file, and the number of its rows.
func InferSchema(path string) (schema.Schema, int64, error) {
	r, err := Open(path, Options{})
	if err != nil {
		return schema.Schema{}, 0, err
	}
	return r.Schema(), r.Rows(), r.Close()
}

// Schema is the schema of the batches. Do not modify it.
func (r *Reader) Schema() schema.Schema { return r.schema }

// Rows is the number of rows Next will give in total.
func (r *Reader) Rows() int64 { return r.rows }

// Skipped lists columns of the file that are not in the schema, with the reason.
func (r *Reader) Skipped() []Skipped { return r.src.skipped() }

// Next returns the next rows, limit at most, without timestamps; io.EOF after
// the last. The batch is the caller's. After an error there are no more rows.
func (r *Reader) Next(limit int) (*schema.Batch, error) {
	if limit < 1 {
		return nil, errclass.New(errclass.Invalid, "batch of %d rows, want 1 or more", limit)
	}
	if r.err == nil && r.row == r.rows {
		r.err = io.EOF
	}
	if r.err != nil {
		return nil, r.err
	}
	b := &schema.Batch{Rows: int(min(int64(limit), r.rows-r.row))}
	if err := r.fill(b); err != nil {
		r.err = errors.Wrapf(err, "data set %s", r.path)
		return nil, r.err
	}
	r.row += int64(b.Rows)
	return b, nil
}

func (r *Reader) fill(b *schema.Batch) error {
	for _, f := range r.schema.Fields {
		b.Columns = append(b.Columns, schema.NewColumn(f, 0))
	}
	cols := b.Columns
	if r.numbered {
		for i := range b.Rows {
			cols[0].Int = append(cols[0].Int, r.row+int64(i))
		}
		cols = cols[1:]
	}
	if err := r.src.read(cols, r.row, b.Rows); err != nil {
		return err
	}
	for i, c := range b.Columns {
		if err := checkColumn(&r.schema.Fields[i], c, r.row); err != nil {
			return err
		}
	}
	return b.Check(&r.schema)
}

// Close closes the file. It is idempotent.
func (r *Reader) Close() error {
	if r.err == errClosed {
		return nil
	}
	r.err = errClosed
	return errors.Wrapf(r.src.close(), "close data set %s", r.path)
}

var errClosed = errclass.Mark(errors.New("data set is closed"), errclass.Closed)
