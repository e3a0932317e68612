package objstore_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fmt"

	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/objstore/objtest"
)

// TestVersitygw runs the suite against a real S3 server, if there is one:
//
//	go build -modfile=tools/versitygw.mod -o /tmp/versitygw github.com/versity/versitygw/cmd/versitygw
//	QUERYNODE_TEST_VERSITYGW=/tmp/versitygw go test ./internal/objstore/
func TestVersitygw(t *testing.T) {
	binary := os.Getenv("QUERYNODE_TEST_VERSITYGW")
	if binary == "" {
		t.Skip("QUERYNODE_TEST_VERSITYGW does not name a versitygw binary")
	}
	addr, root := startVersitygw(t, binary)
	var n atomic.Int32
	objtest.Run(t, func(t *testing.T) objstore.Bucket {
		bucket := fmt.Sprintf("test-%d", n.Add(1))
		if err := os.Mkdir(filepath.Join(root, bucket), 0o755); err != nil {
			t.Fatal(err)
		}
		return open(t, "s3://"+bucket+"/deep/prefix?path_style=true&insecure=true&region=us-east-1&endpoint="+addr, fakeOptions())
	})
}

// startVersitygw runs the server on a free port of the loopback until the test ends.
func startVersitygw(t *testing.T, binary string) (addr, root string) {
	t.Helper()
	root = t.TempDir()
	addr = freeAddr(t)
	o := fakeOptions()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, "--port", addr, "posix", root)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+o.AccessKey, "ROOT_SECRET_KEY="+o.SecretKey)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-exited:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
		}
		if t.Failed() {
			t.Logf("versitygw:\n%s", strings.TrimSpace(out.String()))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = conn.Close()
			return addr, root
		}
		select {
		case err := <-exited:
			exited <- err
			t.Fatalf("versitygw ended: %v\n%s", err, out.String())
		case <-ctx.Done():
			t.Fatalf("versitygw does not listen: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
