//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// program is what is tested, built once.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "querynode-chaos-test-")
	if err == nil {
		program = filepath.Join(dir, "querynode")
		build := exec.Command("go", "build", "-o", program, "github.com/querynode/querynode/cmd/querynode")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		var out []byte
		if out, err = build.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// The short run for CI: always the same faults. QUERYNODE_TEST_SEED draws others.
const (
	shortSeed     = 61
	shortDuration = 20 * time.Second
	shortFaults   = 10
)

func TestAShortRunFindsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node for half a minute")
	}
	seed := uint64(shortSeed)
	if s := os.Getenv("QUERYNODE_TEST_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = v
	}
	var progress bytes.Buffer
	r, err := Run(t.Context(), Options{Seed: seed, Binary: program, Duration: shortDuration, MaxFaults: shortFaults, Progress: &progress})
	if err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	var table bytes.Buffer
	if err := r.Write(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", &table)
	if len(r.Violations) > 0 {
		t.Errorf("%d violations; again: QUERYNODE_TEST_SEED=%d go test ./test/chaos", len(r.Violations), seed)
	}
	if faults, operations, _ := r.total(); faults == 0 || operations < 100 {
		t.Errorf("only %d faults and %d operations", faults, operations)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	if r.Dir == "" {
		return
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "logs")); err != nil {
		t.Errorf("files are said to be kept: %v", err)
	}
}

// With a Pulsar that is started for it: QUERYNODE_TEST_PULSAR=1.
func TestAShortRunOnPulsarFindsNothing(t *testing.T) {
	if os.Getenv("QUERYNODE_TEST_PULSAR") != "1" {
		t.Skip("not part of this run: needs QUERYNODE_TEST_PULSAR=1")
	}
	var progress, table bytes.Buffer
	r, err := Run(t.Context(), Options{Seed: shortSeed, Binary: program, Queue: "pulsar", Duration: time.Minute, MaxFaults: 2 * shortFaults, Progress: &progress})
	if err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	if err := r.Write(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", &table)
	if len(r.Violations) > 0 {
		t.Errorf("%d violations\n%s", len(r.Violations), &progress)
	}
}

// The short form of 1,000 SIGTERMs.
const shortTerms = 9

func TestEverySigtermIsObeyed(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes and waits for their stops")
	}
	var progress bytes.Buffer
	r, err := Terminate(t.Context(), Options{Seed: shortSeed, Binary: program, Terms: shortTerms, Progress: &progress})
	if err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	var table bytes.Buffer
	if err := r.Write(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", &table)
	if len(r.Violations) > 0 || r.Exits != shortTerms {
		t.Errorf("%d exits\n%s", r.Exits, &progress)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

func TestTheLastWordTellsHowManyGoroutinesAreLeft(t *testing.T) {
	for log, want := range map[string]int{
		"":                   -1,
		`{"msg":"stopping"}`: -1,
		"{\"msg\":\"starting\"}\n{\"msg\":\"stopped\",\"goroutines\":6}\n":        6,
		"{\"msg\":\"stopped; nothing is lost\",\"goroutines\":7}\nsomething else": 7,
	} {
		if got := leftIn(log); got != want {
			t.Errorf("%q: %d", log, got)
		}
	}
	r := newTermReport(Options{Progress: io.Discard})
	r.add(exit{hangs: hangsBroker, moment: atStart, took: time.Second, inTime: true, goroutines: idleGoroutines + 1})
	if r.finish(); len(r.Violations) != 1 || r.Exits != 1 || r.Kinds[6].Clean != 1 {
		t.Errorf("%+v", r)
	}
}

func TestUnknownOptionsAreRefused(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"--queue kafka", "want embedded or pulsar"},
		{"--storage tape", "want file or s3"},
		{"--duration -1s", "negative"},
		{"--nonsense", "nonsense"},
	} {
		var out, err bytes.Buffer
		if code := run(strings.Fields(c.args), &out, &err); code != exitNotRun || !strings.Contains(err.String(), c.says) {
			t.Errorf("%s: exit code %d, %s", c.args, code, &err)
		}
	}
}
