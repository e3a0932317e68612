//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/errors"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// usage is what a process holds.
type usage struct {
	goroutines, consumers, files, mappings int64
	atBroker                               held
}

// measure asks the node and the kernel what the node holds.
func (g *rig) measure(ctx context.Context) (u usage, err error) {
	err = g.again(ctx, "measure", func(ctx context.Context, c *client) error {
		l, err := c.admin.ListConsumers(ctx, &qnpb.ListConsumersRequest{})
		if err != nil {
			return err
		}
		u.consumers = l.GetRegistered() - l.GetClosed()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.node.info.AdminAddr+"/statusz", nil)
		if err != nil {
			return err
		}
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := client.Do(req)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		var st struct{ Goroutines int64 }
		if err := json.NewDecoder(r.Body).Decode(&st); err != nil {
			return err
		}
		u.goroutines = st.Goroutines
		return nil
	})
	if err == nil && g.broker != nil {
		u.atBroker, _, err = g.broker.use(ctx)
	}
	if err != nil {
		return u, err
	}
	proc := fmt.Sprintf("/proc/%d", g.node.cmd.Process.Pid)
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		g.report.leaveOut("open files and mappings at the end", err.Error())
		return u, nil
	}
	u.files = int64(len(fds))
	maps, err := os.Open(filepath.Join(proc, "maps"))
	if err != nil {
		return u, errors.Wrap(err, "mappings of the node")
	}
	defer maps.Close()
	for s := bufio.NewScanner(maps); s.Scan(); {
		if strings.Contains(s.Text(), g.data) {
			u.mappings++
		}
	}
	return u, nil
}

// endgame settles what is unknown, compares everything twice more, with a kill
// between, and sees that a released collection leaves nothing behind.
func (g *rig) endgame(ctx context.Context, before usage) error {
	g.term(g.node)
	for _, what := range []string{"the scan after the last stop", "the scan after the last kill"} {
		if err := g.start(ctx); err != nil {
			return err
		}
		if err := g.verify(ctx, what); err != nil {
			return err
		}
		if n := g.load.gate.model.vague(); n > 0 {
			g.report.violate(Violation{Kind: Wrong, What: fmt.Sprintf("%s: %d keys are still not known for sure", what, n)})
		}
		if what == "the scan after the last stop" {
			g.kill(g.node)
		}
	}
	if err := g.balance(ctx, before); err != nil {
		return err
	}
	g.term(g.node)
	if left, _ := filepath.Glob(filepath.Join(g.data, "run-*")); len(left) > 0 {
		g.report.violate(Violation{Kind: Leftovers, What: fmt.Sprintf("at the end of all there are %v", left)})
	}
	return g.abandoned(ctx)
}

// balance loads, uses and releases the collection three times and compares what
// the node holds then with what it held before there was any.
func (g *rig) balance(ctx context.Context, before usage) error {
	name := g.load.gate.collection
	for range 3 {
		err := g.again(ctx, "load the collection", func(ctx context.Context, c *client) error {
			_, err := c.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: name})
			return err
		})
		if err == nil {
			err = g.verify(ctx, "scan after a load")
		}
		if err == nil {
			err = g.again(ctx, "release the collection", func(ctx context.Context, c *client) error {
				_, err := c.control.ReleaseSegments(ctx, &qnpb.ReleaseSegmentsRequest{Collection: name})
				return err
			})
		}
		if err != nil {
			return err
		}
	}
	// Some of both come and go by themselves: a connection, a timer, a file of the
	// queue that is begun.
	slack := usage{goroutines: 10, consumers: 0, files: 4, mappings: 0}
	var after usage
	for end := time.Now().Add(settleLimit / 2); ; {
		var err error
		if after, err = g.measure(ctx); err != nil {
			return err
		}
		a, b := after.atBroker, before.atBroker
		settled := a.producers <= b.producers && a.consumers <= b.consumers && a.subscriptions <= b.subscriptions && a.cursors <= b.cursors &&
			after.goroutines <= before.goroutines+slack.goroutines && after.consumers <= before.consumers &&
			after.files <= before.files+slack.files && after.mappings <= before.mappings
		if settled || time.Now().After(end) {
			break
		}
		rest(ctx, 200*time.Millisecond)
	}
	all := []Balance{
		{"goroutines", before.goroutines, after.goroutines, slack.goroutines}, {"consumers", before.consumers, after.consumers, slack.consumers},
		{"open files", before.files, after.files, slack.files}, {"mapped files", before.mappings, after.mappings, slack.mappings},
	}
	if a, b := after.atBroker, before.atBroker; g.broker != nil {
		all = append(all, Balance{"broker: producers", b.producers, a.producers, 0}, Balance{"broker: consumers", b.consumers, a.consumers, 0},
			Balance{"broker: subscriptions", b.subscriptions, a.subscriptions, 0}, Balance{"broker: cursors", b.cursors, a.cursors, 0})
	}
	for _, b := range all {
		g.report.Baseline = append(g.report.Baseline, b)
		if b.After > b.Before+b.Slack {
			g.report.violate(Violation{Kind: Leaked, What: fmt.Sprintf("%s: %d before there was a collection, %d after its release", b.What, b.Before, b.After)})
		}
	}
	return nil
}
