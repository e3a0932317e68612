package dataset

import (
	"io"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile/flatparquet"
)

// parquetFile reads the columns of a Parquet file side by side.
type parquetFile struct {
	f     file
	table *flatparquet.File
	cols  []parquetColumn
	skip  []Skipped
}

type parquetColumn struct {
	field schema.Field
	in    *flatparquet.Cursor
}

func openParquet(f file, size int64, o Options) (source, error) {
	table, err := flatparquet.Open(f, size, flatparquet.Limits{})
	if err != nil {
		return nil, errclass.Mark(err, errclass.Invalid)
	}
	p := &parquetFile{f: f, table: table}
	if err := p.choose(o); err != nil {
		p.closeColumns()
		return nil, errclass.Mark(err, errclass.Invalid)
	}
	return p, nil
}

// choose opens the columns that can be fields, and notes the others.
func (p *parquetFile) choose(o Options) error {
	vectors := 0
	for i, col := range p.table.Columns() {
		field, why, err := p.field(i, o)
		if err != nil {
			return err
		}
		if why != "" {
			if col.Name == o.PrimaryKey || col.Name == o.Vector {
				return errclass.New(errclass.Invalid, "column %q cannot be read: %s", col.Name, why)
			}
			p.skip = append(p.skip, Skipped{col.Name, why})
			continue
		}
		if field.Type.IsVector() {
			vectors++
		}
		in, err := p.table.Cursor(i, false)
		if err != nil {
			return err
		}
		p.cols = append(p.cols, parquetColumn{field, in})
	}
	if vectors == 0 && o.Vector != "" {
		return errclass.New(errclass.Invalid, "no column %q with lists of floats for the vectors; there are %s", o.Vector, names(p.fields(), p.skip))
	}
	if vectors == 0 && !o.NoVectors {
		return errclass.New(errclass.Invalid, "no column with lists of floats for the vectors; there are %s", names(p.fields(), p.skip))
	}
	return nil
}

// field describes column i as a field, or says why it is none.
func (p *parquetFile) field(i int, o Options) (f schema.Field, why string, err error) {
	col := p.table.Columns()[i]
	f = schema.Field{Name: col.Name, Type: col.Type, Nullable: col.Nullable}
	if col.Type == schema.None {
		return f, col.Why, nil
	}
	if err := schema.CheckName("field", col.Name); err != nil {
		return f, err.Error(), nil
	}
	if !col.List {
		return f, "", nil
	}
	floats := col.Type == schema.Float || col.Type == schema.Double
	if !floats || slices.Contains(o.Arrays, col.Name) {
		f.Type, f.Element = schema.Array, col.Type
		return f, "", nil
	}
	if o.Vector != "" && o.Vector != col.Name {
		return f, "another column is read as vectors", nil
	}
	if p.table.Rows() == 0 {
		return f, "", errclass.New(errclass.Invalid, "the file has no rows")
	}
	dim, err := p.table.ListLen(i)
	if err != nil {
		return f, "", err
	}
	if err := checkShape(1, int64(dim)); err != nil {
		return f, "", errors.Wrapf(err, "row 0, column %q", col.Name)
	}
	f.Type, f.Dim, f.Nullable = schema.FloatVector, dim, false
	return f, "", nil
}

func (p *parquetFile) fields() []schema.Field {
	fields := make([]schema.Field, len(p.cols))
	for i := range p.cols {
		fields[i] = p.cols[i].field
	}
	return fields
}

func (p *parquetFile) rows() int64        { return p.table.Rows() }
func (p *parquetFile) skipped() []Skipped { return p.skip }

func (p *parquetFile) read(cols []*schema.Column, row int64, n int) error {
	for i := range p.cols {
		for got := 0; got < n; {
			k, err := p.readColumn(i, cols[i], n-got)
			if err == io.EOF {
				err = errors.Newf("column %q ends after %d rows, the file has %d", p.cols[i].field.Name, row+int64(got), p.table.Rows())
			}
			if err != nil {
				return errclass.Wrap(err, errclass.Invalid, "rows from %d", row)
			}
			got += k
		}
	}
	return nil
}

func (p *parquetFile) readColumn(i int, dst *schema.Column, n int) (int, error) {
	if dst.Type.IsVector() {
		return p.cols[i].in.ReadLists(dst, n)
	}
	if dst.Type == schema.Array {
		return p.cols[i].in.ReadArrays(dst, n)
	}
	return p.cols[i].in.Read(dst, n)
}

func (p *parquetFile) closeColumns() {
	for _, c := range p.cols {
		c.in.Close()
	}
}

func (p *parquetFile) close() error {
	p.closeColumns()
	return p.f.Close()
}
