package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/errors"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/querynode/querynode/internal/errclass"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

func TestParseField(t *testing.T) {
	for text, want := range map[string]*qnpb.FieldSchema{
		"id:int64:pk":        {Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
		"id:Int64:pk:auto":   {Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true, AutoId: true},
		"v:vector(128)":      {Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 128},
		"v:FloatVector(3)":   {Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 3},
		"w:varchar(64)":      {Name: "w", Type: qnpb.DataType_DATA_TYPE_VARCHAR, MaxLength: 64},
		"w:VARCHAR:nullable": {Name: "w", Type: qnpb.DataType_DATA_TYPE_VARCHAR, Nullable: true},
		"w:varchar:analyzer=english:default=a:b": {Name: "w", Type: qnpb.DataType_DATA_TYPE_VARCHAR, Analyzer: "english",
			DefaultValue: &qnpb.Value{Kind: &qnpb.Value_StringValue{StringValue: "a:b"}}},
		"m:json":                {Name: "m", Type: qnpb.DataType_DATA_TYPE_JSON},
		"m:DATA_TYPE_DOUBLE":    {Name: "m", Type: qnpb.DataType_DATA_TYPE_DOUBLE},
		"flag:bool:primary_key": {Name: "flag", Type: qnpb.DataType_DATA_TYPE_BOOL, PrimaryKey: true}, // the node refuses it
	} {
		got, err := parseField(text)
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "NAME:TYPE", "id": "NAME:TYPE", ":int64": "NAME:TYPE", "id:int": "unknown type", "v:vector": "dimension", "v:vector(0)": "from 1",
		"v:vector(99999999999)": "too large", "id:int64(3)": "varchar and vector", "id:int64:key": "unknown word", "v:vector(3": "want a name",
	} {
		if _, err := parseField(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestParseIndex(t *testing.T) {
	got, err := parseIndex("v:hnsw:l2:M=16:efConstruction=200")
	want := &qnpb.IndexSpec{Field: "v", Type: "HNSW", Metric: "L2", Params: map[string]string{"M": "16", "efConstruction": "200"}}
	if err != nil || !proto.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "v", ":HNSW", "v:", "v:HNSW:L2:IP", "v:HNSW:=3", "v:HNSW:M="} {
		if got, err := parseIndex(text); err == nil {
			t.Errorf("%q became %v", text, got)
		}
	}
}

func TestParseVector(t *testing.T) {
	for _, text := range []string{"1,-2.5,3e2", "1 -2.5 3e2", "[1, -2.5, 300]", " 1;-2.5;300 "} {
		v, err := parseVector(text)
		if err != nil || len(v) != 3 || v[0] != 1 || v[1] != -2.5 || v[2] != 300 {
			t.Errorf("%q: %v, %v", text, v, err)
		}
	}
	for _, text := range []string{"", "[]", "1,x", "NaN", "1e99", "Inf"} {
		if v, err := parseVector(text); err == nil {
			t.Errorf("%q became %v", text, v)
		}
	}
}

func TestASchemaFile(t *testing.T) {
	req := &qnpb.CreateCollectionRequest{Schema: &qnpb.CollectionSchema{}}
	err := parseSchema([]byte(`{"fields": [{"name": "id", "type": "Int64", "primary_key": true, "id": 100}, {"name": "v", "type": "FloatVector", "dim": 3},
		{"name": "w", "type": "varchar", "max_length": 9, "analyzer": "whitespace"}],
		"indexes": [{"field": "v", "type": "HNSW", "metric": "L2", "params": {"M": "8"}}], "dynamic": true, "shards": 2, "properties": {"a": "b"}}`), req)
	if err != nil || len(req.GetSchema().GetFields()) != 3 || req.GetSchema().GetFields()[1].GetDim() != 3 || !req.GetSchema().GetDynamic() ||
		req.GetShards() != 2 || req.GetIndexes()[0].GetParams()["M"] != "8" || req.GetProperties()["a"] != "b" ||
		req.GetSchema().GetFields()[2].GetAnalyzer() != "whitespace" {
		t.Errorf("%v, %v", req, err)
	}
	for _, raw := range []string{"", "{", `{"field": []}`, `{"fields": [{"name": "x", "type": "nothing"}]}`} {
		if err := parseSchema([]byte(raw), &qnpb.CreateCollectionRequest{Schema: &qnpb.CollectionSchema{}}); err == nil {
			t.Errorf("%q was taken", raw)
		}
	}
}

func FuzzWhatIsTyped(f *testing.F) {
	for _, s := range []string{"id:int64:pk", "v:vector(3)", "v:HNSW:L2:M=16", "1,2,3", `{"fields":[{"name":"id","type":"int64"}]}`, "v:vector(99999999999999999999)"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) {
		_, _ = parseField(s)
		_, _ = parseIndex(s)
		_, _ = parseVector(s)
		_ = parseSchema([]byte(s), &qnpb.CreateCollectionRequest{Schema: &qnpb.CollectionSchema{}})
	})
}

func TestTypesAsTyped(t *testing.T) {
	for text, want := range map[string]string{
		"a:array(int32)": "Array(Int32)", "a:Array(VarChar(64),100)": "Array(VarChar(64), 100)", "a:TIMESTAMPTZ": "Timestamptz",
		"a:data_type_float_vector(8)": "FloatVector(8)",
	} {
		f, err := parseField(text)
		if err != nil || typeName(f) != want {
			t.Errorf("%s is %q, %v; want %q", text, typeName(f), err, want)
		}
	}
	for text, want := range map[string]string{
		"a:int8:default=-5": "-5", "a:varchar(9):nullable:default=a:b": `"a:b"`, "a:timestamptz:default=2025-01-31T12:00:00Z": `"2025-01-31T12:00:00Z"`,
		"a:bool:default=true": "true", "a:double:default=1e3": "1000",
	} {
		f, err := parseField(text)
		if err != nil || defaultText(f) != want {
			t.Errorf("%s: %v, want the default %s", text, err, want)
			continue
		}
	}
	for _, text := range []string{"a:array", "a:array()", "a:array(vector(3))", "a:array(int8,99999999999)", "a:int8:default=x", "a:json:default={}", "a:int8(3)"} {
		f, err := parseField(text)
		if text == "a:array(vector(3))" && err == nil {
			continue // the node refuses it
		}
		if err == nil {
			t.Errorf("%s: %v", text, f)
		}
	}
}

func TestExplain(t *testing.T) {
	fail := func(code codes.Code, text, reason string, meta map[string]string, details ...proto.Message) error {
		s := status.New(code, text)
		if reason != "" {
			s, _ = s.WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "querynode", Metadata: meta})
		}
		for _, d := range details {
			s, _ = s.WithDetails(d.(*errdetails.RetryInfo))
		}
		return s.Err()
	}
	of := func(d errclass.Detail) map[string]string { return map[string]string{"detail": string(d)} }
	for _, c := range []struct {
		err  error
		want []string
	}{
		{fail(codes.Unavailable, `1 segment of collection "my_partition" is not loaded yet: 7; try again, or set allow_partial`, "retryable", of(errclass.Partial)), []string{"next: --allow-partial"}},
		{fail(codes.NotFound, `there is no collection or alias "my_partition"`, "not_found", of(errclass.Collection)), []string{"next: see what there is with \"querynode collection list\""}},
		{fail(codes.NotFound, "no partition of the index", "not_found", nil), []string{"index"}},
		{fail(codes.InvalidArgument, "filter: column 3: what", "invalid", map[string]string{"filter_offset": "2"}), []string{"\n    é > 1\n     ^", "next:"}},
		{fail(codes.ResourceExhausted, "used up", "exhausted", of(errclass.Memory)), []string{"used up", "next: release"}},
		{fail(codes.ResourceExhausted, "the disk of the write-ahead log is full: free some space", "exhausted", of(errclass.DiskFull)), []string{"next: make room on the node's disk"}},
		{fail(codes.ResourceExhausted, "no room for 5 bytes; the limit is 3 (disk.limit)", "exhausted", of(errclass.DiskLimit)), []string{"raise disk.limit"}},
		{fail(codes.DataLoss, "segment 7 cannot be read (set allow_partial to be answered without it)", "corrupt", of(errclass.Partial)), []string{"next: --allow-partial", "querynode status"}},
		{fail(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority"`, "", nil), []string{"--tls-ca FILE"}},
		{fail(codes.Unavailable, "queue away", "retryable", nil, &errdetails.RetryInfo{RetryDelay: durationpb.New(250_000_000)}), []string{"next: try again in 250ms"}},
		{fail(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 1.2.3.4:5: connect: connection refused"`, "", nil), []string{"no node answers at host:1: connection refused\n"}},
		{fail(codes.Unimplemented, "unknown service", "", nil), []string{"does not offer this call"}},
		{errors.New("plain"), []string{"plain"}},
		{&problem{text: "said already", next: "x"}, []string{"said already\n  next: x"}},
	} {
		got := explain(errors.Wrap(c.err, "call"), "host:1", "é > 1")
		for _, w := range c.want {
			if !strings.Contains(got.Error(), w) {
				t.Errorf("no %q in:\n%s", w, got)
			}
		}
		if !errors.Is(got, c.err) {
			t.Errorf("%v does not hold its cause", got)
		}
	}
	if explain(nil, "", "") != nil {
		t.Error("nothing became an error")
	}
}

func TestJSONKeepsEveryDigit(t *testing.T) {
	m := &qnpb.SearchResponse{Counts: []int64{1}, ReadTimestamp: 470629639253393409, Scores: []float32{0.1},
		Ids: &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: []int64{1<<62 + 1}}}}}
	raw, err := json.Marshal(jsonOf(m))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(raw), `"read_timestamp":470629639253393409`, `"values":[4611686018427387905]`, `"scores":[0.1]`, `"fields":[]`)
	if jsonOf((*qnpb.Collection)(nil)) != nil {
		t.Error("nothing became something")
	}
}

func TestCellsOfATable(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{nil, "null"}, {true, "true"}, {int64(-3), "-3"}, {float32(0.25), "0.25"}, {"text", "text"},
		{strings.Repeat("x", 100), strings.Repeat("x", 59) + "…"}, {[]float32{1, 2}, "[1 2]"}, {[]float32{1, 2, 3, 4, 5}, "[1 2 3 4 … 5 in all]"},
	} {
		if got := cellText(c.v); got != c.want {
			t.Errorf("%v is shown as %q, want %q", c.v, got, c.want)
		}
	}
	a := &qnpb.FieldData{Field: "a", Values: &qnpb.FieldData_Arrays{Arrays: &qnpb.Arrays{Lengths: []uint32{1, 0, 5}, Elements: &qnpb.Arrays_Ints{
		Ints: &qnpb.Int64Array{Values: []int64{1, 2, 3, 4, 5, 6}}}}}}
	for i, want := range []string{"[1]", "[]", "[2 3 4 5 … 5 in all]", "null"} {
		if got := cellText(cell(a, i)); got != want {
			t.Errorf("array %d is shown as %q, want %q", i, got, want)
		}
	}
	words := &qnpb.FieldData{Values: &qnpb.FieldData_SparseVectors{SparseVectors: &qnpb.SparseVectors{Lengths: []uint32{0, 2}, Indices: []uint32{3, 7}, Values: []float32{1, 0.5}}}}
	if got := fmt.Sprint(cell(words, 0), cell(words, 1), cell(words, 2)); got != "map[] map[3:1 7:0.5] <nil>" {
		t.Errorf("sparse vectors are shown as %s", got)
	}
	bits := &qnpb.FieldData{Field: "b", Values: &qnpb.FieldData_ByteVectors{ByteVectors: packBits([]float32{1, 0, 0, 1, 0, 0, 0, 1}, 8)}}
	if got := cellText((fieldTypes{"b": qnpb.DataType_DATA_TYPE_BINARY_VECTOR}).cell(bits, 0)); got != "[1 0 0 1 … 8 in all]" {
		t.Errorf("bits are shown as %s", got)
	}
	when := &qnpb.FieldData{Field: "when", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: []int64{1_500_000}}}}
	if got := (fieldTypes{"when": qnpb.DataType_DATA_TYPE_TIMESTAMPTZ}).row([]*qnpb.FieldData{when}, 0)["when"]; got != "1970-01-01T00:00:01.5Z" {
		t.Errorf("a time is shown as %v", got)
	}
	for name, want := range map[string]any{"max(when)": "1970-01-01T00:00:01.5Z", "MIN( when )": "1970-01-01T00:00:01.5Z", "count(when)": int64(1_500_000), "max(id)": int64(1_500_000)} {
		when.Field = name
		if got := (fieldTypes{"when": qnpb.DataType_DATA_TYPE_TIMESTAMPTZ}).cell(when, 0); got != want {
			t.Errorf("%s of times is shown as %v, want %v", name, got, want)
		}
	}
	d := &qnpb.FieldData{Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: []int64{1, 2}}}, Valid: []bool{true, false}}
	if cell(d, 0) != int64(1) || cell(d, 1) != nil || cell(d, 2) != nil {
		t.Error("nulls and missing values are wrong")
	}
}

// TestValuesOfFilters: lists of one type go as such, others as JSON, numbers as they
// are written.
func TestValuesOfFilters(t *testing.T) {
	for text, want := range map[string]*qnpb.Value{
		`3`:                       {Kind: &qnpb.Value_IntValue{IntValue: 3}},
		`3.0`:                     {Kind: &qnpb.Value_DoubleValue{DoubleValue: 3}},
		`true`:                    {Kind: &qnpb.Value_BoolValue{BoolValue: true}},
		`a%`:                      {Kind: &qnpb.Value_StringValue{StringValue: "a%"}},
		`[]`:                      {Kind: &qnpb.Value_Ints{Ints: &qnpb.Int64Array{}}},
		`[9007199254740993]`:      {Kind: &qnpb.Value_Ints{Ints: &qnpb.Int64Array{Values: []int64{9007199254740993}}}},
		`["1", "b"]`:              {Kind: &qnpb.Value_Strings{Strings: &qnpb.StringArray{Values: []string{"1", "b"}}}},
		`[9007199254740993, 2.5]`: {Kind: &qnpb.Value_Json{Json: `[9007199254740993, 2.5]`}},
		`[1, "a", true, [2]]`:     {Kind: &qnpb.Value_Json{Json: `[1, "a", true, [2]]`}},
		`[1, null]`:               {Kind: &qnpb.Value_Json{Json: `[1, null]`}}, // for the node to refuse, not to be read as 0
	} {
		got, err := parseParams([]string{"x=" + text})
		if err != nil || !proto.Equal(got["x"], want) {
			t.Errorf("%s: %v, %v, want %v", text, got["x"], err, want)
		}
	}
	for _, text := range []string{`null`, `{"a": 1}`} {
		if got, err := parseParams([]string{"x=" + text}); err == nil {
			t.Errorf("%s: %v, want an error", text, got)
		}
	}
}
