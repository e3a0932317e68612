package wal

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutants are ways to break the life cycle that have happened to others. The
// code is broken in a copy that go test lays over the real file, so that what
// ships has no switch for it.
var mutants = []struct {
	name      string
	file      string
	was, is   string
	complaint string // what the explorer says
}{
	{"closing is announced after the workers have ended", "wal.go",
		"	w.transition(Closing, nil)\n	ctx, cancel", "	<-w.ready\n	w.transition(Closing, nil)\n	ctx, cancel",
		"owner 1 is opening after Close"},
	{"recovery does not run on the context of the WAL", "recovery.go",
		"func (r *recovery) run(ctx context.Context) error {\n", "func (r *recovery) run(ctx context.Context) error {\n	ctx = context.Background()\n",
		"has ended, the context of term 1 open producer#1 has not"},
	{"a lock is held across an append", "writer.go",
		"	err := s.w.calls.run(ctx, \"append\"", "	s.w.mu.Lock()\n	defer s.w.mu.Unlock()\n	err := s.w.calls.run(ctx, \"append\"",
		"a lock is held across a wait"},
	{"a producer that comes too late stays open", "calls.go",
		"			w.noteLeak(w.shut(name, c))\n			return errors.Wrapf(ErrClosed", "			return errors.Wrapf(ErrClosed",
		"is left open"},
	{"an open producer is forgotten when Bounds fails", "recovery.go",
		"		return nil, errors.Wrapf(err, \"wal %s: bounds\", o.PChannel)", "		r.w.resources.take(\"producer\")\n		return nil, errors.Wrapf(err, \"wal %s: bounds\", o.PChannel)",
		"is left open"},
	{"an error of no class counts as a refusal", "writer.go",
		"		return refused\n	}\n	return doubtful", "		return refused\n	}\n	return refused",
		"its error says no"},
	{"an append waits on after the end", "state.go",
		"		r.answer(Receipt{}, err)\n", "		_, _ = r, err\n",
		"still waits"},
	{"a call that hangs has no deadline", "calls.go",
		"	ctx, cancel := context.WithTimeout(ctx, timeout)\n	defer cancel()\n	done :=", "	done :=",
		"still waits after 1m0s"},
	{"a barrier believes that what it wrote is stored", "writer.go",
		"		s.round.answer(s.proof)\n", "		s.round.answer(nil)\n",
		"is served, term 2 had been taken"},
	{"a barrier that waits is forgotten at the end", "state.go",
		"		r.answer(err)\n	}\n	w.count.refused", "		_ = r\n	}\n	w.count.refused",
		"a barrier still waits, its owner"},
}

func TestTheExplorerFindsMutants(t *testing.T) {
	if !long() {
		t.Skip("builds the package once for each mutant; QUERYNODE_TEST_LONG=1 runs it")
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			out, err := runMutant(t, m.file, m.was, m.is)
			if err == nil {
				t.Fatalf("not found:\n%s", out)
			}
			if !strings.Contains(out, m.complaint) || strings.Contains(out, "build failed") {
				t.Fatalf("%q is wanted, got:\n%.3000s", m.complaint, out)
			}
			for line := range strings.SplitSeq(out, "\n") {
				if strings.Contains(line, m.complaint) {
					t.Log(strings.TrimSpace(line))
					break
				}
			}
		})
	}
}

func runMutant(t *testing.T, file, was, is string) (output string, err error) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	src, err := os.ReadFile(file)
	must(err)
	if strings.Count(string(src), was) != 1 {
		t.Fatalf("%s has changed: %q is not there once", file, was)
	}
	dir := t.TempDir()
	mutant, overlay := filepath.Join(dir, file), filepath.Join(dir, "overlay.json")
	must(os.WriteFile(mutant, []byte(strings.Replace(string(src), was, is, 1)), 0o600))
	real, err := filepath.Abs(file)
	must(err)
	table, err := json.Marshal(map[string]map[string]string{"Replace": {real: mutant}})
	must(err)
	must(os.WriteFile(overlay, table, 0o600))
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-overlay", overlay, "-run", "^TestEveryInterleaving$", ".")
	cmd.Env = append(os.Environ(), "QUERYNODE_TEST_LONG=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
