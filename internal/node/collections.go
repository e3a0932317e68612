package node

import (
	"context"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/segments"
)

// Collection returns the collection of a name or alias. What it returns is
// shared: do not change it.
func (n *Node) Collection(ctx context.Context, name string) (*catalog.Collection, error) {
	if name == "" {
		return nil, errclass.New(errclass.Invalid, "collection: the name is missing")
	}
	return n.names.get(ctx, name, n.lookUp)
}

func (n *Node) lookUp(ctx context.Context, name string) (*catalog.Collection, error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	return n.o.Catalog.Collection(ctx, name)
}

// current is Collection for writes: it knows what other nodes have changed before the
// call. Rows for a partition, or a collection, that another node has dropped and made
// anew would be acknowledged, and go with the old one. A node that has the queue for
// itself makes all changes.
func (n *Node) current(ctx context.Context, name string) (*catalog.Collection, error) {
	if n.o.Sole || name == "" {
		return n.Collection(ctx, name)
	}
	return n.names.renew(ctx, name, n.lookUp)
}

// Collections returns all collections in order of their names.
func (n *Node) Collections(ctx context.Context) ([]*catalog.Collection, error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	return n.o.Catalog.ListCollections(ctx)
}

// ReadableCollections returns the collections that can be read, in order of their names,
// and why others cannot: their manifests are damaged, or of a newer build. A failure that
// may pass is err.
func (n *Node) ReadableCollections(ctx context.Context) (colls []*catalog.Collection, bad []error, err error) {
	colls, err = n.Collections(ctx)
	if err == nil || !unreadable(err) {
		return colls, nil, err
	}
	var all interface{ Unwrap() []error }
	if errors.As(err, &all) {
		return colls, all.Unwrap(), nil
	}
	return colls, []error{err}, nil
}

// NewCollection describes a collection to create. Indexes name their fields by
// id, which are set by position: schema.FirstFieldID for the first field.
type NewCollection struct {
	Name       string
	Schema     schema.Schema // field ids are assigned here
	Shards     int           // 0 = 1
	Indexes    []catalog.Index
	Properties map[string]string
}

// CreateCollection makes a collection; a standalone node serves it from then on.
func (n *Node) CreateCollection(ctx context.Context, c NewCollection) (*catalog.Collection, error) {
	if c.Shards == 0 {
		c.Shards = 1
	}
	if err := checkProperties(c.Properties); err != nil {
		return nil, err
	}
	if err := checkFieldNames(c.Schema.Fields...); err != nil {
		return nil, err
	}
	defer n.names.forget()
	call, cancel := n.call(ctx)
	defer cancel()
	coll, err := n.o.Catalog.CreateCollection(call, catalog.CollectionSpec{
		Name: c.Name, Schema: c.Schema, Shards: c.Shards, PChannels: n.o.PChannels,
		Indexes: c.Indexes, Properties: c.Properties, CreatedTimestamp: n.now(),
	})
	if err != nil {
		return coll, err
	}
	n.names.forget()
	if n.o.Standalone {
		// The collection exists whatever becomes of this: the keeper tries again.
		if _, err := n.LoadCollection(ctx, coll.Name); err != nil {
			n.o.Logger.Warn("node: new collection is not served yet", "collection", coll.Name, "error", err)
			n.Kick()
		}
	}
	return coll, nil
}

// AlterCollection renames a collection or changes its properties.
func (n *Node) AlterCollection(ctx context.Context, name, newName string, properties map[string]string) (*catalog.Collection, error) {
	if err := checkProperties(properties); err != nil {
		return nil, err
	}
	defer n.names.forget()
	ctx, cancel := n.call(ctx)
	defer cancel()
	if newName != "" && newName != name {
		if _, err := n.o.Catalog.RenameCollection(ctx, name, newName); err != nil {
			return nil, err
		}
		name = newName
	}
	if len(properties) == 0 {
		return n.o.Catalog.Collection(ctx, name)
	}
	coll, err := n.o.Catalog.AlterProperties(ctx, name, properties)
	if err != nil {
		return nil, err
	}
	return coll, n.refreshInfo(ctx, name)
}

// AddField adds a field to a collection: rows that are there read as its default
// value, or null.
func (n *Node) AddField(ctx context.Context, collection string, f schema.Field) (*catalog.Collection, error) {
	if err := checkFieldNames(f); err != nil {
		return nil, err
	}
	defer n.names.forget()
	ctx, cancel := n.call(ctx)
	defer cancel()
	coll, err := n.o.Catalog.AddField(ctx, collection, f)
	if err != nil {
		return nil, err
	}
	return coll, n.update(coll)
}

// checkFieldNames refuses new fields that no filter could name. Collections of earlier
// versions may have such fields.
func checkFieldNames(fields ...schema.Field) error {
	for _, f := range fields {
		if expr.IsWord(f.Name) {
			return errclass.New(errclass.Invalid, "field %q: it is a word of filters, which could not name the field", f.Name)
		}
	}
	return nil
}

// DropField removes a field of a collection: reads know it no more, its values stay
// in segments until these are rewritten.
func (n *Node) DropField(ctx context.Context, collection, field string) (*catalog.Collection, error) {
	defer n.names.forget()
	ctx, cancel := n.call(ctx)
	defer cancel()
	coll, err := n.o.Catalog.DropField(ctx, collection, field)
	if err != nil {
		return nil, err
	}
	n.names.forget() // so that no more reads of the field are planned
	return coll, n.update(coll)
}

// DropCollection removes a collection: readers lose it at once, its files go later.
func (n *Node) DropCollection(ctx context.Context, name string) error {
	defer n.names.forget()
	call, cancel := n.call(ctx)
	defer cancel()
	coll, err := n.o.Catalog.Collection(call, name)
	if err != nil {
		return err
	}
	if _, err := n.o.Catalog.DropCollection(call, name, n.now()); err != nil {
		return err
	}
	n.names.forget()
	n.tellDropped(ctx, coll, 0)
	return n.unserve(ctx, coll.ID)
}

// CreatePartition adds a partition.
func (n *Node) CreatePartition(ctx context.Context, collection, name string) (catalog.Partition, error) {
	defer n.names.forget()
	ctx, cancel := n.call(ctx)
	defer cancel()
	return n.o.Catalog.CreatePartition(ctx, collection, name, n.now())
}

// DropPartition removes a partition and its rows.
func (n *Node) DropPartition(ctx context.Context, collection, name string) error {
	defer n.names.forget()
	call, cancel := n.call(ctx)
	defer cancel()
	coll, err := n.o.Catalog.Collection(call, collection)
	if err != nil {
		return err
	}
	p, err := n.o.Catalog.DropPartition(call, collection, name)
	if err != nil {
		return err
	}
	n.names.forget()
	if c, ok := n.o.Segments.Collection(coll.ID); ok {
		c.DropPartition(p.ID)
	}
	n.tellDropped(ctx, coll, p.ID)
	return nil
}

// CreateIndex says how a field is indexed from now on.
func (n *Node) CreateIndex(ctx context.Context, collection string, ix catalog.Index) (catalog.Index, error) {
	defer n.names.forget()
	ctx, cancel := n.call(ctx)
	defer cancel()
	made, err := n.o.Catalog.CreateIndex(ctx, collection, ix)
	if err != nil {
		return made, err
	}
	return made, n.refreshInfo(ctx, collection)
}

// DropIndex removes an index: new segments are searched exactly.
func (n *Node) DropIndex(ctx context.Context, collection, name string) error {
	defer n.names.forget()
	ctx, cancel := n.call(ctx)
	defer cancel()
	if err := n.o.Catalog.DropIndex(ctx, collection, name); err != nil {
		return err
	}
	return n.refreshInfo(ctx, collection)
}

func (n *Node) refreshInfo(ctx context.Context, collection string) error {
	coll, err := n.o.Catalog.Collection(ctx, collection)
	if err != nil {
		return err
	}
	return n.update(coll)
}

// update tells what is served of a collection what the catalog has of it.
func (n *Node) update(coll *catalog.Collection) error {
	c, ok := n.o.Segments.Collection(coll.ID)
	if !ok {
		return nil
	}
	info, err := collectionInfo(coll)
	if err != nil {
		return err
	}
	c.Update(info)
	return nil
}

// refreshSchema brings a collection that is served up to the catalog's schema. A
// collection that the catalog does not have any more stays as it is: it goes soon.
func (n *Node) refreshSchema(ctx context.Context, id int64) error {
	ctx, cancel := n.call(ctx)
	defer cancel()
	coll, err := n.o.Catalog.CollectionByID(ctx, id)
	switch {
	case errclass.Is(err, errclass.NotFound):
		return nil
	case err != nil:
		return errclass.Mark(err, errclass.Retryable)
	}
	n.names.forget()
	return n.update(coll)
}

// catchUp gives what is served of a collection the schema of coll, by which a read
// was planned, if it is newer.
func (n *Node) catchUp(coll *catalog.Collection, served *segments.Collection) error {
	if coll.Schema.Version <= served.Info().Schema.Version {
		return nil
	}
	return n.update(coll)
}

// CreateAlias gives a collection a second name.
func (n *Node) CreateAlias(ctx context.Context, collection, alias string) error {
	defer n.names.forget()
	ctx, cancel := n.call(ctx)
	defer cancel()
	return n.o.Catalog.CreateAlias(ctx, collection, alias)
}

// AlterAlias points an alias elsewhere.
func (n *Node) AlterAlias(ctx context.Context, collection, alias string) error {
	defer n.names.forget()
	ctx, cancel := n.call(ctx)
	defer cancel()
	return n.o.Catalog.AlterAlias(ctx, collection, alias)
}

// DropAlias removes an alias.
func (n *Node) DropAlias(ctx context.Context, alias string) error {
	defer n.names.forget()
	ctx, cancel := n.call(ctx)
	defer cancel()
	return n.o.Catalog.DropAlias(ctx, alias)
}

// SealedRows counts what the catalog has of a collection as sealed.
func (n *Node) SealedRows(ctx context.Context, coll *catalog.Collection) (rows int64, segments int64, err error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	for _, v := range coll.VChannels {
		ch, err := n.o.Catalog.Channel(ctx, v.Name)
		if err != nil {
			return 0, 0, err
		}
		for _, s := range ch.Segments {
			rows += s.Rows
			segments++
		}
	}
	return rows, segments, nil
}

// partitionIDs returns the ids of the named partitions; no names = none = all.
func partitionIDs(c *catalog.Collection, names []string) ([]int64, error) {
	ids := make([]int64, 0, len(names))
	for _, name := range names {
		p, ok := c.Partition(name)
		if !ok {
			return nil, errclass.With(errclass.New(errclass.NotFound, "collection %q has no partition %q", c.Name, name), errclass.Partition)
		}
		if !slices.Contains(ids, p.ID) {
			ids = append(ids, p.ID)
		}
	}
	return ids, nil
}
