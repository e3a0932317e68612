package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/querynode/querynode/internal/config"
	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/mq"
)

type queueCmd struct {
	Check     queueCheckCmd     `cmd:"" help:"Compare the topics of a cluster with what is stored: exit code 1 if one has lost messages, or could not be looked at."`
	BeginAnew queueBeginAnewCmd `cmd:"" help:"Give up what only a lost topic had, and go on with the one in its place."`
}

type queueCheckCmd struct {
	Topics []string `arg:"" optional:"" help:"Names of topics; none = all of the configuration."`
	configFlags
	outputFlags
}

// Help is shown by --help.
func (queueCheckCmd) Help() string {
	return `Asks the queue of a configuration (queue.kind pulsar) whether what comes behind the
checkpoints in object storage can be read. It changes nothing and may be run at any
time, by any user who may read both. A topic that cannot be looked at is listed with why.

Example:

  querynode queue check --config node.yaml
  querynode queue check --config node.yaml --json | jq '.topics[] | select(.lost)'`
}

// topicOut is one topic in JSON.
type topicOut struct {
	Topic    string `json:"topic"`
	Channels int    `json:"channels"`
	First    string `json:"first,omitempty"`
	Last     string `json:"last,omitempty"`
	Stored   string `json:"stored,omitempty"`
	Lost     string `json:"lost,omitempty"`
	Unread   string `json:"unread,omitempty"`  // manifests that cannot be read: of their channels it is not known
	Problem  string `json:"problem,omitempty"` // why it could not be looked at
}

// wrong is what people read of it.
func (o *topicOut) wrong() string {
	var all []string
	for _, w := range []struct{ text, what string }{{o.Lost, ""}, {o.Unread, "not known of channels: "}, {o.Problem, "not known: "}} {
		if w.text != "" {
			all = append(all, w.what+w.text)
		}
	}
	return strings.Join(all, "; ")
}

// placeStamp is the time of a position; "" = there is none, or it does not tell.
func placeStamp(p mq.Position) string {
	if p.Timestamp == 0 {
		return ""
	}
	return stamp(p.Timestamp)
}

// Run compares the topics.
func (k *queueCheckCmd) Run(a *app) error {
	return k.with(a, func(ctx context.Context, r *running) error {
		out, names := k.console(a), k.Topics
		if len(names) == 0 {
			names = r.cfg.PChannelNames()
		}
		return checkTopics(out, names, func(name string) (node.Topic, error) { return node.LookAtTopic(ctx, r.catalog, r.queue, name) })
	})
}

// checkTopics shows all topics, and says what is wrong with some of them. One that cannot be
// looked at holds up no other.
func checkTopics(out *console.Console, names []string, look func(name string) (node.Topic, error)) error {
	all, lost, unknown := []topicOut{}, 0, 0
	for _, name := range names {
		t, err := look(name)
		o := topicOut{Topic: name, Channels: t.Channels, First: placeStamp(t.Bounds.First), Last: placeStamp(t.Bounds.Last), Stored: placeStamp(t.Stored)}
		if t.Lost != nil {
			o.Lost, lost = t.Lost.Error(), lost+1
		}
		if t.Unread != nil {
			o.Unread = t.Unread.Error()
		}
		if err != nil {
			o.Problem = err.Error()
		}
		if t.Unread != nil || err != nil {
			unknown++
		}
		all = append(all, o)
	}
	if err := showTopics(out, all); err != nil {
		return err
	}
	switch {
	case lost > 0:
		return &problem{text: "topics are lost, or messages of them", next: `restore them; or, if they are gone for good, stop the nodes and see: querynode queue begin-anew --help`}
	case unknown > 0:
		return &problem{text: fmt.Sprintf("of %s topics it is not known, or not of all channels, whether messages are lost", console.Count(int64(unknown))),
			next: "mend what is said above: restore manifests that are damaged, and see that storage and broker can be reached"}
	}
	return nil
}

func showTopics(out *console.Console, all []topicOut) error {
	if out.JSON() {
		return out.Document(map[string]any{"topics": all})
	}
	t := &console.Table{Columns: []console.Column{console.Left("topic"), console.Right("channels"), console.Left("ends"), console.Left("stored up to"), console.Left("lost")}}
	for _, o := range all {
		t.Add(o.Topic, o.Channels, o.Last, o.Stored, o.wrong())
	}
	out.Table(t)
	return nil
}

type queueBeginAnewCmd struct {
	Topics []string `arg:"" help:"Names of the topics that are lost."`
	Yes    bool     `short:"y" help:"Required: it cannot be undone."`
	configFlags
	outputFlags
}

// Help is shown by --help.
func (queueBeginAnewCmd) Help() string {
	return `For topics of Pulsar that are gone for good: deleted, or the cluster was built anew. What
is in object storage stays. What was acknowledged after that and was in the topic
alone, rows and deletes, is given up; "querynode queue check" says up to when is stored.
A topic that is not lost is refused. This cannot be undone, so say --yes.

Stop all nodes before, and start them afterwards: those that run are fenced.

Example:

  querynode queue check --config node.yaml
  querynode queue begin-anew --config node.yaml querynode-dml-0 --yes`
}

// Run begins the topics anew.
func (k *queueBeginAnewCmd) Run(a *app) error {
	if !k.Yes {
		return usage(errors.Newf("this gives up for good what only the lost topics %q had: say --yes if you mean it, with all nodes stopped", k.Topics))
	}
	return k.with(a, func(ctx context.Context, r *running) error {
		out := k.console(a)
		done, unread := []topicOut{}, 0
		for _, name := range k.Topics {
			t, err := node.BeginAnew(ctx, r.catalog, r.queue, name, "begin-anew")
			if err != nil && out.JSON() && len(done) > 0 {
				return errors.CombineErrors(err, out.Document(map[string]any{"topics": done})) // those are changed
			}
			if err != nil {
				return err
			}
			o := topicOut{Topic: name, Channels: t.Channels, Stored: placeStamp(t.Stored), Lost: t.Lost.Error()}
			if t.Unread != nil {
				o.Unread, unread = t.Unread.Error(), unread+1
			}
			done = append(done, o)
			if !out.JSON() {
				out.Printf("%s begins anew: %d channels go on from what is stored%s", name, t.Channels, upTo(o.Stored))
				if o.Unread != "" {
					out.Printf("%s: left as they were: %s", name, o.Unread)
				}
			}
		}
		if out.JSON() {
			if err := out.Document(map[string]any{"topics": done}); err != nil {
				return err
			}
		}
		if unread > 0 {
			return &problem{text: "channels whose manifests cannot be read are left as they were", next: "restore the manifests, then run this again for the same topics"}
		}
		return nil
	})
}

// upTo says up to when is stored; "" = nothing is.
func upTo(stored string) string {
	if stored == "" {
		return ", which is nothing yet"
	}
	return " up to " + stored
}

// queueTime bounds what these commands do besides waiting for the storage and the broker.
const queueTime = 10 * time.Minute

// with calls do with the storage and the queue of the configuration open.
func (f *configFlags) with(a *app, do func(context.Context, *running) error) error {
	cfg, _, err := f.load(a)
	if err != nil {
		return err
	}
	if cfg.Queue.Kind != "pulsar" {
		return usage(errors.Newf("queue.kind is %s: this is for queue.kind pulsar. A node with an embedded queue says itself what it has lost, and what to do", cfg.Queue.Kind))
	}
	ctx, cancel := a.context()
	defer cancel()
	ctx, late := context.WithTimeout(ctx, queueTime)
	defer late()
	r := openQueueOnly(cfg)
	err = r.openStorage(ctx)
	if err == nil {
		err = r.openPulsar(ctx)
	}
	if err == nil {
		err = do(ctx, r)
	}
	closing, cut := context.WithTimeout(context.Background(), cfg.Shutdown.Total)
	defer cut()
	return errors.Join(err, r.stack.Close(closing).Err())
}

// openQueueOnly is a node of which storage and queue alone are to be opened.
func openQueueOnly(cfg *config.Config) *running {
	return &running{cfg: cfg, log: slog.New(slog.DiscardHandler), stack: lifecycle.NewStack(), registry: prometheus.NewRegistry()}
}
