//go:build unix

package main

import (
	"context"
	"net"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/cockroachdb/errors"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// wire carries the node's connections to its object storage or its queue and can
// hang: it then takes connections and bytes no more, and says nothing, as a storage does
// that is overloaded or behind a broken switch.
type wire struct {
	lis net.Listener
	wg  sync.WaitGroup
	mu  struct {
		sync.Mutex
		to    string
		open  chan struct{} // closed while it lets bytes pass
		conns map[net.Conn]bool
		done  bool
	}
}

func newWire(to string) (*wire, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Wrap(err, "listen for the node")
	}
	w := &wire{lis: lis}
	w.mu.to, w.mu.open, w.mu.conns = to, make(chan struct{}), map[net.Conn]bool{}
	close(w.mu.open)
	w.wg.Go(w.accept)
	return w, nil
}

func (w *wire) addr() string { return w.lis.Addr().String() }

func (w *wire) accept() {
	for {
		c, err := w.lis.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() { w.carry(c) })
	}
}

func (w *wire) carry(c net.Conn) {
	far, err := net.Dial("tcp", w.target())
	if err != nil {
		_ = c.Close()
		return
	}
	if !w.enter(c, far) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { w.copy(far, c) })
	both.Go(func() { w.copy(c, far) })
	both.Wait()
	w.leave(c, far)
}

// copy carries bytes one way. What has been read when the wire begins to hang
// is sent when it goes on.
func (w *wire) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		<-w.gate()
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// lead says where the wire leads to.
func (w *wire) lead(to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.to = to
}

func (w *wire) target() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.to
}

// cut ends all connections; new ones are carried.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.mu.conns {
		_ = c.Close()
	}
}

func (w *wire) gate() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.open
}

func (w *wire) enter(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		if w.mu.done {
			_ = c.Close()
			continue
		}
		w.mu.conns[c] = true
	}
	return !w.mu.done
}

func (w *wire) leave(conns ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		delete(w.mu.conns, c)
	}
}

// hang stops all bytes until the returned function is called.
func (w *wire) hang() (goOn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	open := make(chan struct{})
	w.mu.open = open
	return sync.OnceFunc(func() { close(open) })
}

func (w *wire) close() error {
	w.mu.Lock()
	w.mu.done = true
	for c := range w.mu.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	err := w.lis.Close()
	w.wg.Wait()
	return errors.Wrap(err, "close a port of the rig")
}

// prepareS3 runs an object storage in this process and puts the wire before it.
func (g *rig) prepareS3() error {
	backend := s3mem.New()
	if err := backend.CreateBucket("chaos"); err != nil {
		return errors.Wrap(err, "make the bucket")
	}
	srv := httptest.NewServer(gofakes3.New(backend).Server())
	w, err := newWire(srv.Listener.Addr().String())
	if err != nil {
		srv.Close()
		return err
	}
	g.wire = w
	g.undo = append(g.undo, func() error { srv.CloseClientConnections(); srv.Close(); return nil }, w.close)
	g.args = append(g.args, "--set", "storage.url=s3://chaos/x?endpoint="+w.addr()+"&insecure=true&path_style=true")
	g.env = append(g.env, "QUERYNODE_STORAGE_ACCESS_KEY=chaos", "QUERYNODE_STORAGE_SECRET_KEY=chaos-secret")
	return nil
}

// storageHangs: calls that need the storage fail in time, all others go on, and
// it all works again afterwards.
func (g *rig) storageHangs(ctx context.Context) error {
	goOn := g.wire.hang()
	rest(ctx, 200*time.Millisecond+g.upTo(6*time.Second))
	goOn()
	return g.settles(ctx, "after a storage that hung")
}

func (g *rig) storageHangsTerm(ctx context.Context) error {
	goOn := g.wire.hang()
	rest(ctx, g.upTo(time.Second))
	g.term(g.node)
	goOn()
	return g.start(ctx)
}

func (g *rig) storageHangsStart(ctx context.Context) error {
	g.kill(g.node)
	goOn := g.wire.hang()
	p, err := g.partly(ctx)
	if err != nil {
		goOn()
		return err
	}
	if !p.ended() {
		g.term(p)
	}
	goOn()
	return g.start(ctx)
}
