//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

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
	r, err := Run(t.Context(), Options{Seed: seed, Duration: shortDuration, MaxFaults: shortFaults, Progress: &progress})
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
