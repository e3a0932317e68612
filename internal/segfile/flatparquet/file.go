package flatparquet

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/cockroachdb/errors"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// Limits bound what a file may ask for. A zero field stands for the default in
// its comment.
type Limits struct {
	Footer  int64 // bytes of the footer; 16 MiB
	Page    int64 // bytes of a page, packed or unpacked; 256 MiB
	Total   int64 // bytes of all pages of a column, unpacked; 1 TiB
	Rows    int64 // rows of the file; 2^31-1
	Values  int64 // entries of a column of lists; 2^40
	Columns int   // nodes of the schema; 4096
	Strict  bool  // only pages compressed with zstd, whose blocks are checked, or not at all
}

func (l Limits) withDefaults() Limits {
	set := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.Footer, 16<<20)
	set(&l.Page, 256<<20)
	set(&l.Total, 1<<40)
	set(&l.Rows, 1<<31-1)
	set(&l.Values, 1<<40)
	if l.Columns == 0 {
		l.Columns = 4096
	}
	return l
}

// maxSchemaDepth bounds the nesting of columns: a list is 3 deep.
const maxSchemaDepth = 16

// Column describes one top-level column of a file.
type Column struct {
	Name     string
	FieldID  int         // Parquet's field_id; 0 = none
	Type     schema.Type // of a value, or of the elements of a list; None if this package cannot read it
	Why      string      // why Type is None
	List     bool        // one list per row
	Nullable bool        // rows may be null
	Unsigned bool        // the file's integers are unsigned

	leaf  *parquet.Column
	entry byte // List: definition level from which on an entry is an element
}

// File is an open Parquet file. It owns nothing: the caller closes what it
// reads from. Safe for concurrent use as far as the io.ReaderAt is.
type File struct {
	in     io.ReaderAt
	size   int64
	limits Limits
	file   *parquet.File
	cols   []Column
}

// Open reads and checks the footer of the size bytes behind r. Errors are of
// class Corrupt, or whatever class a failed read carries.
func Open(r io.ReaderAt, size int64, limits Limits) (*File, error) {
	f := &File{in: r, size: size, limits: limits.withDefaults()}
	err := guard("read Parquet footer", func() error {
		if err := f.checkFooter(); err != nil {
			return err
		}
		pf, err := parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true), parquet.FileReadMode(parquet.ReadModeSync))
		if err != nil {
			return err
		}
		f.file = pf
		for _, c := range pf.Root().Columns() {
			f.cols = append(f.cols, describe(c))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Rows is the number of rows the footer states. Cursors check that each column has them.
func (f *File) Rows() int64 { return f.file.NumRows() }

// Columns lists the top-level columns in the order of the file. Do not modify it.
func (f *File) Columns() []Column { return f.cols }

// guard runs fn, and marks its error and its panic as Corrupt unless it has a class.
func guard(what string, fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = errclass.New(errclass.Corrupt, "%s: %v", what, v)
		}
	}()
	err = fn()
	if err == nil || err == io.EOF {
		return err
	}
	if class := errclass.Of(err); class != errclass.Internal {
		return errors.Wrap(err, what)
	}
	return errclass.Wrap(err, errclass.Corrupt, "%s", what)
}

// checkFooter decodes the footer once by itself and compares every count and
// offset in it with the size of the file.
func (f *File) checkFooter() error {
	if f.size < 12 {
		return errors.Newf("%d bytes are too short for a Parquet file", f.size)
	}
	var head, tail [8]byte
	if err := readFull(f.in, head[:4], 0); err != nil {
		return err
	}
	if err := readFull(f.in, tail[:], f.size-8); err != nil {
		return err
	}
	if string(head[:4]) != "PAR1" || string(tail[4:]) != "PAR1" {
		return errors.Newf("want the magic PAR1 at both ends, got %q and %q", head[:4], tail[4:])
	}
	n := int64(binary.LittleEndian.Uint32(tail[:]))
	if n > f.size-12 || n > f.limits.Footer {
		return errors.Newf("footer of %d bytes in a file of %d, want at most %d", n, f.size, f.limits.Footer)
	}
	footer := make([]byte, n)
	if err := readFull(f.in, footer, f.size-8-n); err != nil {
		return err
	}
	if end, err := skim(footer); err != nil {
		return errors.Wrap(err, "footer")
	} else if int64(end) != n {
		return errors.Newf("footer of %d bytes ends after %d", n, end)
	}
	var meta format.FileMetaData
	if err := thrift.Unmarshal(new(thrift.CompactProtocol), footer, &meta); err != nil {
		return err
	}
	return f.checkMeta(&meta, f.size-8-n)
}

// checkMeta checks the decoded footer; the data ends at byte end.
func (f *File) checkMeta(meta *format.FileMetaData, end int64) error {
	leaves, err := f.checkTree(meta.Schema)
	if err != nil {
		return err
	}
	if meta.NumRows < 0 || meta.NumRows > f.limits.Rows {
		return errors.Newf("%d rows, want at most %d", meta.NumRows, f.limits.Rows)
	}
	rows := int64(0)
	for i := range meta.RowGroups {
		g := &meta.RowGroups[i]
		if len(g.Columns) != leaves {
			return errors.Newf("row group %d has %d columns, the schema %d", i, len(g.Columns), leaves)
		}
		if g.NumRows < 0 || g.NumRows > meta.NumRows-rows {
			return errors.Newf("row group %d has %d rows, the file %d", i, g.NumRows, meta.NumRows)
		}
		rows += g.NumRows
		for j := range g.Columns {
			if err := f.checkChunk(&g.Columns[j].MetaData, end); err != nil {
				return errors.Wrapf(err, "row group %d, column %d", i, j)
			}
		}
	}
	if rows != meta.NumRows {
		return errors.Newf("the row groups have %d rows, the footer says %d", rows, meta.NumRows)
	}
	return nil
}

// checkTree checks the flattened tree of the schema and returns the number of its leaves.
func (f *File) checkTree(nodes []format.SchemaElement) (leaves int, err error) {
	if len(nodes) == 0 || len(nodes) > f.limits.Columns {
		return 0, errors.Newf("schema of %d nodes, want 1 to %d", len(nodes), f.limits.Columns)
	}
	open := []int32{1} // children still to come, by level
	for i := range nodes {
		if len(open) == 0 {
			return 0, errors.Newf("schema node %d belongs to no group", i)
		}
		open[len(open)-1]--
		if n := nodes[i].NumChildren; n.Valid && n.V > 0 {
			if len(open) > maxSchemaDepth {
				return 0, errors.Newf("schema nested deeper than %d", maxSchemaDepth)
			}
			open = append(open, n.V)
		} else if i == 0 || nodes[i].Type.Valid {
			leaves++
		} else {
			return 0, errors.Newf("schema node %d %q is neither a group nor of a type", i, nodes[i].Name)
		}
		for len(open) > 0 && open[len(open)-1] == 0 {
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		return 0, errors.New("the schema ends inside a group")
	}
	return leaves, nil
}

func (f *File) checkChunk(m *format.ColumnMetaData, end int64) error {
	start := chunkStart(m)
	if start < 4 || m.DataPageOffset < start || m.TotalCompressedSize < 0 || start > end || m.TotalCompressedSize > end-start {
		return errors.Newf("pages at %d, %d bytes: outside of the data, which ends at %d", start, m.TotalCompressedSize, end)
	}
	if m.NumValues < 0 {
		return errors.Newf("%d values", m.NumValues)
	}
	switch m.Codec {
	case format.Zstd, format.Uncompressed:
		return nil
	case format.Snappy, format.Gzip, format.Brotli:
		if !f.limits.Strict {
			return nil
		}
	case format.LZO, format.Lz4, format.Lz4Raw:
		// The library's LZ4 gives wrong values for files of other writers, and
		// grows without bound on damaged ones.
	}
	return errors.Newf("compressed with %v, want ZSTD (or SNAPPY, GZIP, BROTLI in files to import)", m.Codec)
}

func chunkStart(m *format.ColumnMetaData) int64 {
	if m.DictionaryPageOffset != 0 {
		return m.DictionaryPageOffset
	}
	return m.DataPageOffset
}

func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return errors.Wrapf(err, "read %d bytes at %d", len(b), off)
}

// describe says what a top-level column holds.
func describe(c *parquet.Column) Column {
	d := Column{Name: c.Name(), FieldID: c.ID(), Nullable: c.Optional(), leaf: c}
	for !d.leaf.Leaf() {
		if d.leaf.Repeated() {
			d.entry = byte(d.leaf.MaxDefinitionLevel())
		}
		if len(d.leaf.Columns()) != 1 {
			d.Why = "it is a group of several columns; want numbers, text or lists of them"
			return d
		}
		d.leaf = d.leaf.Columns()[0]
	}
	switch rep, def := d.leaf.MaxRepetitionLevel(), d.leaf.MaxDefinitionLevel(); {
	case rep > 1:
		d.Why = "it is a list of lists; want lists of numbers or text"
		return d
	case rep == 0 && def > 1, rep == 0 && d.leaf != c:
		d.Why = "it is nested; want numbers, text or lists of them"
		return d
	case rep == 1:
		d.List = true
		if d.leaf.Repeated() {
			d.entry = byte(d.leaf.MaxDefinitionLevel())
		}
	}
	d.Type, d.Unsigned, d.Why = valueType(d.leaf.Type())
	if d.List && !d.Type.IsElement() {
		d.Type, d.Why = schema.None, "it is a list of "+d.leaf.Type().String()+"; want lists of numbers or text"
	}
	return d
}

// valueType maps a Parquet type to ours. Dates, times, and timestamps other than
// microseconds in UTC, are read as the integers they are stored as.
func valueType(t parquet.Type) (typ schema.Type, unsigned bool, why string) {
	var logical format.LogicalTypeValue
	if l := t.LogicalType(); l != nil {
		logical = l.Value
	}
	none := func() (schema.Type, bool, string) {
		name := t.String()
		if _, ok := logical.(*format.DecimalType); ok {
			name = "DECIMAL"
		}
		return schema.None, false, fmt.Sprintf("its type %s is not supported", strings.TrimSpace(name))
	}
	switch t.Kind() {
	case parquet.Boolean:
		return schema.Bool, false, ""
	case parquet.Float:
		return schema.Float, false, ""
	case parquet.Double:
		return schema.Double, false, ""
	case parquet.ByteArray:
		switch logical.(type) {
		case *format.StringType, *format.EnumType:
			return schema.VarChar, false, ""
		case *format.JsonType:
			return schema.JSON, false, ""
		}
	case parquet.Int32, parquet.Int64:
		switch l := logical.(type) {
		case *format.DecimalType:
		case *format.TimestampType:
			if _, micros := l.Unit.Value.(*format.MicroSeconds); micros && l.IsAdjustedToUTC {
				return schema.Timestamptz, false, ""
			}
			return schema.Int64, false, ""
		case *format.IntType:
			return intType(int(l.BitWidth), l.IsSigned), !l.IsSigned, ""
		default:
			return intType(map[parquet.Kind]int{parquet.Int32: 32, parquet.Int64: 64}[t.Kind()], true), false, ""
		}
	}
	return none()
}

// intType is the smallest type that holds all integers of the width.
func intType(bits int, signed bool) schema.Type {
	if !signed {
		bits *= 2
	}
	switch {
	case bits <= 8:
		return schema.Int8
	case bits <= 16:
		return schema.Int16
	case bits <= 32:
		return schema.Int32
	}
	return schema.Int64
}
