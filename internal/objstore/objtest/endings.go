package objtest

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

func cancelled(t *testing.T, s *suite) {
	s.put(t, "k", "content", objstore.PutOptions{})
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, getErr := s.b.Get(ctx, "k", 0, -1)
	_, headErr := s.b.Head(ctx, "k")
	_, putErr := s.b.Put(ctx, "new", strings.NewReader("x"), 1, objstore.PutOptions{})
	for op, err := range map[string]error{
		"get": getErr, "head": headErr, "put": putErr, "delete": s.b.Delete(ctx, "k"),
		"list": s.b.List(ctx, "", "", func(objstore.Info) error { return nil }),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", op, err)
		}
	}
	s.wantAbsent(t, "new")
	if got := s.get(t, "k", 0, -1); got != "content" {
		t.Errorf("got %q", got)
	}
}

func cancelMidway(t *testing.T, s *suite) {
	for _, size := range []int{100, 9 << 20} {
		ctx, cancel := context.WithCancel(s.ctx)
		src := io.MultiReader(bytes.NewReader(make([]byte, size/2)), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }))
		if _, err := s.b.Put(ctx, "put", src, int64(size), objstore.PutOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("put of %d bytes: %v, want context.Canceled", size, err)
		}
		s.wantAbsent(t, "put")
	}

	if _, err := s.b.Put(s.ctx, "get", bytes.NewReader(make([]byte, 4<<20)), 4<<20, objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	r, err := s.b.Get(ctx, "get", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v, want context.Canceled", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func closeEarly(t *testing.T, s *suite) {
	if _, err := s.b.Put(s.ctx, "k", bytes.NewReader(make([]byte, 4<<20)), 4<<20, objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		r, err := s.b.Get(s.ctx, "k", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read after close: %d, %v", n, err)
		}
	}
}

func closing(t *testing.T, s *suite) {
	if _, err := s.b.Put(s.ctx, "k", bytes.NewReader(make([]byte, 4<<20)), 4<<20, objstore.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := s.b.Get(s.ctx, "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	if err := s.b.Close(ended); err == nil || !strings.Contains(err.Error(), "get k") {
		t.Errorf("close with an open reader: %v, want an error that names it", err)
	}
	if _, err := io.Copy(io.Discard, r); !errclass.Is(err, errclass.Closed) {
		t.Errorf("a reader after close: %v (%v), want class closed", err, errclass.Of(err))
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := s.b.Close(s.ctx); err != nil {
			t.Error(err)
		}
	}
	_, getErr := s.b.Get(s.ctx, "k", 0, -1)
	_, putErr := s.b.Put(s.ctx, "k", strings.NewReader("x"), 1, objstore.PutOptions{})
	for op, err := range map[string]error{"get": getErr, "put": putErr, "delete": s.b.Delete(s.ctx, "k")} {
		if !errclass.Is(err, errclass.Closed) {
			t.Errorf("%s after close: %v (%v), want class closed", op, err, errclass.Of(err))
		}
	}
}
