package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// spec is what a collection looks like. It follows from a seed, and from the
// fields and indexes that came later.
type spec struct {
	name    string
	seed    uint64
	text    bool // keys are text
	ends    bool // some keys are at the ends of their type
	auto    bool // the node gives keys
	fields  []field
	vectors []vector
	shards  int32
	crowd   int // rows of its crowd; 0 = it has none
	dynamic bool
	aliases []string
	zone    string // of times in filters without an offset; "" = UTC
	props   map[string]string
	ttl     time.Duration // 0 = rows do not age
	retain  time.Duration // reads in the past
}

// field is a scalar field besides the key.
type field struct {
	name     string
	typ      qnpb.DataType
	elem     qnpb.DataType // of an array
	nullable bool
	def      any    // of rows that leave it out; nil = none
	analyzer string // a text of words; "" = a short one
	index    string // "" = none was asked for
	ends     bool   // some values are at the ends of its type; see ends.go
}

// dynamicField is the name of the field of what has no field.
const dynamicField = "$meta"

func (f *field) dynamic() bool { return f.name == dynamicField }

// optional reports whether rows may do without it.
func (f *field) optional() bool { return f.nullable || f.def != nil || f.dynamic() }

// absent is what rows read as that do without it.
func (f *field) absent() any {
	if f.dynamic() {
		return &document{}
	}
	return f.def
}

// single reports whether it holds one value, that can be ordered or grouped by.
func (f *field) single() bool {
	return f.typ != qnpb.DataType_DATA_TYPE_ARRAY && f.typ != qnpb.DataType_DATA_TYPE_JSON
}

func (f *field) integer() bool {
	return f.typ >= qnpb.DataType_DATA_TYPE_INT8 && f.typ <= qnpb.DataType_DATA_TYPE_INT64
}

func (f *field) floating() bool {
	return f.typ == qnpb.DataType_DATA_TYPE_FLOAT || f.typ == qnpb.DataType_DATA_TYPE_DOUBLE
}

// The types of scalar fields, by the beginning of their names.
var scalarTypes = []struct {
	letter string
	typ    qnpb.DataType
}{
	{"b", qnpb.DataType_DATA_TYPE_BOOL}, {"i8", qnpb.DataType_DATA_TYPE_INT8}, {"i16", qnpb.DataType_DATA_TYPE_INT16},
	{"i32", qnpb.DataType_DATA_TYPE_INT32}, {"i64", qnpb.DataType_DATA_TYPE_INT64}, {"f", qnpb.DataType_DATA_TYPE_FLOAT},
	{"d", qnpb.DataType_DATA_TYPE_DOUBLE}, {"s", qnpb.DataType_DATA_TYPE_VARCHAR}, {"t", qnpb.DataType_DATA_TYPE_VARCHAR},
	{"z", qnpb.DataType_DATA_TYPE_TIMESTAMPTZ}, {"j", qnpb.DataType_DATA_TYPE_JSON},
	{"a", qnpb.DataType_DATA_TYPE_ARRAY}, {"a", qnpb.DataType_DATA_TYPE_ARRAY},
}

// elementTypes are the types that arrays are of: the first eight of scalarTypes.
var elementTypes = scalarTypes[:8]

func newField(r *rand.Rand, number int) field {
	t := scalarTypes[r.IntN(len(scalarTypes))]
	f := field{name: fmt.Sprintf("%s_%d", t.letter, number), typ: t.typ, nullable: r.IntN(2) == 0}
	if t.letter == "t" {
		f.analyzer = []string{"standard", "whitespace", "english"}[r.IntN(3)]
	}
	if f.typ == qnpb.DataType_DATA_TYPE_ARRAY {
		e := elementTypes[r.IntN(len(elementTypes))]
		f.name, f.elem = fmt.Sprintf("a%s_%d", e.letter, number), e.typ
	}
	f.ends = f.typ != qnpb.DataType_DATA_TYPE_BOOL && f.analyzer == "" && r.IntN(4) == 0
	if f.single() && r.IntN(4) == 0 {
		f.def = f.random(r)
	}
	return f
}

// later is a field that is added to a collection: rows must be able to do without it.
// It may have the name of one that was dropped.
func (s *spec) later(seed uint64) field {
	number := 100
	for slices.ContainsFunc(s.fields, func(f field) bool { return strings.HasSuffix(f.name, fmt.Sprintf("_%d", number)) }) {
		number++
	}
	f := newField(rand.New(rand.NewPCG(seed, 0xadd)), number)
	f.nullable = f.nullable || f.def == nil
	return f
}

// laterVector is a vector field that is added to a collection, with the index that it gets
// by itself. It may have the name of one that was dropped.
func (s *spec) laterVector(r *rand.Rand) vector {
	number := 100
	for slices.ContainsFunc(s.vectors, func(v vector) bool { return v.name == fmt.Sprintf("v_%d", number) }) {
		number++
	}
	v := newVector(r, number)
	v.nullable, v.index, v.metric = true, "AUTOINDEX", "COSINE"
	switch v.typ {
	case binaries:
		v.metric = "HAMMING"
	case sparse:
		v.metric = "IP"
	}
	v.searched, v.coded = v.walked(), v.typ == float32s
	return v
}

func newSpec(name string, seed uint64) *spec {
	r := rand.New(rand.NewPCG(seed, 0x5bec))
	s := &spec{name: name, seed: seed, text: r.IntN(3) == 0, shards: 1 + int32(r.IntN(3)), dynamic: r.IntN(4) == 0, props: map[string]string{}}
	for i, n := 0, 1+r.IntN(6); i < n; i++ {
		s.fields = append(s.fields, newField(r, i))
	}
	if s.dynamic {
		s.fields = append(s.fields, field{name: dynamicField, typ: qnpb.DataType_DATA_TYPE_JSON})
	}
	for i, n := 0, []int{1, 1, 1, 2, 2, 3}[r.IntN(6)]; i < n; i++ {
		s.vectors = append(s.vectors, newVector(r, i))
	}
	s.addTexts(r)
	s.auto = !s.text && r.IntN(4) == 0
	s.ends = !s.auto && r.IntN(4) == 0
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
	key := &qnpb.FieldSchema{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true, AutoId: s.auto}
	if s.text {
		key.Type, key.MaxLength = qnpb.DataType_DATA_TYPE_VARCHAR, 64
	}
	c := &qnpb.CreateCollectionRequest{Name: s.name, Shards: s.shards, Properties: s.props,
		Schema: &qnpb.CollectionSchema{Dynamic: s.dynamic, Fields: []*qnpb.FieldSchema{key}}}
	for i := range s.fields {
		if !s.fields[i].dynamic() {
			c.Schema.Fields = append(c.Schema.Fields, s.fields[i].schema())
		}
	}
	for i := range s.vectors {
		v := &s.vectors[i]
		c.Schema.Fields = append(c.Schema.Fields, v.schema())
		c.Indexes = append(c.Indexes, v.indexSpec())
		if v.of != "" {
			c.Schema.Functions = append(c.Schema.Functions, v.function())
		}
	}
	return c
}

func (f *field) schema() *qnpb.FieldSchema {
	out := &qnpb.FieldSchema{Name: f.name, Type: f.typ, ElementType: f.elem, Nullable: f.nullable, Analyzer: f.analyzer}
	switch v := f.def.(type) {
	case bool:
		out.DefaultValue = &qnpb.Value{Kind: &qnpb.Value_BoolValue{BoolValue: v}}
	case int64:
		out.DefaultValue = &qnpb.Value{Kind: &qnpb.Value_IntValue{IntValue: v}}
	case float32:
		out.DefaultValue = &qnpb.Value{Kind: &qnpb.Value_DoubleValue{DoubleValue: float64(v)}}
	case float64:
		out.DefaultValue = &qnpb.Value{Kind: &qnpb.Value_DoubleValue{DoubleValue: v}}
	case string:
		out.DefaultValue = &qnpb.Value{Kind: &qnpb.Value_StringValue{StringValue: v}}
	}
	return out
}

// scalarIndexes are the indexes that a field can have.
func (f *field) scalarIndexes() []string {
	switch {
	case f.typ == qnpb.DataType_DATA_TYPE_BOOL || f.typ == qnpb.DataType_DATA_TYPE_JSON || f.elem == qnpb.DataType_DATA_TYPE_BOOL:
		return nil
	case f.typ == qnpb.DataType_DATA_TYPE_ARRAY:
		return []string{"INVERTED", "BITMAP", "AUTOINDEX"}
	case f.typ == qnpb.DataType_DATA_TYPE_VARCHAR:
		return []string{"INVERTED", "BITMAP", "AUTOINDEX", "STL_SORT", "TRIE", "NGRAM"}
	}
	return []string{"INVERTED", "BITMAP", "AUTOINDEX", "STL_SORT"}
}

// row is one row of the model. It is what the node must show of it.
type row struct {
	key     int64 // of the model: operations name rows by it
	id      int64 // of the node: see numberOf, unless it gives keys
	name    any   // of text keys: the key
	part    string
	version int64
	values  []any       // by field; nil = null
	vectors [][]float64 // by vector field; nil = null
	from    int         // operation that wrote it
	until   int         // operation that hid it; 0 = none
	after   uint64      // its timestamp is later than this,
	upTo    uint64      // and no later than this
}

// newRow makes the row of a key at a version: the same each time. Nulls have not
// been replaced by defaults yet.
func (s *spec) newRow(key, version int64, part string, omit map[string]bool) *row {
	r := rand.New(rand.NewPCG(s.seed^uint64(key)*0x9e3779b97f4a7c15, uint64(version)))
	x := &row{key: key, id: s.numberOf(key), part: part, version: version}
	if s.text {
		x.name = s.textOf(key)
	}
	for i := range s.vectors {
		v := &s.vectors[i]
		if v.of != "" {
			x.vectors = append(x.vectors, nil)
			continue
		}
		value := v.random(r)
		if v.nullable && (r.IntN(4) == 0 || omit[v.name]) {
			value = nil
		}
		x.vectors = append(x.vectors, value)
	}
	for i := range s.fields {
		f := &s.fields[i]
		value := f.random(r)
		if omit[f.name] || !f.dynamic() && f.optional() && r.IntN(4) == 0 {
			value = nil
		}
		x.values = append(x.values, value)
	}
	return x
}

// omitted draws fields that a request leaves out; seed 0 = none.
func (s *spec) omitted(seed uint64) map[string]bool {
	out := map[string]bool{}
	if seed == 0 {
		return out
	}
	r := rand.New(rand.NewPCG(seed, 0x0417))
	for i := range s.fields {
		if s.fields[i].optional() && r.IntN(3) == 0 {
			out[s.fields[i].name] = true
		}
	}
	for i := range s.vectors {
		if s.vectors[i].nullable && r.IntN(3) == 0 {
			out[s.vectors[i].name] = true
		}
	}
	written := func(v vector) bool { return v.of == "" && !out[v.name] }
	if s.auto && !slices.ContainsFunc(s.vectors, written) && !slices.ContainsFunc(s.fields, func(f field) bool { return !out[f.name] }) {
		clear(out) // of rows without a key, something has to be sent
	}
	return out
}

// fill replaces nulls by defaults, as the node does.
func (s *spec) fill(rows []*row) {
	for _, x := range rows {
		for i, v := range x.values {
			if v == nil {
				x.values[i] = s.fields[i].absent()
			}
		}
	}
}

// ints are keys as the API wants them.
func ints(ids []int64) *qnpb.Ids {
	return &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: ids}}}
}

// ids are the keys of rows as the API wants them, unless the node gives them.
func (s *spec) ids(keys []int64) *qnpb.Ids {
	var numbers []int64
	var texts []string
	for _, k := range keys {
		if s.text {
			texts = append(texts, s.textOf(k))
		} else {
			numbers = append(numbers, s.numberOf(k))
		}
	}
	if s.text {
		return &qnpb.Ids{Keys: &qnpb.Ids_Strings{Strings: &qnpb.StringArray{Values: texts}}}
	}
	return ints(numbers)
}

// idData are keys as a field.
func idData(ids *qnpb.Ids) *qnpb.FieldData {
	d := &qnpb.FieldData{Field: "id"}
	switch k := ids.GetKeys().(type) {
	case *qnpb.Ids_Ints:
		d.Values = &qnpb.FieldData_Ints{Ints: k.Ints}
	case *qnpb.Ids_Strings:
		d.Values = &qnpb.FieldData_Strings{Strings: k.Strings}
	}
	return d
}

// data are rows as the API wants them, without the fields that are left out.
func (s *spec) data(rows []*row, omit map[string]bool) []*qnpb.FieldData {
	var out []*qnpb.FieldData
	if !omit["id"] {
		var keys, ids []int64
		for _, x := range rows {
			keys, ids = append(keys, x.key), append(ids, x.id)
		}
		out = append(out, idData(pick(s.auto, ints(ids), s.ids(keys))))
	}
	for i := range s.fields {
		if f := &s.fields[i]; !omit[f.name] {
			out = append(out, f.data(rows, i))
		}
	}
	for i := range s.vectors {
		if v := &s.vectors[i]; !omit[v.name] && v.of == "" {
			out = append(out, v.data(rows, i))
		}
	}
	return out
}

// outputs draws what is to be returned: everything there is, or some fields.
func (s *spec) outputs(r *rand.Rand) []string {
	if r.IntN(2) == 0 {
		return []string{"*"}
	}
	var out []string
	for i := range s.fields {
		if r.IntN(2) == 0 {
			out = append(out, s.fields[i].name)
		}
	}
	for i := range s.vectors {
		if s.vectors[i].of == "" && r.IntN(3) == 0 {
			out = append(out, s.vectors[i].name)
		}
	}
	for _, k := range []string{"n", "w", "l", "s"} {
		if s.dynamic && r.IntN(6) == 0 {
			out = append(out, pick(r.IntN(2) == 0, k, fmt.Sprintf("%s[%q]", dynamicField, k)))
		}
	}
	return out
}

// describe is the collection in a line, for who reads a difference.
func (s *spec) describe() string {
	var out []string
	for _, f := range s.fields {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %v %v%s", f.name, f.index, f.nullable, f.def, pick(f.ends, " ends", ""))))
	}
	for _, v := range s.vectors {
		out = append(out, fmt.Sprintf("%s %s(%d) %s %s %v", v.name, v.typ, v.dim, v.index, v.metric, v.params))
	}
	return fmt.Sprintf("%d shards, ttl %v, retention %v, auto_id %v, ends %v, zone %q, aliases %v: %s", s.shards, s.ttl, s.retain, s.auto, s.ends, s.zone, s.aliases, strings.Join(out, ", "))
}

// pick draws one of the fields that pass; nil if none does.
func (s *spec) pick(r *rand.Rand, pass func(*field) bool) *field {
	var at []int
	for i := range s.fields {
		if pass(&s.fields[i]) {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return nil
	}
	return &s.fields[at[r.IntN(len(at))]]
}

// at is the place of a field among the values of a row.
func (s *spec) at(f *field) int {
	return slices.IndexFunc(s.fields, func(x field) bool { return x.name == f.name })
}
