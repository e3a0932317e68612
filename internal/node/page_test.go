package node

import (
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/segments"
)

func TestATokenSaysWhereItsPageEnded(t *testing.T) {
	for _, text := range []bool{false, true} {
		p := page{kind: pageOfSearch, at: 99, request: 7, cursor: segments.Cursor{Distance: -1.5, Key: segments.Key{Int: -3}}}
		if text {
			p.cursor.Key = segments.Key{Str: "köy"}
		}
		token := p.token(text)
		got, err := parsePage(token, pageOfSearch, 7, text)
		if err != nil || *got != p {
			t.Errorf("%+v, %v, want %+v", got, err, p)
		}
		for _, bad := range []string{"", "x", token[1:], token + "A", token[:len(token)-1] + "é"} {
			if _, err := parsePage(bad, pageOfSearch, 7, text); !errclass.Is(err, errclass.Invalid) {
				t.Errorf("%q: %v", bad, err)
			}
		}
		if _, err := parsePage(token, pageOfQuery, 7, text); err == nil {
			t.Error("a token of a search, taken by a query")
		}
		if _, err := parsePage(token, pageOfSearch, 8, text); err == nil {
			t.Error("a token of another request was taken")
		}
	}
}

// TestAPageThatCannotBe is refused at once: one of a time that has not come, and pages of
// rows that are drawn anew each time.
func TestAPageThatCannotBe(t *testing.T) {
	n := newWorld(t).open(nil).ready()
	n.create()
	n.insert(1, 2, 3)
	none := func(*Rows) error { return nil }
	q := &Query{Select: Select{Collection: things, OutputFields: []string{"id"}, Freshness: Freshness{Level: Strong}}, Limit: 1, Iterate: true}
	a, err := n.Query(within(t), q, none)
	must(t, err)
	coll, err := n.Collection(within(t), things)
	must(t, err)
	for _, at := range []uint64{^uint64(0), ^uint64(0) - 1, 1 << 62, wal.FromTime(time.Now().Add(time.Hour))} {
		p, err := parsePage(a.NextToken, pageOfQuery, hashQuery(coll.ID, &segments.Read{}), false)
		must(t, err)
		p.at = at
		q.Token = p.token(false)
		if _, err := n.Query(within(t), q, none); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("a token of %d: %v", at, err)
		}
	}
	q.Token = a.NextToken
	_, err = n.Query(within(t), q, none)
	must(t, err)

	q.Token, q.Filter = "", "id > 0 and random_sample(0.5)"
	if _, err := n.Query(within(t), q, none); !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), "random_sample") {
		t.Errorf("pages of a sample: %v", err)
	}
	_, err = n.Search(within(t), &Search{Select: q.Select, Vectors: []float32{0, 0}, Dim: 2, TopK: 1, Iterate: true})
	if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), "random_sample") {
		t.Errorf("pages of a search of a sample: %v", err)
	}
}

func FuzzToken(f *testing.F) {
	p := page{kind: pageOfQuery, at: 1, request: 2, cursor: segments.Cursor{Key: segments.Key{Str: "a"}}}
	f.Add(p.token(true), true)
	f.Add(p.token(false), false)
	f.Add("", true)
	f.Fuzz(func(t *testing.T, s string, text bool) {
		got, err := parsePage(s, pageOfQuery, 2, text)
		if err != nil {
			return
		}
		if again, err := parsePage(got.token(text), pageOfQuery, 2, text); err != nil || again.cursor.Key != got.cursor.Key || again.at != got.at {
			t.Errorf("%q: %+v, then %+v, %v", s, got, again, err)
		}
	})
}
