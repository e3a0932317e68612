package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

func TestTheShippedWordsAreWhatTheyShouldBe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "words.parquet")
	if err := unpack(path); err != nil {
		t.Fatal(err)
	}
	w, err := readWords(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.ids) != 20_000 || w.dim != 100 || len(w.vectors) != 2_000_000 {
		t.Fatalf("%d words of %d dimensions", len(w.ids), w.dim)
	}
	for row, id := range w.ids {
		if id != int64(row)+1 {
			t.Fatalf("row %d has the key %d: exact.cosines counts on row+1", row, id)
		}
	}
	for _, word := range shownWords() {
		if _, ok := w.byText[word]; !ok {
			t.Errorf("%q is not among the words", word)
		}
	}
	king := w.byText["king"]
	scores := newExact(w).cosines(w.vector(king))
	if s := scores[king]; s < 0.9999 || s > 1.0001 {
		t.Errorf("a vector's cosine with itself is %v", s)
	}

	// A file that was damaged is written anew.
	if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unpack(path); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(path); err != nil || len(raw) < 1<<20 {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
}

func TestRecallCountsWhatIsFound(t *testing.T) {
	q := &quickstart{}
	cosines := make([]float32, 20)
	for i := range cosines {
		cosines[i] = float32(i) / 20 // the ten nearest are the keys 11 to 20
	}
	cosines[9] = cosines[10] // key 10 is as near as key 11
	answer := func(ids ...int64) *qnpb.SearchResponse {
		return &qnpb.SearchResponse{Ids: &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: ids}}}}
	}
	for _, c := range []struct {
		ids  []int64
		want int
	}{
		{[]int64{20, 19, 18, 17, 16, 15, 14, 13, 12, 11}, 10},
		{[]int64{20, 19, 18, 17, 16, 15, 14, 13, 12, 10}, 10},
		{[]int64{20, 19, 18, 17, 16, 15, 14, 13, 12, 9}, 9},
		{[]int64{1, 2, 3}, 0},
		{nil, 0},
	} {
		if got, err := q.agree(cosines, answer(c.ids...)); err != nil || got != c.want {
			t.Errorf("%v: %d hits, %v, want %d", c.ids, got, err, c.want)
		}
	}
	for _, ids := range [][]int64{{0}, {21}, {5, 5}} {
		if _, err := q.agree(cosines, answer(ids...)); err == nil {
			t.Errorf("%v passed", ids)
		}
	}
}

func TestATakenDefaultPortIsReplacedANamedOneIsNot(t *testing.T) {
	lis, err := net.Listen("tcp", defaultAddr)
	if err != nil {
		t.Skip("something else has the default port: ", err)
	}
	defer func() { _ = lis.Close() }()
	var notes bytes.Buffer
	a := &app{stdout: &notes, stderr: &notes}
	out := console.New(console.Options{Err: &notes})
	dir := t.TempDir()
	cfg, err := (&quickstartCmd{configFlags: configFlags{DataDir: &dir}}).config(a, out)
	if err != nil || cfg.GRPC.Listen != "127.0.0.1:0" || !strings.Contains(notes.String(), defaultAddr+" is taken") {
		t.Errorf("%v, %v, %q", cfg.GRPC.Listen, err, &notes)
	}
	named := defaultAddr
	cfg, err = (&quickstartCmd{configFlags: configFlags{DataDir: &dir, GRPCListen: &named}}).config(a, out)
	if err != nil || cfg.GRPC.Listen != defaultAddr {
		t.Errorf("%v, %v", cfg.GRPC.Listen, err)
	}
	// A container in which it is taken is reached at no other.
	a.environ = []string{"QUERYNODE_DEFAULT_GRPC_LISTEN=" + defaultAddr}
	cfg, err = (&quickstartCmd{configFlags: configFlags{DataDir: &dir}}).config(a, out)
	if err != nil || cfg.GRPC.Listen != defaultAddr {
		t.Errorf("the address of an image became %v, %v", cfg.GRPC.Listen, err)
	}
}

func TestTheQuickStartWritesToNobodyElsesCollection(t *testing.T) {
	q := &quickstart{words: &words{dim: 100}, cfg: testConfig(t)}
	err := q.checkCollection(&qnpb.Collection{Schema: &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{{Name: "id"}}}})
	if err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Error(err)
	}
	if err := q.checkCollection(&qnpb.Collection{Schema: wordsSchema(100)}); err != nil {
		t.Error(err)
	}
}

func TestEveryRowLoadedMeansEveryRow(t *testing.T) {
	seg := func(state string, rows, deleted int64) *qnpb.SegmentStatus {
		return &qnpb.SegmentStatus{State: state, Rows: rows, DeletedRows: deleted}
	}
	for _, c := range []struct {
		segments []*qnpb.SegmentStatus
		want     bool
	}{
		{nil, false},
		{slices.Repeat([]*qnpb.SegmentStatus{seg("loaded", 50, 0)}, 2), true},
		{[]*qnpb.SegmentStatus{seg("loaded", 100, 1)}, false},
		{[]*qnpb.SegmentStatus{seg("loaded", 100, 0), seg("growing", 0, 0)}, false},
		{[]*qnpb.SegmentStatus{seg("loaded", 100, 0), seg("sealed", 5, 0)}, false},
	} {
		if got := allLoaded(c.segments, 100); got != c.want {
			t.Errorf("%v: %v", c.segments, got)
		}
	}
}
