package e2e

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestACollectionsMistakesComeInOneMessage: whoever writes a schema sees
// everything that is wrong with it at once.
func TestACollectionsMistakesComeInOneMessage(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	const i64, f32, text, vec = qnpb.DataType_DATA_TYPE_INT64, qnpb.DataType_DATA_TYPE_FLOAT, qnpb.DataType_DATA_TYPE_VARCHAR, qnpb.DataType_DATA_TYPE_FLOAT_VECTOR
	_, err := n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: "1st", Shards: 65,
		Schema: &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{
			{Name: "a b", Type: i64},
			{Name: "untyped"},
			{Name: "strange", Type: 77},
			{Name: "key", Type: f32, PrimaryKey: true},
			{Name: "key2", Type: text, PrimaryKey: true, Nullable: true},
			{Name: "given", Type: text, AutoId: true},
			{Name: "flat", Type: i64, Dim: 4},
			{Name: "v", Type: vec, Dim: 40000},
			{Name: "w", Type: vec, Dim: 4, Nullable: true},
			{Name: "long", Type: text, MaxLength: 70000},
			{Name: "measured", Type: i64, MaxLength: 7},
			{Name: "measured", Type: i64},
		}},
		Indexes: []*qnpb.IndexSpec{{Field: "flat", Type: "HNSW"}, {Field: "w", Type: "IVF"}, {Field: "v", Metric: "HAMMING", Type: "HNSW", Params: map[string]string{"M": "1"}}},
	})
	n.refuses(t, err, codes.InvalidArgument, `collection name "1st"`, `"a b"`, `"untyped": unknown type 0`, `"strange": unknown type 77`, `"key": a primary key is Int64 or VarChar`,
		`"key2": a primary key cannot be nullable`, "auto_id is for an Int64", `"flat": dim is for vector fields`, `"v": dim 40000, want 1 to 32768`,
		"max_length 70000, want 1 to 65535", "max_length is for VarChar", `"measured": the name is there twice`,
		"exactly one primary key field, got 2", "65 shards, want 1 to 64", `type "HNSW", want one of INVERTED`, `type "IVF"`, `metric "HAMMING"`, `M is "1", want 2`)

	_, err = n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: "9", Schema: &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{
		{Name: "a", Type: 256 + 5, PrimaryKey: true}, {Name: "b", Type: -1}}}, Indexes: []*qnpb.IndexSpec{{Field: "nope"}, nil}})
	n.refuses(t, err, codes.InvalidArgument, `collection name "9"`, `"a": unknown type 261`, `"b": unknown type -1`, `no field "nope"`, "at least one vector field")

	for name, schema := range map[string]*qnpb.CollectionSchema{
		"nothing":         nil,
		"no_fields":       {},
		"too_many_fields": {Fields: make([]*qnpb.FieldSchema, 300)},
		"no_key":          {Fields: []*qnpb.FieldSchema{{Name: "v", Type: vec, Dim: 2}}},
		"no_vector":       {Fields: []*qnpb.FieldSchema{{Name: "id", Type: i64, PrimaryKey: true}}},
	} {
		_, err := n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: name, Schema: schema})
		n.refuses(t, err, codes.InvalidArgument, "want")
	}
}

// TestCatalogCallsThatCannotWorkAreRefused goes through names that are taken,
// names that are not there, and what must not be changed.
func TestCatalogCallsThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	n.items("items", 1)
	ctx := within(t)
	must2(t)(n.catalog.CreateAlias(ctx, &qnpb.CreateAliasRequest{Collection: "items", Alias: "things"}))
	must2(t)(n.catalog.CreatePartition(ctx, &qnpb.CreatePartitionRequest{Collection: "items", Partition: "p"}))
	const bad, missing, taken = codes.InvalidArgument, codes.NotFound, codes.AlreadyExists
	small := &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
		{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 2}}}
	for _, c := range []struct {
		name string
		call func() (any, error)
		code codes.Code
		says string
	}{
		{"create what is there", func() (any, error) {
			return n.catalog.CreateCollection(ctx, &qnpb.CreateCollectionRequest{Name: "items", Schema: small})
		}, taken, "items"},
		{"create over an alias", func() (any, error) {
			return n.catalog.CreateCollection(ctx, &qnpb.CreateCollectionRequest{Name: "things", Schema: small})
		}, taken, "things"},
		{"describe unknown", func() (any, error) {
			return n.catalog.DescribeCollection(ctx, &qnpb.DescribeCollectionRequest{Collection: "nope"})
		}, missing, `nope`},
		{"describe nothing", func() (any, error) {
			return n.catalog.DescribeCollection(ctx, &qnpb.DescribeCollectionRequest{})
		}, bad, "name is missing"},
		{"a name like a path", func() (any, error) {
			return n.catalog.DescribeCollection(ctx, &qnpb.DescribeCollectionRequest{Collection: "../../etc/passwd"})
		}, bad, "passwd"},
		{"a name too long", func() (any, error) {
			return n.catalog.DescribeCollection(ctx, &qnpb.DescribeCollectionRequest{Collection: strings.Repeat("x", 100_000)})
		}, bad, "bytes more"},
		{"drop unknown", func() (any, error) {
			return n.catalog.DropCollection(ctx, &qnpb.DropCollectionRequest{Collection: "nope"})
		}, missing, "nope"},
		{"drop by alias", func() (any, error) {
			return n.catalog.DropCollection(ctx, &qnpb.DropCollectionRequest{Collection: "things"})
		}, bad, "use the collection's name"},
		{"drop nothing", func() (any, error) { return n.catalog.DropCollection(ctx, &qnpb.DropCollectionRequest{}) }, bad, "collection name"},
		{"rename to what is there", func() (any, error) {
			return n.catalog.AlterCollection(ctx, &qnpb.AlterCollectionRequest{Collection: "items", NewName: "rich"})
		}, taken, "rich"},
		{"rename to nonsense", func() (any, error) {
			return n.catalog.AlterCollection(ctx, &qnpb.AlterCollectionRequest{Collection: "items", NewName: "a/b"})
		}, bad, "want a letter"},
		{"rename unknown", func() (any, error) {
			return n.catalog.AlterCollection(ctx, &qnpb.AlterCollectionRequest{Collection: "nope", NewName: "b"})
		}, missing, "nope"},

		{"partition that is there", func() (any, error) {
			return n.catalog.CreatePartition(ctx, &qnpb.CreatePartitionRequest{Collection: "items", Partition: "p"})
		}, taken, `"p"`},
		{"partition of nonsense", func() (any, error) {
			return n.catalog.CreatePartition(ctx, &qnpb.CreatePartitionRequest{Collection: "items", Partition: "ä"})
		}, bad, "partition name"},
		{"partition of unknown", func() (any, error) {
			return n.catalog.CreatePartition(ctx, &qnpb.CreatePartitionRequest{Collection: "nope", Partition: "q"})
		}, missing, "nope"},
		{"drop partition unknown", func() (any, error) {
			return n.catalog.DropPartition(ctx, &qnpb.DropPartitionRequest{Collection: "items", Partition: "nope"})
		}, missing, "_default, p"},
		{"drop the default partition", func() (any, error) {
			return n.catalog.DropPartition(ctx, &qnpb.DropPartitionRequest{Collection: "items", Partition: "_default"})
		}, bad, "cannot be dropped"},
		{"list partitions of unknown", func() (any, error) {
			return n.catalog.ListPartitions(ctx, &qnpb.ListPartitionsRequest{Collection: "nope"})
		}, missing, "nope"},

		{"index missing", func() (any, error) {
			return n.catalog.CreateIndex(ctx, &qnpb.CreateIndexRequest{Collection: "items"})
		}, bad, "index: missing"},
		{"index on unknown field", func() (any, error) {
			return n.catalog.CreateIndex(ctx, &qnpb.CreateIndexRequest{Collection: "items", Index: &qnpb.IndexSpec{Field: "nope"}})
		}, missing, "nope"},
		{"index on scalar", func() (any, error) {
			return n.catalog.CreateIndex(ctx, &qnpb.CreateIndexRequest{Collection: "items", Index: &qnpb.IndexSpec{Field: "price", Type: "NGRAM", Metric: "L2"}})
		}, bad, "want one of"},
		{"index of unknown type", func() (any, error) {
			return n.catalog.CreateIndex(ctx, &qnpb.CreateIndexRequest{Collection: "items", Index: &qnpb.IndexSpec{Field: "v", Type: "IVF"}})
		}, bad, "want one of FLAT, HNSW, HNSW_SQ, IVF_FLAT, IVF_SQ8, SCANN, AUTOINDEX"},
		{"another index", func() (any, error) {
			return n.catalog.CreateIndex(ctx, &qnpb.CreateIndexRequest{Collection: "items", Index: &qnpb.IndexSpec{Field: "v", Type: "FLAT", Metric: "IP"}})
		}, taken, "drop it first"},
		{"describe unknown index", func() (any, error) {
			return n.catalog.DescribeIndex(ctx, &qnpb.DescribeIndexRequest{Collection: "items", Index: "nope"})
		}, missing, "nope"},
		{"drop unknown index", func() (any, error) {
			return n.catalog.DropIndex(ctx, &qnpb.DropIndexRequest{Collection: "items", Index: "nope"})
		}, missing, "nope"},

		{"alias that is there", func() (any, error) {
			return n.catalog.CreateAlias(ctx, &qnpb.CreateAliasRequest{Collection: "rich", Alias: "things"})
		}, taken, "things"},
		{"alias like a collection", func() (any, error) {
			return n.catalog.CreateAlias(ctx, &qnpb.CreateAliasRequest{Collection: "rich", Alias: "items"})
		}, taken, "items"},
		{"alias of unknown", func() (any, error) {
			return n.catalog.CreateAlias(ctx, &qnpb.CreateAliasRequest{Collection: "nope", Alias: "x"})
		}, missing, "nope"},
		{"alias of nonsense", func() (any, error) {
			return n.catalog.CreateAlias(ctx, &qnpb.CreateAliasRequest{Collection: "rich", Alias: ""})
		}, bad, "alias name"},
		{"alter unknown alias", func() (any, error) {
			return n.catalog.AlterAlias(ctx, &qnpb.AlterAliasRequest{Collection: "rich", Alias: "nope"})
		}, missing, "nope"},
		{"alter a collection as alias", func() (any, error) {
			return n.catalog.AlterAlias(ctx, &qnpb.AlterAliasRequest{Collection: "rich", Alias: "items"})
		}, bad, "items"},
		{"drop unknown alias", func() (any, error) { return n.catalog.DropAlias(ctx, &qnpb.DropAliasRequest{Alias: "nope"}) }, missing, "nope"},
		{"drop a collection as alias", func() (any, error) {
			return n.catalog.DropAlias(ctx, &qnpb.DropAliasRequest{Alias: "items"})
		}, bad, "items"},
		{"aliases of unknown", func() (any, error) {
			return n.catalog.ListAliases(ctx, &qnpb.ListAliasesRequest{Collection: "nope"})
		}, missing, "nope"},

		{"load unknown collection", func() (any, error) {
			return n.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: "nope"})
		}, missing, "nope"},
		{"load unknown segment", func() (any, error) {
			return n.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: "items", SegmentIds: []int64{777}})
		}, missing, "no segment 777"},
		{"load unknown path", func() (any, error) {
			return n.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: "items", Paths: []string{"no/such/place"}})
		}, missing, "no/such/place"},
		{"load a path outside", func() (any, error) {
			return n.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: "items", Paths: []string{"../../../etc"}})
		}, bad, "etc"},
		{"load an absolute path", func() (any, error) {
			return n.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: "items", Paths: []string{"/etc"}})
		}, bad, "etc"},
		{"load no path", func() (any, error) {
			return n.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: "items", Paths: []string{""}})
		}, missing, "no segment there"},
		{"release unknown collection", func() (any, error) {
			return n.control.ReleaseSegments(ctx, &qnpb.ReleaseSegmentsRequest{Collection: "nope"})
		}, missing, "nope"},
		{"watch unknown channel", func() (any, error) {
			return n.control.WatchChannels(ctx, &qnpb.WatchChannelsRequest{Collection: "items", Vchannels: []string{"nope"}})
		}, missing, `no channel "nope"`},
		{"unwatch unknown channel", func() (any, error) {
			return n.control.UnwatchChannels(ctx, &qnpb.UnwatchChannelsRequest{Collection: "items", Vchannels: []string{"nope"}})
		}, missing, `no channel "nope"`},
		{"assign nothing", func() (any, error) { return n.write.AssignChannel(ctx, &qnpb.AssignChannelRequest{}) }, bad, "name is missing"},
		{"remove unknown channel", func() (any, error) {
			return n.write.RemoveChannel(ctx, &qnpb.RemoveChannelRequest{Pchannel: "nope"})
		}, missing, "nope"},
		{"log level", func() (any, error) { return n.admin.SetLogLevel(ctx, &qnpb.SetLogLevelRequest{Level: "loud"}) }, codes.Unimplemented, "fixed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.call()
			n.refuses(t, err, c.code, c.says)
		})
	}
}

// must2 fails the test on the error of a call.
func must2(t *testing.T) func(any, error) {
	return func(_ any, err error) {
		t.Helper()
		must(t, err)
	}
}
