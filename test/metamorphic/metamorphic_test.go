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

	"github.com/cockroachdb/errors"
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
	found, err := os.ReadFile(rep.Log)
	if err != nil || len(found) == 0 {
		t.Fatalf("the log %q of the node: %v", rep.Log, err)
	}
	again, err := Replay(t.Context(), o, ops)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	if again.Difference == "" {
		t.Errorf("the script shows nothing when it is replayed")
	}
	if logged, err := os.ReadFile(rep.Log); err != nil || !bytes.Equal(logged, found) || again.Log == "" {
		t.Errorf("the log of the run, %q, is not what it was after a replay, whose log is %q: %v", rep.Log, again.Log, err)
	}
	var text strings.Builder
	if err := again.write(&text); err != nil || !strings.Contains(text.String(), again.Log) {
		t.Errorf("the report does not name the log %s: %v\n%s", again.Log, err, text.String())
	}
	o.lie = false
	if right, err := Replay(t.Context(), o, ops); err != nil || right.Difference != "" {
		t.Errorf("with the right model the script shows %v, %v", right, err)
	}
}

// TestAScriptIsSavedWithoutItsLog, if that cannot be.
func TestAScriptIsSavedWithoutItsLog(t *testing.T) {
	t.Parallel()
	o := Options{Script: filepath.Join(t.TempDir(), "script")}
	o.EnsureDefaults()
	if err := os.Mkdir(o.Script+logSuffix, 0o755); err != nil {
		t.Fatal(err)
	}
	e := ended{script: []op{{ID: 1, Lane: 1, Do: opCreate}}, log: &tail{}}
	e.err = e.script[0].differs("it is not there")
	rep := &Report{}
	if err := e.tell(t.Context(), &o, t.TempDir(), rep); err == nil || rep.Log != "" {
		t.Errorf("a folder was taken for a log: %q", rep.Log)
	}
	if raw, err := os.ReadFile(o.Script); err != nil || len(raw) == 0 || rep.Script != o.Script {
		t.Errorf("the script %q: %q, %v", rep.Script, raw, err)
	}
}

// TestTheLogOfAnErrorIsSaved also where the error is no difference.
func TestTheLogOfAnErrorIsSaved(t *testing.T) {
	t.Parallel()
	o := Options{Script: filepath.Join(t.TempDir(), "script"), Dir: t.TempDir()}
	o.EnsureDefaults()
	rep, err := Replay(t.Context(), o, []op{{ID: 1, Lane: 1, Do: opCreate}, {ID: 2, Lane: 1, Do: "nonsense"}})
	wantLog(t, rep, err, o.Script+replayLogSuffix)

	e := ended{log: &tail{}, err: errors.New("no room")}
	if _, err := e.log.Write([]byte("a line\n")); err != nil {
		t.Fatal(err)
	}
	rep = &Report{}
	wantLog(t, rep, e.tell(t.Context(), &o, t.TempDir(), rep), o.Script+logSuffix)
}

func wantLog(t *testing.T, rep *Report, err error, name string) {
	t.Helper()
	if err == nil || rep == nil || rep.Log != name || rep.Difference != "" || !strings.Contains(err.Error(), name) {
		t.Fatalf("the error does not say where the log is: %v", err)
	}
	if raw, err := os.ReadFile(name); err != nil || len(raw) == 0 {
		t.Errorf("the log has %d bytes: %v", len(raw), err)
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
