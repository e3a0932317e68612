package main

import (
	"os"
	"path/filepath"
	"testing"
)

func announced(t *testing.T, text string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "querynode-data")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, nodeFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Clients find a node as health does.
func TestANodeIsFoundByItsFolder(t *testing.T) {
	here := announced(t, `{"grpc_addr": "127.0.0.1:7", "tls": true}`)
	other := announced(t, `{"grpc_addr": "127.0.0.1:8"}`)
	t.Chdir(filepath.Dir(here))
	for _, x := range []struct {
		why     string
		flags   clientFlags
		environ []string
		want    nodeTarget
	}{
		{"the folder that a node would have here", clientFlags{}, nil, nodeTarget{"127.0.0.1:7", true, "querynode-data/node.json"}},
		{"a folder that is named", clientFlags{DataDir: other}, []string{"QUERYNODE_ADDR=a:1"}, nodeTarget{"127.0.0.1:8", false, filepath.Join(other, "node.json")}},
		{"a folder that a variable names", clientFlags{}, []string{"QUERYNODE_NODE_DATA_DIR=" + other}, nodeTarget{"127.0.0.1:8", false, filepath.Join(other, "node.json")}},
		{"a variable", clientFlags{}, []string{"QUERYNODE_ADDR=a:1"}, nodeTarget{"a:1", false, "QUERYNODE_ADDR"}},
		{"an address", clientFlags{Addr: "b:2", DataDir: other}, []string{"QUERYNODE_ADDR=a:1"}, nodeTarget{"b:2", false, ""}},
	} {
		if got, err := x.flags.target(&app{environ: x.environ}); err != nil || got != x.want {
			t.Errorf("%s: %+v, %v, want %+v", x.why, got, err, x.want)
		}
	}
	t.Chdir(t.TempDir())
	if got, err := (&clientFlags{}).target(&app{}); err != nil || got != (nodeTarget{addr: defaultAddr}) {
		t.Errorf("nothing says where: %+v, %v", got, err)
	}
}
