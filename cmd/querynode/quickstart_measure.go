package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/rowpb"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// Words whose neighbours a person can judge, and how many of them.
const shownNeighbours = 8

func shownWords() []string { return []string{"king", "paris", "monday", "guitar", "three"} }

// neighbour is a word near to another one.
type neighbour struct {
	Word  string  `json:"word"`
	Score float32 `json:"score"` // cosine of the angle between the vectors
}

// search sends one vector.
func (q *quickstart) search(ctx context.Context, v []float32, k int, output ...string) (*qnpb.SearchResponse, error) {
	ctx, cancel := q.c.answer(ctx)
	defer cancel()
	req := q.request(v, k)
	req.OutputFields = output
	if q.fig.Rows > int64(len(q.words.ids)) {
		req.Filter = fmt.Sprintf("id <= %d", len(q.words.ids)) // rows that somebody has added are not ours to judge
	}
	return q.c.query.Search(ctx, req)
}

func (q *quickstart) request(v []float32, k int) *qnpb.SearchRequest {
	return &qnpb.SearchRequest{Collection: wordsCollection, Field: "vector", Vectors: rowpb.RawVectors(v, q.words.dim), TopK: int64(k)}
}

// neighbours shows what is near to some words.
func (q *quickstart) neighbours(ctx context.Context) error {
	q.fig.Neighbours = map[string][]neighbour{}
	t := &console.Table{Title: "Nearest words, by the cosine of their vectors", Verbatim: true}
	t.Rows = make([][]string, shownNeighbours)
	for _, word := range shownWords() {
		near, err := q.near(ctx, word)
		if err != nil {
			return errors.Wrapf(err, "search for %q", word)
		}
		q.fig.Neighbours[word] = near
		t.Columns = append(t.Columns, console.Left(word))
		for i := range t.Rows {
			text := ""
			if i < len(near) {
				text = q.out.Paint(console.Faint, fmt.Sprintf("%.2f", near[i].Score)) + " " + near[i].Word
			}
			t.Rows[i] = append(t.Rows[i], text)
		}
	}
	q.out.Table(t)
	q.out.Printf("")
	return nil
}

func (q *quickstart) near(ctx context.Context, word string) ([]neighbour, error) {
	row, ok := q.words.byText[word]
	if !ok {
		return nil, errors.Newf("it is not among the words")
	}
	got, err := q.search(ctx, q.words.vector(row), shownNeighbours+1, "word")
	if err != nil {
		return nil, err
	}
	var near []neighbour
	for i, score := range got.GetScores() {
		text, ok := cell(got.GetFields()[0], i).(string)
		if !ok {
			return nil, errors.Newf("hit %d has no word", i)
		}
		if text != word && len(near) < shownNeighbours {
			near = append(near, neighbour{text, score})
		}
	}
	return near, nil
}

const (
	measuredQueries = 200
	measuredK       = 10
	warmUp          = 20
	wantRecall      = 0.99
)

// measure compares answers of the node with exact ones, computed here from the
// file: recall@10, the share of the ten nearest that is found. The queries lie
// half-way between two random words, so that none of them is a row.
func (q *quickstart) measure(ctx context.Context) error {
	bar := q.out.Bar("measure against exact search", measuredQueries, console.Steps)
	defer bar.Fail()
	e := newExact(q.words)
	rng := rand.New(rand.NewPCG(20, 1000))
	found, wanted := 0, 0
	var took []time.Duration
	for i := range measuredQueries + warmUp {
		v := make([]float32, q.words.dim)
		a, b := q.words.vector(rng.IntN(len(q.words.ids))), q.words.vector(rng.IntN(len(q.words.ids)))
		for k := range v {
			v[k] = (a[k] + b[k]) / 2
		}
		begin := time.Now()
		got, err := q.search(ctx, v, measuredK)
		if err != nil {
			return err
		}
		if i < warmUp {
			continue // connection, caches
		}
		took = append(took, time.Since(begin))
		hits, err := q.agree(e.cosines(v), got)
		if err != nil {
			return err
		}
		found, wanted = found+hits, wanted+measuredK
		bar.Set(int64(i - warmUp + 1))
	}
	bar.Done()
	slices.Sort(took)
	q.fig.Queries, q.fig.Recall = measuredQueries, float64(found)/float64(wanted)
	q.fig.P50, q.fig.P99 = millis(took[len(took)/2]), millis(took[len(took)*99/100])
	if q.fig.Recall < wantRecall {
		return errors.Newf("recall@%d is %.4f, want at least %.2f: the index is broken", measuredK, q.fig.Recall, wantRecall)
	}
	return nil
}

// agree counts the hits that are among the nearest. Rows that are as near as the
// last of these count too: which of them comes is chance.
func (q *quickstart) agree(cosines []float32, got *qnpb.SearchResponse) (hits int, err error) {
	const rounding = 1e-5
	sorted := slices.Clone(cosines)
	slices.Sort(sorted)
	least := sorted[len(sorted)-measuredK] - rounding
	seen := map[int64]bool{}
	for _, id := range got.GetIds().GetInts().GetValues() {
		if id < 1 || id > int64(len(cosines)) || seen[id] {
			return 0, errors.Newf("a search returned the key %d, which is not there or came twice", id)
		}
		seen[id] = true
		if cosines[id-1] >= least {
			hits++
		}
	}
	return min(hits, measuredK), nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
