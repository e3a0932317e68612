// Command putback puts old bugs back into the code, one at a time, and shows that
// tests which are there find each of them.
//
//	go run ./test/putback                  a table of all
//	go run ./test/putback close-waits      only this one
//	go run ./test/putback --json
//	go test ./test/putback                 the same as a test
//
// The exit status is 0 if all are found, 1 if not, 2 if it could not run. A bug
// is a replacement in the real source that go test -overlay lays over it; if the
// code has changed there, that is an error and not a pass.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() { os.Exit(command(os.Args[1:], os.Stdout, os.Stderr)) }

func command(args []string, out, problems io.Writer) int {
	flags := flag.NewFlagSet("putback", flag.ContinueOnError)
	flags.SetOutput(problems)
	asJSON := flags.Bool("json", false, "one JSON document for each bug")
	if flags.Parse(args) != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := all(ctx, flags.Args(), *asJSON, out)
	if err != nil {
		fmt.Fprintln(problems, "putback:", err)
		return 2
	}
	return code
}

// all runs the named bugs, every one if none is named.
func all(ctx context.Context, names []string, asJSON bool, out io.Writer) (code int, err error) {
	for _, name := range names {
		if !slices.ContainsFunc(putbacks, func(p putback) bool { return p.name == name }) {
			return 0, fmt.Errorf("there is no bug called %q", name)
		}
	}
	root, err := moduleRoot()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "putback-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i := range putbacks {
		p := &putbacks[i]
		if len(names) > 0 && !slices.Contains(names, p.name) {
			continue
		}
		r, err := p.run(ctx, root, dir, false)
		if err != nil {
			return 0, err
		}
		if !r.found() {
			code = 1
		}
		if asJSON {
			if err := json.NewEncoder(out).Encode(r); err != nil {
				return 0, err
			}
			continue
		}
		fmt.Fprintf(table, "%s\t%s\t(%s)\n", r.Bug, r.What, r.Took.Round(100*time.Millisecond))
		for _, v := range r.Verdicts {
			word := "found"
			if !v.Found {
				word = "NOT FOUND"
			}
			fmt.Fprintf(table, "  %s\t%s\t%s%s\n", word, v.Test, v.Problem, v.Sign)
		}
		_ = table.Flush()
	}
	return code, nil
}
