package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/config"
)

type healthCmd struct {
	configFlags
	Addr    string        `placeholder:"HOST:PORT" help:"Admin address of the node. Default: that of the node that uses the data folder, else admin.listen."`
	Live    bool          `help:"Ask only whether the node is alive: true also while it recovers or drains."`
	Timeout time.Duration `default:"2s" help:"How long to wait for the answer."`
}

// Help is the long form of the help.
func (h *healthCmd) Help() string {
	return `Asks the admin port of a node. A node that recovers, drains or lacks something
says what it lacks.

Example:

  querynode health && echo ready
  querynode health --live --addr 10.0.0.7:9091      # is it to be restarted? no, if this succeeds`
}

// Run asks the node and fails if the answer is no, or none.
func (h *healthCmd) Run(a *app) error {
	addr := h.Addr
	if _, port, err := net.SplitHostPort(addr); addr != "" && (err != nil || port == "") {
		return usage(&problem{text: fmt.Sprintf("admin address %s: want HOST:PORT", addr), next: "the admin port is 9091 unless admin.listen says otherwise"})
	}
	if addr == "" {
		cfg, _, err := h.load(a)
		if err != nil {
			return err
		}
		addr = config.DialAddress(cfg.Admin.Listen)
		if info, err := readNodeInfo(cfg.Node.DataDir); err == nil && info.AdminAddr != "" {
			addr = info.AdminAddr // also right when the port is 0
		}
	}
	path := "/readyz"
	if h.Live {
		path = "/healthz"
	}
	ctx, cancel := a.context()
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return usage(errors.Wrapf(err, "admin address %s", addr))
	}
	ctx, cancel = context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	resp, err := askOnce(ctx, addr, req)
	if err != nil {
		return noHealth(addr, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return errors.Wrap(err, "no whole answer")
	}
	text := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return errors.Newf("%s: %s", addr, text)
	}
	_, err = fmt.Fprintln(a.stdout, text)
	return err
}

// askOnce sends a request over a connection of its own: no proxy, as the node is near,
// and nothing that is kept. The connection is closed with the body of the answer.
func askOnce(ctx context.Context, addr string, req *http.Request) (*http.Response, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // ends what waits
	req.Close = true
	var resp *http.Response
	if err = req.Write(conn); err == nil {
		resp, err = http.ReadResponse(bufio.NewReader(conn), req)
	}
	if err != nil {
		stop()
		return nil, errors.CombineErrors(err, conn.Close())
	}
	resp.Body = &connBody{ReadCloser: resp.Body, conn: conn, stop: stop}
	return resp, nil
}

// connBody is the body of an answer that closes its connection.
type connBody struct {
	io.ReadCloser
	conn net.Conn
	stop func() bool
}

// Close closes body and connection.
func (b *connBody) Close() error {
	b.stop()
	return errors.CombineErrors(b.ReadCloser.Close(), b.conn.Close())
}

// noHealth explains why nobody said how the node is.
func noHealth(addr string, err error) error {
	p := &problem{text: fmt.Sprintf("no answer of %s: %v", addr, err), cause: err,
		next: "is a node running there? Say where its admin port is with --addr, or which data folder it uses with --data-dir"}
	text := err.Error()
	switch {
	case strings.Contains(text, "malformed HTTP"), strings.Contains(text, "EOF"), strings.Contains(text, "reset by peer"):
		p.text, p.next = "what listens at "+addr+" does not speak HTTP", "is it the API's port? Health is asked of the admin port (admin.listen), 9091 unless it is set"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), strings.Contains(text, "i/o timeout"):
		p.next = "the node may hang, or the address be wrong; a longer --timeout may help"
	case strings.Contains(text, "connection refused"):
		p.text = fmt.Sprintf("no answer: nobody listens at %s", addr)
	}
	return p
}
