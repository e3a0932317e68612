package main

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/cockroachdb/errors"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type logLevelCmd struct {
	Level string `arg:"" enum:"debug,info,warn,error" help:"debug, info, warn or error."`
	clientFlags
}

// Help is shown by --help.
func (logLevelCmd) Help() string {
	return `Changes what a node logs, until it is told otherwise or ends. The level of its next start is log.level.

Example:
  querynode log-level debug`
}

// Run changes the level.
func (k *logLevelCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.admin.SetLogLevel(ctx, &qnpb.SetLogLevelRequest{Level: k.Level})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(map[string]any{"level": k.Level, "previous": got.GetPrevious()})
		}
		c.out.Printf("the log level is %s, was %s", k.Level, got.GetPrevious())
		return nil
	})
}

type dumpCmd struct {
	clientFlags
}

// Help is shown by --help.
func (dumpCmd) Help() string {
	return `Writes the whole state of a node as one JSON document, with --json and without: for a report of a bug, or a closer
look. What is in it may change between versions; programs read "querynode status --json".

Example:
  querynode dump > state.json`
}

// Run writes the state.
func (d *dumpCmd) Run(a *app) error {
	return d.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.admin.DumpState(ctx, &qnpb.DumpStateRequest{})
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := json.Indent(&b, []byte(got.GetJson()), "", "  "); err != nil {
			return errors.Wrap(err, "the node's answer")
		}
		b.WriteByte('\n')
		_, err = b.WriteTo(a.stdout)
		return errors.Wrap(err, "write the state")
	})
}
