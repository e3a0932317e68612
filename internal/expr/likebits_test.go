package expr

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestLongPiecesInOnePass: a piece is found where trying every place finds it.
func TestLongPiecesInOnePass(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	letters := []string{"a", "a", "a", "b", "é", "日"}
	text := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteString(letters[r.IntN(2+r.IntN(5))])
		}
		return b.String()
	}
	found := 0
	for range 3000 {
		s := text(270 + r.IntN(800))
		runes := []rune(s)
		from := r.IntN(100)
		in := runes[from : from+66+r.IntN(100)]
		pattern := make([]rune, len(in))
		for i, c := range in {
			if pattern[i] = c; i > 0 && i < len(in)-1 && r.IntN(3) == 0 {
				pattern[i] = '_'
			}
		}
		if r.IntN(2) == 0 { // it is nowhere, or somewhere else
			pattern[len(pattern)-1] = 'b'
		}
		q := compileLike("%" + string(pattern) + "%").pieces[0]
		if q.bits == nil {
			if q.wild != nil {
				t.Fatalf("no bits for %q", string(pattern))
			}
			continue
		}
		slow := q
		slow.bits = nil
		want := slow.findText(s)
		if got := q.bits.find(s); got != want {
			t.Fatalf("%q in %q: ends at %d, want %d", string(pattern), s, got, want)
		}
		if got := q.findText(s); got != want {
			t.Fatalf("%q in %q: ends at %d, want %d, after some tries", string(pattern), s, got, want)
		}
		if want >= 0 {
			found++
		}
	}
	if found < 1000 || found > 2900 {
		t.Errorf("%d of 3000 were found", found)
	}
	// Text that is not valid is searched without.
	pattern := "%b" + strings.Repeat("_a", 60) + "b%"
	for _, s := range []string{strings.Repeat("b\xff", 500), strings.Repeat("b", 200) + strings.Repeat("\xe6a", 60) + "b"} {
		q := compileLike(pattern).pieces[0]
		slow := q
		slow.bits = nil
		if got, want := q.findText(s), slow.findText(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}

func BenchmarkLikeWild(b *testing.B) {
	s := strings.Repeat("ab", 30_000)
	for name, pattern := range map[string]string{
		"short": "%a_a_a_a_c%", "64": "%" + strings.Repeat("a_", 31) + "c%", "4096": "%" + strings.Repeat("a_", 2040) + "c%",
	} {
		p := compileLike(pattern)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if p.match(s) {
					b.Fatal("it matches")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(s)), "ns/byte")
		})
	}
}
