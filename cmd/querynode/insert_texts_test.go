package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/schema"
)

func rowsFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The example of full text in docs/reads.md, filled at the shell.
func TestTextsAreInsertedFromLinesOfJSON(t *testing.T) {
	sh, _ := served(t)
	sh.ok("collection", "create", "posts", "--field", "id:int64:pk", "--field", "body:varchar:analyzer=english", "--bm25", "words=body")
	file := rowsFile(t, "posts.jsonl", "{\"id\": 1, \"body\": \"Dogs swim in rivers\"}\n\n{\"body\": \"Cats \\u0026 mice\", \"id\": 2}\n")
	contains(t, sh.ok("insert", "posts", file), "2 rows written")
	contains(t, sh.ok("search", "posts", "--field", "words", "--text", "dog", "--output-fields", "body", "--consistency", "strong"), "Dogs swim in rivers")

	var out, errs bytes.Buffer
	a := &app{environ: sh.environ, stdin: strings.NewReader("id,body\n3,\"Birds, and\nbees\"\n"), stdout: &out, stderr: &errs}
	if code := run(a, []string{"insert", "posts", "-", "--format", "csv"}, func(int) {}); code != exitOK {
		t.Fatalf("from standard input: exit code %d\n%s", code, &errs)
	}
	contains(t, sh.ok("query", "posts", "--filter", "id >= 2", "--consistency", "strong", "--json"), `"body":"Cats & mice"`, `"body":"Birds, and\nbees"`)

	sh.fails(exitError, []string{`bad.jsonl, line 2, field "id": "x" is not of type Int64`, "1 row written before, and safe"},
		"insert", "posts", rowsFile(t, "bad.jsonl", "{\"id\": 4, \"body\": \"a\"}\n{\"id\": \"x\", \"body\": \"b\"}\n"), "--batch", "1")
}

func TestEveryTypeIsInsertedFromTexts(t *testing.T) {
	sh, _ := served(t)
	sh.ok("collection", "create", "all", "--field", "id:varchar(8):pk", "--field", "b:bool", "--field", "i:int8", "--field", "f:float:nullable", "--field", "d:double",
		"--field", "t:timestamptz", "--field", "j:json", "--field", "l:array(varchar(8))", "--field", "v:vector(2)", "--field", "h:float16_vector(2)",
		"--field", "c:int8_vector(2)", "--field", "bits:binary_vector(8)", "--field", "s:sparse_float_vector", "--field", "w:varchar(9):default=none", "--dynamic")
	json := `{"id": "a", "b": true, "i": -7, "f": 0.5, "d": 1e300, "t": "2026-01-02T03:04:05Z", "j": {"k": [1, 2.50]}, "l": ["x", "y"], "v": [1, 2],` +
		` "h": [0.5, -1], "c": [-128, 127], "bits": [1,0,0,0,0,0,0,1], "s": {"17": 1, "3": 0.5}, "w": "given", "color": "red", "n": 5}` + "\n"
	csv := "id,b,i,f,d,t,j,l,v,h,c,bits,s,w,color,n\n" +
		`c,TRUE,-7,,1e300,2026-01-02T03:04:05Z,"{""k"": [1, 2.50]}","[""x"",""y""]","[1, 2]","[0.5, -1]","[-128, 127]","[1,0,0,0,0,0,0,1]","{""17"": 1, ""3"": 0.5}",,red,5` + "\n"
	sh.ok("insert", "all", rowsFile(t, "a.jsonl", json))
	sh.ok("insert", "all", rowsFile(t, "c.csv", csv))
	rows := strings.Split(strings.TrimSpace(sh.ok("query", "all", "--output-fields", "*", "--consistency", "strong", "--json")), "\n")
	if len(rows) != 2 {
		t.Fatalf("%d rows: %q", len(rows), rows)
	}
	for _, row := range rows {
		contains(t, row, `"b":true`, `"i":-7`, `"d":1e+300`, `"t":"2026-01-02T03:04:05Z"`, `2.50`, `"l":["x","y"]`, `"v":[1,2]`, `"h":[0.5,-1]`, `"c":[-128,127]`,
			`"bits":[1,0,0,0,0,0,0,1]`, `"17":1`, `"3":0.5`, `"red"`)
	}
	contains(t, rows[0], `"f":0.5`, `"w":"given"`)
	contains(t, rows[1], `"f":null`, `"w":"none"`)
	if out := sh.ok("query", "all", "--filter", `color == "red" and n == 5`, "--count", "--consistency", "strong"); out != "2\n" {
		t.Errorf("keys beyond the fields match %q rows, want 2", out)
	}
}

// points has a key, a vector and a text that may be absent.
func points() *schema.Schema {
	return &schema.Schema{Version: 1, Fields: []schema.Field{{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: 101, Name: "v", Type: schema.FloatVector, Dim: 2}, {ID: 102, Name: "w", Type: schema.VarChar, MaxLength: 4, Nullable: true}}}
}

func TestWhatIsWrongWithARowIsSaidWithLineAndField(t *testing.T) {
	for _, x := range []struct{ format, text, want string }{
		{"jsonl", `{"id": 1, "v": [1, 2], "x": 3}`, `line 1, field "x": the collection has no such field`},
		{"jsonl", "\n{\"id\": 1}", `line 2, field "v": no value, and the field is neither nullable`},
		{"jsonl", `{"id": 1, "V": [1, 2], "w": "a"}`, `line 1, field "V": the collection has no such field`},
		{"csv", "id;v;w\n1;x;y\n", `line 1: want commas between the names of the fields, not ';'`},
		{"csv", "id\tv\n", `line 1: want commas between the names of the fields, not '\t'`},
		{"jsonl", `{"id": 1.5, "v": [1, 2]}`, `field "id": 1.5 is not of type Int64`},
		{"jsonl", `{"id": null, "v": [1, 2]}`, `field "id": no value`},
		{"jsonl", `{"id": 1, "v": [1]}`, `field "v": the vector has 1 values, the field's have 2`},
		{"jsonl", `{"id": 1, "v": [1, "2"]}`, `field "v": value 1 of the vector, "2", is no number`},
		{"jsonl", `{"id": 1, "v": [1, 1e99]}`, `is no number that a float32 can hold`},
		{"jsonl", `{"id": 1, "v": "1,2"}`, `field "v": want a list of 2 numbers`},
		{"jsonl", `{"id": 1, "v": [1, 2], "w": "abcde"}`, `field "w": the text has 5 bytes, the field takes 4`},
		{"jsonl", `{"id": 1, "v": [1, 2], "w": 5}`, `field "w": 5 is not of type VarChar`},
		{"jsonl", `{"id": 1, `, `line 1: not a JSON object`},
		{"jsonl", `[{"id": 1}]`, `want one object a line, not a list`},
		{"csv", "", "empty; want a first line with the names"},
		{"csv", "id,v,x\n", `line 1, field "x": the collection has no such field`},
		{"csv", "id,v,id\n", `line 1, field "id": the first line names it twice`},
		{"csv", "id,v\n1,\"[1, 2]\"\n2,\n", `line 3, field "v": no value`},
		{"csv", "id,v\n1\n", "line 2: wrong number of fields"},
		{"csv", "id,v\n1,\"[1, 2\"\n", `line 2, field "v": want a list of 2 numbers`},
		{"csv", "id,v\n1,\"[1, 2]\n2,\n", `line 2: extraneous or missing " in quoted-field, at line 3`},
		{"csv", "id,v\n1,\"[1,\n2]\"\n\n2\n", "line 5: wrong number of fields"},
		{"csv", "\"id,v\n1,\n", `line 1: extraneous or missing "`},
		{"jsonl", `{"id": 1, "v": [1, 2], "w": "\ud800"}`, "line 1: half of a character"},
		{"jsonl", `{"id": 1, "v": [1, 2], "w": "\udc00\ud800"}`, "line 1: half of a character"},
		{"jsonl", `{"id": 1, "v": [1, 2], "\uDBFFx": 1}`, "line 1: half of a character"},
	} {
		err := readTexts(x.format, x.text)
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s %q: error %v, want %q", x.format, x.text, err, x.want)
		}
	}
}

// TestAQuoteThatIsLeftOpenDoesNotTakeAllTheRest: what comes behind it may be larger than the
// memory; it is said where the record began.
func TestAQuoteThatIsLeftOpenDoesNotTakeAllTheRest(t *testing.T) {
	for _, x := range []struct{ before, want string }{
		{"id,v,w\n1,\"[1,\n2]\",\"a\nb\"\n2,\"", "line 5: longer than 64 MiB from here: is a quote left open?"},
		{"id,\"", "line 1: longer than 64 MiB from here: is a quote left open?"},
	} {
		rest := &endless{}
		r, err := openTexts("-", "csv", io.MultiReader(strings.NewReader(x.before), rest), points(), false, 0)
		for err == nil {
			_, err = r.read(2)
		}
		if !strings.Contains(err.Error(), x.want) {
			t.Errorf("error %v, want %q", err, x.want)
		}
		if rest.read > maxLine+64<<10 {
			t.Errorf("%d bytes were read", rest.read)
		}
	}
	// Many records may be longer together.
	rows := strings.Repeat("1,\"[1, 2]\",\""+strings.Repeat("\n", 4<<20)+"\"\n", maxLine/(4<<20)+1)
	sc := points()
	sc.Fields[2].MaxLength = 0
	r, err := openTexts("-", "csv", strings.NewReader("id,v,w\n"+rows), sc, false, 0)
	n := 0
	for err == nil {
		var b *rowBatch
		if b, err = r.read(1); err == nil {
			n += b.rows
		}
	}
	if !errors.Is(err, io.EOF) || n != maxLine/(4<<20)+1 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// endless is a text without an end.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "x\n"[(e.read+i)%2]
	}
	e.read += len(p)
	return len(p), nil
}

// TestAByteOrderMarkIsNoPartOfTheFirstName: spreadsheets write one, and quote every name.
func TestAByteOrderMarkIsNoPartOfTheFirstName(t *testing.T) {
	for format, text := range map[string]string{
		"csv":   "\ufeff\"id\",\"v\"\n1,\"[1, 2]\"\n",
		"jsonl": "\ufeff{\"id\": 1, \"v\": [1, 2]}\n",
	} {
		if err := readTexts(format, text); err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
	if err := readTexts("csv", "\ufeffid,v\n1,\"[1, 2]\"\n"); err != nil {
		t.Error(err)
	}
	if err := readTexts("csv", "\ufeff"); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Error(err)
	}
}

// TestOnlyHalfCharactersAreRefused: escapes of whole ones, and texts that look like escapes, pass.
func TestOnlyHalfCharactersAreRefused(t *testing.T) {
	for _, w := range []string{`\ud83d\ude00`, `\u00e9`, `\\ud8`, "\u00e9", `\"\n`} {
		if err := readTexts("jsonl", `{"id": 1, "v": [1, 2], "w": "`+w+`"}`); err != nil {
			t.Errorf("%s: %v", w, err)
		}
	}
	sc := points()
	sc.Fields = append(sc.Fields, schema.Field{ID: 103, Name: "j", Type: schema.JSON})
	r, err := openTexts("-", "csv", strings.NewReader("id,v,w,j\n1,\"[1, 2]\",\\d,\"{\"\"k\"\": \"\"\\ud800\"\"}\"\n"), sc, false, 0)
	if err == nil {
		_, err = r.read(1)
	}
	if err == nil || !strings.Contains(err.Error(), `line 2, field "j": half of a character`) {
		t.Error(err)
	}
}

func readTexts(format, text string) error {
	r, err := openTexts("-", format, strings.NewReader(text), points(), false, 0)
	for err == nil {
		_, err = r.read(2)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func TestALimitOfRowsOfTexts(t *testing.T) {
	text := strings.Repeat("{\"id\": 1, \"v\": [1, 2]}\n", 5)
	r, err := openTexts("-", "jsonl", strings.NewReader(text), points(), false, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 1} {
		if b, err := r.read(2); err != nil || b.rows != want {
			t.Fatalf("%+v, %v, want %d rows", b, err, want)
		}
	}
	if _, err := r.read(2); !errors.Is(err, io.EOF) {
		t.Errorf("after the limit: %v", err)
	}
}

// No text makes the reader panic, and what it takes has as many values as rows.
func FuzzTextsOfRows(f *testing.F) {
	for _, s := range []string{`{"id": 1, "v": [1, 2], "w": null}`, "id,v,w\n1,\"[1,2]\",x\n", "{}", "\ufeffid\n1\n", `{"id":1,"v":[1,2],"$meta":{}}`, `{"s":{"1":2}}`} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, text string, lines bool) {
		format := "csv"
		if lines {
			format = "jsonl"
		}
		sc := points()
		sc.Dynamic = len(text)%2 == 0
		r, err := openTexts("-", format, strings.NewReader(text), sc, true, 0)
		for err == nil {
			var b *rowBatch
			if b, err = r.read(3); err != nil {
				break
			}
			for _, d := range b.fields {
				if s := d.GetStrings(); s != nil && len(s.GetValues()) != b.rows || len(d.GetValid()) > 0 && len(d.GetValid()) != b.rows {
					t.Fatalf("%q: field %s has not %d values", text, d.GetField(), b.rows)
				}
				for _, v := range d.GetStrings().GetValues() {
					if d.GetField() == schema.DynamicFieldName && !json.Valid([]byte(v)) {
						t.Fatalf("%q: the dynamic field is %q", text, v)
					}
				}
			}
		}
	})
}

// What the dynamic field has counts too, and so does what stands in the place of a null.
func TestACallIsBoundedByAllThatItHolds(t *testing.T) {
	dynamic := points()
	dynamic.Dynamic = true
	nulls := points()
	nulls.Fields = append(nulls.Fields, schema.Field{ID: 103, Name: "n", Type: schema.FloatVector, Dim: 8192, Nullable: true})
	for _, x := range []struct {
		name string
		sc   *schema.Schema
		row  string
	}{
		{"dynamic field", dynamic, `{"id": 1, "v": [1, 2], "k": "` + strings.Repeat("x", 100<<10) + `"}` + "\n"},
		{"null vectors", nulls, `{"id": 1, "v": [1, 2]}` + "\n"},
	} {
		r, err := openTexts("-", "jsonl", strings.NewReader(strings.Repeat(x.row, 1000)), x.sc, false, 0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.read(1000)
		if err != nil || b.rows == 1000 || b.bytes > maxCallBytes+maxCallBytes/8 {
			t.Errorf("%s: %d rows of %d bytes in one call, %v", x.name, b.rows, b.bytes, err)
		}
	}
}

// TestTextInAnotherEncodingIsRefused: it would be changed, and two keys could become one.
func TestTextInAnotherEncodingIsRefused(t *testing.T) {
	sh, _ := served(t)
	sh.ok("collection", "create", "places", "--field", "id:varchar(8):pk", "--field", "v:vector(2)")
	sh.fails(exitError, []string{"latin.jsonl, line 2", "not UTF-8"}, "insert", "places",
		rowsFile(t, "latin.jsonl", "{\"id\": \"a\", \"v\": [1, 2]}\n{\"id\": \"caf\xe9\", \"v\": [1, 2]}\n"))
	sh.fails(exitError, []string{`latin.csv, line 2, field "id"`, "not UTF-8"}, "insert", "places", rowsFile(t, "latin.csv", "id,v\ncaf\xe9,\"[1, 2]\"\n"))
}
