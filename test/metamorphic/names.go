package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// called is one of the names that the collection goes by.
func (s *spec) called(seed uint64) string {
	if n := seed % uint64(len(s.aliases)+1); n > 0 {
		return s.aliases[n-1]
	}
	return s.name
}

// rename changes the names that the collection goes by: its own, or an alias. One that leads to
// another collection for a while shows what is in that one.
func (l *lane) rename(ctx context.Context, o *op) error {
	s, r := l.model.spec, rand.New(rand.NewPCG(o.Seed, 0xa11a5))
	alias := fmt.Sprintf("lane%d_also%d", l.number, r.IntN(3))
	there := slices.Contains(s.aliases, alias)
	switch {
	case r.IntN(4) == 0:
		was := s.name
		s.name = fmt.Sprintf("lane%d_%d_%d", l.number, l.made, o.ID)
		if _, err := l.rig.catalog.AlterCollection(ctx, &qnpb.AlterCollectionRequest{Collection: was, NewName: s.name}); err != nil {
			return err
		}
		return l.unknown(ctx, o, was)
	case !there:
		_, err := l.rig.catalog.CreateAlias(ctx, &qnpb.CreateAliasRequest{Collection: s.called(o.Seed), Alias: alias})
		s.aliases = append(s.aliases, alias)
		return err
	case r.IntN(2) == 0:
		return l.lend(ctx, o, alias)
	}
	s.aliases = slices.DeleteFunc(s.aliases, func(a string) bool { return a == alias })
	if _, err := l.rig.catalog.DropAlias(ctx, &qnpb.DropAliasRequest{Alias: alias}); err != nil {
		return err
	}
	return l.unknown(ctx, o, alias)
}

// unknown checks that a name leads nowhere.
func (l *lane) unknown(ctx context.Context, o *op, name string) error {
	_, err := l.ask(ctx, o, &qnpb.QueryRequest{Collection: name, OutputFields: []string{"count(*)"}})
	if status.Code(err) != codes.NotFound {
		return o.differs("nothing is called %s any more, and a read of it ends with %v", name, err)
	}
	return nil
}

// lend has an alias lead to a collection with one row, and back.
func (l *lane) lend(ctx context.Context, o *op, alias string) error {
	other, s := fmt.Sprintf("lane%d_other", l.number), l.model.spec
	_, err := l.rig.catalog.CreateCollection(ctx, &qnpb.CreateCollectionRequest{Name: other, Schema: &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{
		{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true}, {Name: "v", Type: float32s, Dim: 2}}}})
	if err != nil {
		return err
	}
	if _, err := l.rig.catalog.AlterAlias(ctx, &qnpb.AlterAliasRequest{Collection: other, Alias: alias}); err != nil {
		return err
	}
	row := &qnpb.InsertOperation{Rows: 1, Fields: []*qnpb.FieldData{idData(ints([]int64{7})), {Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: floatsOf(2, [][]float64{{1, 0}})}}}}
	if _, err := l.rig.write.Append(ctx, &qnpb.AppendRequest{Collection: alias, Operation: &qnpb.AppendRequest_Insert{Insert: row}}); err != nil {
		return err
	}
	got, err := l.ask(ctx, o, &qnpb.QueryRequest{Collection: alias, OutputFields: []string{"count(*)"},
		Freshness: &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_STRONG}})
	if err != nil {
		return err
	}
	if n := got.last.GetCount(); n != 1 {
		return o.differs("%s leads to a collection with one row, and %d are counted", alias, n)
	}
	d, err := l.rig.catalog.DescribeCollection(ctx, &qnpb.DescribeCollectionRequest{Collection: other})
	if err != nil {
		return err
	}
	if has := d.GetCollection().GetAliases(); !slices.Equal(has, []string{alias}) {
		return o.differs("%s has the aliases %v, want %s", other, has, alias)
	}
	if _, err = l.rig.catalog.AlterAlias(ctx, &qnpb.AlterAliasRequest{Collection: s.name, Alias: alias}); err != nil {
		return err
	}
	_, err = l.rig.catalog.DropCollection(ctx, &qnpb.DropCollectionRequest{Collection: other})
	return err
}
