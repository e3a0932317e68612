package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/segments"
)

// complete is an error if the node has set aside a message of a collection ("" = of any): its rows are nowhere.
func (g *rig) complete(collection string) error {
	for _, ch := range g.node.Channels() {
		if ch.Quarantined > 0 && (collection == "" || ch.Collection == collection) {
			return errors.Newf("%d messages of channel %s of %s are set aside", ch.Quarantined, ch.VChannel, ch.Collection)
		}
	}
	return nil
}

// describe says what is served of a collection, and what is stored, for somebody who looks for a row.
func (g *rig) describe(ctx context.Context, name string) string {
	var b strings.Builder
	coll, err := g.store.Collection(ctx, name)
	if err != nil {
		return err.Error()
	}
	for _, p := range coll.Partitions {
		fmt.Fprintf(&b, "partition %d is %s; ", p.ID, p.Name)
	}
	for _, c := range g.set.Collections() {
		if c.Info().ID == coll.ID {
			describeServed(&b, c)
		}
	}
	for _, v := range coll.VChannels {
		c, err := g.store.Channel(ctx, v.Name)
		if err != nil {
			fmt.Fprintf(&b, "%v; ", err)
			continue
		}
		fmt.Fprintf(&b, "%s is stored up to %d in", v.Name, c.CheckpointTimestamp)
		for _, s := range c.Segments {
			fmt.Fprintf(&b, " %d(partition %d, %d rows, %d to %d, folded %d)", s.ID, s.PartitionID, s.Rows, s.MinTimestamp, s.MaxTimestamp, s.FoldedTimestamp)
		}
		b.WriteString("; ")
	}
	return b.String()
}

func describeServed(b *strings.Builder, c *segments.Collection) {
	for _, ch := range c.Channels() {
		fmt.Fprintf(b, "%s is read up to %d; ", ch.Name(), ch.Tsafe())
	}
	for _, st := range c.Segments() {
		fmt.Fprintf(b, "%s %d of %s (partition %d, %d rows, %d deleted, %d to %d); ", st.State, st.ID, st.VChannel, st.PartitionID, st.Rows, st.DeletedRows, st.MinTimestamp, st.MaxTimestamp)
	}
}
