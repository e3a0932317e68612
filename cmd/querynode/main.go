// Command querynode is the query node of a vector database, and the client of one.
//
// Exit codes, of every command:
//
//	0  done; for serve: stopped cleanly
//	1  failed
//	2  wrong usage or configuration; nothing was started
//	3  serve was told to stop and a part did not stop in time: it is named on
//	   standard error with what it is stuck on
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // of the zones that collections name, where the machine has none

	"github.com/alecthomas/kong"
	"github.com/cockroachdb/errors"
)

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
	exitStuck = 3
)

// version is set by the linker: -ldflags "-X main.version=...".
var version = "dev"

// CLI lists the commands. Each is a struct in a file of its own with a method
// Run(*app) error.
type CLI struct {
	Quickstart quickstartCmd `cmd:"" help:"See it work: a node with 20,000 words, searched, measured, served."`
	Serve      serveCmd      `cmd:"" help:"Run the node until SIGTERM or SIGINT."`
	Config     configCmd     `cmd:"" help:"Show the configuration, or what can be configured."`
	Health     healthCmd     `cmd:"" help:"Ask a running node whether it is ready: exit code 0 if so."`

	Status     statusCmd     `cmd:"" help:"Show what a node serves: segments, channels, memory, consumers."`
	Consumers  consumersCmd  `cmd:"" help:"List a node's consumers of the message queue."`
	Collection collectionCmd `cmd:"" help:"Create, list, describe, alter and drop collections."`
	Partition  partitionCmd  `cmd:"" help:"Create, list and drop partitions."`
	Alias      aliasCmd      `cmd:"" help:"Create, alter, list and drop aliases of collections."`
	Index      indexCmd      `cmd:"" help:"Create, describe and drop indexes."`
	Load       loadCmd       `cmd:"" help:"Make a collection or segments searchable."`
	Release    releaseCmd    `cmd:"" help:"Take a collection or segments out of memory."`
	Insert     insertCmd     `cmd:"" help:"Insert the rows of a file, or of standard input."`
	Delete     deleteCmd     `cmd:"" help:"Delete rows by key or by filter."`
	Flush      flushCmd      `cmd:"" help:"Seal growing rows into segments in object storage."`
	Compact    compactCmd    `cmd:"" help:"Merge sealed segments and drop rows that no read can see."`
	Search     searchCmd     `cmd:"" help:"Find the rows nearest to vectors."`
	Hybrid     hybridCmd     `cmd:"" help:"Search by several vectors and fuse the rankings."`
	Query      queryCmd      `cmd:"" help:"List or count the rows that match a filter."`
	Channel    channelCmd    `cmd:"" help:"Place logs and channels on nodes that are not standalone."`
	Queue      queueCmd      `cmd:"" help:"Compare the topics of Pulsar with what is stored, and give up lost ones."`
	LogLevel   logLevelCmd   `cmd:"" help:"Change what a running node logs."`
	Dump       dumpCmd       `cmd:"" help:"Write the whole state of a node, as JSON."`
	Segment    segmentCmd    `cmd:"" help:"Build, inspect and verify sealed segments."`
	Bench      benchCmd      `cmd:"" help:"Measure a node or an index on your own vectors."`

	Version versionCmd `cmd:"" help:"Print the version."`
}

// app is what a command gets of the world.
type app struct {
	version        string
	environ        []string // as os.Environ
	stdin          io.Reader
	stdout, stderr io.Writer
	signals        <-chan os.Signal // SIGTERM and SIGINT since the start of the process
}

// context is for commands other than serve: it ends with SIGTERM or SIGINT.
func (a *app) context() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
}

// codeError is an error that says how the process is to exit.
type codeError struct {
	code int
	err  error
}

// Error is that of the cause.
func (e *codeError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *codeError) Unwrap() error { return e.err }

// usage marks an error as one of usage or configuration.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &codeError{exitUsage, err}
}

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT) // first of all: from here on a signal is never lost
	a := &app{version: version, environ: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, signals: signals}
	os.Exit(run(a, os.Args[1:], os.Exit))
}

// run parses the arguments, runs the command and returns the exit code. exit is
// called by --help only, where the parser must not go on.
func run(a *app, args []string, exit func(int)) int {
	var cli CLI
	parser, err := kong.New(&cli, kong.Name("querynode"), kong.Writers(a.stdout, a.stderr), kong.Exit(exit),
		kong.Description("The query node of a vector database."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		fmt.Fprintf(a.stderr, "querynode: %v\n", err)
		return exitError
	}
	cmd, err := parser.Parse(args)
	if err != nil {
		if word, instead := insteadOf(err); instead != "" {
			fmt.Fprintf(a.stderr, "querynode: there is no command %q: %s\nSee: querynode --help\n", word, instead)
			return exitUsage
		}
		fmt.Fprintf(a.stderr, "querynode: %v\nSee: %s --help\n", err, nearest(err))
		return exitUsage
	}
	err = cmd.Run(a)
	if err == nil {
		return exitOK
	}
	name, _, _ := strings.Cut(cmd.Command(), " <") // without its arguments
	fmt.Fprintf(a.stderr, "querynode %s: %v\n", name, err)
	var coded *codeError
	if errors.As(err, &coded) {
		return coded.code
	}
	return exitError
}

// nearest is the command whose help says how it should have been called.
func nearest(err error) string {
	var bad *kong.ParseError
	if errors.As(err, &bad) && bad.Context != nil {
		if n := bad.Context.Selected(); n != nil {
			return n.FullPath()
		}
	}
	return "querynode"
}

// insteadOf says what to write for a command of other tools; "" = nothing is known of it.
func insteadOf(err error) (word, instead string) {
	rest, ok := strings.CutPrefix(err.Error(), "unexpected argument ")
	if !ok || nearest(err) != "querynode" {
		return "", ""
	}
	word, _, _ = strings.Cut(rest, ",")
	switch word {
	case "get":
		return word, `querynode query COLLECTION --filter 'id in [1, 2]'`
	case "count":
		return word, "querynode query COLLECTION --count"
	case "upsert":
		return word, "querynode insert COLLECTION FILE --upsert"
	case "list", "ls", "create", "describe", "drop":
		command := word
		if word == "ls" {
			command = "list"
		}
		return word, "querynode collection " + command + "; so for partition, alias and index"
	case "info", "stats":
		return word, "querynode status, or querynode collection describe COLLECTION"
	case "start":
		return word, "querynode serve"
	}
	return "", ""
}

type versionCmd struct{}

// Help is the long form of the help.
func (versionCmd) Help() string {
	return `Example:

  querynode version`
}

// Run prints the version.
func (versionCmd) Run(a *app) error {
	_, err := fmt.Fprintln(a.stdout, a.version)
	return err
}
