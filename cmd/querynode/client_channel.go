package main

import (
	"context"
	"strings"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type channelCmd struct {
	Assign  channelAssignCmd  `cmd:"" help:"Give a node the write-ahead log of a topic."`
	Remove  channelRemoveCmd  `cmd:"" help:"Take the write-ahead log of a topic away from a node."`
	Watch   channelWatchCmd   `cmd:"" help:"Have a node follow channels of a collection."`
	Unwatch channelUnwatchCmd `cmd:"" help:"Have a node follow channels of a collection no more."`
}

type channelAssignCmd struct {
	Topic string `arg:"" help:"Topic of the message queue, such as querynode-dml-0."`
	Term  uint64 `placeholder:"N" help:"Fencing number, higher than that of any owner before; 0 = the next one of the catalog."`
	clientFlags
}

// Help is shown by --help.
func (channelAssignCmd) Help() string {
	return `Makes a node the owner of a topic's write-ahead log: writes go there, and whoever owned it before is fenced. A node with
node.standalone takes all logs by itself; this is for nodes that others tell what to do.

Example:
  querynode channel assign querynode-dml-0 --addr 10.0.0.7:19530`
}

// Run assigns the log.
func (k *channelAssignCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.work(ctx)
		defer cancel()
		got, err := c.write.AssignChannel(ctx, &qnpb.AssignChannelRequest{Pchannel: k.Topic, Term: k.Term})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got))
		}
		if got.GetIgnored() {
			c.out.Printf("nothing changed: the log of %s has term %d already", k.Topic, got.GetTerm())
			return nil
		}
		c.out.Printf("the node owns the log of %s with term %d", k.Topic, got.GetTerm())
		return nil
	})
}

type channelRemoveCmd struct {
	Topic string `arg:"" help:"Topic of the message queue."`
	Term  uint64 `placeholder:"N" help:"The term that ends; 0 = whatever is in force."`
	clientFlags
}

// Help is shown by --help.
func (channelRemoveCmd) Help() string {
	return `Closes a topic's write-ahead log on a node. What was acknowledged stays in the queue, for the next owner.

Example:
  querynode channel remove querynode-dml-0 --addr 10.0.0.7:19530`
}

// Run removes the log.
func (k *channelRemoveCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.work(ctx)
		defer cancel()
		got, err := c.write.RemoveChannel(ctx, &qnpb.RemoveChannelRequest{Pchannel: k.Topic, Term: k.Term})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got))
		}
		if got.GetIgnored() {
			c.out.Printf("nothing changed: the log of %s has a later term", k.Topic)
			return nil
		}
		c.out.Printf("the node does not own the log of %s any more", k.Topic)
		return nil
	})
}

type channelWatchCmd struct {
	Collection string   `arg:"" help:"Name or alias of the collection."`
	Channel    []string `arg:"" optional:"" help:"Its channels; none = all. querynode collection describe lists them."`
	clientFlags
}

// Help is shown by --help.
func (channelWatchCmd) Help() string {
	return `Has a node read channels of a collection from the message queue, so that rows that are not in sealed segments are
found there. "querynode load" does so too, and loads the sealed segments.

Example:
  querynode channel watch words
  querynode channel watch words querynode-dml-0_1v0`
}

// Run watches the channels.
func (k *channelWatchCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.work(ctx)
		defer cancel()
		got, err := c.control.WatchChannels(ctx, &qnpb.WatchChannelsRequest{Collection: k.Collection, Vchannels: k.Channel})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got))
		}
		c.out.Printf("watched of %s: %s", k.Collection, strings.Join(got.GetVchannels(), ", "))
		return nil
	})
}

type channelUnwatchCmd struct {
	Collection string   `arg:"" help:"Name or alias of the collection."`
	Channel    []string `arg:"" optional:"" help:"Its channels; none = all."`
	clientFlags
}

// Help is shown by --help.
func (channelUnwatchCmd) Help() string {
	return `Has a node stop reading channels of a collection: it answers no reads of them then. Nothing is lost.

Example:
  querynode channel unwatch words`
}

// Run lets go of the channels.
func (k *channelUnwatchCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.work(ctx)
		defer cancel()
		got, err := c.control.UnwatchChannels(ctx, &qnpb.UnwatchChannelsRequest{Collection: k.Collection, Vchannels: k.Channel})
		if err != nil {
			return err
		}
		if c.out.JSON() {
			return c.out.Document(jsonOf(got))
		}
		if len(got.GetVchannels()) == 0 {
			c.out.Printf("no channels of %s were watched", k.Collection)
			return nil
		}
		c.out.Printf("watched no more of %s: %s", k.Collection, strings.Join(got.GetVchannels(), ", "))
		return nil
	})
}
