package segments

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/index"
)

// readByThePage lists the files in the rig's folder that are mapped so that nothing is read ahead.
func (r *rig) readByThePage() (files []string) {
	r.t.Helper()
	raw, err := os.ReadFile("/proc/self/smaps")
	must(r.t, err)
	file := ""
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		switch {
		case fields[0] == "VmFlags:":
			if strings.HasPrefix(file, r.dir) && slices.Contains(fields, "rr") {
				files = append(files, file)
			}
		case !strings.HasSuffix(fields[0], ":"):
			if file = ""; len(fields) >= 6 {
				file = fields[5]
			}
		}
	}
	return files
}

// TestSegmentsThatMemoryDoesNotHoldAreReadByThePage: where what searches read all over does not fit beside what the process has, reading
// ahead for one pushes out what another has read before.
func TestSegmentsThatMemoryDoesNotHoldAreReadByThePage(t *testing.T) {
	for _, kind := range []index.Kind{index.KindHNSW, index.KindHNSWSQ, index.KindScaNN, index.KindFlat} {
		t.Run(string(kind), func(t *testing.T) {
			r := newRig(t, rigOptions{index: VectorIndex{Type: string(kind), Metric: index.L2}})
			for s := range int64(2) {
				r.insert(s, seq(s*3000, s*3000+3000)...)
				r.seal(s)
				r.upload(s)
			}
			l := r.set.Ledger()
			l.Observe(1<<30, 2<<30)
			must(t, r.load(0))
			if got := r.readByThePage(); len(got) > 0 {
				t.Errorf("it fits, and is read by the page: %v", got)
			}
			first := l.read.Load()
			if first == 0 {
				t.Fatal("nothing counts as read")
			}
			room := first
			if kind == index.KindScaNN {
				room = first / 2
			}
			l.Observe(1<<30, 1<<30+room) // there is none for the second
			must(t, r.load(1))
			got := r.readByThePage()
			if kind == index.KindFlat { // which is read from one end to the other
				if len(got) > 0 {
					t.Errorf("read by the page: %v", got)
				}
			} else if len(got) == 0 {
				t.Error("what does not fit is not read by the page")
			}
			must(t, r.set.Close(t.Context()))
			if n := l.read.Load(); n != 0 {
				t.Errorf("%d bytes count as read after all is closed", n)
			}
		})
	}
}
