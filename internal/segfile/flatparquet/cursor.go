package flatparquet

import (
	"io"
	"math"

	"github.com/cockroachdb/errors"
	"github.com/parquet-go/parquet-go"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// Cursor reads one column of a File from its first row on. Close it; it holds
// pages of a pool. Not safe for concurrent use.
type Cursor struct {
	f   *File
	col Column
	raw bool

	group    int // next row group to open
	pages    parquet.Pages
	unpacked int64 // bytes of all pages opened so far
	entries  int64 // of the row groups opened so far
	row      int64 // rows read
	err      error // sticky

	page   parquet.Page
	levels int    // rows, or for lists entries, in the page
	pos    int    // of them read
	def    []byte // definition levels, nil if the column has none
	rep    []byte // repetition levels, nil unless List
	vpos   int    // values (entries that are not null) read

	values // of the page, without nulls
	dict   dictionary
}

// values are the values of a page in the slice that fits the column's type.
type values struct {
	bools   []bool
	ints    []int64
	floats  []float32
	doubles []float64
	strs    []string
}

// Cursor returns a cursor for column i of Columns. raw hands out unsigned
// 64-bit integers as the bits they are; otherwise those above 2^63-1 are errors.
// It fails for columns whose Type is None.
func (f *File) Cursor(i int, raw bool) (*Cursor, error) {
	col := f.cols[i]
	if col.Type == schema.None {
		return nil, errclass.New(errclass.Invalid, "column %q cannot be read: %s", col.Name, col.Why)
	}
	return &Cursor{f: f, col: col, raw: raw}, nil
}

// Close gives the pages back. It is idempotent.
func (c *Cursor) Close() {
	_ = guard("close column", func() error {
		c.release()
		if c.pages != nil {
			return c.pages.Close()
		}
		return nil
	})
	c.pages, c.group = nil, math.MaxInt
}

func (c *Cursor) release() {
	if c.page != nil {
		parquet.Release(c.page)
		c.page = nil
	}
}

// Read appends up to limit rows to dst and returns how many; 0 and io.EOF at
// the end of the file. dst must have the type of the column, be it wider
// (integers). Text is cut from one string per page or dictionary, which lives
// as long as any piece of it. dst.Valid appears with the first null.
func (c *Cursor) Read(dst *schema.Column, limit int) (n int, err error) {
	if c.col.List {
		return 0, errclass.New(errclass.Invalid, "column %q holds lists", c.col.Name)
	}
	err = c.loop(func() bool { return n < limit }, func() error {
		k := min(limit-n, c.levels-c.pos)
		if err := c.appendRows(dst, k); err != nil {
			return err
		}
		c.row += int64(k)
		n += k
		return nil
	})
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// loop runs step on pages that have entries left, as long as more asks for it.
func (c *Cursor) loop(more func() bool, step func() error) error {
	if c.err != nil {
		return c.err
	}
	for more() {
		c.err = guard("read Parquet column "+c.col.Name, func() error {
			if c.page == nil || c.pos == c.levels {
				if err := c.nextPage(); err != nil {
					return err
				}
			}
			return step()
		})
		if c.err != nil {
			return c.err
		}
	}
	return nil
}

// nextPage makes the next page with entries current; io.EOF if there is none.
func (c *Cursor) nextPage() error {
	c.release()
	for {
		if c.pages == nil {
			if err := c.nextGroup(); err != nil {
				return err
			}
		}
		page, err := c.pages.ReadPage()
		if err == io.EOF {
			if err := c.pages.Close(); err != nil {
				return err
			}
			c.pages = nil
			continue
		}
		if err != nil {
			return err
		}
		c.page = page
		c.levels, c.pos, c.vpos = int(page.NumValues()), 0, 0
		c.def, c.rep = page.DefinitionLevels(), page.RepetitionLevels()
		if err := c.load(); err != nil {
			return err
		}
		if c.levels > 0 {
			return nil
		}
		c.release()
	}
}

func (c *Cursor) nextGroup() error {
	groups := c.f.file.RowGroups()
	if c.group >= len(groups) {
		if c.row < c.f.Rows() && !c.col.List {
			return errors.Newf("%d rows, the file has %d", c.row, c.f.Rows())
		}
		return io.EOF
	}
	leaf := c.col.leaf.Index()
	group := &c.f.file.Metadata().RowGroups[c.group]
	if n := group.Columns[leaf].MetaData.NumValues; !c.col.List && n != group.NumRows {
		return errors.Newf("row group %d has %d rows, but %d values", c.group, group.NumRows, n)
	}
	c.entries += group.Columns[leaf].MetaData.NumValues
	if c.col.List && c.entries > c.f.limits.Values {
		return errors.Newf("lists of %d entries, want at most %d", c.entries, c.f.limits.Values)
	}
	if err := c.f.checkPages(&group.Columns[leaf].MetaData, group.NumRows, &c.unpacked); err != nil {
		return errors.Wrapf(err, "row group %d", c.group)
	}
	c.pages = groups[c.group].ColumnChunks()[leaf].Pages()
	c.dict = dictionary{}
	c.group++
	return nil
}

// load points c.values at the values of the page and checks that there are
// as many as the levels say.
func (c *Cursor) load() error {
	want := c.levels
	if top := c.col.leaf.MaxDefinitionLevel(); top > 0 {
		if len(c.def) != c.levels {
			return errors.Newf("%d definition levels for %d values", len(c.def), c.levels)
		}
		for _, d := range c.def {
			if int(d) != top {
				want--
			}
		}
	}
	if c.col.List && len(c.rep) != c.levels {
		return errors.Newf("%d repetition levels for %d values", len(c.rep), c.levels)
	}
	var got int
	var err error
	if c.page.Dictionary() != nil {
		got, err = c.loadIndexed()
	} else {
		data := c.page.Data()
		got, err = c.loadPlain(&c.values, data, want)
	}
	if err == nil && got < want {
		err = errors.Newf("%d values in a page of %d", got, want)
	}
	return err
}

// appendRows appends the next n rows of the page to dst.
func (c *Cursor) appendRows(dst *schema.Column, n int) error {
	def := c.def
	nulls := 0
	if def != nil {
		def = def[c.pos : c.pos+n]
		for _, d := range def {
			if d == 0 {
				nulls++
			}
		}
	}
	before := dst.Rows()
	from, to := c.vpos, c.vpos+n-nulls
	switch {
	case c.col.Type == schema.Bool && dst.Type == schema.Bool:
		dst.Bool = appendValues(dst.Bool, c.bools[from:to], def, nulls)
	case c.col.Type.IsInt() && dst.Type.IsInt():
		dst.Int = appendValues(dst.Int, c.ints[from:to], def, nulls)
	case c.col.Type == schema.Float && dst.Type == schema.Float:
		dst.Float = appendValues(dst.Float, c.floats[from:to], def, nulls)
	case c.col.Type == schema.Double && dst.Type == schema.Double:
		dst.Double = appendValues(dst.Double, c.doubles[from:to], def, nulls)
	case c.strings() && (dst.Type == schema.VarChar || dst.Type == schema.JSON):
		dst.Str = appendValues(dst.Str, c.strs[from:to], def, nulls)
	default:
		return errors.Newf("the file has %s, want %s", c.col.Type, dst.Type)
	}
	c.pos += n
	c.vpos = to
	if nulls > 0 && dst.Valid == nil {
		dst.Valid = make([]bool, before, before+n)
		for i := range dst.Valid {
			dst.Valid[i] = true
		}
	}
	if dst.Valid != nil {
		for i := range n {
			dst.Valid = append(dst.Valid, def == nil || def[i] != 0)
		}
	}
	return nil
}

func (c *Cursor) strings() bool { return c.col.Type == schema.VarChar || c.col.Type == schema.JSON }

// appendValues appends vals to dst, with a zero value wherever def says null.
func appendValues[T any](dst, vals []T, def []byte, nulls int) []T {
	if nulls == 0 {
		return append(dst, vals...)
	}
	var zero T
	for _, d := range def {
		if d == 0 {
			dst = append(dst, zero)
			continue
		}
		dst = append(dst, vals[0])
		vals = vals[1:]
	}
	return dst
}
