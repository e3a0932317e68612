package lint

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// gomod is what "go mod edit -json" says of a module file.
type gomod struct {
	Module    struct{ Path string }
	Go        string
	Toolchain string
	Replace   []any
	Exclude   []any
	Tool      []struct{ Path string }
	Require   []struct{ Path, Version string }
}

func readMod(t *testing.T, path string) gomod {
	t.Helper()
	out, err := exec.Command("go", "mod", "edit", "-json", path).Output()
	if err != nil {
		t.Fatalf("go mod edit -json %s: %v", path, err)
	}
	var m gomod
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestModuleFilesHaveNoSurprises(t *testing.T) {
	root, err := root()
	if err != nil {
		t.Fatal(err)
	}
	main := readMod(t, filepath.Join(root, "go.mod"))
	if main.Module.Path != module {
		t.Errorf("go.mod is of module %s, want %s", main.Module.Path, module)
	}
	if len(main.Tool) > 0 {
		t.Errorf("go.mod has tools %v: each tool has a module file of its own in tools/", main.Tool)
	}
	files, err := filepath.Glob(filepath.Join(root, "tools", "*.mod"))
	if err != nil || len(files) == 0 {
		t.Fatalf("tools/*.mod: %v, %v", files, err)
	}
	for _, path := range append(files, filepath.Join(root, "go.mod")) {
		m, name := readMod(t, path), filepath.Base(path)
		if len(m.Replace) > 0 || len(m.Exclude) > 0 {
			t.Errorf("%s has replace or exclude lines: whoever imports us would not get them; require a version that works", name)
		}
		if m.Toolchain != "" {
			t.Errorf("%s has toolchain %s: say the least Go version on the go line", name, m.Toolchain)
		}
		if !strings.HasPrefix(m.Go, "1.26") {
			t.Errorf("%s says go %s, want 1.26: the version that CI has", name, m.Go)
		}
		if name != "go.mod" && len(m.Tool) != 1 {
			t.Errorf("%s has tools %v, want one", name, m.Tool)
		}
	}
}
