//go:build unix

// Command chaos runs a querynode, does to it what production does (kills, stops,
// full disks, damaged files, storage that hangs) while clients write and read,
// and compares every answer with a model of what must be true.
//
//	go run ./test/chaos --seed 7 --duration 10m --queue embedded
//
// The exit status is 0 if everything that it asserts holds, 1 if something does
// not, 2 if it could not run. docs/chaos.md says what is done and what is asserted.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"
)

// The exit codes.
const (
	exitHolds    = 0
	exitViolated = 1
	exitNotRun   = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	var o Options
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano()), "what the schedule and the workload are drawn from; absent: from the clock")
	flags.DurationVar(&o.Duration, "duration", 10*time.Minute, "how long faults are made")
	flags.IntVar(&o.MaxFaults, "faults", 0, "stop after so many faults; 0 = when the duration is over")
	flags.IntVar(&o.Terms, "sigterms", 0, "instead: start so many nodes and stop each at a random moment")
	flags.StringVar(&o.Queue, "queue", "embedded", "the message queue: embedded, or pulsar (one of its own, which is harmed too)")
	flags.StringVar(&o.Storage, "storage", "file", "object storage: file, or s3 (in this process, behind a connection that can hang)")
	flags.StringVar(&o.Binary, "binary", "", "a querynode that is built already; empty: build ./cmd/querynode")
	flags.StringVar(&o.Dir, "dir", "", "folder to work in; empty: a new one below the folder for temporary files")
	flags.StringVar(&o.Only, "only", "", "make only faults whose names contain this")
	flags.BoolVar(&o.Keep, "keep", false, "keep the files also when everything holds")
	asJSON := flags.Bool("json", false, "print one JSON document instead of the table")
	if err := flags.Parse(args); err != nil {
		return exitNotRun
	}
	o.Progress = stderr
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	report, violations, err := do(ctx, o)
	if err != nil {
		fmt.Fprintf(stderr, "chaos: %v\n", err)
		return exitNotRun
	}
	if *asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(report)
	} else {
		err = report.Write(stdout)
	}
	if err = errors.Wrap(err, "write the report"); err != nil {
		fmt.Fprintf(stderr, "chaos: %v\n", err)
		return exitNotRun
	}
	if violations > 0 {
		return exitViolated
	}
	return exitHolds
}

// written is a report for people, and for programs by its JSON.
type written interface{ Write(w io.Writer) error }

func do(ctx context.Context, o Options) (written, int, error) {
	if o.Terms != 0 {
		r, err := Terminate(ctx, o)
		if err != nil {
			return nil, 0, err
		}
		return r, len(r.Violations), nil
	}
	r, err := Run(ctx, o)
	if err != nil {
		return nil, 0, err
	}
	return r, len(r.Violations), nil
}
