package flatparquet

import (
	"io"
	"reflect"
	"unsafe"

	"github.com/cockroachdb/errors"
	"github.com/parquet-go/parquet-go"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// Field is a column to write.
type Field struct {
	Name     string
	ID       int // Parquet's field_id; 0 = none
	Type     schema.Type
	Element  schema.Type // of an Array
	Unsigned bool        // Int64 values are the bits of unsigned ones
	Nullable bool
	Sorted   bool // neighbours are close: keys, timestamps
	Unique   bool // a dictionary would not help
}

const (
	groupRows      = 128 << 10 // rows of a row group
	groupBytes     = 64 << 20  // of values in a row group, if that comes first
	pageBytes      = 256 << 10
	dictionaryMax  = 1 << 20
	valuesPerWrite = 1024
)

// Writer writes columns to a Parquet file, zstd-compressed. The caller owns
// the io.Writer. Not safe for concurrent use.
type Writer struct {
	out    *parquet.GenericWriter[any]
	fields []Field
	buf    []parquet.Value
	text   []int // bytes of text in the current page, by field
	rows   int   // in the row group
	bytes  int64 // in the row group
	err    error // why nothing can be written
}

// NewWriter returns a writer of the fields, in this order, to out. meta goes to
// the footer as key-value metadata.
func NewWriter(out io.Writer, fields []Field, meta map[string]string) *Writer {
	root := orderedGroup{Group: parquet.Group{}}
	var noBounds []parquet.WriterOption
	for _, f := range fields {
		node := fieldNode(f)
		root.Group[f.Name] = node
		root.fields = append(root.fields, orderedField{Node: node, name: f.Name})
		if f.Type == schema.VarChar || f.Type == schema.JSON {
			// Bounds of long texts would double the file; readers of segments
			// take theirs from the manifest.
			noBounds = append(noBounds, parquet.SkipPageBounds(f.Name))
		}
		if f.Type == schema.Array {
			noBounds = append(noBounds, parquet.SkipPageBounds(f.Name, "list", "element"))
		}
	}
	c, err := newCodec()
	opts := []parquet.WriterOption{
		parquet.NewSchema("rows", root),
		parquet.Compression(c),
		parquet.PageBufferSize(pageBytes),
		parquet.DataPageStatistics(false), // they are in the footer, too
		parquet.DictionaryMaxBytes(dictionaryMax),
		parquet.CreatedBy("querynode", "1", ""),
	}
	for k, v := range meta {
		opts = append(opts, parquet.KeyValueMetadata(k, v))
	}
	return &Writer{out: parquet.NewGenericWriter[any](out, append(opts, noBounds...)...), fields: fields, text: make([]int, len(fields)), err: err}
}

// orderedGroup is a group that keeps the order of its fields; parquet.Group
// sorts them by name.
type orderedGroup struct {
	parquet.Group
	fields []parquet.Field
}

// Fields lists the fields in the order they were given.
func (g orderedGroup) Fields() []parquet.Field { return g.fields }

func fieldNode(f Field) parquet.Node {
	if f.Type == schema.Array {
		return outer(f, parquet.List(fieldNode(Field{Type: f.Element})))
	}
	var n parquet.Node
	switch f.Type {
	case schema.Bool:
		n = parquet.Leaf(parquet.BooleanType)
	case schema.Int8:
		n = parquet.Int(8)
	case schema.Int16:
		n = parquet.Int(16)
	case schema.Int32:
		n = parquet.Int(32)
	case schema.Int64:
		n = parquet.Int(64)
		if f.Unsigned {
			n = parquet.Uint(64)
		}
	case schema.Float:
		n = parquet.Leaf(parquet.FloatType)
	case schema.Double:
		n = parquet.Leaf(parquet.DoubleType)
	case schema.Timestamptz:
		n = parquet.Timestamp(parquet.Microsecond)
	case schema.JSON:
		n = parquet.JSON()
	default:
		n = parquet.String()
	}
	switch {
	case f.Type == schema.Bool, f.Type == schema.Float, f.Type == schema.Double:
		n = parquet.Encoded(n, &parquet.Plain)
	case f.Type.IsInt() && f.Sorted:
		n = parquet.Encoded(n, &parquet.DeltaBinaryPacked)
	case f.Unique:
		n = parquet.Encoded(n, &parquet.Plain)
	default:
		n = parquet.Encoded(n, &parquet.RLEDictionary)
	}
	return outer(f, n)
}

// outer gives the column of f what does not depend on its type.
func outer(f Field, n parquet.Node) parquet.Node {
	if f.Nullable {
		n = parquet.Optional(n)
	}
	if f.ID != 0 {
		n = parquet.FieldID(n, f.ID)
	}
	return n
}

// Write appends rows: one column per field, all equally long.
func (w *Writer) Write(cols []*schema.Column) error {
	if w.err != nil {
		return errors.Wrap(w.err, "compress Parquet")
	}
	if len(cols) != len(w.fields) {
		return errclass.New(errclass.Invalid, "got %d columns for %d fields", len(cols), len(w.fields))
	}
	rows := 0
	for i, c := range cols {
		if i == 0 {
			rows = c.Rows()
		}
		if c.Rows() != rows || c.Type != w.fields[i].Type || c.Element != w.fields[i].Element || c.Valid != nil && len(c.Valid) != rows {
			return errclass.New(errclass.Invalid, "column %q: got %d rows of %s, want %d of %s", w.fields[i].Name, c.Rows(), c.Type, rows, w.fields[i].Type)
		}
	}
	for from := 0; from < rows; {
		to := min(rows, from+groupRows-w.rows)
		if err := w.writeRange(cols, from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

func (w *Writer) writeRange(cols []*schema.Column, from, to int) error {
	for i, cw := range w.out.ColumnWriters() { // one for each field: none has several leaves
		part := cols[i].Slice(from, to)
		if err := w.writeColumn(cw, i, part); err != nil {
			return errors.Wrapf(err, "write column %q", w.fields[i].Name)
		}
		w.bytes += part.Bytes()
	}
	w.rows += to - from
	if w.rows < groupRows && w.bytes < groupBytes {
		return nil
	}
	return w.Flush()
}

// Flush ends the row group, whose values are in memory until then, unless it is empty. Groups end by themselves at groupRows or
// groupBytes.
func (w *Writer) Flush() error {
	if w.rows == 0 {
		return nil
	}
	w.rows, w.bytes = 0, 0
	return errors.Wrap(w.out.Flush(), "write row group")
}

// writeColumn hands values on in portions small enough to keep pages, and the
// dictionary, near their limits: the library looks at these only in between.
func (w *Writer) writeColumn(cw *parquet.ColumnWriter, i int, c *schema.Column) error {
	rows, def := c.Rows(), 0
	if w.fields[i].Nullable {
		def = 1
	}
	for row := 0; row < rows; {
		w.buf = w.buf[:0]
		size := 0
		for ; row < rows && len(w.buf) < valuesPerWrite && size < pageBytes; row++ {
			if c.Null(row) {
				w.buf = append(w.buf, parquet.NullValue().Level(0, 0, i))
				continue
			}
			if c.Type == schema.Array {
				size += w.list(c, row, def, i)
				continue
			}
			if c.Str != nil {
				size += len(c.Str[row])
			}
			w.buf = append(w.buf, value(c, row).Level(0, def, i))
		}
		if _, err := cw.WriteRowValues(w.buf); err != nil {
			return err
		}
		if w.text[i] += size; w.text[i] < dictionaryMax {
			continue
		}
		// As far as the library knows, a page of dictionary indexes is still
		// tiny; end it, so that an overgrown dictionary is given up.
		w.text[i] = 0
		if err := cw.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// list appends the elements of a row to the buffer, or one entry that stands for
// none, and returns how many bytes of text are in them.
func (w *Writer) list(c *schema.Column, row, def, column int) (text int) {
	from, to := c.List(row)
	if from == to {
		w.buf = append(w.buf, parquet.NullValue().Level(0, def, column))
		return 0
	}
	for k := from; k < to; k++ {
		rep := 1
		if k == from {
			rep = 0
		}
		if c.Str != nil {
			text += len(c.Str[k])
		}
		w.buf = append(w.buf, value(c, k).Level(rep, def+1, column))
	}
	return text
}

// value is value i of a column; for an array, element i of all.
func value(c *schema.Column, i int) parquet.Value {
	switch c.ValueType() {
	case schema.Bool:
		return parquet.BooleanValue(c.Bool[i])
	case schema.Int8, schema.Int16, schema.Int32:
		return parquet.Int32Value(int32(c.Int[i]))
	case schema.Int64, schema.Timestamptz:
		return parquet.Int64Value(c.Int[i])
	case schema.Float:
		return parquet.FloatValue(c.Float[i])
	case schema.Double:
		return parquet.DoubleValue(c.Double[i])
	}
	// The column buffer copies the bytes before it returns.
	s := c.Str[i]
	return parquet.ByteArrayValue(unsafe.Slice(unsafe.StringData(s), len(s)))
}

// Close writes the last row group and the footer. It does not close the io.Writer.
func (w *Writer) Close() error {
	return errors.Wrap(w.out.Close(), "write Parquet footer")
}

// orderedField is a named child of an orderedGroup.
type orderedField struct {
	parquet.Node
	name string
}

// Name of the field.
func (f orderedField) Name() string { return f.name }

// Value is for Go structs, of which this package uses none.
func (f orderedField) Value(reflect.Value) reflect.Value {
	panic(errors.AssertionFailedf("flatparquet: fields have no Go value"))
}
