package lifecycle

import (
	"bytes"
	"fmt"
	"runtime/pprof"
	"strings"
)

// goroutineLabel is the profile label under which Group names its goroutines;
// goroutines that they start inherit it.
const goroutineLabel = "goroutine"

// maxStacks bounds what a report carries of one part.
const maxStacks = 16 << 10

// goroutinesNamed returns the stacks of the goroutines that a Group started
// under name and of those they started, as the goroutine profile prints them.
func goroutinesNamed(name string) string {
	var buf bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&buf, 1); err != nil {
		return err.Error()
	}
	label := fmt.Sprintf("%q:%q", goroutineLabel, name)
	var found []string
	for block := range strings.SplitSeq(buf.String(), "\n\n") {
		if strings.Contains(block, label) {
			found = append(found, block)
		}
	}
	all := strings.Join(found, "\n\n")
	if len(all) > maxStacks {
		all = all[:maxStacks] + "\n..."
	}
	return all
}
