package segfile

import (
	"bytes"
	"hash/crc32"
	"io"
	"strconv"
	"unsafe"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile/flatparquet"
)

// Limits on a file of deletes.
const (
	MaxDeletes      = 64 << 20
	MaxDeletesBytes = 1 << 30
)

// A file of deletes is Parquet with two columns: primary_key (INT64 or text;
// its field_id is that of the key field) and $timestamp. The footer's metadata
// has the entry "querynode" with the value
//
//	querynode-deletes/<version>/<crc32c of the file with these 8 digits as 00000000>
//
// so that damage anywhere is found before anything else is parsed.
const (
	deletesMark    = "querynode-deletes/"
	deletesVersion = 1
	noDigits       = "00000000"
	keyName        = "primary_key"
)

// EncodeDeletes returns a file of deletes: keys, an Int64 or VarChar column
// without nulls, and for each the hybrid timestamp of its delete, in any order.
func EncodeDeletes(keys *schema.Column, timestamps []uint64) ([]byte, error) {
	if err := checkDeletedKeys(keys, timestamps); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := deletesTable(&out, keys)
	if err := w.Write(deletesColumns(keys, timestamps)); err != nil {
		return nil, errors.Wrap(err, "deletes")
	}
	if err := w.Close(); err != nil {
		return nil, errors.Wrap(err, "deletes")
	}
	b := out.Bytes()
	if len(b) > MaxDeletesBytes {
		return nil, errclass.New(errclass.Invalid, "deletes: %d bytes, want at most %d", len(b), MaxDeletesBytes)
	}
	_, digits, err := findDeletesMark(b)
	if err != nil {
		return nil, err
	}
	copy(b[digits:], CRC(crc32.Checksum(b, castagnoli)).String())
	return b, nil
}

func checkDeletedKeys(keys *schema.Column, timestamps []uint64) error {
	switch n := keys.Rows(); {
	case keys.Type != schema.Int64 && keys.Type != schema.VarChar:
		return errclass.New(errclass.Invalid, "deletes: keys of type %s, want Int64 or VarChar", keys.Type)
	case n == 0 || n != len(timestamps) || n > MaxDeletes:
		return errclass.New(errclass.Invalid, "deletes: %d keys and %d timestamps, want 1 to %d of each", n, len(timestamps), MaxDeletes)
	case keys.FieldID < 0 || keys.FieldID > 1<<31-1:
		return errclass.New(errclass.Invalid, "deletes: field id %d", keys.FieldID)
	}
	for i := range keys.Rows() {
		if keys.Null(i) || keys.Str != nil && len(keys.Str[i]) > schema.MaxVarChar {
			return errclass.New(errclass.Invalid, "deletes: key %d is null or longer than %d bytes", i, schema.MaxVarChar)
		}
	}
	return nil
}

// deletesTable begins the Parquet of a file of deletes of keys as these.
func deletesTable(out io.Writer, keys *schema.Column) *flatparquet.Writer {
	return flatparquet.NewWriter(out, []flatparquet.Field{
		{Name: keyName, ID: int(keys.FieldID), Type: keys.Type, Sorted: true, Unique: true},
		{Name: timestampName, Type: schema.Int64, Unsigned: true, Sorted: true},
	}, map[string]string{"querynode": deletesMark + strconv.Itoa(deletesVersion) + "/" + noDigits})
}

func deletesColumns(keys *schema.Column, timestamps []uint64) []*schema.Column {
	return []*schema.Column{
		{Type: keys.Type, Int: keys.Int, Str: keys.Str},
		{Type: schema.Int64, Int: unsafe.Slice((*int64)(unsafe.Pointer(unsafe.SliceData(timestamps))), len(timestamps))},
	}
}

// findDeletesMark returns the version and where the digits of the checksum stand.
func findDeletesMark(b []byte) (version, digits int, err error) {
	tail := max(0, len(b)-deletesFooter)
	i := bytes.LastIndex(b[tail:], []byte(deletesMark))
	if i < 0 {
		return 0, 0, errclass.New(errclass.Corrupt, "no checksum in the last %d bytes", len(b)-tail)
	}
	at := tail + i + len(deletesMark)
	n := bytes.IndexByte(b[at:min(len(b), at+8)], '/')
	if n < 0 || at+n+1+len(noDigits) > len(b) {
		return 0, 0, errclass.New(errclass.Corrupt, "bad checksum entry at byte %d", at)
	}
	version, err = strconv.Atoi(string(b[at : at+n]))
	if err != nil || version < 1 {
		return 0, 0, errclass.New(errclass.Corrupt, "bad version %q at byte %d", b[at:at+n], at)
	}
	return version, at + n + 1, nil
}

// deletesFooter bounds the footer of a file of deletes, and where its checksum
// is looked for: two columns of at most MaxDeletes / 128 Ki row groups.
const deletesFooter = 1 << 20

// Deletes is a file of deletes that is read piece by piece: no more than a few pages of it are in memory. Not safe for
// concurrent use.
type Deletes struct {
	table *flatparquet.File
	keys  flatparquet.Column
}

// OpenDeletes reads what EncodeDeletes wrote from r, which has size bytes and is read as long as the Deletes is used. All of
// it is read once here, for its checksum. Errors are of class Corrupt, Unimplemented for a newer version, or of whatever
// class a failed read carries.
func OpenDeletes(r io.ReaderAt, size int64) (*Deletes, error) {
	d, err := openDeletes(r, size)
	return d, errors.Wrap(err, "deletes")
}

func openDeletes(r io.ReaderAt, size int64) (*Deletes, error) {
	if size > MaxDeletesBytes {
		return nil, errclass.New(errclass.Corrupt, "%d bytes, want at most %d", size, MaxDeletesBytes)
	}
	version, err := checkDeletes(r, size)
	if err != nil {
		return nil, err
	}
	if version > deletesVersion {
		return nil, errclass.New(errclass.Unimplemented,
			"the format is version %d, this build reads up to version %d: upgrade querynode to read them", version, deletesVersion)
	}
	table, err := flatparquet.Open(r, size, flatparquet.Limits{
		Footer: deletesFooter, Page: 64 << 20, Total: 2 * MaxDeletesBytes, Rows: MaxDeletes, Columns: 3, Strict: true,
	})
	if err != nil {
		return nil, err
	}
	cols := table.Columns()
	if len(cols) != 2 || cols[0].Name != keyName || cols[1].Name != timestampName || cols[1].Type != schema.Int64 ||
		cols[0].Type != schema.Int64 && cols[0].Type != schema.VarChar || cols[0].Nullable || cols[1].Nullable || cols[0].List || cols[1].List {
		return nil, errclass.New(errclass.Corrupt, "want the columns %s and %s", keyName, timestampName)
	}
	return &Deletes{table, cols[0]}, nil
}

// checkDeletes compares a file with its checksum and returns the version of its format.
func checkDeletes(r io.ReaderAt, size int64) (version int, err error) {
	sum, err := sumDeletes(r, size)
	if err == nil && sum.says != sum.is.String() {
		err = errclass.New(errclass.Corrupt, "crc32c is %s, want %q", sum.is, sum.says)
	}
	return sum.version, err
}

// deletesSum is the checksum of a file of deletes.
type deletesSum struct {
	version int    // of the format
	is      CRC    // of the file with noDigits in the place of its own digits
	says    string // its own digits
	at      int64  // where they are
}

func sumDeletes(r io.ReaderAt, size int64) (sum deletesSum, err error) {
	tail := make([]byte, min(size, deletesFooter))
	before := size - int64(len(tail))
	if _, err := io.ReadFull(io.NewSectionReader(r, before, int64(len(tail))), tail); err != nil {
		return sum, err
	}
	version, digits, err := findDeletesMark(tail)
	if err != nil {
		return sum, err
	}
	sum.version, sum.says, sum.at = version, string(tail[digits:digits+len(noDigits)]), before+int64(digits)
	copy(tail[digits:], noDigits)
	crc := crc32.New(castagnoli)
	if _, err := io.Copy(crc, io.MultiReader(io.NewSectionReader(r, 0, before), bytes.NewReader(tail))); err != nil {
		return sum, err
	}
	sum.is = CRC(crc.Sum32())
	return sum, nil
}

// KeyType is the type of the primary keys, Int64 or VarChar.
func (d *Deletes) KeyType() schema.Type { return d.keys.Type }

// How many deletes Each has in memory at a time. Keys of text are up to schema.MaxVarChar bytes long.
const (
	deletesPerRead      = 1 << 10
	deletesPerReadTexts = 1 << 5
)

// Each calls fn with the keys, a column without nulls, and the timestamps of a few deletes at a time, in the order of the file,
// until fn fails. fn must not keep them. Errors but fn's are of class Corrupt or of whatever class a failed read carries.
func (d *Deletes) Each(fn func(keys *schema.Column, timestamps []uint64) error) error {
	keys, ts := d.columns()
	dst, from, piece := []*schema.Column{keys, ts}, [2]*flatparquet.Cursor{}, deletesPerRead
	if keys.Type == schema.VarChar {
		piece = deletesPerReadTexts
	}
	for i := range dst {
		cur, err := d.table.Cursor(i, true)
		if err != nil {
			return errors.Wrap(err, "deletes")
		}
		defer cur.Close()
		from[i] = cur
	}
	for at := int64(0); at < d.table.Rows(); at += int64(ts.Rows()) {
		keys.Int, keys.Str, ts.Int = keys.Int[:0], keys.Str[:0], ts.Int[:0]
		for i, c := range dst {
			if _, err := from[i].Read(c, piece); err != nil && err != io.EOF {
				return errors.Wrap(err, "deletes")
			}
			if want := min(int64(piece), d.table.Rows()-at); int64(c.Rows()) != want || c.Valid != nil {
				return errclass.New(errclass.Corrupt, "deletes: %d rows or nulls at row %d of column %d, want %d", c.Rows(), at, i, want)
			}
		}
		if err := fn(keys, unsigned(ts.Int)); err != nil {
			return err
		}
	}
	return nil
}

func (d *Deletes) columns() (keys, ts *schema.Column) {
	return &schema.Column{FieldID: int64(d.keys.FieldID), Type: d.keys.Type}, &schema.Column{Type: schema.Int64}
}

func unsigned(ts []int64) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(ts))), len(ts))
}

// DecodeDeletes is OpenDeletes for all of a file at once. keys shares no memory with b.
func DecodeDeletes(b []byte) (keys *schema.Column, timestamps []uint64, err error) {
	d, err := OpenDeletes(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, nil, err
	}
	keys, ts := d.columns()
	for i, dst := range []*schema.Column{keys, ts} {
		if err := readAll(d.table, i, dst); err != nil {
			return nil, nil, errors.Wrap(err, "deletes")
		}
		if int64(dst.Rows()) != d.table.Rows() || dst.Valid != nil {
			return nil, nil, errclass.New(errclass.Corrupt, "deletes: column %d has %d rows or nulls, want %d", i, dst.Rows(), d.table.Rows())
		}
	}
	return keys, unsigned(ts.Int), nil
}

func readAll(table *flatparquet.File, i int, dst *schema.Column) error {
	cur, err := table.Cursor(i, true)
	if err != nil {
		return err
	}
	defer cur.Close()
	for err == nil {
		_, err = cur.Read(dst, rowsPerRead)
	}
	if err == io.EOF {
		return nil
	}
	return err
}
