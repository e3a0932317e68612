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
	switch n := keys.Rows(); {
	case keys.Type != schema.Int64 && keys.Type != schema.VarChar:
		return nil, errclass.New(errclass.Invalid, "deletes: keys of type %s, want Int64 or VarChar", keys.Type)
	case n == 0 || n != len(timestamps) || n > MaxDeletes:
		return nil, errclass.New(errclass.Invalid, "deletes: %d keys and %d timestamps, want 1 to %d of each", n, len(timestamps), MaxDeletes)
	case keys.FieldID < 0 || keys.FieldID > 1<<31-1:
		return nil, errclass.New(errclass.Invalid, "deletes: field id %d", keys.FieldID)
	}
	for i := range keys.Rows() {
		if keys.Null(i) || keys.Str != nil && len(keys.Str[i]) > schema.MaxVarChar {
			return nil, errclass.New(errclass.Invalid, "deletes: key %d is null or longer than %d bytes", i, schema.MaxVarChar)
		}
	}
	cols := []*schema.Column{
		{Type: keys.Type, Int: keys.Int, Str: keys.Str},
		{Type: schema.Int64, Int: unsafe.Slice((*int64)(unsafe.Pointer(unsafe.SliceData(timestamps))), len(timestamps))},
	}
	var out bytes.Buffer
	w := flatparquet.NewWriter(&out, []flatparquet.Field{
		{Name: keyName, ID: int(keys.FieldID), Type: keys.Type, Sorted: true, Unique: true},
		{Name: timestampName, Type: schema.Int64, Unsigned: true, Sorted: true},
	}, map[string]string{"querynode": deletesMark + strconv.Itoa(deletesVersion) + "/" + noDigits})
	if err := w.Write(cols); err != nil {
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

// findDeletesMark returns the version and where the digits of the checksum stand.
func findDeletesMark(b []byte) (version, digits int, err error) {
	tail := max(0, len(b)-deletesFooter)
	i := bytes.LastIndex(b[tail:], []byte(deletesMark))
	if i < 0 {
		return 0, 0, errclass.New(errclass.Corrupt, "deletes: no checksum in the last %d bytes", len(b)-tail)
	}
	at := tail + i + len(deletesMark)
	n := bytes.IndexByte(b[at:min(len(b), at+8)], '/')
	if n < 0 || at+n+1+len(noDigits) > len(b) {
		return 0, 0, errclass.New(errclass.Corrupt, "deletes: bad checksum entry at byte %d", at)
	}
	version, err = strconv.Atoi(string(b[at : at+n]))
	if err != nil || version < 1 {
		return 0, 0, errclass.New(errclass.Corrupt, "deletes: bad version %q at byte %d", b[at:at+n], at)
	}
	return version, at + n + 1, nil
}

// deletesFooter bounds the footer of a file of deletes, and where its checksum
// is looked for: two columns of at most MaxDeletes / 128 Ki row groups.
const deletesFooter = 1 << 20

// DecodeDeletes reads what EncodeDeletes wrote. Errors are of class Corrupt, or
// Unimplemented for a newer version. keys shares no memory with b.
func DecodeDeletes(b []byte) (keys *schema.Column, timestamps []uint64, err error) {
	if len(b) > MaxDeletesBytes {
		return nil, nil, errclass.New(errclass.Corrupt, "deletes: %d bytes, want at most %d", len(b), MaxDeletesBytes)
	}
	version, digits, err := findDeletesMark(b)
	if err != nil {
		return nil, nil, err
	}
	got := crc32.Checksum(b[:digits], castagnoli)
	got = crc32.Update(got, castagnoli, []byte(noDigits))
	got = crc32.Update(got, castagnoli, b[digits+len(noDigits):])
	if string(b[digits:digits+len(noDigits)]) != CRC(got).String() {
		return nil, nil, errclass.New(errclass.Corrupt, "deletes: crc32c is %s, want %q", CRC(got), b[digits:digits+len(noDigits)])
	}
	if version > deletesVersion {
		return nil, nil, errclass.New(errclass.Unimplemented,
			"the deletes are of format version %d, this build reads up to version %d: upgrade querynode to read them", version, deletesVersion)
	}
	keys, timestamps, err = decodeDeletes(b)
	return keys, timestamps, errors.Wrap(err, "deletes")
}

func decodeDeletes(b []byte) (*schema.Column, []uint64, error) {
	table, err := flatparquet.Open(bytes.NewReader(b), int64(len(b)), flatparquet.Limits{
		Footer: deletesFooter, Page: 64 << 20, Total: 2 * MaxDeletesBytes, Rows: MaxDeletes, Columns: 3, Strict: true,
	})
	if err != nil {
		return nil, nil, err
	}
	cols := table.Columns()
	if len(cols) != 2 || cols[0].Name != keyName || cols[1].Name != timestampName || cols[1].Type != schema.Int64 ||
		cols[0].Type != schema.Int64 && cols[0].Type != schema.VarChar || cols[0].Nullable || cols[1].Nullable || cols[0].List || cols[1].List {
		return nil, nil, errclass.New(errclass.Corrupt, "want the columns %s and %s", keyName, timestampName)
	}
	keys := &schema.Column{FieldID: int64(cols[0].FieldID), Type: cols[0].Type}
	ts := &schema.Column{Type: schema.Int64}
	for i, dst := range []*schema.Column{keys, ts} {
		if err := readAll(table, i, dst); err != nil {
			return nil, nil, err
		}
		if int64(dst.Rows()) != table.Rows() || dst.Valid != nil {
			return nil, nil, errclass.New(errclass.Corrupt, "column %q has %d rows or nulls, want %d", cols[i].Name, dst.Rows(), table.Rows())
		}
	}
	return keys, unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(ts.Int))), len(ts.Int)), nil
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

// WriteDeletes writes EncodeDeletes to path, durably and all or nothing.
func WriteDeletes(path string, keys *schema.Column, timestamps []uint64) error {
	b, err := EncodeDeletes(keys, timestamps)
	if err != nil {
		return err
	}
	return writeFile(path, b)
}
