package server

import (
	"context"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// catalogService serves CatalogService.
type catalogService struct {
	qnpb.UnimplementedCatalogServiceServer
	node *node.Node
}

// CreateCollection makes a collection. What is wrong with the request is told
// in one error.
func (s *catalogService) CreateCollection(ctx context.Context, r *qnpb.CreateCollectionRequest) (*qnpb.CreateCollectionResponse, error) {
	sc, bad := toSchema(r.GetSchema())
	spec := node.NewCollection{Name: r.GetName(), Schema: sc, Shards: int(r.GetShards()), Properties: r.GetProperties()}
	for _, x := range r.GetIndexes() {
		ix, err := toIndex(x, &sc)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		spec.Indexes = append(spec.Indexes, ix)
	}
	if len(bad) > 0 {
		bad = append([]error{schema.CheckName("collection", spec.Name), sc.Validate()}, bad...)
		return nil, errclass.Wrap(errors.Join(bad...), errclass.Invalid, "create collection %q", spec.Name)
	}
	coll, err := s.node.CreateCollection(ctx, spec)
	if err != nil {
		return nil, err
	}
	out, err := s.describe(ctx, coll)
	return &qnpb.CreateCollectionResponse{Collection: out}, err
}

// DescribeCollection shows one collection.
func (s *catalogService) DescribeCollection(ctx context.Context, r *qnpb.DescribeCollectionRequest) (*qnpb.DescribeCollectionResponse, error) {
	coll, err := s.node.Collection(ctx, r.GetCollection())
	if err != nil {
		return nil, err
	}
	out, err := s.describe(ctx, coll)
	return &qnpb.DescribeCollectionResponse{Collection: out}, err
}

// ListCollections shows all collections that can be read, and names the others.
func (s *catalogService) ListCollections(ctx context.Context, _ *qnpb.ListCollectionsRequest) (*qnpb.ListCollectionsResponse, error) {
	colls, bad, err := s.node.ReadableCollections(ctx)
	if err != nil {
		return nil, err
	}
	out := &qnpb.ListCollectionsResponse{}
	for _, why := range bad {
		out.Unreadable = append(out.Unreadable, why.Error())
	}
	for _, c := range colls {
		d, err := s.describe(ctx, c)
		if err != nil {
			return nil, err
		}
		out.Collections = append(out.Collections, d)
	}
	return out, nil
}

// AlterCollection renames a collection or sets properties.
func (s *catalogService) AlterCollection(ctx context.Context, r *qnpb.AlterCollectionRequest) (*qnpb.AlterCollectionResponse, error) {
	coll, err := s.node.AlterCollection(ctx, r.GetCollection(), r.GetNewName(), r.GetProperties())
	if err != nil {
		return nil, err
	}
	out, err := s.describe(ctx, coll)
	return &qnpb.AlterCollectionResponse{Collection: out}, err
}

// AddField adds a field to a collection.
func (s *catalogService) AddField(ctx context.Context, r *qnpb.AddFieldRequest) (*qnpb.AddFieldResponse, error) {
	if r.GetField() == nil {
		return nil, errclass.New(errclass.Invalid, "add field: say which")
	}
	f, err := rowpb.ToField(r.GetField())
	if err != nil {
		return nil, err
	}
	f.ID = 0 // the catalog gives it
	coll, err := s.node.AddField(ctx, r.GetCollection(), f)
	if err != nil {
		return nil, err
	}
	out, err := s.describe(ctx, coll)
	return &qnpb.AddFieldResponse{Collection: out}, err
}

// DropField removes a field of a collection.
func (s *catalogService) DropField(ctx context.Context, r *qnpb.DropFieldRequest) (*qnpb.DropFieldResponse, error) {
	coll, err := s.node.DropField(ctx, r.GetCollection(), r.GetField())
	if err != nil {
		return nil, err
	}
	out, err := s.describe(ctx, coll)
	return &qnpb.DropFieldResponse{Collection: out}, err
}

// DropCollection removes a collection.
func (s *catalogService) DropCollection(ctx context.Context, r *qnpb.DropCollectionRequest) (*qnpb.DropCollectionResponse, error) {
	return &qnpb.DropCollectionResponse{}, s.node.DropCollection(ctx, r.GetCollection())
}

// CreatePartition adds a partition.
func (s *catalogService) CreatePartition(ctx context.Context, r *qnpb.CreatePartitionRequest) (*qnpb.CreatePartitionResponse, error) {
	p, err := s.node.CreatePartition(ctx, r.GetCollection(), r.GetPartition())
	return &qnpb.CreatePartitionResponse{Partition: fromPartition(p)}, err
}

// ListPartitions shows the partitions of a collection.
func (s *catalogService) ListPartitions(ctx context.Context, r *qnpb.ListPartitionsRequest) (*qnpb.ListPartitionsResponse, error) {
	coll, err := s.node.Collection(ctx, r.GetCollection())
	if err != nil {
		return nil, err
	}
	out := &qnpb.ListPartitionsResponse{}
	for _, p := range coll.Partitions {
		out.Partitions = append(out.Partitions, fromPartition(p))
	}
	return out, nil
}

// DropPartition removes a partition.
func (s *catalogService) DropPartition(ctx context.Context, r *qnpb.DropPartitionRequest) (*qnpb.DropPartitionResponse, error) {
	return &qnpb.DropPartitionResponse{}, s.node.DropPartition(ctx, r.GetCollection(), r.GetPartition())
}

// CreateIndex says how a vector field is indexed.
func (s *catalogService) CreateIndex(ctx context.Context, r *qnpb.CreateIndexRequest) (*qnpb.CreateIndexResponse, error) {
	coll, err := s.node.Collection(ctx, r.GetCollection())
	if err != nil {
		return nil, err
	}
	ix, err := toIndex(r.GetIndex(), &coll.Schema)
	if err != nil {
		return nil, err
	}
	made, err := s.node.CreateIndex(ctx, r.GetCollection(), ix)
	if err != nil {
		return nil, err
	}
	return &qnpb.CreateIndexResponse{Index: fromIndex(made, &coll.Schema)}, nil
}

// DescribeIndex shows the indexes of a collection.
func (s *catalogService) DescribeIndex(ctx context.Context, r *qnpb.DescribeIndexRequest) (*qnpb.DescribeIndexResponse, error) {
	coll, err := s.node.Collection(ctx, r.GetCollection())
	if err != nil {
		return nil, err
	}
	out := &qnpb.DescribeIndexResponse{}
	for _, x := range coll.Indexes {
		if r.GetIndex() == "" || r.GetIndex() == x.Name {
			out.Indexes = append(out.Indexes, fromIndex(x, &coll.Schema))
		}
	}
	if r.GetIndex() != "" && len(out.Indexes) == 0 {
		return nil, errclass.With(errclass.New(errclass.NotFound, "collection %q has no index %q", coll.Name, r.GetIndex()), errclass.Index)
	}
	return out, nil
}

// DropIndex removes an index.
func (s *catalogService) DropIndex(ctx context.Context, r *qnpb.DropIndexRequest) (*qnpb.DropIndexResponse, error) {
	return &qnpb.DropIndexResponse{}, s.node.DropIndex(ctx, r.GetCollection(), r.GetIndex())
}

// CreateAlias gives a collection a second name.
func (s *catalogService) CreateAlias(ctx context.Context, r *qnpb.CreateAliasRequest) (*qnpb.CreateAliasResponse, error) {
	return &qnpb.CreateAliasResponse{}, s.node.CreateAlias(ctx, r.GetCollection(), r.GetAlias())
}

// AlterAlias points an alias to another collection.
func (s *catalogService) AlterAlias(ctx context.Context, r *qnpb.AlterAliasRequest) (*qnpb.AlterAliasResponse, error) {
	return &qnpb.AlterAliasResponse{}, s.node.AlterAlias(ctx, r.GetCollection(), r.GetAlias())
}

// ListAliases shows the aliases of a collection, or all; those of collections that cannot
// be read, which ListCollections names, are not among them.
func (s *catalogService) ListAliases(ctx context.Context, r *qnpb.ListAliasesRequest) (*qnpb.ListAliasesResponse, error) {
	var colls []*catalog.Collection
	if r.GetCollection() != "" {
		c, err := s.node.Collection(ctx, r.GetCollection())
		if err != nil {
			return nil, err
		}
		colls = []*catalog.Collection{c}
	} else {
		all, _, err := s.node.ReadableCollections(ctx)
		if err != nil {
			return nil, err
		}
		colls = all
	}
	out := &qnpb.ListAliasesResponse{Aliases: map[string]string{}}
	for _, c := range colls {
		for _, a := range c.Aliases {
			out.Aliases[a] = c.Name
		}
	}
	return out, nil
}

// DropAlias removes an alias.
func (s *catalogService) DropAlias(ctx context.Context, r *qnpb.DropAliasRequest) (*qnpb.DropAliasResponse, error) {
	return &qnpb.DropAliasResponse{}, s.node.DropAlias(ctx, r.GetAlias())
}

func (s *catalogService) describe(ctx context.Context, c *catalog.Collection) (*qnpb.Collection, error) {
	rows, segs, err := s.node.SealedRows(ctx, c)
	problem := ""
	if errclass.Is(err, errclass.Corrupt) || errclass.Is(err, errclass.Unimplemented) {
		rows, segs, problem, err = 0, 0, err.Error(), nil // the rest of it is known
	}
	if err != nil {
		return nil, err
	}
	out := &qnpb.Collection{
		Problem: problem,
		Id:      c.ID, Name: c.Name, Schema: fromSchema(&c.Schema), Aliases: c.Aliases, Properties: c.Properties,
		CreatedTimestamp: c.CreatedTimestamp, SealedRows: rows, SealedSegments: segs,
	}
	for _, p := range c.Partitions {
		out.Partitions = append(out.Partitions, fromPartition(p))
	}
	for _, x := range c.Indexes {
		out.Indexes = append(out.Indexes, fromIndex(x, &c.Schema))
	}
	for _, v := range c.VChannels {
		out.Channels = append(out.Channels, &qnpb.ChannelRef{Vchannel: v.Name, Pchannel: v.PChannel})
	}
	return out, nil
}

func fromPartition(p catalog.Partition) *qnpb.Partition {
	return &qnpb.Partition{Id: p.ID, Name: p.Name, CreatedTimestamp: p.CreatedTimestamp}
}

// toSchema gives the fields their ids, in order from schema.FirstFieldID. It
// returns what cannot be translated; the rest is for schema.Validate.
func toSchema(p *qnpb.CollectionSchema) (s schema.Schema, bad []error) {
	s = schema.Schema{Version: 1, Dynamic: p.GetDynamic()}
	for i, p := range p.GetFields() {
		f, err := rowpb.ToField(p)
		if err != nil {
			bad = append(bad, err)
		}
		f.ID = schema.FirstFieldID + int64(i)
		s.Fields = append(s.Fields, f)
	}
	for _, p := range p.GetFunctions() {
		f, err := rowpb.ToFunction(p, s.Fields)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		s.Functions = append(s.Functions, f)
	}
	return s, bad
}

func fromSchema(s *schema.Schema) *qnpb.CollectionSchema {
	out := &qnpb.CollectionSchema{Dynamic: s.Dynamic, Version: s.Version}
	for _, f := range s.Fields {
		out.Fields = append(out.Fields, rowpb.FromField(f))
	}
	for _, f := range s.Functions {
		out.Functions = append(out.Functions, rowpb.FromFunction(f, s))
	}
	return out
}

func toIndex(p *qnpb.IndexSpec, s *schema.Schema) (catalog.Index, error) {
	if p == nil {
		return catalog.Index{}, errclass.New(errclass.Invalid, "index: missing")
	}
	f, ok := s.Field(p.GetField())
	if !ok {
		return catalog.Index{}, errclass.With(errclass.New(errclass.NotFound, "index: the collection has no field %q", p.GetField()), errclass.Field)
	}
	return catalog.Index{Name: p.GetName(), FieldID: f.ID, Type: p.GetType(), Metric: p.GetMetric(), Params: p.GetParams()}, nil
}

func fromIndex(x catalog.Index, s *schema.Schema) *qnpb.IndexSpec {
	i := slices.IndexFunc(s.Fields, func(f schema.Field) bool { return f.ID == x.FieldID })
	name := ""
	if i >= 0 {
		name = s.Fields[i].Name
	}
	return &qnpb.IndexSpec{Name: x.Name, Field: name, Type: x.Type, Metric: x.Metric, Params: x.Params}
}
