//go:build unix

// Command serve measures what a served search costs beyond the least that gRPC
// costs: it runs a node and a bare grpc-go server that answers every search with
// a constant, on the same processors, in turns, under the same load.
//
//	go run ./test/bench/serve
//	go run ./test/bench/serve --base b.npy --queries q.npy --metric l2 --recall 0.95
//	go run ./test/bench/serve --insert-rate 1000 --json
//
// The load is "querynode bench serve". Without --base it makes 100,000 vectors
// of 128 dimensions out of a mixture whose intrinsic dimension is about 20.
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

func main() {
	if len(os.Args) > 1 && os.Args[1] == floorArg {
		os.Exit(floorMain(os.Stdout, os.Stderr))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// options say what to measure.
type options struct {
	base, queries, metric, index string
	recall                       float64
	concurrency, rounds          int
	duration                     time.Duration
	insertRate                   int
	binary, dir                  string
	profile                      string
	nodeArgs                     list
	progress                     io.Writer
}

// list is a flag that may be repeated.
type list []string

// String shows the list.
func (l *list) String() string { return fmt.Sprint(*l) }

// Set appends a value.
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

func run(args []string, stdout, stderr io.Writer) int {
	o := options{progress: stderr}
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.base, "base", "", "vectors to load: .npy or .fvecs; empty = a made-up set")
	flags.StringVar(&o.queries, "queries", "", "vectors to search for")
	flags.StringVar(&o.metric, "metric", "l2", "l2, ip or cosine")
	flags.StringVar(&o.index, "index", "AUTOINDEX", "index of the collection, with parameters after colons")
	flags.Float64Var(&o.recall, "recall", 0.95, "share of the ten nearest to find")
	flags.IntVar(&o.concurrency, "concurrency", 32, "calls under way at a time")
	flags.IntVar(&o.rounds, "rounds", 3, "how often each server is measured, in turns; the medians count")
	flags.DurationVar(&o.duration, "duration", 6*time.Second, "how long one measurement takes")
	flags.IntVar(&o.insertRate, "insert-rate", 0, "rows a second that are inserted during further measurements of the node; 0 = none are made")
	flags.StringVar(&o.binary, "binary", "", "a querynode that is built already; empty = build ./cmd/querynode")
	flags.StringVar(&o.dir, "dir", "", "folder to work in; empty = a new one for temporary files, removed at the end")
	flags.StringVar(&o.profile, "profile", "", "write a processor profile of the node under load to this file, and one with inserts to the same name with .inserting behind")
	flags.Var(&o.nodeArgs, "node-arg", "argument for querynode serve, such as --set=search.workers=1; may be repeated")
	asJSON := flags.Bool("json", false, "print one line of JSON")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	r, err := measure(ctx, &o)
	if err == nil {
		if *asJSON {
			err = json.NewEncoder(stdout).Encode(r)
		} else {
			err = r.write(stdout)
		}
		err = errors.Wrap(err, "write the report")
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench serve: %v\n", err)
		return 1
	}
	return 0
}
