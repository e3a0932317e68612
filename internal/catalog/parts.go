package catalog

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// CreatePartition adds a partition to a collection. A name that is taken is of
// class Exists, and the partition that has it is returned with the error.
func (c *Catalog) CreatePartition(ctx context.Context, collection, partition string, ts uint64) (Partition, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	if err := schema.CheckName("partition", partition); err != nil {
		return Partition{}, err
	}
	id, err := c.AllocateIDs(ctx, 1)
	if err != nil {
		return Partition{}, errors.Wrapf(err, "create partition %s", partition)
	}
	made := Partition{ID: id, Name: partition, CreatedTimestamp: ts}
	_, err = c.alter(ctx, "create partition "+partition+" of", collection, func(m *Collection, _ bool) error {
		old, there := m.Partition(partition)
		switch {
		case there && old.ID == id:
			return errUnchanged
		case there:
			made = old
			return errclass.With(errclass.New(errclass.Exists, "there is a partition %q already", partition), errclass.Partition)
		case len(m.Partitions) >= MaxPartitions:
			return errclass.With(errclass.New(errclass.Exhausted, "the collection has %d partitions, at most %d", len(m.Partitions), MaxPartitions), errclass.Limit)
		}
		m.Partitions = append(m.Partitions, made)
		return nil
	})
	if err != nil && !errclass.Is(err, errclass.Exists) {
		return Partition{}, err
	}
	return made, err
}

// DropPartition removes a partition other than "_default" and returns it. Its
// segments stay in their channels until the channel's owner removes them with
// CommitFlush: nobody reads the rows of a partition that is not there.
func (c *Catalog) DropPartition(ctx context.Context, collection, partition string) (Partition, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	if partition == DefaultPartition {
		return Partition{}, errclass.New(errclass.Invalid, "the partition %s cannot be dropped", DefaultPartition)
	}
	var gone Partition
	_, err := c.alter(ctx, "drop partition "+partition+" of", collection, func(m *Collection, repeated bool) error {
		old, there := m.Partition(partition)
		switch {
		case !there && repeated && gone.ID != 0:
			return errUnchanged
		case !there:
			return errclass.With(errclass.New(errclass.NotFound, "there is no partition %q; the collection has %s", partition, partitionNames(m)), errclass.Partition)
		}
		gone = old
		m.Partitions = slices.DeleteFunc(m.Partitions, func(p Partition) bool { return p.Name == partition })
		return nil
	})
	if err != nil {
		return Partition{}, err
	}
	return gone, nil
}

func partitionNames(c *Collection) string {
	var b strings.Builder
	for i, p := range c.Partitions {
		if i == 10 {
			b.WriteString(", ...")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p.Name)
	}
	return b.String()
}

// AddField adds a field to the schema of a collection, of which the version grows.
// The id is given here. The field has to be one that rows may lack; a vector field
// gets the index that CreateCollection would give it. A name that is taken is of class
// Exists.
func (c *Catalog) AddField(ctx context.Context, collection string, f schema.Field) (*Collection, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	switch {
	case f.PrimaryKey:
		return nil, errclass.New(errclass.Invalid, "add field %q: a collection has its primary key from the beginning", f.Name)
	case f.Type.IsVector() && !f.Nullable:
		return nil, errclass.New(errclass.Invalid, "add field %q: the rows that are there have no vectors of it: make it nullable", f.Name)
	case !f.MayBeAbsent():
		return nil, errclass.New(errclass.Invalid, "add field %q: the rows that are there lack it: make it nullable or give it a default value", f.Name)
	}
	return c.alter(ctx, "add field "+f.Name+" to", collection, func(m *Collection, repeated bool) error {
		if old, there := m.Schema.Field(f.Name); there {
			mine := f
			mine.ID = old.ID
			if repeated && mine == old {
				return errUnchanged
			}
			return errclass.With(errclass.New(errclass.Exists, "there is a field %q already", f.Name), errclass.Field)
		}
		f.ID = m.lastFieldID() + 1
		m.Schema.Fields = append(slices.Clone(m.Schema.Fields), f)
		m.Schema.Version++
		if err := m.Schema.Validate(); err != nil || !f.Type.IsVector() {
			return err
		}
		m.Indexes = append(slices.Clone(m.Indexes), m.defaultIndex(f.ID))
		return nil
	})
}

// defaultIndex is the index that a vector field has as long as nobody gives it another.
func (c *Collection) defaultIndex(fieldID int64) Index {
	x := Index{FieldID: fieldID, Default: true}
	x.ensureDefaults(&c.Schema)
	name := x.Name
	for n := 2; slices.ContainsFunc(c.Indexes, func(o Index) bool { return o.Name == x.Name }); n++ {
		x.Name = name[:min(len(name), schema.MaxNameBytes-8)] + "_" + strconv.Itoa(n)
	}
	return x
}

// lastFieldID is the largest id that a field has or had.
func (c *Collection) lastFieldID() int64 {
	last := max(c.LastFieldID, schema.FirstFieldID-1)
	for _, f := range c.Schema.Fields {
		last = max(last, f.ID)
	}
	return last
}

// DropField removes a field from the schema of a collection, of which the version
// grows, and the field's index. Its id is not used again, so that a field that gets
// the name later does not have its values. A field that is not there is of class NotFound.
func (c *Catalog) DropField(ctx context.Context, collection, field string) (*Collection, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	return c.alter(ctx, "drop field "+field+" of", collection, func(m *Collection, repeated bool) error {
		f, ok := m.Schema.Field(field)
		switch {
		case !ok && repeated:
			return errUnchanged
		case !ok:
			return errclass.With(errclass.New(errclass.NotFound, "there is no field %q", field), errclass.Field)
		case f.ID == schema.DynamicFieldID:
			return errclass.New(errclass.Invalid, "%q holds the keys that are no fields: it stays", field)
		case f.PrimaryKey:
			return errclass.New(errclass.Invalid, "field %q is the primary key", field)
		case f.Type.IsVector() && m.vectorFields() == 1:
			return errclass.New(errclass.Invalid, "field %q is the only vector field: a collection has one at least", field)
		}
		for _, fn := range m.Schema.Functions {
			switch f.ID {
			case fn.Input:
				return errclass.New(errclass.Invalid, "function %q reads field %q", fn.Name, field)
			case fn.Output:
				return errclass.New(errclass.Invalid, "function %q makes field %q", fn.Name, field)
			}
		}
		m.LastFieldID = m.lastFieldID()
		m.Schema.Fields = slices.DeleteFunc(slices.Clone(m.Schema.Fields), func(o schema.Field) bool { return o.ID == f.ID })
		m.Indexes = slices.DeleteFunc(m.Indexes, func(x Index) bool { return x.FieldID == f.ID })
		m.Schema.Version++
		return m.Schema.Validate()
	})
}

func (c *Collection) vectorFields() (n int) {
	for _, f := range c.Schema.Fields {
		if f.Type.IsVector() {
			n++
		}
	}
	return n
}

func sameIndex(a, b Index) bool {
	return a.Name == b.Name && a.FieldID == b.FieldID && a.Type == b.Type && a.Metric == b.Metric && a.Default == b.Default && maps.Equal(a.Params, b.Params)
}

// CreateIndex sets the index of a field and returns it with its defaults.
// It replaces the default index that CreateCollection gave the field; any other
// must be dropped first (class Exists; no error if it is equal).
func (c *Catalog) CreateIndex(ctx context.Context, collection string, x Index) (Index, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	x.Default = false
	x.Params = maps.Clone(x.Params)
	_, err := c.alter(ctx, "create index on", collection, func(m *Collection, _ bool) error {
		x.ensureDefaults(&m.Schema)
		if err := x.validate(&m.Schema); err != nil {
			return err
		}
		old, there := m.IndexOf(x.FieldID)
		switch {
		case there && sameIndex(old, x):
			return errUnchanged
		case there && !old.Default:
			return errclass.With(errclass.New(errclass.Exists, "the field has the index %q (%s, %s): drop it first", old.Name, old.Type, old.Metric), errclass.Indexed)
		}
		m.Indexes = slices.DeleteFunc(m.Indexes, func(o Index) bool { return o.FieldID == x.FieldID })
		if slices.ContainsFunc(m.Indexes, func(o Index) bool { return o.Name == x.Name }) {
			return errclass.With(errclass.New(errclass.Exists, "another field has an index %q: choose another name", x.Name), errclass.Index)
		}
		m.Indexes = append(m.Indexes, x)
		return nil
	})
	if err != nil {
		return Index{}, err
	}
	return x, nil
}

// DropIndex removes an index; the field is searched exactly from now on.
func (c *Catalog) DropIndex(ctx context.Context, collection, index string) error {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	_, err := c.alter(ctx, "drop index "+index+" of", collection, func(m *Collection, repeated bool) error {
		n := len(m.Indexes)
		m.Indexes = slices.DeleteFunc(m.Indexes, func(o Index) bool { return o.Name == index })
		switch {
		case len(m.Indexes) < n:
			return nil
		case repeated:
			return errUnchanged
		}
		return errclass.With(errclass.New(errclass.NotFound, "there is no index %q", index), errclass.Index)
	})
	return err
}

// CreateAlias gives a collection a further name. Collections and aliases share
// one name space; a name that is taken is of class Exists.
func (c *Catalog) CreateAlias(ctx context.Context, collection, alias string) error {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	if err := schema.CheckName("alias", alias); err != nil {
		return err
	}
	col, err := c.resolve(ctx, collection)
	if err == nil && len(col.Aliases) >= MaxAliases {
		err = tooManyAliases(col)
	}
	if err == nil {
		err = c.claimName(ctx, alias, col.ID)
	}
	if err == nil {
		_, err = c.changeLive(ctx, col.ID, func(m *Collection, _ bool) error { return m.addAlias(alias) })
	}
	return errors.Wrapf(err, "create alias %s of %s", alias, collection)
}

func tooManyAliases(c *Collection) error {
	return errclass.With(errclass.New(errclass.Exhausted, "collection %q has %d aliases, at most %d", c.Name, len(c.Aliases), MaxAliases), errclass.Limit)
}

func (c *Collection) addAlias(alias string) error {
	i, there := slices.BinarySearch(c.Aliases, alias)
	switch {
	case there:
		return errUnchanged
	case len(c.Aliases) >= MaxAliases:
		return tooManyAliases(c)
	}
	c.Aliases = slices.Insert(c.Aliases, i, alias)
	return nil
}

func (c *Collection) removeAlias(alias string) error {
	i, there := slices.BinarySearch(c.Aliases, alias)
	if !there {
		return errUnchanged
	}
	c.Aliases = slices.Delete(c.Aliases, i, i+1)
	return nil
}

// AlterAlias makes an alias lead to another collection, in one step for readers.
func (c *Catalog) AlterAlias(ctx context.Context, collection, alias string) error {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	err := c.alterAlias(ctx, collection, alias)
	return errors.Wrapf(err, "alter alias %s to %s", alias, collection)
}

func (c *Catalog) alterAlias(ctx context.Context, collection, alias string) error {
	from, err := c.byAlias(ctx, alias)
	if err != nil {
		return err
	}
	to, err := c.resolve(ctx, collection)
	if err != nil || to.ID == from.ID {
		return err
	}
	if _, err := c.changeLive(ctx, to.ID, func(m *Collection, _ bool) error {
		// Written even if it is listed already (a broken call left it): the new
		// version keeps Sweep from removing the listing under our feet.
		if err := m.addAlias(alias); !errors.Is(err, errUnchanged) {
			return err
		}
		return nil
	}); err != nil {
		return err
	}
	if err := c.moveName(ctx, alias, from.ID, to.ID); err != nil {
		return err
	}
	_, err = c.changeLive(ctx, from.ID, func(m *Collection, _ bool) error { return m.removeAlias(alias) })
	if err != nil && !errclass.Is(err, errclass.NotFound) {
		// The alias has moved; that the old collection still lists it is for Sweep.
		c.o.Logger.Warn("catalog: a collection lists an alias that has moved", "alias", alias, "collection", from.Name, "error", err)
	}
	return nil
}

// DropAlias removes an alias.
func (c *Catalog) DropAlias(ctx context.Context, alias string) error {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	col, err := c.byAlias(ctx, alias)
	if err == nil {
		_, err = c.changeLive(ctx, col.ID, func(m *Collection, _ bool) error { return m.removeAlias(alias) })
	}
	if err != nil {
		return errors.Wrapf(err, "drop alias %s", alias)
	}
	c.freeName(ctx, alias, col.ID)
	return nil
}

func (c *Catalog) byAlias(ctx context.Context, alias string) (*Collection, error) {
	col, err := c.resolve(ctx, alias)
	if err != nil {
		return nil, err
	}
	if col.Name == alias {
		return nil, errclass.New(errclass.Invalid, "%q is a collection, not an alias", alias)
	}
	return col, nil
}
