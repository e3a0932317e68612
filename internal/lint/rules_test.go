package lint

import (
	"go/ast"
	"go/token"
	"path"
	"strings"
	"testing"
)

// codeFindings checks what code that ships may not do. Tests and generated
// files are free of these rules.
func codeFindings(s *source) []finding {
	if s.test || s.generated {
		return nil
	}
	var found []finding
	add := func(n ast.Node, format string, args ...any) { found = append(found, s.at(n.Pos(), format, args...)) }
	names := importNames(s.file)
	isMain := s.dir == "cmd/querynode"

	for _, imp := range s.file.Imports {
		switch imp.Path.Value {
		case `"errors"`, `"github.com/pkg/errors"`:
			add(imp, "imports %s: use github.com/cockroachdb/errors", imp.Path.Value)
		case `"log"`:
			add(imp, `imports "log": take a *slog.Logger in Options`)
		}
	}
	for _, f := range s.functions() {
		if f.Recv == nil && f.Name.Name == "init" {
			add(f, "has an init function: build it in New and pass it on")
		}
		if n := s.length(f); n > maxFunc && !covers("tools", s.dir) { // which write kernels, instruction by instruction
			add(f, "%s has %d lines, at most %d and aim for %d: a step of it is a function of its own", f.Name.Name, n, maxFunc, aimFunc)
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			if s.dir != "internal/lifecycle" {
				add(n, "bare go statement: use lifecycle.Group.Go, which names it, recovers its panic and waits for it")
			}
		case *ast.InterfaceType:
			if m := n.Methods.NumFields(); m > maxMethods {
				add(n, "interface of %d methods, at most %d: split it by who uses what, or pass the concrete type", m, maxMethods)
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "panic" && !asserts(n) && !s.explained(n.Pos()) {
				add(n, "panic without errors.AssertionFailedf or an // invariant: comment on its line or above: return an error, or say why it cannot happen")
			}
		case *ast.SelectorExpr:
			pkg, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			switch names[pkg.Name] + "." + n.Sel.Name {
			case "fmt.Errorf":
				add(n, "fmt.Errorf: use errors.Wrapf or errors.Newf of cockroachdb/errors, or errclass.New")
			case "time.Sleep":
				add(n, "time.Sleep: select on a timer and the context, so that Close does not wait for it")
			case "os.Exit":
				if !isMain {
					add(n, "os.Exit: return an error; only cmd/querynode ends the process")
				}
			case "context.TODO":
				add(n, "context.TODO: take a context from the caller or the owner")
			}
		}
		return true
	})
	return found
}

// Limits for files that people write.
const (
	maxMethods  = 7
	maxFunc     = 80 // lines, the first and the last counted
	aimFunc     = 60 // above this a test run with -v says so
	maxLines    = 700
	aimLines    = 500 // above this a test run with -v says so
	invariant   = "invariant:"
	packageWord = "Package "
)

// functions are those that are declared in the file, methods too.
func (s *source) functions() (all []*ast.FuncDecl) {
	for _, d := range s.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			all = append(all, f)
		}
	}
	return all
}

// length is how many lines a function takes, its comment not counted.
func (s *source) length(f *ast.FuncDecl) int {
	return s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
}

// importNames maps the names that imports have in a file to their paths, for
// paths without a domain: those of the standard library.
func importNames(f *ast.File) map[string]string {
	names := map[string]string{}
	for _, imp := range f.Imports {
		p := strings.Trim(imp.Path.Value, `"`)
		if strings.Contains(p, ".") {
			continue
		}
		name := path.Base(p)
		if imp.Name != nil {
			name = imp.Name.Name
		}
		names[name] = p
	}
	return names
}

// explained says whether a comment with "invariant:" stands on the line of pos
// or ends on the line above.
func (s *source) explained(pos token.Pos) bool {
	line := s.fset.Position(pos).Line
	for _, c := range s.file.Comments {
		from, to := s.fset.Position(c.Pos()).Line, s.fset.Position(c.End()).Line
		if from <= line && to >= line-1 && strings.Contains(c.Text(), invariant) {
			return true
		}
	}
	return false
}

// asserts says whether a panic's value is a call of AssertionFailedf, which
// says itself which invariant does not hold.
func asserts(panicCall *ast.CallExpr) bool {
	if len(panicCall.Args) != 1 {
		return false
	}
	call, ok := panicCall.Args[0].(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "AssertionFailedf"
}

func lengthFindings(s *source) []finding {
	if s.generated || s.lines <= maxLines {
		return nil
	}
	return []finding{s.at(s.file.Package, "%d lines, at most %d: one noun a file", s.lines, maxLines)}
}

func TestCodeKeepsTheRules(t *testing.T) {
	report(t, codeFindings)
	for _, s := range sources(t) {
		if s.test || s.generated || covers("tools", s.dir) {
			continue
		}
		for _, f := range s.functions() {
			if n := s.length(f); n > aimFunc && n <= maxFunc {
				t.Logf("warning: %s: %s has %d lines, aim for %d", s.path, f.Name.Name, n, aimFunc)
			}
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	report(t, lengthFindings)
	for _, s := range sources(t) {
		if !s.generated && s.lines > aimLines && s.lines <= maxLines {
			t.Logf("warning: %s has %d lines, aim for %d", s.path, s.lines, aimLines)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	type pkg struct{ dir, name string }
	said := map[pkg]bool{}
	for _, s := range sources(t) {
		name := strings.TrimSuffix(s.file.Name.Name, "_test")
		p := pkg{s.dir, name}
		doc := s.file.Doc.Text()
		said[p] = said[p] || strings.HasPrefix(doc, packageWord+name+" ") || name == "main" && doc != ""
		if s.generated && covers("proto", s.dir) {
			said[p] = true // the .proto files say it
		}
	}
	for p, ok := range said {
		if !ok {
			t.Errorf("%s: no file of package %s begins with a comment %q: say in one sentence what it is", p.dir, p.name, "// "+packageWord+p.name+" ...")
		}
	}
}

func TestTheCodeRulesThemselves(t *testing.T) {
	const head = "package x\nimport (\"fmt\"; \"os\"; \"time\"; \"context\")\n"
	for _, c := range []struct {
		path, code string
		ok         bool
	}{
		{"pool/x.go", "func f() { go g() }", false},
		{"pool/x_test.go", "func f() { go g() }", true},
		{"mq/mqtest/x.go", "func f() { go g() }", true},
		{"internal/lifecycle/x.go", "func f() { go g() }", true},
		{"pool/x.go", "func init() {}", false},
		{"pool/x.go", "type t int\nfunc (t) init() {}", true},
		{"pool/x.go", "func f() { panic(1) }", false},
		{"pool/x.go", "func f() { panic(errors.AssertionFailedf(``)) }", true},
		{"pool/x.go", "func f() { panic(1) // invariant: nobody calls f\n}", true},
		{"pool/x.go", "func f() {\n// invariant: nobody\n// calls f.\npanic(1) }", true},
		{"pool/x.go", "func f() {\n// invariant: nobody\n\n\npanic(1) }", false},
		{"pool/x.go", "var e = fmt.Errorf", false},
		{"pool/x.go", "func f() { time.Sleep(1) }", false},
		{"pool/x.go", "func f() { os.Exit(1) }", false},
		{"cmd/querynode/main.go", "func f() { os.Exit(1) }", true},
		{"pool/x.go", "var c = context.TODO()", false},
		{"pool/x.go", "func f() {" + strings.Repeat("\n", maxFunc-1) + "}", true},
		{"pool/x.go", "func f() {" + strings.Repeat("\n", maxFunc) + "}", false},
		{"pool/x_test.go", "func f() {" + strings.Repeat("\n", maxFunc) + "}", true},
		{"tools/avo/x.go", "func f() {" + strings.Repeat("\n", maxFunc) + "}", true},
		{"pool/x.go", "type i interface { a(); b(); c(); d(); e(); f(); g() }", true},
		{"pool/x.go", "type i interface { a(); b(); c(); d(); e(); f(); g(); h() }", false},
	} {
		if found := codeFindings(parse(t, c.path, head+c.code)); (len(found) == 0) != c.ok {
			t.Errorf("%s: %s: found %v, want ok = %v", c.path, c.code, found, c.ok)
		}
	}
	if codeFindings(parse(t, "pool/x.go", "// Code generated by x. DO NOT EDIT.\npackage x\nfunc init() {}\n")) != nil {
		t.Error("generated files are not ours to write")
	}
	if codeFindings(parse(t, "pool/x.go", "package x\nimport \"errors\"\n")) == nil {
		t.Error("std errors must be refused")
	}
	if lengthFindings(parse(t, "pool/x.go", "package x\n"+strings.Repeat("\n", maxLines))) == nil {
		t.Error("a long file must be refused")
	}
}
