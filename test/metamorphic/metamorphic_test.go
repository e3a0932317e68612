package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// TestNothingDiffers is the short form of the command. The seed is printed;
// go run ./test/metamorphic --seed N repeats and cuts down a run that fails.
func TestNothingDiffers(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	ops := 1_200
	if os.Getenv("QUERYNODE_TEST_LONG") != "" {
		ops = 100_000
	}
	rep, err := Run(t.Context(), Options{Seed: seed, Ops: ops, Worlds: 2, Crowds: 12, Dir: t.TempDir(), Script: filepath.Join(t.TempDir(), "script"),
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatalf("seed %d: %+v", seed, err)
	}
	if rep.Difference != "" {
		t.Errorf("seed %d: %s", seed, rep.Difference)
	}
}

// TestADifferenceIsFoundCutDownAndReplayed runs against a model that is wrong
// about some deletes.
func TestADifferenceIsFoundCutDownAndReplayed(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script")
	o := Options{Seed: 3, Ops: 3_000, Worlds: 1, Lanes: 1, Crowds: 1 << 20, Dir: t.TempDir(), Script: script, Shrink: 20 * time.Second, lie: true}
	rep, err := Run(t.Context(), o)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	if rep.Difference == "" || !rep.Reproduced {
		t.Fatalf("the model is wrong and nobody noticed: %+v", rep)
	}
	f, err := os.Open(script)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	ops, err := readScript(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d operations were run, %d are in the script", rep.Ops, len(ops))
	all := 0 // with the barriers
	for _, n := range rep.Kinds {
		all += n
	}
	if len(ops) != rep.ScriptLines || len(ops) > all {
		t.Errorf("%d operations in the script, the report says %d", len(ops), rep.ScriptLines)
	}
	again, err := Replay(t.Context(), o, ops)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	if again.Difference == "" {
		t.Errorf("the script shows nothing when it is replayed")
	}
	o.lie = false
	if right, err := Replay(t.Context(), o, ops); err != nil || right.Difference != "" {
		t.Errorf("with the right model the script shows %v, %v", right, err)
	}
}

// FuzzReadScript: any text is a script or an error, and a script is written as it was read.
func FuzzReadScript(f *testing.F) {
	f.Add(`{"id":1,"lane":1,"do":"create","seed":7}` + "\n" + `{"id":1,"do":"restart"}`)
	f.Add(`{"id":2,"lane":1,"do":"search","parts":["p1"],"filter":3,"text":"a < 1","nq":2,"k":3}`)
	f.Add(`{"id":`)
	f.Fuzz(func(t *testing.T, text string) {
		ops, err := readScript(strings.NewReader(text))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := writeScript(&b, ops); err != nil {
			t.Fatal(err)
		}
		again, err := readScript(&b)
		if err != nil {
			t.Fatal(err)
		}
		x, _ := json.Marshal(ops)
		y, _ := json.Marshal(again)
		if !bytes.Equal(x, y) {
			t.Errorf("%s became %s", x, y)
		}
	})
}
