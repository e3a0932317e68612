package main

import (
	"context"

	"github.com/cockroachdb/errors"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// readFlags are what searches and queries have in common.
type readFlags struct {
	Filter        string   `placeholder:"EXPR" help:"Only rows that match, e.g. 'length > 5 and word like \"ab%\"'."`
	Param         []string `sep:"none" placeholder:"NAME=VALUE" help:"Value of a {NAME} in --filter: a number, a text, true, false, or a list such as [1,2]. May be repeated."`
	Partition     []string `placeholder:"NAME" help:"Only these partitions. May be repeated."`
	OutputFields  []string `placeholder:"FIELD,..." help:"Fields to show; \"*\" = all."`
	IgnoreGrowing bool     `help:"Leave out rows that are not in sealed segments yet."`
	AllowPartial  bool     `help:"Rather an answer without the segments that fail than none; says what is missing."`
	Explain       bool     `help:"Show what was done in each segment, and what took how long."`
	At            uint64   `placeholder:"TIMESTAMP" help:"Read as of this timestamp instead of as of now."`
	Consistency   string   `enum:"strong,bounded,session,eventually" default:"bounded" help:"How fresh: strong = all that is acknowledged; bounded = at most 5 s old; session = since --guarantee; eventually = do not wait."`
	Guarantee     uint64   `placeholder:"TIMESTAMP" help:"With session: timestamp of your last write."`
}

func (f *readFlags) freshness() *qnpb.Freshness {
	levels := map[string]qnpb.ConsistencyLevel{
		"strong": qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_STRONG, "bounded": qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_BOUNDED,
		"session": qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_SESSION, "eventually": qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_EVENTUALLY,
	}
	return &qnpb.Freshness{Level: levels[f.Consistency], GuaranteeTimestamp: f.Guarantee, ReadTimestamp: f.At}
}

func (f *readFlags) check() error {
	if f.Guarantee != 0 && f.Consistency != "session" {
		return usage(errors.New("--guarantee goes with --consistency session"))
	}
	return nil
}

// describe fetches what the catalog knows of a collection.
func (c *client) describe(ctx context.Context, name string) (*qnpb.Collection, error) {
	ctx, cancel := c.answer(ctx)
	defer cancel()
	got, err := c.catalog.DescribeCollection(ctx, &qnpb.DescribeCollectionRequest{Collection: name})
	if err != nil {
		return nil, err
	}
	return got.GetCollection(), nil
}
