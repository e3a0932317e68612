package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/querynode/querynode/internal/config"
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
	Addr    string        `placeholder:"HOST:PORT" help:"Address of the node's API. Default: $QUERYNODE_ADDR, else that of the node that uses the data folder (./querynode-data), else 127.0.0.1:19530."`
	DataDir string        `name:"data-dir" type:"path" placeholder:"DIR" help:"Data folder of a node on this machine: its node.json says where it listens, and whether it speaks TLS."`
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

// nodeTarget is a node to talk to.
type nodeTarget struct {
	addr string
	tls  bool   // it says that it speaks TLS
	from string // what said so, for people; "" = who typed the command
}

// String is the address, and who gave it.
func (t nodeTarget) String() string {
	if t.from == "" {
		return t.addr
	}
	return t.addr + " (" + t.from + ")"
}

// target finds the node.
func (f *clientFlags) target(a *app) (nodeTarget, error) {
	env := a.getenv("QUERYNODE_ADDR")
	switch {
	case f.Addr != "":
		return nodeTarget{addr: f.Addr}, checkAddress("--addr", f.Addr)
	case f.DataDir != "":
		return targetIn(f.DataDir)
	case env != "":
		return nodeTarget{addr: env, from: "QUERYNODE_ADDR"}, checkAddress("QUERYNODE_ADDR", env)
	}
	// As for a node that is started here: what is wrong with its configuration is not the matter now.
	cfg, _, _ := config.Load(config.Sources{File: a.getenv("QUERYNODE_CONFIG"), Environ: a.environ})
	if t, err := targetIn(cfg.Node.DataDir); err == nil {
		return t, nil
	}
	return nodeTarget{addr: config.DialAddress(cfg.GRPC.Listen), tls: cfg.GRPC.TLSCert != ""}, nil
}

// checkAddress refuses what no node can be reached at.
func checkAddress(flag, addr string) error {
	if strings.Contains(addr, "://") || strings.HasPrefix(addr, "unix:") {
		return nil // of gRPC's own kinds
	}
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
		return usage(&problem{text: fmt.Sprintf("%s %s: want HOST:PORT", flag, addr), next: "the API is on port 19530 unless grpc.listen says otherwise: " + net.JoinHostPort(strings.Trim(addr, "[]:"), "19530")})
	}
	return nil
}

// nodeFile is written into the data directory by a node that serves.
const nodeFile = "node.json"

// targetIn reads where the node listens that serves a data directory.
func targetIn(dir string) (nodeTarget, error) {
	path := filepath.Join(dir, nodeFile)
	info, err := readNodeInfo(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nodeTarget{}, &problem{text: "there is no " + path, next: "is a node running on that data directory? Else say where it listens with --addr", cause: err}
	}
	if err == nil && info.GRPCAddr == "" {
		err = errors.Newf("%s does not say where the node listens", path)
	}
	return nodeTarget{addr: info.GRPCAddr, tls: info.TLS, from: short(path)}, err
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

// credentials are what --tls and --tls-ca say, or the node.
func (f *clientFlags) credentials(t nodeTarget) (credentials.TransportCredentials, error) {
	switch {
	case f.TLSCA != "":
		c, err := credentials.NewClientTLSFromFile(f.TLSCA, "")
		return c, usage(errors.Wrap(err, "--tls-ca"))
	case f.TLS || t.tls:
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
	to, err := f.target(a)
	if err != nil {
		return err
	}
	creds, err := f.credentials(to)
	if err != nil {
		return err
	}
	ctx, cancel := a.context()
	defer cancel()
	c, err := dial(to.addr, f.Timeout, creds, f.console(a))
	if err != nil {
		return err
	}
	defer func() { err = errors.CombineErrors(err, c.conn.Close()) }()
	return explain(fn(ctx, c), to.String(), "")
}
