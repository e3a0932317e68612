//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"
)

// With envBroker and envBrokerWeb a run uses a Pulsar that is there already, and
// does nothing to it.
const (
	envBroker    = "QUERYNODE_TEST_PULSAR_URL"
	envBrokerWeb = "QUERYNODE_TEST_PULSAR_WEB_URL"
)

// Ledgers roll over often, and what nobody uses is deleted soon.
const brokerConf = "managedLedgerMaxEntriesPerLedger=300 managedLedgerMinLedgerRolloverTimeMinutes=0 brokerDeleteInactiveTopicsFrequencySeconds=5"

// broker is the Pulsar of a run. The node reaches it over the wire.
type broker struct {
	scripts string // folder of start.sh and stop.sh
	dir     string // its files; "" = not ours
	env     []string
	url     string // for the node
	web     string // of its admin API, not over the wire
	pid     int
	topics  string // what the names of our topics begin with
	dedup   bool
	wire    *wire // nil = not ours
	wires   []*wire
}

// prepareBroker starts the broker and tells the node where it is.
func (g *rig) prepareBroker(ctx context.Context) error {
	b := &broker{topics: fmt.Sprintf("chaos-%d-%x-", g.o.Seed, time.Now().UnixMilli())}
	if b.url = os.Getenv(envBroker); b.url != "" {
		b.web = os.Getenv(envBrokerWeb)
	} else {
		// With even and odd halves of the seeds, as the index has it.
		b.dedup, b.dir = g.o.Seed/2%2 == 1, filepath.Join(g.work, "broker")
		if err := g.ownBroker(ctx, b); err != nil {
			return err
		}
	}
	g.broker = b
	for _, kv := range []string{"queue.kind=pulsar", "queue.pchannel_prefix=" + b.topics, "pulsar.url=" + b.url, "pulsar.operation_timeout=2s"} {
		g.args = append(g.args, "--set", kv)
	}
	return nil
}

func (g *rig) ownBroker(ctx context.Context, b *broker) (err error) {
	if b.wire, err = newWire(""); err != nil {
		return err
	}
	g.undo = append(g.undo, b.wire.close)
	b.url = "pulsar://" + b.wire.addr()
	g.undo = append(g.undo, func() error { return b.stop("-9") })
	g.report.say("starting Pulsar (deduplication %v)", b.dedup)
	return b.first(ctx, "brokerDeduplicationEnabled="+strconv.FormatBool(b.dedup), b.wire)
}

// first starts the broker for the first time, with settings more than brokerConf;
// the wires lead to it from then on.
func (b *broker) first(ctx context.Context, conf string, wires ...*wire) (err error) {
	if b.scripts, err = scriptFolder(); err != nil {
		return err
	}
	var proxies []string
	for _, w := range wires {
		proxies = append(proxies, w.addr())
	}
	b.wires = wires
	b.env = append(os.Environ(), "PULSAR_OWNER="+strconv.Itoa(os.Getpid()), "PULSAR_NICE=0", "PULSAR_PROXY="+strings.Join(proxies, ","),
		"PULSAR_CONF_EXTRA="+brokerConf+" "+conf)
	return b.start(ctx)
}

// scriptFolder looks for test/pulsar from here upwards.
func scriptFolder() (string, error) {
	at, err := os.Getwd()
	if err != nil {
		return "", errors.Wrap(err, "look for test/pulsar")
	}
	for {
		dir := filepath.Join(at, "test", "pulsar")
		if _, err := os.Stat(filepath.Join(dir, "start.sh")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(at)
		if up == at {
			return "", errors.Newf("test/pulsar/start.sh is not found: start this in the project's folder, or set %s", envBroker)
		}
		at = up
	}
}

// start starts the broker, or starts it again with the same ports and files.
func (b *broker) start(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "bash", filepath.Join(b.scripts, "start.sh"), b.dir)
	cmd.Env = b.env
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return errors.Wrapf(err, "start Pulsar: %s", said.Bytes())
	}
	for line := range strings.Lines(string(out)) {
		switch k, v, _ := strings.Cut(strings.TrimSpace(line), "="); k {
		case "PULSAR_WEB_URL":
			b.web = v
		case "PULSAR_PROXIED":
			for i, to := range strings.Split(v, ",") {
				b.wires[i].lead(to)
			}
		case "PULSAR_PID":
			if b.pid, err = strconv.Atoi(v); err != nil {
				return errors.Wrapf(err, "pid of Pulsar")
			}
		}
	}
	return nil
}

// stop ends the broker; how is "-9" for kill -9, or nothing for SIGTERM.
func (b *broker) stop(how ...string) error {
	out, err := exec.Command("bash", append([]string{filepath.Join(b.scripts, "stop.sh"), b.dir}, how...)...).CombinedOutput()
	return errors.Wrapf(err, "stop Pulsar: %s", out)
}

// freeze stops the broker in its tracks until the returned function is called.
func (b *broker) freeze() (thaw func()) {
	_ = syscall.Kill(b.pid, syscall.SIGSTOP)
	return func() { _ = syscall.Kill(b.pid, syscall.SIGCONT) }
}

// ask asks the admin API; into may be nil.
func (b *broker) ask(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, b.web+"/admin/v2/"+path, nil)
	if err != nil {
		return errors.Wrap(err, path)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(req)
	if err != nil {
		return errors.Wrap(err, path)
	}
	defer res.Body.Close()
	if res.StatusCode >= http.StatusBadRequest {
		return errors.Newf("%s: %s", path, res.Status)
	}
	if into == nil {
		return nil
	}
	return errors.Wrap(json.NewDecoder(bufio.NewReader(res.Body)).Decode(into), path)
}

// held is what clients have at the broker, on our topics together.
type held struct{ topics, producers, consumers, subscriptions, cursors int64 }

// own is the only subscription, and the only cursor but that of deduplication,
// that a topic has when nobody is there.
const own = "querynode"

// use asks for it. what tells each thing that should not be there when no node is.
func (b *broker) use(ctx context.Context) (h held, what []string, err error) {
	var all []string
	if err := b.ask(ctx, http.MethodGet, "persistent/public/default", &all); err != nil {
		return h, nil, err
	}
	for _, name := range all {
		name = strings.TrimPrefix(name, "persistent://public/default/")
		if !strings.HasPrefix(name, b.topics) {
			continue
		}
		var st struct {
			Publishers    []any
			Subscriptions map[string]struct{ Consumers []any }
		}
		var in struct{ Cursors map[string]json.RawMessage }
		if err := b.ask(ctx, http.MethodGet, "persistent/public/default/"+name+"/stats", &st); err != nil {
			return h, nil, err
		}
		if err := b.ask(ctx, http.MethodGet, "persistent/public/default/"+name+"/internalStats", &in); err != nil {
			return h, nil, err
		}
		h.topics++
		h.producers += int64(len(st.Publishers))
		for sub, s := range st.Subscriptions {
			if h.consumers += int64(len(s.Consumers)); sub != own {
				h.subscriptions++
				what = append(what, "subscription "+sub)
			}
		}
		for cursor, is := range in.Cursors {
			if cursor != own && cursor != "pulsar.dedup" {
				h.cursors++
				what = append(what, fmt.Sprintf("cursor %s of %s: %s", cursor, name, is))
			}
		}
	}
	return h, what, nil
}

// settled is use, when nobody should have anything any more: it waits for that.
func (b *broker) settled(ctx context.Context) (h held, what []string, err error) {
	for end := time.Now().Add(settleLimit); ; {
		if h, what, err = b.use(ctx); err != nil {
			return h, nil, errors.Wrap(err, "what is left at the broker")
		}
		if h == (held{topics: h.topics}) || time.Now().After(end) {
			return h, what, nil
		}
		rest(ctx, 200*time.Millisecond)
	}
}

// abandoned wants that nobody has anything at the broker any more.
func (g *rig) abandoned(ctx context.Context) error {
	if g.broker == nil {
		return nil
	}
	h, what, err := g.broker.settled(ctx)
	if err != nil {
		return err
	}
	for _, b := range []Balance{
		{What: "broker: producers at the end", After: h.producers}, {What: "broker: consumers at the end", After: h.consumers},
		{What: "broker: subscriptions at the end", After: h.subscriptions}, {What: "broker: cursors at the end", After: h.cursors},
	} {
		g.report.Baseline = append(g.report.Baseline, b)
		if b.After > 0 {
			g.report.violate(Violation{Kind: Leaked, What: fmt.Sprintf("%s: %d on %d topics: %s", b.What, b.After, h.topics, strings.Join(what, ", "))})
		}
	}
	if h.topics == 0 {
		g.report.violate(Violation{Kind: Lost, What: "the broker has none of the topics " + g.broker.topics})
	}
	return nil
}
