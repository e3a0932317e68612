// Command share says what a processor profile's time was spent for: the kernels, the
// walk of the index, gRPC, the node's own work, collecting garbage.
//
//	go run ./test/bench/share cpu.prof
//	go run ./test/bench/share --json cpu.prof
//
// Each sample counts for the innermost of its functions that belongs to a part, so
// that memory which the node allocates is the node's, and what it writes to a
// connection gRPC's. Profiles come from "querynode bench index --cpu-profile", from
// a node's /debug/pprof/profile and from "go run ./test/bench/serve --profile".
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cockroachdb/errors"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("share", flag.ContinueOnError)
	flags.SetOutput(stderr)
	asJSON := flags.Bool("json", false, "print one line of JSON")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() != 1 {
		fmt.Fprintln(stderr, "share: want one profile")
		return 2
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	s, err := read(ctx, flags.Arg(0))
	if err == nil {
		err = s.write(stdout, *asJSON)
	}
	if err != nil {
		fmt.Fprintf(stderr, "share: %v\n", err)
		return 1
	}
	return 0
}

// read has the Go tool print the samples of a profile, and adds them up.
func read(ctx context.Context, path string) (shares, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "pprof", "-symbolize=none", "-traces", path)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Wrap(err, "go tool pprof")
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Wrap(err, "go tool pprof")
	}
	s, err := sum(out)
	if waited := cmd.Wait(); waited != nil {
		return nil, errors.Wrapf(waited, "go tool pprof -traces %s: %s", path, said.String())
	}
	return s, err
}

// shares is the time of each part.
type shares map[string]time.Duration

// Parts, in the order in which they are shown.
const (
	kernels   = "kernels"
	walk      = "walk of the index"
	node      = "node"
	transport = "gRPC"
	garbage   = "collecting garbage"
	other     = "scheduler and others"
)

var order = []string{kernels, walk, node, transport, garbage, other}

// sum adds up samples as "pprof -traces" prints them: blocks between lines of dashes,
// in each a time and the functions, innermost first.
func sum(in io.Reader) (shares, error) {
	s := shares{}
	var took time.Duration
	var part string
	end := func() {
		if took > 0 {
			if part == "" {
				part = other
			}
			s[part] += took
		}
		took, part = 0, ""
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	started := false
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "----") {
			end()
			started = true
			continue
		}
		if !started || line == "" {
			continue
		}
		first, rest, _ := strings.Cut(line, " ")
		if d, err := time.ParseDuration(strings.Replace(first, "mins", "m", 1)); err == nil && took == 0 {
			took, line = d, strings.TrimSpace(rest)
		}
		if took > 0 && part == "" {
			part = partOf(line)
		}
	}
	end()
	return s, errors.Wrap(lines.Err(), "read samples")
}

const ours = "github.com/querynode/querynode/"

// prefixes of functions and what part they belong to, the first that fits counts.
// The node's own side of a connection is a part of sending.
var prefixes = []struct{ prefix, part string }{
	{ours + "internal/vec.", kernels},
	{ours + "internal/index.", walk},
	{ours + "internal/server.(*connection)", transport},
	{ours, node},
	{"google.golang.org/", transport},
	{"golang.org/x/net/", transport},
	{"github.com/panjf2000/ants", node},
	{"runtime.gcBgMarkWorker", garbage},
	{"runtime.bgsweep", garbage},
	{"runtime.bgscavenge", garbage},
	{"runtime.gcAssistAlloc", garbage},
}

func partOf(function string) string {
	for _, p := range prefixes {
		if strings.HasPrefix(function, p.prefix) {
			return p.part
		}
	}
	return ""
}

func (s shares) write(out io.Writer, asJSON bool) error {
	total := time.Duration(0)
	for _, d := range s {
		total += d
	}
	if total == 0 {
		return errors.New("the profile has no samples")
	}
	of := func(d time.Duration) float64 { return float64(d) / float64(total) }
	if asJSON {
		m := map[string]float64{"seconds": total.Seconds(), "kernels and walk": of(s[kernels] + s[walk])}
		for _, p := range order {
			m[p] = of(s[p])
		}
		return errors.Wrap(json.NewEncoder(out).Encode(m), "write the shares")
	}
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', tabwriter.AlignRight)
	for _, p := range order {
		fmt.Fprintf(w, "%.1f %%\t %s\t\n", 100*of(s[p]), p)
	}
	fmt.Fprintf(w, "%.1f %%\t kernels and walk, of %.1f s\t\n", 100*of(s[kernels]+s[walk]), total.Seconds())
	return errors.Wrap(w.Flush(), "write the shares")
}
