package embedded

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/querynode/querynode/mq"
)

const childEnv = "EMBEDDED_QUEUE_CHILD"

// childMain, in the process that TestKill9 starts, appends for ever from several
// goroutines and says what has been acknowledged, one line each.
func childMain() {
	spec := os.Getenv(childEnv)
	if spec == "" {
		return
	}
	round, dir, _ := strings.Cut(spec, " ")
	fail := func(err error) { fmt.Fprintln(os.Stderr, err); os.Exit(3) }
	q, err := Open(smallOptions(dir))
	if err != nil {
		fail(err)
	}
	ctx := context.Background()
	p, err := q.OpenProducer(ctx, topicName, mq.ProducerOptions{Term: 1})
	if err != nil {
		fail(err)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%s.%d.%d", round, w, i)
				at, err := p.Append(ctx, mq.Message{Timestamp: 1, Payload: []byte(name + strings.Repeat(" ", i%700))})
				if err != nil {
					fail(err)
				}
				fmt.Fprintf(os.Stdout, "%d %s\n", binary.BigEndian.Uint64([]byte(at[0].ID)), name)
			}
		})
	}
	wg.Wait()
}

// TestKill9 kills a process that appends, ten times over one folder. Everything
// acknowledged is there, once, at its position, in order.
func TestKill9(t *testing.T) {
	dir := t.TempDir()
	acked := map[uint64]string{}
	for round := range 10 {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", childEnv, round, dir))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		n := 0
		for lines.Scan() {
			var seq uint64
			var name string
			if _, err := fmt.Sscanf(lines.Text(), "%d %s", &seq, &name); err != nil {
				break // the last line, cut by the kill
			}
			acked[seq] = name
			if n++; n == 40+17*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
		checkKilled(t, dir, acked)
	}
}

func checkKilled(t *testing.T, dir string, acked map[uint64]string) {
	t.Helper()
	q := mustOpen(t, smallOptions(dir))
	defer mustClose(t, q)
	got, bad := readAll(t, q, mq.ReaderOptions{})
	if len(bad) > 0 {
		t.Fatal(bad[0])
	}
	once, last := map[string]bool{}, map[string]int{}
	for i, m := range got {
		seq := binary.BigEndian.Uint64([]byte(m.Position.ID))
		name := strings.TrimSpace(string(m.Payload))
		if seq != uint64(i+1) || once[name] {
			t.Fatalf("message %d is number %d, %q, there before: %v", i, seq, name, once[name])
		}
		once[name] = true
		if want, ok := acked[seq]; ok && want != name {
			t.Fatalf("number %d was acknowledged for %s and holds %s", seq, want, name)
		}
		var round, w, n int
		if _, err := fmt.Sscanf(name, "%d.%d.%d", &round, &w, &n); err != nil {
			t.Fatal(err)
		}
		writer := fmt.Sprintf("%d.%d", round, w)
		if n != last[writer] {
			t.Fatalf("%s comes where %s.%d should", name, writer, last[writer])
		}
		last[writer] = n + 1
	}
	for seq, name := range acked {
		if seq > uint64(len(got)) {
			t.Fatalf("%s was acknowledged as number %d; there are %d", name, seq, len(got))
		}
	}
}
