package main

import (
	"context"
	"math/rand/v2"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// addVector adds a vector field, and gives it another index than it has by itself, or not.
func (l *lane) addVector(ctx context.Context, r *rand.Rand) error {
	m := l.model
	v := m.spec.laterVector(r)
	if _, err := l.rig.catalog.AddField(ctx, &qnpb.AddFieldRequest{Collection: m.spec.name, Field: v.schema()}); err != nil {
		return err
	}
	var err error
	if r.IntN(2) == 0 {
		v.searched, v.coded = false, false // no segment has been built with the default
		v.reindex(r)
		_, err = l.rig.catalog.CreateIndex(ctx, &qnpb.CreateIndexRequest{Collection: m.spec.name, Index: v.indexSpec()})
	}
	m.addVector(v)
	return err
}

// dropVector drops a vector field, unless it is the only one or made of texts.
func (l *lane) dropVector(ctx context.Context, r *rand.Rand) error {
	m := l.model
	at := r.IntN(len(m.spec.vectors))
	v := &m.spec.vectors[at]
	if len(m.spec.vectors) == 1 || v.of != "" {
		return nil
	}
	_, err := l.rig.catalog.DropField(ctx, &qnpb.DropFieldRequest{Collection: m.spec.name, Field: v.name})
	m.dropVector(at)
	return err
}
