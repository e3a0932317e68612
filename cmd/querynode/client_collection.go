package main

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type collectionCmd struct {
	Create    collectionCreateCmd    `cmd:"" help:"Create a collection."`
	List      collectionListCmd      `cmd:"" help:"List the collections."`
	Describe  collectionDescribeCmd  `cmd:"" help:"Show the fields, indexes, partitions and channels of a collection."`
	Alter     collectionAlterCmd     `cmd:"" help:"Change the properties or the name of a collection."`
	AddField  collectionAddFieldCmd  `cmd:"" help:"Add a field to a collection."`
	DropField collectionDropFieldCmd `cmd:"" help:"Remove a field of a collection."`
	Drop      collectionDropCmd      `cmd:"" help:"Drop a collection and its rows."`
}

type collectionListCmd struct {
	clientFlags
}

// Help is shown by --help.
func (collectionListCmd) Help() string {
	return `Example:
  querynode collection list`
}

// Run lists the collections.
func (l *collectionListCmd) Run(a *app) error {
	return l.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.catalog.ListCollections(ctx, &qnpb.ListCollectionsRequest{})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got)["collections"])
		}
		t := &console.Table{Columns: []console.Column{console.Left("name"), console.Right("id"), console.Right("fields"), console.Left("vectors"),
			console.Right("shards"), console.Right("sealed rows"), console.Right("segments"), console.Left("aliases")}}
		for _, x := range got.GetCollections() {
			var vectors []string
			for _, f := range vectorsOf(x.GetSchema()) {
				vectors = append(vectors, f.GetName()+" "+typeName(f))
			}
			t.Add(x.GetName(), x.GetId(), len(x.GetSchema().GetFields()), strings.Join(vectors, ", "), len(x.GetChannels()),
				console.Count(x.GetSealedRows()), x.GetSealedSegments(), strings.Join(x.GetAliases(), ", "))
		}
		showOrNone(c.out, t, "no collections")
		for _, x := range got.GetCollections() {
			if why := x.GetProblem(); why != "" {
				c.out.Printf("%s: rows and segments are not known: %s", x.GetName(), why)
			}
		}
		for _, why := range got.GetUnreadable() {
			c.out.Printf("a collection is not listed: %s", why)
		}
		return nil
	})
}

type collectionDescribeCmd struct {
	Collection string `arg:"" help:"Name or alias of the collection."`
	clientFlags
}

// Help is shown by --help.
func (collectionDescribeCmd) Help() string {
	return `Example:
  querynode collection describe words
  querynode collection describe words --json | jq .id`
}

// Run shows the collection.
func (d *collectionDescribeCmd) Run(a *app) error {
	return d.with(a, func(ctx context.Context, c *client) error {
		x, err := c.describe(ctx, d.Collection)
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(x))
		}
		out := c.out
		made := wal.Time(x.GetCreatedTimestamp()).UTC().Format(time.DateTime)
		out.Printf("%s  id %d, created %s UTC, %s in %s", out.Paint(console.Strong, x.GetName()), x.GetId(), made,
			console.Several(x.GetSealedRows(), "row"), console.Several(x.GetSealedSegments(), "sealed segment"))
		if len(x.GetAliases()) > 0 {
			out.Printf("aliases  %s", strings.Join(x.GetAliases(), ", "))
		}
		out.Table(fieldsTable(x))
		t := &console.Table{Title: "Partitions", Columns: []console.Column{console.Left("name"), console.Right("id")}}
		for _, p := range x.GetPartitions() {
			t.Add(p.GetName(), p.GetId())
		}
		out.Table(t)
		t = &console.Table{Title: "Channels", Columns: []console.Column{console.Left("channel"), console.Left("topic")}}
		for _, ch := range x.GetChannels() {
			t.Add(ch.GetVchannel(), ch.GetPchannel())
		}
		out.Table(t)
		for _, k := range slices.Sorted(maps.Keys(x.GetProperties())) {
			out.Printf("%s = %s", k, x.GetProperties()[k])
		}
		return nil
	})
}

func fieldsTable(x *qnpb.Collection) *console.Table {
	t := &console.Table{Title: "Fields", Columns: []console.Column{console.Left("name"), console.Right("id"), console.Left("type"), console.Left("is"), console.Left("index")}}
	for _, f := range x.GetSchema().GetFields() {
		var is []string
		for word, ok := range map[string]bool{"primary key": f.GetPrimaryKey(), "auto": f.GetAutoId(), "nullable": f.GetNullable()} {
			if ok {
				is = append(is, word)
			}
		}
		if f.GetDefaultValue() != nil {
			is = append(is, "default "+defaultText(f))
		}
		if f.GetAnalyzer() != "" {
			is = append(is, "analyzer "+f.GetAnalyzer())
		}
		slices.Sort(is)
		index := ""
		for _, ix := range x.GetIndexes() {
			if ix.GetField() == f.GetName() {
				index = indexText(ix)
			}
		}
		t.Add(f.GetName(), f.GetId(), typeName(f), strings.Join(is, ", "), index)
	}
	if x.GetSchema().GetDynamic() {
		t.Add("$meta", "", "JSON", "all other keys", "")
	}
	return t
}

// defaultText is a default value as it is typed.
func defaultText(f *qnpb.FieldSchema) string {
	switch v := f.GetDefaultValue().GetKind().(type) {
	case *qnpb.Value_BoolValue:
		return strconv.FormatBool(v.BoolValue)
	case *qnpb.Value_IntValue:
		if f.GetType() == qnpb.DataType_DATA_TYPE_TIMESTAMPTZ {
			return schema.FormatTime(v.IntValue)
		}
		return strconv.FormatInt(v.IntValue, 10)
	case *qnpb.Value_DoubleValue:
		return strconv.FormatFloat(v.DoubleValue, 'g', -1, 64)
	}
	return strconv.Quote(f.GetDefaultValue().GetStringValue())
}

func indexText(ix *qnpb.IndexSpec) string {
	parts := []string{ix.GetType(), ix.GetMetric()}
	for _, k := range slices.Sorted(maps.Keys(ix.GetParams())) {
		parts = append(parts, k+"="+ix.GetParams()[k])
	}
	return strings.Join(parts, " ")
}

type collectionAddFieldCmd struct {
	Collection string `arg:"" help:"Name or alias of the collection."`
	Field      string `arg:"" placeholder:"NAME:TYPE" help:"The field: NAME:TYPE and :nullable, :analyzer=NAME or :default=VALUE."`
	Index      string `placeholder:"TYPE:METRIC[:M=16]..." help:"Index of a vector field; as of collection create, without the field's name."`
	clientFlags
}

// Help is shown by --help.
func (collectionAddFieldCmd) Help() string {
	return `Adds a field to a collection. The rows that are there read as its default value, or null. A vector field has to be nullable:
rows are found by it once they have been upserted with a vector. Without --index it is indexed as a field is that collection create
has no --index for.

Example:
  querynode collection add-field words 'language:varchar(8):default=en'
  querynode collection add-field words 'tags:array(varchar(32)):nullable'
  querynode collection add-field products 'image:float16_vector(512):nullable' --index FLAT:L2`
}

// Run adds the field.
func (k *collectionAddFieldCmd) Run(a *app) error {
	f, err := parseField(k.Field)
	if err != nil {
		return usage(err)
	}
	var index *qnpb.IndexSpec
	if k.Index != "" {
		if index, err = parseIndex(f.GetName() + ":" + k.Index); err != nil {
			return usage(err)
		}
	}
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.catalog.AddField(ctx, &qnpb.AddFieldRequest{Collection: k.Collection, Field: f})
		if err != nil {
			return err
		}
		coll := got.GetCollection()
		if index != nil {
			if coll, err = c.reindex(ctx, k.Collection, index); err != nil {
				return errors.Wrapf(err, "field %s was added, but without that index", f.GetName())
			}
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(coll))
		}
		c.out.Printf("added %s to %s", f.GetName(), k.Collection)
		c.out.Table(fieldsTable(coll))
		return nil
	})
}

// reindex gives a field an index instead of the default one, and returns the collection.
func (c *client) reindex(ctx context.Context, collection string, index *qnpb.IndexSpec) (*qnpb.Collection, error) {
	if _, err := c.catalog.CreateIndex(ctx, &qnpb.CreateIndexRequest{Collection: collection, Index: index}); err != nil {
		return nil, err
	}
	got, err := c.catalog.DescribeCollection(ctx, &qnpb.DescribeCollectionRequest{Collection: collection})
	return got.GetCollection(), err
}

type collectionDropFieldCmd struct {
	Collection string `arg:"" help:"Name or alias of the collection."`
	Field      string `arg:"" help:"Name of the field."`
	clientFlags
}

// Help is shown by --help.
func (collectionDropFieldCmd) Help() string {
	return `Removes a field of a collection: it can be read no more, its values go when segments are compacted. A field that is given
the name later does not have them. The primary key, the only vector field, and what a function reads or makes stay.

Example:
  querynode collection drop-field words language`
}

// Run drops the field.
func (k *collectionDropFieldCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.catalog.DropField(ctx, &qnpb.DropFieldRequest{Collection: k.Collection, Field: k.Field})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got.GetCollection()))
		}
		c.out.Printf("dropped %s of %s", k.Field, k.Collection)
		c.out.Table(fieldsTable(got.GetCollection()))
		return nil
	})
}

type collectionDropCmd struct {
	Collection string `arg:"" help:"Name of the collection (not an alias)."`
	Yes        bool   `short:"y" help:"Do not ask."`
	clientFlags
}

// Help is shown by --help.
func (collectionDropCmd) Help() string {
	return `Drops a collection and all its rows. This cannot be undone, so say --yes.

Example:
  querynode collection drop words --yes`
}

// Run drops the collection.
func (d *collectionDropCmd) Run(a *app) error {
	if !d.Yes {
		return usage(errors.Newf("this deletes all rows of %q for good: say --yes if you mean it", d.Collection))
	}
	return d.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		if _, err := c.catalog.DropCollection(ctx, &qnpb.DropCollectionRequest{Collection: d.Collection}); err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(map[string]any{"dropped": d.Collection})
		}
		c.out.Printf("dropped %s", d.Collection)
		return nil
	})
}

type collectionCreateCmd struct {
	Collection string            `arg:"" help:"Name of the collection."`
	Field      []string          `sep:"none" xor:"schema" placeholder:"NAME:TYPE[:pk][:auto][:nullable][:analyzer=NAME][:default=VALUE]" help:"A field. Types: bool, int8, int16, int32, int64, float, double, varchar(N), timestamptz, json, array(TYPE) or array(TYPE,N), vector(N), float16_vector(N), bfloat16_vector(N), int8_vector(N), binary_vector(N), sparse_float_vector. Repeat for each."`
	Schema     string            `type:"existingfile" xor:"schema" placeholder:"FILE.json" help:"Fields and indexes from a file."`
	From       string            `type:"existingfile" xor:"schema" placeholder:"FILE" help:"Fields as in a data file: .parquet, .npy, .fvecs or .bvecs. It is not inserted."`
	BM25       []string          `name:"bm25" sep:"none" placeholder:"FIELD=TEXT_FIELD" help:"A field that holds the words of a text field, for full-text search. May be repeated."`
	Index      []string          `sep:"none" placeholder:"FIELD:TYPE:METRIC[:M=16]..." help:"Index of a vector field: FLAT, HNSW, HNSW_SQ, IVF_FLAT, IVF_SQ8, SCANN or AUTOINDEX with L2, IP or COSINE; see docs/indexes.md. Repeat for each."`
	Shards     int32             `placeholder:"1" help:"Number of shards."`
	Dynamic    bool              `help:"Rows may have keys beyond the fields."`
	Property   map[string]string `placeholder:"KEY=VALUE" help:"A free property. May be repeated."`
	clientFlags
}

// Help is shown by --help.
func (collectionCreateCmd) Help() string {
	return `Creates a collection. A vector field without an index of its own gets AUTOINDEX with COSINE.

Example:
  querynode collection create words --field id:int64:pk --field 'word:varchar(64)' --field 'vector:vector(100)' \
      --index vector:HNSW:COSINE:M=16:efConstruction=200
  querynode collection create words --from words.parquet --index vector:HNSW:COSINE
  querynode collection create words --schema words.json
  querynode collection create posts --field id:int64:pk --field body:varchar:analyzer=english --bm25 words=body

A schema file:
  {"fields": [{"name": "id", "type": "int64", "primary_key": true}, {"name": "vector", "type": "vector(100)"},
              {"name": "body", "type": "varchar", "analyzer": "english"}],
   "functions": [{"type": "BM25", "input_fields": ["body"], "output_fields": ["words"]}],
   "indexes": [{"field": "vector", "type": "HNSW", "metric": "COSINE", "params": {"M": "16"}}]}`
}

// Run creates the collection.
func (k *collectionCreateCmd) Run(a *app) error {
	req, err := k.request()
	if err != nil {
		return usage(err)
	}
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.catalog.CreateCollection(ctx, req)
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got.GetCollection()))
		}
		c.out.Printf("created %s", k.Collection)
		c.out.Table(fieldsTable(got.GetCollection()))
		return nil
	})
}

func (k *collectionCreateCmd) request() (*qnpb.CreateCollectionRequest, error) {
	req := &qnpb.CreateCollectionRequest{Name: k.Collection, Schema: &qnpb.CollectionSchema{}, Properties: k.Property}
	var err error
	switch {
	case k.Schema != "":
		err = schemaFile(k.Schema, req)
	case k.From != "":
		req.Schema, err = schemaOfData(k.From)
	case len(k.Field) > 0:
		for _, text := range k.Field {
			f, ferr := parseField(text)
			if ferr != nil {
				return nil, ferr
			}
			req.Schema.Fields = append(req.Schema.Fields, f)
		}
	default:
		err = errors.New("say what fields it has: --field, --schema or --from")
	}
	if err != nil {
		return nil, err
	}
	for _, text := range k.Index {
		ix, err := parseIndex(text)
		if err != nil {
			return nil, err
		}
		req.Indexes = append(req.Indexes, ix)
	}
	for _, text := range k.BM25 {
		if err := addBM25(text, req.Schema); err != nil {
			return nil, err
		}
	}
	req.Schema.Dynamic = req.Schema.Dynamic || k.Dynamic
	if k.Shards != 0 {
		req.Shards = k.Shards
	}
	return req, nil
}
