package segfile

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pageFlags are the flags that the kernel has for the mapping of a file in this process, see proc(5): "hg" huge pages are
// wanted, "nh" they are not, "rr" nothing is read ahead.
func pageFlags(tb testing.TB, path string) []string {
	tb.Helper()
	raw, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		tb.Fatal(err)
	}
	of := false
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if name, flags, _ := strings.Cut(line, ":"); of && name == "VmFlags" {
			return strings.Fields(flags)
		} else if fields := strings.Fields(line); len(fields) >= 6 && !strings.HasSuffix(fields[0], ":") {
			of = fields[5] == path
		}
	}
	tb.Fatalf("%s is not mapped", path)
	return nil
}

// TestVectorsReadHereAndThereAreMappedInSmallPages: one row of a huge page makes all of it resident.
func TestVectorsReadHereAndThereAreMappedInSmallPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "7")
	meta := fullMeta()
	m := write(t, dir, meta, batch(&meta.Schema, 0, 500))
	for _, scattered := range []bool{false, true} {
		s, err := Open(dir, Options{WillNeed: true, HugePages: true, Scattered: scattered})
		if err != nil {
			t.Fatal(err)
		}
		vectors, indexes := 0, 0
		for i := range m.Files {
			small, huge := false, false
			if k := m.Files[i].Kind; k == KindVector || k == KindIndex {
				flags := pageFlags(t, filepath.Join(dir, m.Files[i].Name))
				small, huge = slices.Contains(flags, "nh"), slices.Contains(flags, "hg")
			}
			switch m.Files[i].Kind {
			case KindVector:
				if vectors++; small != scattered || huge && scattered {
					t.Errorf("scattered %v: vectors in %s want huge pages: %v, do not: %v", scattered, m.Files[i].Name, huge, small)
				}
			case KindIndex:
				if indexes++; small {
					t.Errorf("scattered %v: the index in %s does not want huge pages", scattered, m.Files[i].Name)
				}
			default:
			}
		}
		if vectors == 0 {
			t.Fatal("the segment has no vectors")
		}
		t.Logf("scattered %v: %d files of vectors, %d of indexes", scattered, vectors, indexes)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWhatMemoryDoesNotHoldIsReadByThePage: reading ahead, or huge pages, would push out what other searches have read.
func TestWhatMemoryDoesNotHoldIsReadByThePage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "7")
	meta := fullMeta()
	m := write(t, dir, meta, batch(&meta.Schema, 0, 500))
	for _, paged := range []bool{false, true} {
		s, err := Open(dir, Options{WillNeed: true, HugePages: true, Populate: true, Paged: paged})
		if err != nil {
			t.Fatal(err)
		}
		for i := range m.Files {
			f := &m.Files[i]
			if f.Kind == KindRows || f.Kind == KindDeletes {
				continue // not mapped
			}
			want := paged && (f.Kind == KindVector || f.Kind == KindIndex)
			flags := pageFlags(t, filepath.Join(dir, f.Name))
			if slices.Contains(flags, "rr") != want || slices.Contains(flags, "nh") != want || want && slices.Contains(flags, "hg") {
				t.Errorf("paged %v: %s is mapped with %v", paged, f.Name, flags)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
