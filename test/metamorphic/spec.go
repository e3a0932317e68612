package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// spec is what a collection looks like. It follows from a seed.
type spec struct {
	name    string
	seed    uint64
	text    bool // keys are text
	fields  []field
	vectors []vector
	shards  int32
	props   map[string]string
	ttl     time.Duration // 0 = rows do not age
	retain  time.Duration // reads in the past
}

// field is a scalar field besides the key.
type field struct {
	name     string
	typ      qnpb.DataType
	nullable bool
}

// vector is a vector field.
type vector struct {
	name   string
	dim    int
	index  string
	metric string
}

func (v *vector) exact() bool { return v.index == "FLAT" }

// The types of scalar fields, by the letter of their names.
var scalarTypes = []struct {
	letter string
	typ    qnpb.DataType
}{
	{"b", qnpb.DataType_DATA_TYPE_BOOL}, {"i8", qnpb.DataType_DATA_TYPE_INT8}, {"i16", qnpb.DataType_DATA_TYPE_INT16},
	{"i32", qnpb.DataType_DATA_TYPE_INT32}, {"i64", qnpb.DataType_DATA_TYPE_INT64}, {"f", qnpb.DataType_DATA_TYPE_FLOAT},
	{"d", qnpb.DataType_DATA_TYPE_DOUBLE}, {"s", qnpb.DataType_DATA_TYPE_VARCHAR}, {"j", qnpb.DataType_DATA_TYPE_JSON},
}

func newSpec(name string, seed uint64) *spec {
	r := rand.New(rand.NewPCG(seed, 0x5bec))
	s := &spec{name: name, seed: seed, text: r.IntN(3) == 0, shards: 1 + int32(r.IntN(3)), props: map[string]string{}}
	for i, n := 0, 1+r.IntN(5); i < n; i++ {
		t := scalarTypes[r.IntN(len(scalarTypes))]
		s.fields = append(s.fields, field{fmt.Sprintf("%s_%d", t.letter, i), t.typ, r.IntN(2) == 0})
	}
	for i, n := 0, 1+r.IntN(5)/4; i < n; i++ {
		v := vector{name: fmt.Sprintf("v_%d", i), dim: []int{2, 3, 8, 16}[r.IntN(4)], index: []string{"FLAT", "FLAT", "HNSW", "AUTOINDEX"}[r.IntN(4)],
			metric: []string{"L2", "IP", "COSINE"}[r.IntN(3)]}
		if v.index != "FLAT" {
			v.dim = 8 + 8*r.IntN(2)
		}
		s.vectors = append(s.vectors, v)
	}
	s.retain = retention
	if r.IntN(3) == 0 {
		n := r.IntN(3)
		s.retain, s.props["collection.retention.seconds"] = time.Duration(n)*time.Second, fmt.Sprint(n)
	}
	if r.IntN(6) == 0 {
		n := 1 + r.IntN(3)
		s.ttl, s.props["collection.ttl.seconds"] = time.Duration(n)*time.Second, fmt.Sprint(n)
	}
	return s
}

// create is the request that makes the collection.
func (s *spec) create() *qnpb.CreateCollectionRequest {
	key := &qnpb.FieldSchema{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true}
	if s.text {
		key.Type, key.MaxLength = qnpb.DataType_DATA_TYPE_VARCHAR, 64
	}
	c := &qnpb.CreateCollectionRequest{Name: s.name, Shards: s.shards, Properties: s.props, Schema: &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{key}}}
	for _, f := range s.fields {
		c.Schema.Fields = append(c.Schema.Fields, &qnpb.FieldSchema{Name: f.name, Type: f.typ, Nullable: f.nullable})
	}
	for _, v := range s.vectors {
		c.Schema.Fields = append(c.Schema.Fields, &qnpb.FieldSchema{Name: v.name, Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: int32(v.dim)})
		c.Indexes = append(c.Indexes, &qnpb.IndexSpec{Field: v.name, Type: v.index, Metric: v.metric})
	}
	return c
}

// row is one row of the model. It is what the node must show of it.
type row struct {
	key     int64
	part    string
	version int64
	values  []any       // by field; nil = null
	vectors [][]float32 // by vector field
	from    int         // operation that wrote it
	until   int         // operation that hid it; 0 = none
	after   uint64      // its timestamp is later than this,
	upTo    uint64      // and no later than this
}

// newRow makes the row of a key at a version: the same each time.
func (s *spec) newRow(key, version int64, part string) *row {
	r := rand.New(rand.NewPCG(s.seed^uint64(key)*0x9e3779b97f4a7c15, uint64(version)))
	x := &row{key: key, part: part, version: version}
	for _, f := range s.fields {
		if f.nullable && r.IntN(4) == 0 {
			x.values = append(x.values, nil)
			continue
		}
		x.values = append(x.values, randomValue(r, f.typ))
	}
	for _, v := range s.vectors {
		x.vectors = append(x.vectors, randomVector(r, v.dim))
	}
	return x
}

// randomVector has values whose products and sums a float32 holds exactly.
func randomVector(r *rand.Rand, dim int) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(r.IntN(129)-64) / 16
	}
	v[r.IntN(dim)] = 4.0625 // never the zero vector, which has no direction
	return v
}

var words = []string{"", "a", "ab", "abc", "red", "green", "blue", "bluegreen", "100%", "under_score", "größe", "x y"}

func randomWord(r *rand.Rand) string { return words[r.IntN(len(words))] }

// randomValue draws from few values, so that filters match some rows and not all.
func randomValue(r *rand.Rand, t qnpb.DataType) any {
	switch t {
	case qnpb.DataType_DATA_TYPE_BOOL:
		return r.IntN(2) == 0
	case qnpb.DataType_DATA_TYPE_INT8, qnpb.DataType_DATA_TYPE_INT16, qnpb.DataType_DATA_TYPE_INT32, qnpb.DataType_DATA_TYPE_INT64:
		return int64(r.IntN(41) - 20)
	case qnpb.DataType_DATA_TYPE_FLOAT:
		return float32(r.IntN(81)-40) / 4
	case qnpb.DataType_DATA_TYPE_DOUBLE:
		return float64(r.IntN(81)-40) / 8
	case qnpb.DataType_DATA_TYPE_VARCHAR:
		return randomWord(r)
	case qnpb.DataType_DATA_TYPE_JSON:
		return randomDocument(r)
	}
	panic("no values of type " + t.String())
}

// document is a JSON object of the model: members that are not there are nil.
type document struct {
	num  *int64  // "n"
	word *string // "w"
	list []int64 // "l"; nil = not there
	sub  *bool   // "s": {"b": ...}
}

func randomDocument(r *rand.Rand) *document {
	d := &document{}
	if r.IntN(4) > 0 {
		n := int64(r.IntN(21) - 10)
		d.num = &n
	}
	if r.IntN(4) > 0 {
		w := []string{"a", "ab", "red", "blue"}[r.IntN(4)]
		d.word = &w
	}
	if r.IntN(2) > 0 {
		d.list = []int64{}
		for range r.IntN(4) {
			d.list = append(d.list, int64(r.IntN(6)))
		}
	}
	if r.IntN(3) > 0 {
		b := r.IntN(2) == 0
		d.sub = &b
	}
	return d
}

func (d *document) text() string {
	out, sep := "{", ""
	add := func(format string, v any) {
		out += sep + fmt.Sprintf(format, v)
		sep = ", "
	}
	if d.num != nil {
		add(`"n": %d`, *d.num)
	}
	if d.word != nil {
		add(`"w": %q`, *d.word)
	}
	if d.list != nil {
		list := ""
		for i, v := range d.list {
			list += map[bool]string{true: "", false: ", "}[i == 0] + fmt.Sprint(v)
		}
		add(`"l": [%s]`, list)
	}
	if d.sub != nil {
		add(`"s": {"b": %v}`, *d.sub)
	}
	return out + "}"
}

func textKey(key int64) string { return fmt.Sprintf("k%04d", key) }

// ids are keys as the API wants them.
func (s *spec) ids(keys []int64) *qnpb.Ids {
	if !s.text {
		return &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: keys}}}
	}
	var t []string
	for _, k := range keys {
		t = append(t, textKey(k))
	}
	return &qnpb.Ids{Keys: &qnpb.Ids_Strings{Strings: &qnpb.StringArray{Values: t}}}
}

// data are rows as the API wants them.
func (s *spec) data(rows []*row) []*qnpb.FieldData {
	id := &qnpb.FieldData{Field: "id"}
	var keys []int64
	for _, x := range rows {
		keys = append(keys, x.key)
	}
	switch k := s.ids(keys).GetKeys().(type) {
	case *qnpb.Ids_Ints:
		id.Values = &qnpb.FieldData_Ints{Ints: k.Ints}
	case *qnpb.Ids_Strings:
		id.Values = &qnpb.FieldData_Strings{Strings: k.Strings}
	}
	out := []*qnpb.FieldData{id}
	for i, f := range s.fields {
		out = append(out, f.data(rows, i))
	}
	for i, v := range s.vectors {
		var values []float32
		for _, x := range rows {
			values = append(values, x.vectors[i]...)
		}
		out = append(out, &qnpb.FieldData{Field: v.name, Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: int32(v.dim), Values: values}}})
	}
	return out
}

func (f *field) data(rows []*row, at int) *qnpb.FieldData {
	d := &qnpb.FieldData{Field: f.name}
	if f.nullable {
		for _, x := range rows {
			d.Valid = append(d.Valid, x.values[at] != nil)
		}
	}
	switch f.typ {
	case qnpb.DataType_DATA_TYPE_BOOL:
		d.Values = &qnpb.FieldData_Bools{Bools: &qnpb.BoolArray{Values: column[bool](rows, at)}}
	case qnpb.DataType_DATA_TYPE_FLOAT:
		d.Values = &qnpb.FieldData_Floats{Floats: &qnpb.FloatArray{Values: column[float32](rows, at)}}
	case qnpb.DataType_DATA_TYPE_DOUBLE:
		d.Values = &qnpb.FieldData_Doubles{Doubles: &qnpb.DoubleArray{Values: column[float64](rows, at)}}
	case qnpb.DataType_DATA_TYPE_VARCHAR:
		d.Values = &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: column[string](rows, at)}}
	case qnpb.DataType_DATA_TYPE_JSON:
		texts := make([]string, len(rows))
		for i, x := range rows {
			if doc, ok := x.values[at].(*document); ok {
				texts[i] = doc.text()
			}
		}
		d.Values = &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: texts}}
	default:
		d.Values = &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: column[int64](rows, at)}}
	}
	return d
}

// column lists the values of a field; those of nulls are zero.
func column[T any](rows []*row, at int) []T {
	out := make([]T, len(rows))
	for i, x := range rows {
		if v, ok := x.values[at].(T); ok {
			out[i] = v
		}
	}
	return out
}

// show is value i of a field of an answer, in the model's terms; documents as text.
func show(d *qnpb.FieldData, i int) any {
	if v := d.GetValid(); len(v) > 0 && !v[i] {
		return nil
	}
	switch v := d.GetValues().(type) {
	case *qnpb.FieldData_Bools:
		return v.Bools.GetValues()[i]
	case *qnpb.FieldData_Ints:
		return v.Ints.GetValues()[i]
	case *qnpb.FieldData_Floats:
		return v.Floats.GetValues()[i]
	case *qnpb.FieldData_Doubles:
		return v.Doubles.GetValues()[i]
	case *qnpb.FieldData_Strings:
		return v.Strings.GetValues()[i]
	}
	return fmt.Sprintf("values of kind %T", d.GetValues())
}

// wanted is what show must return for a value of the model.
func wanted(v any) any {
	if d, ok := v.(*document); ok {
		return d.text()
	}
	return v
}
