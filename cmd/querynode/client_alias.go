package main

import (
	"context"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type aliasCmd struct {
	Create aliasCreateCmd `cmd:"" help:"Give a collection a further name."`
	Alter  aliasAlterCmd  `cmd:"" help:"Point an alias to another collection, in one step."`
	List   aliasListCmd   `cmd:"" help:"List the aliases."`
	Drop   aliasDropCmd   `cmd:"" help:"Drop an alias; the collection stays."`
}

type aliasCreateCmd struct {
	Alias      string `arg:"" help:"The alias; collections and aliases share one name space."`
	Collection string `arg:"" help:"Name of the collection."`
	clientFlags
}

// Help is shown by --help.
func (aliasCreateCmd) Help() string {
	return `Example:
  querynode alias create words words_2026`
}

// Run makes the alias.
func (k *aliasCreateCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		if _, err := c.catalog.CreateAlias(ctx, &qnpb.CreateAliasRequest{Collection: k.Collection, Alias: k.Alias}); err != nil {
			return err
		}
		return c.showAlias(k.Alias, k.Collection)
	})
}

func (c *client) showAlias(alias, collection string) error {
	if c.out.JSON() {
		return c.out.Document(map[string]any{"alias": alias, "collection": collection})
	}
	c.out.Printf("%s is %s", alias, collection)
	return nil
}

type aliasAlterCmd struct {
	Alias      string `arg:"" help:"The alias."`
	Collection string `arg:"" help:"Name of the collection that it points to from now on."`
	clientFlags
}

// Help is shown by --help.
func (aliasAlterCmd) Help() string {
	return `Points an alias to another collection. Whoever uses the alias is served by the one or the other, never by none.

Example:
  querynode alias alter words words_2027`
}

// Run points the alias elsewhere.
func (k *aliasAlterCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		if _, err := c.catalog.AlterAlias(ctx, &qnpb.AlterAliasRequest{Collection: k.Collection, Alias: k.Alias}); err != nil {
			return err
		}
		return c.showAlias(k.Alias, k.Collection)
	})
}

type aliasListCmd struct {
	Collection string `arg:"" optional:"" help:"Name of a collection: only its aliases."`
	clientFlags
}

// Help is shown by --help.
func (aliasListCmd) Help() string {
	return `Example:
  querynode alias list`
}

// Run lists the aliases.
func (k *aliasListCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.catalog.ListAliases(ctx, &qnpb.ListAliasesRequest{Collection: k.Collection})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got)["aliases"])
		}
		t := &console.Table{Columns: []console.Column{console.Left("alias"), console.Left("collection")}}
		for _, name := range sortedKeys(got.GetAliases()) {
			t.Add(name, got.GetAliases()[name])
		}
		showOrNone(c.out, t, "no aliases")
		return nil
	})
}

type aliasDropCmd struct {
	Alias string `arg:"" help:"The alias."`
	clientFlags
}

// Help is shown by --help.
func (aliasDropCmd) Help() string {
	return `Example:
  querynode alias drop words`
}

// Run drops the alias.
func (k *aliasDropCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		if _, err := c.catalog.DropAlias(ctx, &qnpb.DropAliasRequest{Alias: k.Alias}); err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(map[string]any{"dropped": k.Alias})
		}
		c.out.Printf("dropped alias %s", k.Alias)
		return nil
	})
}
