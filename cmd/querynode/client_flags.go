package main

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// defaultAddr is where a node listens unless told otherwise.
const defaultAddr = "127.0.0.1:19530"

// maxReplyBytes bounds one reply that a client command takes.
const maxReplyBytes = 256 << 20

// outputFlags say how results are written.
type outputFlags struct {
	JSON bool `help:"Write results as JSON: one document, or one a line for streams."`
}

// console returns the console of the process.
func (f *outputFlags) console(a *app) *console.Console {
	return console.New(console.Options{Out: a.stdout, Err: a.stderr, JSON: f.JSON, Getenv: a.getenv})
}

// getenv looks a variable of the process up; empty if it is not set.
func (a *app) getenv(name string) string {
	for _, kv := range a.environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// clientFlags are those of every command that talks to a node.
type clientFlags struct {
	Addr    string        `placeholder:"HOST:PORT" help:"Address of the node. Default: that in node.json of --data-dir, else $QUERYNODE_ADDR, else 127.0.0.1:19530."`
	DataDir string        `name:"data-dir" type:"path" placeholder:"DIR" help:"Data directory of a node on this machine, to find its address."`
	Timeout time.Duration `placeholder:"30s" help:"Longest time for each call. Default 30s; 10m for calls that wait for building or loading."`
	TLS     bool          `name:"tls" help:"Speak TLS, with the certificates that the system trusts."`
	TLSCA   string        `name:"tls-ca" type:"existingfile" placeholder:"FILE" help:"Speak TLS, with the certificates in this PEM file trusted."`
	outputFlags
}

// How long a call may take if --timeout is not given: answers, and work.
const (
	answerTimeout = 30 * time.Second
	workTimeout   = 10 * time.Minute
)

// address finds the node.
func (f *clientFlags) address(a *app) (string, error) {
	if f.Addr != "" {
		return f.Addr, nil
	}
	if f.DataDir != "" {
		return addressIn(f.DataDir)
	}
	if env := a.getenv("QUERYNODE_ADDR"); env != "" {
		return env, nil
	}
	return defaultAddr, nil
}

// nodeFile is written into the data directory by a node that serves.
const nodeFile = "node.json"

// addressIn reads the address of the node that serves a data directory.
func addressIn(dir string) (string, error) {
	info, err := readNodeInfo(dir)
	if errors.Is(err, os.ErrNotExist) {
		return "", &problem{text: "there is no " + filepath.Join(dir, nodeFile), next: "is a node running on that data directory? Else say where it listens with --addr", cause: err}
	}
	if err == nil && info.GRPCAddr == "" {
		err = errors.Newf("%s does not say where the node listens", filepath.Join(dir, nodeFile))
	}
	return info.GRPCAddr, err
}

// client is a connection to a node and what a command needs beside it.
type client struct {
	addr    string
	timeout time.Duration // as given; 0 = the call's default
	conn    *grpc.ClientConn
	out     *console.Console

	query   qnpb.QueryServiceClient
	write   qnpb.WriteServiceClient
	control qnpb.ControlServiceClient
	catalog qnpb.CatalogServiceClient
	admin   qnpb.AdminServiceClient
}

// credentials are what --tls and --tls-ca say.
func (f *clientFlags) credentials() (credentials.TransportCredentials, error) {
	switch {
	case f.TLSCA != "":
		c, err := credentials.NewClientTLSFromFile(f.TLSCA, "")
		return c, usage(errors.Wrap(err, "--tls-ca"))
	case f.TLS:
		return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}), nil
	}
	return insecure.NewCredentials(), nil
}

// dial makes a client; nothing is sent before the first call.
func dial(addr string, timeout time.Duration, creds credentials.TransportCredentials, out *console.Console) (*client, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReplyBytes)))
	if err != nil {
		return nil, &problem{text: "bad address " + addr + ": " + err.Error(), next: "want HOST:PORT"}
	}
	return &client{
		addr: addr, timeout: timeout, conn: conn, out: out,
		query: qnpb.NewQueryServiceClient(conn), write: qnpb.NewWriteServiceClient(conn),
		control: qnpb.NewControlServiceClient(conn), catalog: qnpb.NewCatalogServiceClient(conn), admin: qnpb.NewAdminServiceClient(conn),
	}, nil
}

// answer bounds a call that is answered at once.
func (c *client) answer(ctx context.Context) (context.Context, context.CancelFunc) {
	return c.bound(ctx, answerTimeout)
}

// work bounds a call that waits for work to be done.
func (c *client) work(ctx context.Context) (context.Context, context.CancelFunc) {
	return c.bound(ctx, workTimeout)
}

func (c *client) bound(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if c.timeout > 0 {
		d = c.timeout
	}
	return context.WithTimeout(ctx, d)
}

// with runs fn with a client and makes its error one for people.
func (f *clientFlags) with(a *app, fn func(ctx context.Context, c *client) error) (err error) {
	if f.Timeout < 0 {
		return usage(errors.Newf("--timeout %s: want more than 0", f.Timeout))
	}
	addr, err := f.address(a)
	if err != nil {
		return err
	}
	creds, err := f.credentials()
	if err != nil {
		return err
	}
	ctx, cancel := a.context()
	defer cancel()
	c, err := dial(addr, f.Timeout, creds, f.console(a))
	if err != nil {
		return err
	}
	defer func() { err = errors.CombineErrors(err, c.conn.Close()) }()
	return explain(fn(ctx, c), addr, "")
}
