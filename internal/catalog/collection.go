package catalog

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
)

// CollectionSpec describes a collection to be created.
type CollectionSpec struct {
	Name   string
	Schema schema.Schema
	Shards int // 1 to MaxShards; 0 = 1
	// PChannels carry the shards in turn, from a place that depends on the id, so
	// that collections spread. At least one.
	PChannels []string
	// Indexes of vector fields; one without gets AUTOINDEX with COSINE as default.
	Indexes          []Index
	Properties       map[string]string
	CreatedTimestamp uint64 // hybrid
}

func (s *CollectionSpec) prepare() error {
	if s.Shards == 0 {
		s.Shards = 1
	}
	s.Indexes = slices.Clone(s.Indexes)
	for i := range s.Indexes {
		s.Indexes[i].ensureDefaults(&s.Schema)
	}
	for _, f := range s.Schema.Fields {
		if f.Type.IsVector() && !slices.ContainsFunc(s.Indexes, func(x Index) bool { return x.FieldID == f.ID }) {
			x := Index{FieldID: f.ID, Default: true}
			x.ensureDefaults(&s.Schema)
			s.Indexes = append(s.Indexes, x)
		}
	}
	var p problems
	p.err(schema.CheckName("collection", s.Name))
	p.err(s.Schema.Validate())
	p.check(s.Shards >= 1 && s.Shards <= MaxShards, "%d shards, want 1 to %d", s.Shards, MaxShards)
	p.check(len(s.PChannels) > 0, "no pchannels, want at least one")
	for _, ch := range s.PChannels {
		p.err(checkPChannel(ch))
	}
	p.err(checkIndexes(s.Indexes, &s.Schema))
	p.err(checkProperties(s.Properties))
	return errclass.Wrap(p.join(errclass.Invalid), errclass.Invalid, "create collection %q", s.Name)
}

// equal reports whether the collection is what the spec would have made.
func (s *CollectionSpec) equal(c *Collection) bool {
	return s.Name == c.Name && s.Shards == len(c.VChannels) && reflect.DeepEqual(s.Schema, c.Schema) &&
		slices.EqualFunc(s.Indexes, c.Indexes, sameIndex) && maps.Equal(s.Properties, c.Properties)
}

// CreateCollection makes a collection with the partition "_default" and one
// channel per shard. A name that is taken is of class Exists; if a collection
// equal to the spec has it, that one is returned together with the error, so
// that a caller may count a repeated call as done. After a failure of another
// class the collection exists or not; the same call again tells.
func (c *Catalog) CreateCollection(ctx context.Context, spec CollectionSpec) (*Collection, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	if err := spec.prepare(); err != nil {
		return nil, err
	}
	e, _, err := c.loadName(ctx, spec.Name)
	if err == nil && e != nil {
		err = c.checkFree(ctx, e)
	}
	if err == nil {
		err = c.checkRoom(ctx)
	}
	if errclass.Is(err, errclass.Retryable) && ctx.Err() == nil {
		err = nil // claimName below tries again for as long as there is time
	}
	if err != nil {
		return c.existing(ctx, &spec, err)
	}
	ids, err := c.AllocateIDs(ctx, 2)
	if err != nil {
		return nil, errors.Wrapf(err, "create collection %s", spec.Name)
	}
	col := spec.build(ids, ids+1)
	if err := c.writeNew(ctx, col); err != nil {
		return nil, errors.Wrapf(err, "create collection %s", spec.Name)
	}
	if err := c.claimName(ctx, col.Name, col.ID); err != nil {
		if errclass.Is(err, errclass.Exists) {
			c.discard(ctx, col)
		}
		return c.existing(ctx, &spec, err)
	}
	// A call that slept longer than SweepAge may have lost its manifest to Sweep.
	if _, err := c.loadLive(ctx, col.ID); err != nil {
		return nil, errclass.Wrap(err, errclass.Retryable, "create collection %s: swept away before it was finished", spec.Name)
	}
	return col, nil
}

func (s *CollectionSpec) build(id, partitionID int64) *Collection {
	col := &Collection{
		ID: id, Name: s.Name, Schema: s.Schema, Indexes: s.Indexes, Properties: maps.Clone(s.Properties), CreatedTimestamp: s.CreatedTimestamp,
		Partitions: []Partition{{ID: partitionID, Name: DefaultPartition, CreatedTimestamp: s.CreatedTimestamp}},
	}
	for i := range s.Shards {
		p := s.PChannels[int((id+int64(i))%int64(len(s.PChannels)))]
		col.VChannels = append(col.VChannels, VChannel{Name: vchannelName(p, id, i), PChannel: p})
	}
	return col
}

// existing adds the collection that has the name to an Exists error, if it is
// what the spec asks for.
func (c *Catalog) existing(ctx context.Context, spec *CollectionSpec, err error) (*Collection, error) {
	err = errors.Wrapf(err, "create collection %s", spec.Name)
	if !errclass.Is(err, errclass.Exists) {
		return nil, err
	}
	if col, rerr := c.resolve(ctx, spec.Name); rerr == nil && spec.equal(col) {
		return col, err
	}
	return nil, err
}

func (c *Catalog) checkRoom(ctx context.Context) error {
	found, err := c.list(ctx, "collections/")
	if err == nil && len(found) >= MaxCollections {
		err = errclass.With(errclass.New(errclass.Exhausted, "there are %d collections (dropped ones count until they are swept), at most %d", len(found), MaxCollections), errclass.Limit)
	}
	return err
}

// writeNew writes the manifests of a collection that nobody knows yet: its id is
// ours alone, so that what is there is what an earlier try wrote.
func (c *Catalog) writeNew(ctx context.Context, col *Collection) error {
	if err := c.putNew(ctx, c.collectionKey(col.ID), col, maxCollectionBytes); err != nil {
		return err
	}
	for _, v := range col.VChannels {
		ch := &Channel{VChannel: v.Name, PChannel: v.PChannel, CollectionID: col.ID, Segments: []Segment{}, Deltas: []Delta{}}
		if err := c.putNew(ctx, c.channelKey(v.Name), ch, maxChannelBytes); err != nil {
			return err
		}
	}
	return nil
}

func (c *Catalog) putNew(ctx context.Context, key string, m manifest, limit int64) error {
	for try := 0; ; try++ {
		err := c.put(ctx, key, m, limit, "")
		if try > 0 && errors.Is(err, objstore.ErrPrecondition) {
			return nil
		}
		if err == nil {
			return nil
		}
		if errors.Is(err, objstore.ErrPrecondition) {
			return errclass.Wrap(err, errclass.Corrupt, "manifest %s is there although its id is new: was %s set back?", key, c.idsKey())
		}
		if err := c.again(ctx, key, err, try); err != nil {
			return err
		}
	}
}

// discard removes the manifests of a collection that lost the race for its name.
// What it leaves Sweep removes.
func (c *Catalog) discard(ctx context.Context, col *Collection) {
	for _, v := range col.VChannels {
		if c.o.Bucket.Delete(ctx, c.channelKey(v.Name)) != nil {
			return // the collection's manifest leads Sweep to the channels: it goes last
		}
	}
	_ = c.o.Bucket.Delete(ctx, c.collectionKey(col.ID))
}

// Collection returns the collection with the name or alias, or NotFound.
func (c *Catalog) Collection(ctx context.Context, nameOrAlias string) (*Collection, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	return c.resolve(ctx, nameOrAlias)
}

// CollectionByID returns the collection with the id, or NotFound.
func (c *Catalog) CollectionByID(ctx context.Context, id int64) (*Collection, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	col, err := c.loadCommitted(ctx, id)
	if errclass.Is(err, errclass.NotFound) {
		return nil, errclass.With(errclass.Wrap(err, errclass.NotFound, "there is no collection with id %d", id), errclass.Collection)
	}
	if err != nil {
		return nil, err
	}
	return col, nil
}

// loadCommitted reads a live collection that its name leads to.
func (c *Catalog) loadCommitted(ctx context.Context, id int64) (*Collection, error) {
	for name := ""; ; {
		col, err := c.loadLive(ctx, id)
		if err != nil {
			return nil, err
		}
		switch ok, err := c.committed(ctx, col); {
		case ok || err != nil:
			return col, err
		case col.Name == name:
			return nil, errclass.With(errclass.New(errclass.NotFound, "collection %d (%s) is not finished", id, col.Name), errclass.Collection)
		}
		// Or it was renamed, and its old name freed, between the two reads: then its
		// manifest has another name by now.
		name = col.Name
	}
}

// committed reports whether the collection's name leads to it.
func (c *Catalog) committed(ctx context.Context, col *Collection) (bool, error) {
	e, _, err := c.loadName(ctx, col.Name)
	return err == nil && e != nil && e.CollectionID == col.ID, err
}

// ListCollections returns all collections in order of their names. A manifest
// that cannot be read is left out and its error joined to the one returned, so
// that one bad manifest does not hide the others.
func (c *Catalog) ListCollections(ctx context.Context) ([]*Collection, error) {
	all, err := c.collections(ctx)
	for i, col := range all {
		all[i], _ = col.copied().(*Collection)
	}
	return all, err
}

// collections is ListCollections of manifests that the caller does not change. It
// reads those that have changed since they were read last, if the storage's listings
// tell.
func (c *Catalog) collections(ctx context.Context) ([]*Collection, error) {
	found, err := c.list(ctx, "collections/")
	if err != nil {
		return nil, err
	}
	names := map[string]string{} // key to ETag
	if len(found) > 0 && found[0].ETag != "" {
		listed, err := c.list(ctx, "names/")
		if err != nil {
			return nil, err
		}
		for _, info := range listed {
			names[info.Key] = info.ETag
		}
	}
	var all []*Collection
	var errs []error
	for _, info := range found {
		col, err := c.listed(ctx, info, names)
		switch {
		case err == nil && col != nil:
			all = append(all, col)
		case err == nil:
		case ctx.Err() != nil:
			return nil, err
		case !errclass.Is(err, errclass.NotFound):
			errs = append(errs, err)
		}
	}
	slices.SortFunc(all, func(a, b *Collection) int { return strings.Compare(a.Name, b.Name) })
	if len(errs) > 0 {
		// One that may pass decides, if there is one.
		of := slices.IndexFunc(errs, func(err error) bool { return !unreadable(err) })
		return all, errclass.Mark(errors.Join(errs...), errclass.Of(errs[max(of, 0)]))
	}
	return all, nil
}

// listed is CollectionByID of one that a listing has shown, by what the listings of
// collections and names say if that is enough; nil if the key is not of a collection.
func (c *Catalog) listed(ctx context.Context, info objstore.Info, names map[string]string) (*Collection, error) {
	id, ok := c.collectionID(info.Key)
	if !ok {
		return nil, nil
	}
	col := keptOf[Collection](&c.kept, info.Key, info.ETag)
	if col == nil {
		return c.CollectionByID(ctx, id)
	}
	if err := col.checkLive(info.Key, id); err != nil {
		return nil, err
	}
	key := c.nameKey(col.Name)
	if e := keptOf[nameEntry](&c.kept, key, names[key]); e != nil && e.Name == col.Name && e.CollectionID == id {
		return col, nil
	}
	return c.CollectionByID(ctx, id) // its name is not known, or was given away between the listings
}

// changeLive changes the manifest of a live collection.
func (c *Catalog) changeLive(ctx context.Context, id int64, fn func(col *Collection, repeated bool) error) (*Collection, error) {
	key := c.collectionKey(id)
	return change(ctx, c, key, maxCollectionBytes, func(col *Collection, repeated bool) error {
		if err := col.checkLive(key, id); err != nil {
			return err
		}
		return fn(col, repeated)
	})
}

// RenameCollection gives a collection another name; its aliases, id and data
// stay. old is its name, not an alias.
func (c *Catalog) RenameCollection(ctx context.Context, old, name string) (*Collection, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	if err := schema.CheckName("collection", name); err != nil {
		return nil, err
	}
	col, err := c.byName(ctx, old)
	if err != nil {
		return nil, errors.Wrapf(err, "rename collection %s", old)
	}
	if old == name {
		return col, nil
	}
	if err := c.claimName(ctx, name, col.ID); err != nil {
		return nil, errors.Wrapf(err, "rename collection %s to %s", old, name)
	}
	col, err = c.changeLive(ctx, col.ID, func(m *Collection, repeated bool) error {
		switch {
		case m.Name == name && repeated:
			return errUnchanged
		case m.Name != old:
			return errclass.New(errclass.Conflict, "it was renamed to %q meanwhile", m.Name)
		}
		m.Name = name
		_ = m.removeAlias(name) // a listing that a broken AlterAlias left; the claim proves that it leads nowhere
		return nil
	})
	if err != nil {
		return nil, errors.Wrapf(err, "rename collection %s to %s", old, name)
	}
	c.freeName(ctx, old, col.ID)
	return col, nil
}

// byName is resolve for calls that want the name, not an alias.
func (c *Catalog) byName(ctx context.Context, name string) (*Collection, error) {
	col, err := c.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	if col.Name != name {
		return nil, errclass.New(errclass.Invalid, "%q is an alias of collection %q: use the collection's name", name, col.Name)
	}
	return col, nil
}

// DropCollection drops the collection at the hybrid timestamp ts (> 0) and frees
// its name and aliases. Its manifests and files stay until Sweep removes them.
func (c *Catalog) DropCollection(ctx context.Context, name string, ts uint64) (*Collection, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	if ts == 0 {
		return nil, errclass.New(errclass.Invalid, "drop collection %s: the timestamp is 0", name)
	}
	col, err := c.byName(ctx, name)
	if err != nil {
		return nil, errors.Wrapf(err, "drop collection %s", name)
	}
	key := c.collectionKey(col.ID)
	col, err = change(ctx, c, key, maxCollectionBytes, func(m *Collection, repeated bool) error {
		if repeated && m.DroppedTimestamp == ts {
			return errUnchanged
		}
		if err := m.checkLive(key, col.ID); err != nil {
			return err
		}
		if m.Name != name {
			return errclass.New(errclass.Conflict, "it was renamed to %q meanwhile", m.Name)
		}
		m.DroppedTimestamp = ts
		return nil
	})
	if err != nil {
		return nil, errors.Wrapf(err, "drop collection %s", name)
	}
	for _, n := range append([]string{col.Name}, col.Aliases...) {
		c.freeName(ctx, n, col.ID)
	}
	return col, nil
}

// AlterProperties sets properties of a collection; an empty value removes the key.
func (c *Catalog) AlterProperties(ctx context.Context, nameOrAlias string, set map[string]string) (*Collection, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	if err := checkProperties(set); err != nil {
		return nil, errors.Wrapf(err, "alter collection %s", nameOrAlias)
	}
	return c.alter(ctx, "alter collection", nameOrAlias, func(m *Collection, _ bool) error {
		before := maps.Clone(m.Properties)
		if m.Properties == nil {
			m.Properties = map[string]string{}
		}
		for k, v := range set {
			m.Properties[k] = v
			if v == "" {
				delete(m.Properties, k)
			}
		}
		if maps.Equal(before, m.Properties) {
			return errUnchanged
		}
		return nil
	})
}

// alter changes the collection that the name leads to.
func (c *Catalog) alter(ctx context.Context, what, nameOrAlias string, fn func(col *Collection, repeated bool) error) (*Collection, error) {
	col, err := c.resolve(ctx, nameOrAlias)
	if err == nil {
		col, err = c.changeLive(ctx, col.ID, fn)
	}
	if err != nil {
		return nil, errors.Wrapf(err, "%s %s", what, nameOrAlias)
	}
	return col, nil
}
