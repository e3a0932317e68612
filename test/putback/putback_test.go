package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOldBugsAreFound puts each bug back and asserts that a test which is there
// finds it; all that are named with it if QUERYNODE_TEST_LONG=1. Each costs the
// build of one package.
func TestOldBugsAreFound(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	for i := range putbacks {
		p := &putbacks[i]
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			r, err := p.run(t.Context(), root, t.TempDir(), os.Getenv("QUERYNODE_TEST_LONG") == "")
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range r.Verdicts {
				if !v.Found {
					t.Errorf("%s (%s): %s: %s", p.name, p.bug, v.Test, v.Problem)
				} else {
					t.Logf("%s: %s", v.Test, v.Sign)
				}
			}
		})
	}
}

// TestAChangedSourceIsAnError: a bug that does not fit the code any more must not
// pass for one that is found.
func TestAChangedSourceIsAnError(t *testing.T) {
	root := t.TempDir()
	p := putback{name: "x", pkg: "p", edits: []edit{{"f.go", "was", "is"}}}
	if err := os.MkdirAll(filepath.Join(root, "p"), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, src := range []string{"", "was was"} {
		if err := os.WriteFile(filepath.Join(root, "p", "f.go"), []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.overlay(root, t.TempDir()); err == nil || !strings.Contains(err.Error(), "the code has changed") {
			t.Errorf("%q: %v", src, err)
		}
	}
}

func TestPatternsMatchWholeNames(t *testing.T) {
	for want, names := range map[string][]string{
		"^(TestA)$":        {"TestA"},
		"^(TestA|TestB)$":  {"TestA", "TestB"},
		"^TestA$/^b_c$":    {"TestA/b_c"},
		"^(TestA|TestBs)$": {"TestA/b", "TestBs"},
	} {
		if got := pattern(names...); got != want {
			t.Errorf("%q: %s, want %s", names, got, want)
		}
	}
}
