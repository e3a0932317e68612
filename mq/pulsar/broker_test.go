package pulsar

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Tests with a real broker run when QUERYNODE_TEST_PULSAR=1, on one that they
// start themselves by test/pulsar/start.sh (Java and, the first time, Maven), or
// when QUERYNODE_TEST_PULSAR_URL and QUERYNODE_TEST_PULSAR_WEB_URL name one;
// then those that kill or freeze it are left out.
const (
	envRun = "QUERYNODE_TEST_PULSAR"
	envURL = "QUERYNODE_TEST_PULSAR_URL"
	envWeb = "QUERYNODE_TEST_PULSAR_WEB_URL"
)

// The broker is a stock one: no retention, and topics that nobody uses are
// deleted, here after seconds. Ledgers roll over after 20 entries.
const brokerConf = "managedLedgerMaxEntriesPerLedger=20 managedLedgerMinLedgerRolloverTimeMinutes=0 brokerDeleteInactiveTopicsFrequencySeconds=3"

// broker is a running Pulsar.
type broker struct {
	url, web string
	dir      string // "" if it is not ours
	pid      int
	conf     string   // more than brokerConf
	env      []string // more for start.sh
}

// shared is the broker of this test process.
type shared struct {
	once sync.Once
	b    *broker
	err  error
}

var theBroker shared

func brokerWanted() bool { return os.Getenv(envRun) == "1" || os.Getenv(envURL) != "" }

// realBroker returns the broker, or skips the test.
func realBroker(t testing.TB) *broker {
	t.Helper()
	if !brokerWanted() {
		t.Skipf("not part of this run: tests on a real Pulsar need %s=1 or %s", envRun, envURL)
	}
	theBroker.once.Do(func() { theBroker.b, theBroker.err = startBroker() })
	if theBroker.err != nil {
		t.Fatal(theBroker.err)
	}
	return theBroker.b
}

// ownBroker is realBroker for tests that kill and freeze it.
func ownBroker(t testing.TB) *broker {
	t.Helper()
	b := realBroker(t)
	if b.dir == "" {
		t.Skipf("not part of this run: the broker of %s is not ours to kill", envURL)
	}
	return b
}

func startBroker() (*broker, error) {
	if url := os.Getenv(envURL); url != "" {
		return &broker{url: url, web: os.Getenv(envWeb)}, nil
	}
	dir, err := os.MkdirTemp("", "querynode-pulsar-")
	if err != nil {
		return nil, err
	}
	b := &broker{dir: dir}
	return b, b.start()
}

func script(name string, args ...string) *exec.Cmd {
	return exec.Command("bash", append([]string{filepath.Join("..", "..", "test", "pulsar", name)}, args...)...)
}

func (b *broker) start() error {
	cmd := script("start.sh", b.dir)
	cmd.Env = append(os.Environ(), "PULSAR_CONF_EXTRA="+brokerConf+" "+b.conf, "PULSAR_OWNER="+strconv.Itoa(os.Getpid()))
	cmd.Env = append(cmd.Env, b.env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("test/pulsar/start.sh: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		switch k, v, _ := strings.Cut(strings.TrimSpace(line), "="); k {
		case "PULSAR_URL":
			b.url = v
		case "PULSAR_WEB_URL":
			b.web = v
		case "PULSAR_PID":
			b.pid, _ = strconv.Atoi(v)
		}
	}
	return nil
}

func (b *broker) stop() {
	if b != nil && b.dir != "" {
		_ = script("stop.sh", b.dir, "-9").Run()
		_ = os.RemoveAll(b.dir)
	}
}

// kill is kill -9; start brings it back on the same port with the same data.
func (b *broker) kill(t testing.TB) {
	t.Helper()
	if out, err := script("stop.sh", b.dir, "-9").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func (b *broker) restart(t testing.TB) {
	t.Helper()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
}

// freeze stops the process in its tracks until the returned func, or the end of
// the test.
func (b *broker) freeze(t testing.TB) (thaw func()) {
	t.Helper()
	if err := syscall.Kill(b.pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	thaw = sync.OnceFunc(func() { _ = syscall.Kill(b.pid, syscall.SIGCONT) })
	t.Cleanup(thaw)
	return thaw
}

// get asks the admin API.
func (b *broker) get(t testing.TB, path string, v any) {
	t.Helper()
	req, err := http.NewRequestWithContext(testCtx(t), http.MethodGet, b.web+"/admin/v2/"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(bufio.NewReader(res.Body)).Decode(v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func (b *broker) post(t testing.TB, path, body string) { b.send(t, http.MethodPost, path, body) }
func (b *broker) put(t testing.TB, path, body string)  { b.send(t, http.MethodPut, path, body) }

// send tells the admin API.
func (b *broker) send(t testing.TB, method, path, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(testCtx(t), method, b.web+"/admin/v2/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode >= 300 {
		t.Fatalf("%s %s: %s", method, path, res.Status)
	}
	http.DefaultClient.CloseIdleConnections()
}

// clients lists the producers and consumers of the topics whose names contain part.
func (b *broker) clients(t testing.TB, part string) []string {
	t.Helper()
	var topics, found []string
	b.get(t, "persistent/public/default", &topics)
	for _, topic := range topics {
		if !strings.Contains(topic, part) {
			continue
		}
		var stats struct {
			Publishers    []struct{ ProducerName string }
			Subscriptions map[string]struct {
				Consumers []struct{ ConsumerName string }
			}
		}
		b.get(t, strings.Replace(topic, "://", "/", 1)+"/stats", &stats)
		for _, p := range stats.Publishers {
			found = append(found, "producer "+p.ProducerName)
		}
		for _, s := range stats.Subscriptions {
			for _, c := range s.Consumers {
				found = append(found, "consumer "+c.ConsumerName)
			}
		}
	}
	return found
}

// wantNoReaders waits until the topic has no cursor but the one that keeps it: a
// cursor may outlive its reader's connection for a moment, not for ever.
func (b *broker) wantNoReaders(t testing.TB, topic string) {
	t.Helper()
	name, err := escape(topic)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for ctx := testCtx(t); ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		var stats struct{ Subscriptions map[string]any }
		b.get(t, "persistent/public/default/"+name+"/stats", &stats)
		if left = slices.Sorted(maps.Keys(stats.Subscriptions)); slices.Equal(left, []string{subscriptionName}) {
			return
		}
	}
	t.Errorf("the broker keeps the cursors %q", left)
}

// queue opens a connection to the broker.
func (b *broker) queue(t testing.TB, change ...func(*Options)) *Queue {
	t.Helper()
	o := Options{URL: b.url, OperationTimeout: 3 * time.Second}
	for _, c := range change {
		c(&o)
	}
	q, err := Open(o)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() {
		if err := q.Close(closeCtx(t)); err != nil {
			t.Errorf("close queue: %+v", err)
		}
	})
	return q
}

// closeCtx is for cleanups, which run when the test's own contexts have ended.
func closeCtx(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
