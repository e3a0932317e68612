package main

import (
	"context"

	"github.com/cockroachdb/errors"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type collectionAlterCmd struct {
	Collection string            `arg:"" help:"Name or alias of the collection."`
	Rename     string            `placeholder:"NAME" help:"New name."`
	Property   map[string]string `placeholder:"KEY=VALUE" help:"Set a property, such as collection.retention.seconds=86400. May be repeated."`
	Remove     []string          `placeholder:"KEY" help:"Remove a property. May be repeated."`
	clientFlags
}

// Help is shown by --help.
func (collectionAlterCmd) Help() string {
	return `Changes the name or the properties of a collection. Properties that the node knows: collection.retention.seconds (how
long reads in the past are answered), collection.ttl.seconds (when rows expire), collection.warmup (sync, async or none), and
timezone; others are kept as they are.

Example:
  querynode collection alter words --property collection.retention.seconds=86400
  querynode collection alter words --remove collection.retention.seconds
  querynode collection alter words --rename words_2026`
}

// Run changes the collection.
func (k *collectionAlterCmd) Run(a *app) error {
	req := &qnpb.AlterCollectionRequest{Collection: k.Collection, NewName: k.Rename, Properties: map[string]string{}}
	for key, value := range k.Property {
		if value == "" {
			return usage(errors.Newf("--property %s: it has no value; --remove %s removes it", key, key))
		}
		req.Properties[key] = value
	}
	for _, key := range k.Remove {
		if _, set := req.Properties[key]; set {
			return usage(errors.Newf("%s is to be set and removed: want one of the two", key))
		}
		req.Properties[key] = ""
	}
	if k.Rename == "" && len(req.GetProperties()) == 0 {
		return usage(errors.New("say what to change: --property, --remove or --rename"))
	}
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.catalog.AlterCollection(ctx, req)
		if err != nil {
			return err
		}
		coll := got.GetCollection()
		if c.out.JSON() {
			return c.out.Document(jsonOf(coll))
		}
		c.out.Printf("changed %s", coll.GetName())
		for _, key := range sortedKeys(coll.GetProperties()) {
			c.out.Printf("%s = %s", key, coll.GetProperties()[key])
		}
		return nil
	})
}
