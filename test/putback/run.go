package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
)

// verdict is what a test says of a bug.
type verdict struct {
	Test    string `json:"test"`
	Found   bool   `json:"found"`             // it fails with the bug, and passes without
	Problem string `json:"problem,omitempty"` // if not: what happened instead
	Sign    string `json:"sign,omitempty"`    // the line by which it tells
}

// result is what became of one bug.
type result struct {
	Bug      string        `json:"bug"`
	What     string        `json:"what"`
	Verdicts []verdict     `json:"tests"`
	Took     time.Duration `json:"took_ns"`
}

func (r *result) found() bool {
	for _, v := range r.Verdicts {
		if !v.Found {
			return false
		}
	}
	return len(r.Verdicts) > 0
}

// testTimeout is for one test with a bug in it: it takes well below a second, or
// for ever.
const testTimeout = 20 * time.Second

// run lays the broken files over the real ones, as go test -overlay does: what
// ships has no switch for the bugs. root is the folder of the module, dir scratch
// space. The short form asks the first test only, and relies on whoever runs it to
// run the tests without the bug too.
func (p *putback) run(ctx context.Context, root, dir string, short bool) (*result, error) {
	begun := time.Now()
	overlay, err := p.overlay(root, dir)
	if err != nil {
		return nil, err
	}
	binary := filepath.Join(dir, p.name+".test")
	if out, err := p.goTool(ctx, root, "test", "-c", "-overlay", overlay, "-o", binary, "./"+p.pkg); err != nil {
		return nil, errors.Newf("%s: the broken code does not build: %v\n%s", p.name, err, out)
	}
	r := &result{Bug: p.name, What: p.bug}
	tests := p.tests
	var healthy string
	var herr error
	if short {
		tests = tests[:1]
	} else {
		healthy, herr = p.goTool(ctx, root, "test", "-run", pattern(names(tests)...), "./"+p.pkg)
	}
	for _, c := range tests {
		v := verdict{Test: c.test}
		out, err := p.test(ctx, root, binary, c.test)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case strings.Contains(out, "no tests to run"):
			v.Problem = "there is no such test"
		case herr != nil:
			v.Problem = "it fails without the bug as well:\n" + tail(healthy)
		case err == nil:
			v.Problem = "it passes with the bug"
		case !strings.Contains(out, c.says):
			v.Problem = fmt.Sprintf("it fails, but does not say %q:\n%s", c.says, tail(out))
		default:
			v.Found, v.Sign = true, sign(out, c.says)
		}
		r.Verdicts = append(r.Verdicts, v)
	}
	r.Took = time.Since(begun)
	return r, nil
}

func names(tests []caught) (out []string) {
	for _, c := range tests {
		out = append(out, c.test)
	}
	return out
}

func (p *putback) goTool(ctx context.Context, root string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// test runs one test of the broken binary, where it finds its files.
func (p *putback) test(ctx context.Context, root, binary, name string) (string, error) {
	cmd := exec.CommandContext(ctx, binary, "-test.run", pattern(name), "-test.timeout", testTimeout.String())
	cmd.Dir = filepath.Join(root, p.pkg)
	cmd.Env = append(os.Environ(), "QUERYNODE_TEST_LONG=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// overlay writes the broken files and the table for the go command. It fails if
// the code is not what the bug was written for.
func (p *putback) overlay(root, dir string) (string, error) {
	broken := map[string]string{}
	for _, e := range p.edits {
		real := filepath.Join(root, p.pkg, e.file)
		from := real
		if b, ok := broken[real]; ok {
			from = b
		}
		src, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if n := strings.Count(string(src), e.was); n != 1 {
			return "", errors.Newf("%s: the code has changed: in %s this is there %d times, not once:\n%s", p.name, filepath.Join(p.pkg, e.file), n, e.was)
		}
		broken[real] = filepath.Join(dir, p.name+"-"+e.file)
		if err := os.WriteFile(broken[real], []byte(strings.Replace(string(src), e.was, e.is, 1)), 0o600); err != nil {
			return "", err
		}
	}
	table, err := json.Marshal(map[string]any{"Replace": broken})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, p.name+".json")
	return name, os.WriteFile(name, table, 0o600)
}

// pattern matches exactly the named tests, and parts of them after a slash.
func pattern(names ...string) string {
	var tops []string
	for _, n := range names {
		top, sub, ok := strings.Cut(n, "/")
		if ok && len(names) == 1 {
			return "^" + regexp.QuoteMeta(top) + "$/^" + regexp.QuoteMeta(sub) + "$"
		}
		tops = append(tops, regexp.QuoteMeta(top))
	}
	return "^(" + strings.Join(tops, "|") + ")$"
}

// sign is the line of a failed test that tells.
func sign(out, says string) string {
	for line := range strings.SplitSeq(out, "\n") {
		if strings.Contains(line, says) {
			return cut(strings.TrimSpace(line), 160)
		}
	}
	return ""
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}

func tail(s string) string {
	if len(s) > 2000 {
		return s[len(s)-2000:]
	}
	return s
}

// moduleRoot is the folder of go.mod at or above the current one.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("there is no go.mod in the current folder or above it")
		}
	}
}
