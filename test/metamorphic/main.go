package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"
)

// The exit codes.
const (
	exitSame    = 0
	exitDiffers = 1
	exitNotRun  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	var o Options
	flags := flag.NewFlagSet("metamorphic", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano()), "what the operations are drawn from; absent: from the clock")
	flags.IntVar(&o.Ops, "ops", 100_000, "operations: requests, whatever number of rows they have")
	flags.IntVar(&o.Worlds, "worlds", 3, "nodes beside each other, which share the operations")
	flags.IntVar(&o.Lanes, "lanes", 4, "collections beside each other on each node")
	flags.StringVar(&o.Dir, "dir", "", "folder for the queue's files, best in memory; empty: a temporary one")
	flags.DurationVar(&o.Shrink, "shrink", 5*time.Minute, "how long a failing script is cut down; 0 = not at all")
	flags.StringVar(&o.Script, "script", "", "where a failing script is written; empty: metamorphic-<seed>.script")
	flags.IntVar(&o.Crowds, "crowds", 25, "one in so many collections has thousands of rows, and an index that is walked")
	flags.DurationVar(&o.Slow, "slow", 0, "how long a call of the storage or the queue takes at most: most take no longer, some a twentieth, a few all of it")
	replayFile := flags.String("replay", "", "run this script instead of new operations")
	verbose := flags.Bool("v", false, "show what the node logs")
	profile := flags.String("cpuprofile", "", "write a CPU profile there")
	asJSON := flags.Bool("json", false, "print one JSON document instead of the table")
	if err := flags.Parse(args); err != nil {
		return exitNotRun
	}
	o.Note = stderr
	if *verbose {
		o.Log = slog.New(slog.NewTextHandler(stderr, nil))
	}
	if o.Ops < 1 || o.Crowds < 1 || o.Worlds < 1 || o.Worlds > maxLanes || o.Lanes < 1 || o.Lanes > maxLanes {
		fmt.Fprintf(stderr, "metamorphic: --ops, --crowds, --worlds and --lanes must be at least 1, the latter two at most %d\n", maxLanes)
		return exitNotRun
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	stop, err := profileTo(*profile)
	if err != nil {
		fmt.Fprintf(stderr, "metamorphic: %v\n", err)
		return exitNotRun
	}
	rep, err := start(ctx, o, *replayFile)
	stop()
	if err != nil {
		fmt.Fprintf(stderr, "metamorphic: %+v\n", err)
		return exitNotRun
	}
	if *asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(rep)
	} else {
		err = rep.write(stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "metamorphic: write the report: %v\n", err)
		return exitNotRun
	}
	if rep.Difference != "" {
		return exitDiffers
	}
	return exitSame
}

// profileTo begins a CPU profile, unless the name is empty; stop ends it.
func profileTo(name string) (stop func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, errors.Wrap(err, "create the profile")
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.CombineErrors(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

func start(ctx context.Context, o Options, script string) (*Report, error) {
	if script == "" {
		return Run(ctx, o)
	}
	f, err := os.Open(script)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	ops, err := readScript(f)
	if err != nil {
		return nil, err
	}
	if o.Script == "" {
		o.Script = script // the log is beside it
	}
	return Replay(ctx, o, ops)
}

func (r *Report) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d operations in %.1f s, %.0f a second; recall of indexes %.4f of %d hits\n",
		r.Seed, r.Ops, r.Seconds, r.OpsPerSec, r.Recall, r.RecallHits)
	for _, kind := range slices.Sorted(maps.Keys(r.Crowd)) {
		fmt.Fprintf(&b, "  in crowds, by %-14s %.4f of %d\n", kind, r.Crowd[kind].share(), r.Crowd[kind].Wanted)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Kinds)) {
		fmt.Fprintf(&b, "  %-18s %8d %10.3f ms each\n", k, r.Kinds[k], r.Spent[k].Seconds()*1000/float64(r.Kinds[k]))
	}
	fmt.Fprintf(&b, "%d compactions replaced %d segments, dropped %d rows and did away with %d files of deletes; %d failed\n",
		r.Compacted.Jobs, r.Compacted.Segments, r.Compacted.RowsDropped, r.Compacted.DeltasFreed, r.Compacted.Failed)
	switch {
	case r.Difference == "":
		fmt.Fprintln(&b, "no difference")
	case r.Script != "":
		fmt.Fprintf(&b, "DIFFERS: %s\nscript: %s, %d operations; reproduced: %v\n", r.Difference, r.Script, r.ScriptLines, r.Reproduced)
	default:
		fmt.Fprintf(&b, "DIFFERS: %s\n", r.Difference)
	}
	if r.Log != "" {
		fmt.Fprintf(&b, "log: %s\n", r.Log)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
