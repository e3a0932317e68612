package lint

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/querynode/querynode"

// arrows is the import table: a folder, and the folders of ours that it may
// import. A row covers its sub-folders too unless they have a row of their own,
// and within one row everything may import everything. A new row or a new arrow
// is a review topic: say in the commit why the part cannot do without it.
var arrows = map[string][]string{
	"cmd/querynode": {"*"},
	"test":          {"*"},

	// The server reads hints out of errors: where a filter is wrong (expr), when to retry (pool).
	"internal/server": {"internal/node", "segments", "dispatcher", "mq/wal", "internal/catalog", "internal/rowpb", "internal/expr", "pool", "proto"},
	// The node reads the manifest of a segment that is to be added to the catalog.
	"internal/node": {"segments", "dispatcher", "pool", "mq", "mq/wal", "internal/catalog", "internal/flush", "internal/compact",
		"internal/ingest", "internal/expr", "internal/objstore", "internal/index", "internal/rowpb", "internal/segfile", "proto"},
	"internal/admin":  {"internal/node", "segments", "dispatcher", "pool", "mq/wal", "mq/embedded"},
	"internal/ingest": {"segments", "mq", "mq/wal", "internal/rowpb", "proto"},
	"internal/flush":  {"segments", "mq", "mq/wal", "internal/catalog", "internal/objstore", "internal/segfile", "proto"},
	// A compaction uploads segments as a flush does, and reckons with timestamps.
	"internal/compact": {"segments", "mq", "internal/flush", "internal/catalog", "internal/objstore", "internal/segfile"},
	"internal/catalog": {"internal/objstore"},

	"dispatcher":  {"mq"},
	"mq/wal":      {"mq"},
	"mq/embedded": {"mq"},
	"mq/pulsar":   {"mq"},
	"mq/mqtest":   {"mq"},
	"segments": {"pool", "internal/index", "internal/segfile", "internal/objstore", "internal/expr", "internal/vec", "internal/sparse", "internal/analyze",
		"internal/scalarindex"},

	"internal/index": {"internal/vec"},
	"internal/rowpb": {"proto", "internal/analyze", "internal/vec"},
	// The two open formats, npy and Parquet, are read and written in one place.
	"internal/dataset": {"internal/segfile"},

	// Leaves.
	"pool":                 {},
	"mq":                   {},
	"proto":                {},
	"internal/vec":         {},
	"internal/sparse":      {"internal/vec"},
	"internal/segfile":     {},
	"internal/objstore":    {},
	"internal/analyze":     {},
	"internal/expr":        {"internal/analyze", "internal/scalarindex", "internal/vec"},
	"internal/scalarindex": {"internal/analyze"},
	"internal/config":      {},
	"internal/lint":        {},
	"internal/console":     {},
	"testdata":             {},

	// Commons, in the order in which they may import one another.
	"internal/errclass":  {},
	"internal/bitset":    {},
	"internal/schema":    {},
	"internal/lifecycle": {},
}

// commons may be imported by every package that does not come before them here.
var commons = []string{"internal/errclass", "internal/bitset", "internal/schema", "internal/lifecycle"}

// outsiders are modules and packages that only some folders may import.
var outsiders = []struct {
	path    string
	only    []string
	instead string
}{
	{"github.com/apache/pulsar-client-go", []string{"mq/pulsar"}, "go through the mq contract"},
	{"github.com/panjf2000/ants", []string{"pool"}, "use package pool"},
	{"github.com/cockroachdb/pebble", []string{"mq/embedded"}, "go through the mq contract"},
	{"github.com/minio/minio-go", []string{"internal/objstore"}, "use objstore.Bucket"},
	{"google.golang.org/grpc", []string{"internal/server", "cmd", "proto", "test"}, "return an error with an errclass; internal/server makes it a code"},
	{"C", nil, "this is a pure Go program: write Go, or Go assembly"},
}

// row returns the row of the table that covers folder dir, "" if none does.
func row(dir string) string {
	for d := dir; d != "." && d != ""; {
		if _, ok := arrows[d]; ok {
			return d
		}
		i := strings.LastIndexByte(d, '/')
		if i < 0 {
			break
		}
		d = d[:i]
	}
	return ""
}

// mayImport says whether a package in folder from may import one in folder to.
func mayImport(from, to string) bool {
	from, to = row(from), row(to)
	if from == "" || to == "" {
		return false
	}
	if from == to || slices.Contains(arrows[from], to) || slices.Contains(arrows[from], "*") {
		return true
	}
	t := slices.Index(commons, to)
	f := slices.Index(commons, from)
	return t >= 0 && (f < 0 || f > t)
}

func covers(folder, dir string) bool { return dir == folder || strings.HasPrefix(dir, folder+"/") }

// importFindings checks one file against the tables.
func importFindings(s *source) []finding {
	var found []finding
	if row(s.dir) == "" && !s.test {
		found = append(found, s.at(s.file.Package, "folder %s is not in the import table: add a row to internal/lint/imports_test.go", s.dir))
	}
	for _, imp := range s.file.Imports {
		path := strings.Trim(imp.Path.Value, `"`)
		for _, o := range outsiders {
			if path != o.path && !strings.HasPrefix(path, o.path+"/") {
				continue
			}
			if !slices.ContainsFunc(o.only, func(only string) bool { return covers(only, s.dir) }) {
				found = append(found, s.at(imp.Pos(), "imports %s, which only %q may: %s", path, o.only, o.instead))
			}
		}
		to, ours := strings.CutPrefix(path, module+"/")
		if !ours || s.test {
			continue // a test may use any of our packages: it ships nothing
		}
		if row(s.dir) != "" && !mayImport(s.dir, to) {
			found = append(found, s.at(imp.Pos(), "%s must not import %s: let the caller pass it in, or declare what you need as an interface; a new arrow is a row in internal/lint/imports_test.go and a review topic", s.dir, to))
		}
	}
	return found
}

func TestImportsFollowTheTable(t *testing.T) { report(t, importFindings) }

func TestTheImportTableHasNoCycle(t *testing.T) {
	var visit func(folder string, path []string)
	visit = func(folder string, path []string) {
		if i := slices.Index(path, folder); i >= 0 {
			t.Fatalf("cycle: %s", strings.Join(append(path[i:], folder), " -> "))
		}
		for _, to := range arrows[folder] {
			if to == "*" {
				continue
			}
			if _, ok := arrows[to]; !ok {
				t.Errorf("row %s names %s, which has no row", folder, to)
			}
			visit(to, append(slices.Clone(path), folder))
		}
	}
	for folder := range arrows {
		visit(folder, nil)
	}
}

func TestTheImportRulesThemselves(t *testing.T) {
	for _, c := range []struct {
		from, imp string
		ok        bool
	}{
		{"segments", module + "/pool", true},
		{"segments", module + "/segments/internal/x", true},
		{"segments", module + "/internal/segfile/npy", true},
		{"segments", module + "/mq", false},
		{"segments", "google.golang.org/grpc/codes", false},
		{"internal/server", "google.golang.org/grpc/codes", true},
		{"dispatcher", module + "/mq", true},
		{"dispatcher", module + "/mq/pulsar", false},
		{"mq", module + "/mq/wal", false},
		{"pool", module + "/internal/lifecycle", true},
		{"internal/errclass", module + "/internal/lifecycle", false},
		{"internal/vec", "C", false},
		{"cmd/querynode", module + "/mq/pulsar", true},
		{"cmd/querynode", "github.com/apache/pulsar-client-go/pulsar", false},
		{"test/e2e", module + "/internal/server", true},
		{"pool", module + "/cmd/querynode", false},
		{"somewhere/new", "fmt", false},
		{"segments", "github.com/panjf2000/ants/v2", false},
	} {
		s := parse(t, c.from+"/x.go", fmt.Sprintf("package x\nimport _ %q\n", c.imp))
		if found := importFindings(s); (len(found) == 0) != c.ok {
			t.Errorf("%s imports %s: found %v, want ok = %v", c.from, c.imp, found, c.ok)
		}
	}
}
