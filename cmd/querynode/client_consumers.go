package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type consumersCmd struct {
	clientFlags
}

// Help is shown by --help.
func (consumersCmd) Help() string {
	return `Shows every consumer of the message queue that the node has open, what it feeds and how far it is behind.
After a collection is released its consumers are gone from here and from the broker's own list.

Example:
  querynode consumers
  querynode consumers --json | jq '.consumers[] | select(.lag_millis > 1000) | .pchannel'`
}

// Run lists the consumers.
func (s *consumersCmd) Run(a *app) error {
	return s.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		got, err := c.admin.ListConsumers(ctx, &qnpb.ListConsumersRequest{})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got))
		}
		showOrNone(c.out, consumersTable(c.out, got.GetConsumers()), "no consumers")
		for _, x := range got.GetConsumers() {
			if x.GetError() != "" {
				c.out.Printf("consumer of %s: %s", x.GetPchannel(), c.out.Paint(console.Bad, x.GetError()))
			}
		}
		c.out.Printf("%d registered since the start, %d closed, %d leaked", got.GetRegistered(), got.GetClosed(), got.GetLeaked())
		return nil
	})
}

// consumersTable lists consumers; what says least goes first where there is no room.
func consumersTable(out *console.Console, list []*qnpb.Consumer) *console.Table {
	t := &console.Table{Columns: []console.Column{console.Left("topic"), console.Left("channels"), {Name: "kind", Spare: 1}, console.Left("state"),
		console.Right("behind"), {Name: "messages", Right: true, Spare: 2}, {Name: "rate", Right: true, Spare: 3}, {Name: "age", Right: true, Spare: 4}, {Name: "position", Spare: 5}}}
	for _, x := range list {
		lag := "?"
		if n := x.GetLagMessages(); n >= 0 {
			lag = console.Count(n)
		}
		t.Add(x.GetPchannel(), strings.Join(x.GetVchannels(), " "), x.GetKind(), out.Paint(stateStyle(x.GetState()), x.GetState()),
			behind(x.GetLagMillis()), lag, fmt.Sprintf("%.1f/s", x.GetRate()), (time.Duration(x.GetAgeSeconds()) * time.Second).String(), x.GetPosition())
	}
	return t
}
