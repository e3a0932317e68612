package main

import (
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestManyDeletesPassBesideLargeInserts: on one connection, in a cgroup that kills what takes more than it has. Inserts of 40 MB take
// all that there is for requests, for decoding and in the logs; deletes have a share of each, and writing millions of them to files,
// which cannot be refused either, takes little.
func TestManyDeletesPassBesideLargeInserts(t *testing.T) {
	const cgroup, keys = 256 << 20, 100_000
	deletes := int64(100)
	if os.Getenv("QUERYNODE_TEST_LONG") != "" {
		deletes = 1000
	}
	h := startHostile(t, cgroup, 0)
	conn, err := grpc.NewClient(h.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	w, insert := qnpb.NewWriteServiceClient(conn), insertRequest(1<<41, 20_000, strings.Repeat("x", 900))
	highest := h.watchMemory()
	var left, passed atomic.Int64
	left.Store(deletes)
	var all, others sync.WaitGroup
	done := make(chan struct{})
	for range 6 {
		others.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_, err := w.Append(h.within(), insert)
					h.note("inserts", err)
				}
			}
		})
	}
	for range 2 {
		all.Go(func() {
			for n := left.Add(-1); n >= 0; n = left.Add(-1) {
				_, err := w.Append(h.within(), &qnpb.AppendRequest{Collection: "items", Operation: &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{
					Ids: &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: idsFrom(1<<40+n*keys, keys)}}}}}})
				if err != nil {
					t.Errorf("a delete did not pass: %v", err)
					return
				}
				passed.Add(1)
			}
		})
	}
	all.Wait()
	close(done)
	others.Wait()
	most := highest()
	h.alive()
	t.Logf("%d deletes of %d keys; inserts %v; %d MiB of anonymous memory at most, of %d", passed.Load(), keys, h.codes["inserts"], most>>20, cgroup>>20)
}
