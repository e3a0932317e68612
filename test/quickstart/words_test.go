package quickstart

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/querynode/querynode/internal/dataset"
	"github.com/querynode/querynode/internal/rowpb"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/testdata"
)

// nodeAddr reads where the node of a data folder listens.
func nodeAddr(t *testing.T, dir string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	var n struct {
		Addr string `json:"grpc_addr"`
	}
	if err := json.Unmarshal(raw, &n); err != nil {
		t.Fatal(err)
	}
	return n.Addr
}

func dial(t *testing.T, addr string) qnpb.QueryServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return qnpb.NewQueryServiceClient(conn)
}

// row is what a word should be.
type row struct {
	word   string
	vector []float32
}

// published reads the file as it is shipped.
func published(t *testing.T) map[int64]row {
	t.Helper()
	r, err := dataset.Open(filepath.Join("..", "..", "testdata", testdata.GloVe), dataset.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	s := r.Schema()
	id, _ := s.Field("id")
	word, _ := s.Field("word")
	vector, _ := s.Field("vector")
	out := map[int64]row{}
	for {
		b, err := r.Next(4096)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Rows {
			out[b.Column(id.ID).Int[i]] = row{b.Column(word.ID).Str[i], b.Column(vector.ID).Vector(i)}
		}
	}
}

// checkWords compares every row over gRPC with the file: each is there once,
// as published, and all that was acknowledged is among them.
func checkWords(t *testing.T, c qnpb.QueryServiceClient, p *program) {
	t.Helper()
	want := published(t)
	if n := count(t, c); n != int64(len(want)) {
		t.Errorf("count(*) is %d, want %d", n, len(want))
	}
	seen := map[int64]int{}
	stream, err := c.Query(testContext(t), &qnpb.QueryRequest{Collection: "words", OutputFields: []string{"*"}, Freshness: strong()})
	if err != nil {
		t.Fatal(err)
	}
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		checkPiece(t, piece, want, seen)
	}
	if len(seen) != len(want) {
		t.Errorf("%d rows, want %d", len(seen), len(want))
	}
	for id, n := range seen {
		if n != 1 {
			t.Fatalf("row %d is there %d times", id, n)
		}
	}
	for id := range p.acknowledged() {
		if seen[id] != 1 {
			t.Fatalf("row %d was acknowledged and is there %d times", id, seen[id])
		}
	}
}

func checkPiece(t *testing.T, piece *qnpb.QueryResponse, want map[int64]row, seen map[int64]int) {
	t.Helper()
	fields := map[string]*qnpb.FieldData{}
	for _, f := range piece.GetFields() {
		fields[f.GetField()] = f
	}
	vectors, dim := fields["vector"].GetVectors(), 0
	values, _, err := rowpb.Vectors(vectors)
	if piece.GetRows() > 0 && err != nil {
		t.Fatal(err)
	}
	dim = int(vectors.GetDim())
	for i := range int(piece.GetRows()) {
		id := fields["id"].GetInts().GetValues()[i]
		seen[id]++
		w, ok := want[id]
		if !ok {
			t.Fatalf("there is a row %d that nobody wrote", id)
		}
		if got := fields["word"].GetStrings().GetValues()[i]; got != w.word {
			t.Fatalf("row %d is %q, want %q", id, got, w.word)
		}
		if !slices.Equal(values[i*dim:(i+1)*dim], w.vector) {
			t.Fatalf("row %d (%s) has another vector than was written", id, w.word)
		}
	}
}

func strong() *qnpb.Freshness {
	return &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_STRONG}
}

func count(t *testing.T, c qnpb.QueryServiceClient) (n int64) {
	t.Helper()
	stream, err := c.Query(testContext(t), &qnpb.QueryRequest{Collection: "words", OutputFields: []string{"count(*)"}, Freshness: strong()})
	if err != nil {
		t.Fatal(err)
	}
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		n += piece.GetCount()
	}
}
