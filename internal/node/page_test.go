package node

import (
	"testing"

	"github.com/querynode/querynode/internal/errclass"
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
