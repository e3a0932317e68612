package server

import (
	"context"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/node"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

const (
	// watchPause is how long changes are collected after some have been sent: a node
	// that loads a thousand segments does not tell everybody a thousand times.
	watchPause = 100 * time.Millisecond
	// catalogAge is how old the names of collections and partitions may be that
	// watchers are told. What is not known yet is always looked up.
	catalogAge = 5 * time.Second
)

// distributor makes what watchers are told: once for all of them, however many
// there are, and mostly without the catalog.
type distributor struct {
	node *node.Node
	// list returns the collections there are; see controlService.known.
	list func(context.Context) ([]*catalog.Collection, error)
	turn chan struct{} // capacity 1: whose turn it is has what follows

	last   *qnpb.Distribution
	colls  []*catalog.Collection
	listed time.Time
}

func newDistributor(n *node.Node, list func(context.Context) ([]*catalog.Collection, error)) *distributor {
	return &distributor{node: n, list: list, turn: make(chan struct{}, 1)}
}

// since returns what the node serves at a version or later. It is shared: nobody
// may change it.
func (d *distributor) since(ctx context.Context, version int64) (*qnpb.Distribution, error) {
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d.last != nil && d.last.Version >= version {
		return d.last, nil
	}
	if time.Since(d.listed) > catalogAge {
		if err := d.look(ctx); err != nil {
			return nil, err
		}
	}
	next, complete := describe(d.node, d.colls)
	if !complete { // there is something new
		if err := d.look(ctx); err != nil {
			return nil, err
		}
		next, _ = describe(d.node, d.colls)
	}
	d.last = next
	return next, nil
}

func (d *distributor) look(ctx context.Context) error {
	colls, err := d.list(ctx)
	if err == nil {
		d.colls, d.listed = colls, time.Now()
	}
	return err
}

// describe tells what is served of these collections, and whether they are all of
// which something is served, with their partitions.
func describe(n *node.Node, colls []*catalog.Collection) (d *qnpb.Distribution, complete bool) {
	version, _, _ := n.Version()
	d = &qnpb.Distribution{Node: n.Name(), Version: version}
	complete = true
	known := make(map[int64]bool, len(colls))
	for _, c := range colls {
		known[c.ID] = true
		some, all := segmentsOf(n, c)
		d.Segments, complete = append(d.Segments, some...), complete && all
	}
	for _, c := range n.Segments().Collections() {
		complete = complete && known[c.Info().ID]
	}
	for _, ch := range n.Channels() {
		st := &qnpb.ChannelStatus{Vchannel: ch.VChannel, Pchannel: ch.PChannel, Collection: ch.Collection, State: ch.State,
			Tsafe: ch.Tsafe, LagMillis: ch.Lag.Milliseconds()}
		if ch.Err != nil {
			st.Error = ch.Err.Error()
		}
		d.Channels = append(d.Channels, st)
	}
	return d, complete
}

// segmentsOf tells which segments of a collection are served, and whether the names
// of all their partitions are known.
func segmentsOf(n *node.Node, c *catalog.Collection) (out []*qnpb.SegmentStatus, complete bool) {
	served, ok := n.Segments().Collection(c.ID)
	if !ok {
		return nil, true
	}
	complete = true
	partition := func(id int64) string {
		for _, p := range c.Partitions {
			if p.ID == id {
				return p.Name
			}
		}
		complete = false
		return ""
	}
	for _, st := range served.Segments() {
		p := &qnpb.SegmentStatus{
			Id: st.ID, Collection: c.Name, Vchannel: st.VChannel, State: string(st.State), Rows: int64(st.Rows), DeletedRows: int64(st.DeletedRows),
			MemoryBytes: st.MemoryBytes, MappedBytes: st.MappedBytes, Indexes: map[string]string{}, Error: st.Error,
			MinTimestamp: st.MinTimestamp, MaxTimestamp: st.MaxTimestamp, Partition: partition(st.PartitionID),
			Tier: string(st.Tier), RemoteBytes: st.RemoteBytes,
		}
		for id, kind := range st.Indexes {
			if f, ok := c.Schema.FieldByID(id); ok {
				p.Indexes[f.Name] = kind
			}
		}
		out = append(out, p)
	}
	for _, b := range n.Broken(c.ID) {
		out = append(out, &qnpb.SegmentStatus{Id: b.SegmentID, Collection: c.Name, Vchannel: b.VChannel, State: string(segments.StateQuarantined), Rows: b.Rows, Error: b.Err.Error(),
			Partition: partition(b.PartitionID)})
	}
	return out, complete
}
