package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// source is one parsed Go file.
type source struct {
	path, dir string // from the root of the module, with slashes
	test      bool   // a _test.go file, or in a folder that holds only test helpers
	generated bool
	lines     int
	fset      *token.FileSet
	file      *ast.File
}

// finding is one broken rule.
type finding struct{ where, what string }

func (f finding) String() string { return f.where + ": " + f.what }

func (s *source) at(pos token.Pos, format string, args ...any) finding {
	return finding{fmt.Sprintf("%s:%d", s.path, s.fset.Position(pos).Line), fmt.Sprintf(format, args...)}
}

// testDir says whether a folder holds only what tests need: test/..., and
// packages such as mqtest.
func testDir(dir string) bool {
	return covers("test", dir) || strings.HasSuffix(path.Base(dir), "test")
}

func parseSource(name string, text []byte) (*source, error) {
	s := &source{path: name, dir: path.Dir(name), fset: token.NewFileSet(), lines: bytes.Count(text, []byte("\n"))}
	s.test = strings.HasSuffix(name, "_test.go") || testDir(s.dir)
	var err error
	s.file, err = parser.ParseFile(s.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err == nil {
		s.generated = ast.IsGenerated(s.file)
	}
	return s, err
}

func parse(t *testing.T, name, text string) *source {
	t.Helper()
	s, err := parseSource(name, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// root is the folder of go.mod: tests run in their own folder.
func root() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fs.ErrNotExist
		}
		dir = up
	}
	return "", err
}

// tree parses the whole module once for all tests.
var tree = sync.OnceValues(func() ([]*source, error) {
	root, err := root()
	if err != nil {
		return nil, err
	}
	var all []*source
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel == "." {
				return nil
			}
			_, notNested := os.Stat(filepath.Join(p, "go.mod"))
			if base := d.Name(); base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_' || notNested == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		s, err := parseSource(rel, text)
		if err == nil {
			all = append(all, s)
		}
		return err
	})
	return all, err
})

func sources(t *testing.T) []*source {
	t.Helper()
	all, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found only %d files: is this the module's root?", len(all))
	}
	return all
}

// report fails the test with every finding of rule in the tree.
func report(t *testing.T, rule func(*source) []finding) {
	t.Helper()
	for _, s := range sources(t) {
		for _, f := range rule(s) {
			t.Error(f)
		}
	}
}
