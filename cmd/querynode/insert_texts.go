package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// maxLine bounds a line of JSON, and a record of CSV.
const maxLine = 64 << 20

// errNotUTF8 is of text in another encoding, which would be changed without a word.
var errNotUTF8 = errors.New("not UTF-8: convert the file, as with iconv -f latin1 -t utf-8")

// textFormat says in which format a file is whose rows are texts: "jsonl", "csv",
// or "" for a file of another kind.
func textFormat(path, format string) (string, error) {
	if format != "" {
		return format, nil
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".jsonl", ".ndjson", ".json":
		return "jsonl", nil
	case ".csv":
		return "csv", nil
	}
	if path == "-" {
		return "", usage(errors.New("say what standard input has: --format jsonl or --format csv"))
	}
	return "", nil
}

// textRows reads rows of a JSONL or CSV file, typed by the schema of a collection.
type textRows struct {
	name    string
	schema  *schema.Schema
	given   []schema.Field // what rows may have
	next    func() (map[string]json.RawMessage, error)
	line    int // of the row that next returned
	left    int64
	bounded bool // left counts
	close   func() error
}

// openTexts opens a file, or standard input for "-".
func openTexts(path, format string, stdin io.Reader, sc *schema.Schema, upsert bool, limit int64) (*textRows, error) {
	t := &textRows{name: path, schema: sc, left: limit, bounded: limit > 0, close: func() error { return nil }}
	in := stdin
	if path == "-" {
		t.name = "standard input"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return nil, errors.Wrap(err, "open the rows")
		}
		in, t.close = f, f.Close
	}
	for _, f := range sc.Given() {
		if f.ID != schema.DynamicFieldID && (!f.AutoID || upsert) {
			t.given = append(t.given, f)
		}
	}
	if format == "jsonl" {
		t.next = t.jsonLines(in)
		return t, nil
	}
	next, err := t.csvLines(in)
	if err != nil {
		return nil, errors.CombineErrors(err, t.close())
	}
	t.next = next
	return t, nil
}

// jsonLines reads an object from each line; empty lines are passed over.
func (t *textRows) jsonLines(in io.Reader) func() (map[string]json.RawMessage, error) {
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	return func() (map[string]json.RawMessage, error) {
		for s.Scan() {
			t.line++
			text := bytes.TrimSpace(bytes.TrimPrefix(s.Bytes(), []byte("\ufeff")))
			if len(text) == 0 {
				continue
			}
			if !utf8.Valid(text) {
				return nil, t.bad("", errNotUTF8)
			}
			if halfCharacter(text) {
				return nil, t.bad("", errHalf)
			}
			var row map[string]json.RawMessage
			if err := json.Unmarshal(text, &row); err != nil || row == nil {
				return nil, t.bad("", errors.Newf("not a JSON object: %s", jsonTrouble(err, text)))
			}
			return row, nil
		}
		if err := s.Err(); err != nil {
			t.line++
			if errors.Is(err, bufio.ErrTooLong) {
				err = errors.Newf("longer than %d MiB", maxLine>>20)
			}
			return nil, t.bad("", err)
		}
		return nil, io.EOF
	}
}

func jsonTrouble(err error, text []byte) string {
	var syntax *json.SyntaxError
	switch {
	case text[0] == '[':
		return "want one object a line, not a list of them (jq -c '.[]' makes lines)"
	case errors.As(err, &syntax):
		return fmt.Sprintf("%v, at byte %d", err, syntax.Offset)
	}
	return "want {...}"
}

// csvLines reads the head, which names the fields, and then a row from each record.
func (t *textRows) csvLines(in io.Reader) (func() (map[string]json.RawMessage, error), error) {
	r := newCSVRecords(in)
	head, err := r.read()
	t.line = r.line
	if errors.Is(err, io.EOF) {
		return nil, t.bad("", errors.New("empty; want a first line with the names of the fields"))
	}
	if err != nil {
		return nil, t.bad("", err)
	}
	fields := make([]schema.Field, len(head))
	for i, name := range head {
		name = strings.TrimSpace(name)
		f, err := t.field(name)
		if at := strings.IndexAny(name, ";\t|"); err != nil && at >= 0 && len(head) == 1 {
			return nil, t.bad("", errors.Newf("want commas between the names of the fields, not %q", name[at]))
		}
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(fields[:i], func(g schema.Field) bool { return g.Name == f.Name }) {
			return nil, t.bad(name, errors.New("the first line names it twice"))
		}
		fields[i] = f
	}
	return func() (map[string]json.RawMessage, error) {
		record, err := r.read()
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		t.line = r.line
		if err != nil {
			return nil, t.bad("", err)
		}
		row := make(map[string]json.RawMessage, len(record))
		for i, text := range record {
			if !utf8.ValidString(text) {
				return nil, t.bad(fields[i].Name, errNotUTF8)
			}
			cell := cellJSON(text, fields[i])
			if halfCharacter(cell) {
				return nil, t.bad(fields[i].Name, errHalf)
			}
			row[fields[i].Name] = cell
		}
		return row, nil
	}, nil
}

// field returns the field that a key or column is for; that of a key beyond the
// fields, of a collection that takes such, has the type JSON.
func (t *textRows) field(name string) (schema.Field, error) {
	f, ok := t.schema.Field(name)
	switch {
	case !ok && t.schema.Dynamic:
		return schema.Field{Name: name, Type: schema.JSON, Nullable: true}, nil
	case !ok:
		return f, t.bad(name, &problem{text: "the collection has no such field", next: "its fields: " + fieldNames(t.given)})
	case f.ID == schema.DynamicFieldID:
		return f, t.bad(name, errors.New("give the keys beyond the fields as they are, not in "+schema.DynamicFieldName))
	case isMade(t.schema, f):
		return f, t.bad(name, errors.New("a function makes the field: leave it out"))
	case !slices.ContainsFunc(t.given, func(g schema.Field) bool { return g.ID == f.ID }):
		return f, t.bad(name, errors.New("the node gives the keys: leave it out"))
	}
	return f, nil
}

func fieldNames(fields []schema.Field) string {
	var names []string
	for _, f := range fields {
		names = append(names, f.Name+" "+fieldType(f))
	}
	return strings.Join(names, ", ")
}

// bad says where in the file what is wrong.
func (t *textRows) bad(field string, err error) error {
	where := fmt.Sprintf("%s, line %d", t.name, t.line)
	if field != "" {
		where += fmt.Sprintf(", field %q", field)
	}
	p := &problem{text: where + ": " + err.Error(), cause: err}
	var inner *problem
	if errors.As(err, &inner) {
		p.text, p.next = where+": "+inner.text, inner.next
	}
	return p
}

// read returns at most n rows, fewer once they have so many bytes; io.EOF at the end.
func (t *textRows) read(n int) (*rowBatch, error) {
	columns := make([]typedColumn, len(t.given))
	for i, f := range t.given {
		columns[i].field = f
	}
	var meta *typedColumn
	if f, ok := t.schema.Field(schema.DynamicFieldName); ok {
		meta = &typedColumn{field: f}
	}
	b := &rowBatch{}
	for ; b.rows < n && b.bytes < maxCallBytes; b.rows++ {
		if t.bounded && t.left == 0 {
			break
		}
		row, err := t.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		t.left--
		if err := t.add(row, columns, meta); err != nil {
			return nil, err
		}
		b.bytes = 0
		for i := range columns {
			b.bytes += columns[i].bytes()
		}
		if meta != nil {
			b.bytes += meta.bytes()
		}
	}
	if b.rows == 0 {
		return nil, io.EOF
	}
	for i := range columns {
		// One that no row has is left out: the node knows best what stands there then.
		if columns[i].given {
			b.fields = append(b.fields, columns[i].data())
		}
	}
	if meta != nil && meta.given {
		b.fields = append(b.fields, meta.data())
	}
	return b, nil
}

// add appends one row to the columns; what is left of it goes to meta.
func (t *textRows) add(row map[string]json.RawMessage, columns []typedColumn, meta *typedColumn) error {
	for i := range columns {
		name := columns[i].field.Name
		if err := columns[i].add(row[name]); err != nil {
			if row[name] == nil { // it may be there under a name that is mistyped
				for _, other := range sortedKeys(row) {
					if _, err := t.field(other); err != nil {
						return err
					}
				}
			}
			return t.bad(name, err)
		}
		delete(row, name)
	}
	var others []byte
	for _, name := range sortedKeys(row) {
		if _, err := t.field(name); err != nil {
			return err
		}
		if row[name] == nil {
			continue // an empty cell
		}
		if !json.Valid(row[name]) { // text of a CSV cell
			row[name], _ = json.Marshal(string(row[name]))
		}
		key, err := json.Marshal(name)
		if err != nil {
			return t.bad(name, err)
		}
		others = append(append(append(append(others, ','), key...), ':'), row[name]...)
	}
	if meta == nil {
		return nil
	}
	if others == nil {
		return meta.add(nil)
	}
	others[0] = '{'
	return meta.add(append(others, '}'))
}

func sortedKeys[V any](row map[string]V) []string {
	names := make([]string, 0, len(row))
	for name := range row {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// rowBatch is some rows in the form of the API.
type rowBatch struct {
	rows   int
	bytes  int64
	fields []*qnpb.FieldData
}
