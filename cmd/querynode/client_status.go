package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

type statusCmd struct {
	clientFlags
}

// Help is shown by --help.
func (statusCmd) Help() string {
	return `Shows the state of a node, its memory, and the segments, channels and consumers it has. A growing segment, or one that
has just been sealed, shows the index by which it is searched until that of the field has been built; a narrow
terminal is told what it has no room for.

Example:
  querynode status --addr 127.0.0.1:19530
  querynode status --json | jq '.segments[] | select(.state == "quarantined")'`
}

// Run asks the node and shows what it says.
func (s *statusCmd) Run(a *app) error {
	return s.with(a, func(ctx context.Context, c *client) error {
		ctx, cancel := c.answer(ctx)
		defer cancel()
		load, err := c.control.GetMetrics(ctx, &qnpb.GetMetricsRequest{})
		if err != nil {
			return err
		}
		got, err := c.control.GetDistribution(ctx, &qnpb.GetDistributionRequest{})
		if err != nil {
			return err
		}
		wals, err := c.write.ListChannels(ctx, &qnpb.ListChannelsRequest{})
		if err != nil {
			return err
		}
		consumers, err := c.admin.ListConsumers(ctx, &qnpb.ListConsumersRequest{})
		if err != nil {
			return err
		}
		troubles := c.troubles(ctx)
		dist := got.GetDistribution()
		if c.out.JSON() {
			doc := jsonOf(load)
			doc["addr"] = c.addr
			doc["segments"], doc["channels"] = jsonOf(dist)["segments"], jsonOf(dist)["channels"]
			doc["logs"], doc["consumers"] = jsonOf(wals)["wals"], jsonOf(consumers)
			doc["troubles"] = troubles
			return c.out.Document(doc)
		}
		showLoad(c, load, consumers)
		for _, t := range troubles {
			c.out.Printf("%s  %s", c.out.Paint(console.Bad, fmt.Sprintf("%-10s", "trouble")), t)
		}
		showSegments(c.out, dist.GetSegments())
		showChannels(c.out, dist.GetChannels())
		showLogs(c.out, wals.GetWals())
		return nil
	})
}

// troubles is what the node has to do without; empty if it does not say, or may not.
func (c *client) troubles(ctx context.Context) []string {
	state := struct {
		Troubles []string `json:"troubles"`
	}{Troubles: []string{}}
	if dump, err := c.admin.DumpState(ctx, &qnpb.DumpStateRequest{}); err == nil {
		_ = json.Unmarshal([]byte(dump.GetJson()), &state)
	}
	return state.Troubles
}

func showLoad(c *client, m *qnpb.GetMetricsResponse, consumers *qnpb.ListConsumersResponse) {
	out := c.out
	line := func(name, format string, args ...any) {
		out.Printf("%s  %s", out.Paint(console.Faint, fmt.Sprintf("%-10s", name)), fmt.Sprintf(format, args...))
	}
	state := m.GetState()
	out.Printf("%s at %s is %s", out.Paint(console.Strong, "node "+m.GetNode()), c.addr, out.Paint(stateStyle(state), state))
	line("version", "%s, up %s, %d processors", m.GetVersion(), (time.Duration(m.GetUptimeSeconds()) * time.Second).String(), m.GetCpus())
	used := int64(0)
	var kinds []string
	for _, k := range slices.Sorted(maps.Keys(m.GetMemoryBytes())) {
		n := m.GetMemoryBytes()[k]
		if k != "mapped" {
			used += n
		}
		if n > 0 {
			kinds = append(kinds, k+" "+console.Size(n))
		}
	}
	limit := "no limit"
	if l := m.GetMemoryLimitBytes(); l > 0 {
		limit = fmt.Sprintf("of %s, %d %%", console.Size(l), 100*used/l)
	}
	line("memory", "%s %s%s", console.Size(used), limit, inBrackets(kinds))
	line("reads", "%d running, %d waiting", m.GetReadsRunning(), m.GetReadsQueued())
	leaked := fmt.Sprintf("%d leaked", consumers.GetLeaked())
	if consumers.GetLeaked() > 0 {
		leaked = out.Paint(console.Bad, leaked)
	}
	line("consumers", "%d open (%d registered, %d closed, %s)", len(consumers.GetConsumers()), consumers.GetRegistered(), consumers.GetClosed(), leaked)
	if n := m.GetPanicsRecovered(); n > 0 {
		line("panics", "%s", out.Paint(console.Bad, fmt.Sprintf("%d caught since the start: see the log", n)))
	}
}

func inBrackets(parts []string) string {
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// stateStyle colours the states of nodes, segments, channels and logs.
func stateStyle(state string) console.Style {
	switch state {
	case "serving", "sealed", "loaded", "growing", "tailing", "reading", "ready":
		return console.Good
	case "failed", "fenced", "quarantined", "leaked":
		return console.Bad
	}
	return console.Warn
}

func showSegments(out *console.Console, segments []*qnpb.SegmentStatus) {
	t := &console.Table{Title: "Segments", Columns: []console.Column{console.Right("id"), console.Left("collection"), {Name: "partition", Spare: 3},
		console.Left("state"), {Name: "tier", Spare: 5}, console.Right("rows"), {Name: "deleted", Right: true, Spare: 2}, {Name: "memory", Right: true, Spare: 1}, {Name: "mapped", Right: true, Spare: 4}, console.Left("index")}}
	for _, s := range segments {
		var indexes []string
		for _, f := range slices.Sorted(maps.Keys(s.GetIndexes())) {
			indexes = append(indexes, f+" "+s.GetIndexes()[f])
		}
		t.Add(s.GetId(), s.GetCollection(), s.GetPartition(), out.Paint(stateStyle(s.GetState()), s.GetState()), s.GetTier(), console.Count(s.GetRows()),
			console.Count(s.GetDeletedRows()), console.Size(s.GetMemoryBytes()), console.Size(s.GetMappedBytes()), strings.Join(indexes, ", "))
	}
	showOrNone(out, t, "no segments")
	for _, s := range segments {
		if s.GetError() != "" {
			out.Printf("segment %d: %s", s.GetId(), out.Paint(console.Bad, s.GetError()))
		}
	}
}

func showChannels(out *console.Console, channels []*qnpb.ChannelStatus) {
	t := &console.Table{Title: "Channels", Columns: []console.Column{console.Left("channel"), console.Left("topic"), console.Left("collection"),
		console.Left("state"), console.Right("behind")}}
	for _, ch := range channels {
		t.Add(ch.GetVchannel(), ch.GetPchannel(), ch.GetCollection(), out.Paint(stateStyle(ch.GetState()), ch.GetState()), behind(ch.GetLagMillis()))
	}
	showOrNone(out, t, "no channels")
	for _, ch := range channels {
		if ch.GetError() != "" {
			out.Printf("channel %s: %s", ch.GetVchannel(), out.Paint(console.Bad, ch.GetError()))
		}
	}
}

func showLogs(out *console.Console, logs []*qnpb.WalStatus) {
	t := &console.Table{Title: "Write-ahead logs", Columns: []console.Column{console.Left("topic"), console.Right("term"), console.Left("state"),
		console.Right("replayed"), console.Right("rows"), console.Right("bytes"), console.Right("set aside")}}
	for _, w := range logs {
		t.Add(w.GetPchannel(), w.GetTerm(), out.Paint(stateStyle(w.GetState()), w.GetState()), percent(w.GetReplayedShare()), console.Count(w.GetReplayedRows()),
			console.Size(w.GetReplayedBytes()), console.Count(w.GetQuarantined()))
	}
	showOrNone(out, t, "no write-ahead logs")
	for _, w := range logs {
		if w.GetError() != "" {
			out.Printf("log of %s: %s", w.GetPchannel(), out.Paint(console.Bad, w.GetError()))
		}
	}
}

// showOrNone shows a table, or one line if it is empty.
func showOrNone(out *console.Console, t *console.Table, none string) {
	if len(t.Rows) == 0 {
		if t.Title != "" {
			none = "\n" + none
		}
		out.Printf("%s", out.Paint(console.Faint, none))
		return
	}
	out.Table(t)
}

// percent rounds down: 100 % is done.
func percent(share float64) string { return strconv.Itoa(int(100*share)) + " %" }

func behind(millis int64) string { return console.Took(time.Duration(millis) * time.Millisecond) }
