package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	// A script that runs the tests in its background has them ignore SIGINT, which a node would inherit, and
	// lose one that comes before it listens. What this process catches is not ignored in those that it starts.
	if signal.Ignored(os.Interrupt) {
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	}
	dir, err := os.MkdirTemp("", "querynode-test")
	if err == nil {
		binary = filepath.Join(dir, "querynode")
		build := exec.Command("go", "build", "-o", binary, ".")
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

// command runs a command in this process and returns its exit code and output.
func command(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{version: "test", environ: environ, stdin: strings.NewReader(""), stdout: &out, stderr: &errs, signals: make(chan os.Signal)}
	code = run(a, args, func(int) {})
	return code, out.String(), errs.String()
}

func TestWrongUsageExitsWith2(t *testing.T) {
	for _, c := range []struct {
		environ, args []string
		want          string
	}{
		{nil, []string{"bogus"}, "bogus"},
		{nil, []string{"serach", "words"}, `did you mean "search"?`},
		{nil, []string{"get", "words"}, `there is no command "get": querynode query COLLECTION --filter`},
		{nil, []string{"upsert", "words", "x"}, "querynode insert COLLECTION FILE --upsert"},
		{nil, []string{"drop", "words"}, "querynode collection drop"},
		{nil, []string{"query", "words", "count"}, "unexpected argument count\nSee: querynode query --help"},
		{nil, []string{"serve", "--bogus"}, "--bogus"},
		{nil, []string{"serve", "--set", "grpc.lisen=x", "--log-level", "loud"}, "2 problems"},
		{[]string{"QUERYNODE_GRPC_LISEN=x"}, []string{"serve"}, "did you mean QUERYNODE_GRPC_LISTEN?"},
		{nil, []string{"serve", "--config", "/nowhere/x.yaml"}, "no such file"},
		{nil, []string{"health", "--set", "x=1"}, "unknown key"},
		{nil, []string{"health", "--addr", "%%"}, "admin address"},
	} {
		code, _, stderr := command(t, c.environ, c.args...)
		if code != exitUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit code %d, want 2, and %q in:\n%s", c.args, code, c.want, stderr)
		}
	}
}

func TestConfigPrint(t *testing.T) {
	file := filepath.Join(t.TempDir(), "q.yaml")
	if err := os.WriteFile(file, []byte("grpc: {listen: \"1.1.1.1:1\"}\nadmin: {listen: \"1.1.1.1:2\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"QUERYNODE_GRPC_LISTEN=2.2.2.2:2", "QUERYNODE_STORAGE_ACCESS_KEY=me", "QUERYNODE_STORAGE_SECRET_KEY=hush"}
	code, out, stderr := command(t, environ, "config", "print", "--config", file, "--grpc-listen", "3.3.3.3:3", "--set", "queue.pchannels=4", "--set", "node.name=a,b")
	if code != 0 {
		t.Fatal(code, stderr)
	}
	for _, want := range []string{"listen: 3.3.3.3:3  # flag --grpc-listen", "listen: 1.1.1.1:2  # file q.yaml", "pchannels: 4  # --set", "name: a,b  # --set", "# environment QUERYNODE_STORAGE_SECRET_KEY (set, not shown)"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "hush") {
		t.Error("a secret is printed")
	}
	if code, out, _ = command(t, nil, "config", "print", "--json"); code != 0 || !strings.Contains(out, `"grpc.listen": "default"`) {
		t.Errorf("%d %s", code, out)
	}
	if code, out, stderr = command(t, nil, "config", "print", "--set", "memory.limit=1024TiB"); code != 0 || !strings.Contains(stderr, "warning: memory.limit: 1024TiB is more than") || strings.Contains(out, "warning") {
		t.Errorf("%d %s", code, stderr)
	}
	// What was understood is shown also when something was not: it helps to find it.
	if code, out, stderr = command(t, nil, "config", "print", "--set", "nope=1"); code != exitUsage || !strings.Contains(out, "grpc:") || !strings.Contains(stderr, "nope") {
		t.Errorf("%d %s %s", code, out, stderr)
	}
	if code, out, _ = command(t, nil, "config", "doc"); code != 0 || !strings.Contains(out, "`shutdown.drain`") {
		t.Errorf("%d %s", code, out)
	}
	if code, out, _ = command(t, nil, "version"); code != 0 || out != "test\n" {
		t.Errorf("%d %s", code, out)
	}
}
