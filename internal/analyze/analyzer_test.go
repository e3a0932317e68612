package analyze

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/querynode/querynode/internal/errclass"
)

func TestTokens(t *testing.T) {
	for _, c := range []struct {
		analyzer, text string
		want           []string
	}{
		{Standard, "The Quick, brown fox -- can't jump 3.5 metres!", []string{"the", "quick", "brown", "fox", "can't", "jump", "3.5", "metres"}},
		{Standard, "Ärger ÉTÉ ΣΊΣΥΦΟΣ İstanbul", []string{"ärger", "été", "σίσυφοσ", "istanbul"}},
		{Standard, "東京 タワー ok", []string{"東", "京", "タワー", "ok"}},
		{Standard, "a 🚀 b", []string{"a", "🚀", "b"}},
		{Standard, " \t\n .,;", nil},
		{Standard, "", nil},
		{Standard, "snake_case e-mail a@b.de", []string{"snake_case", "e", "mail", "a", "b.de"}},
		{Whitespace, "  Keeps,  the CASE\u00a0and.dots ", []string{"Keeps,", "the", "CASE", "and.dots"}},
		{Whitespace, "", nil},
		{English, "The runners were running easily", []string{"runner", "run", "easili"}},
		{English, "the and of", nil},
	} {
		a, err := New(c.analyzer)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Tokens(c.text); !slices.Equal(got, c.want) {
			t.Errorf("%s %q: %q, want %q", c.analyzer, c.text, got, c.want)
		}
	}
}

func TestPositionsCountWordsThatAreLeftOut(t *testing.T) {
	a, _ := New(English)
	sc := a.Scan()
	sc.Reset("state of the art")
	var at []int
	for sc.Next() {
		at = append(at, sc.Position())
	}
	if !slices.Equal(at, []int{0, 3}) {
		t.Fatal(at)
	}
}

func TestALongTokenIsCutAtACharacter(t *testing.T) {
	for _, kind := range Names() {
		a, _ := New(kind)
		tok := a.Tokens(strings.Repeat("a", MaxToken-1) + "é" + strings.Repeat("b", 1000))
		if len(tok) != 1 || len(tok[0]) > MaxToken || !utf8.ValidString(tok[0]) {
			t.Fatalf("%s: %q", kind, tok)
		}
	}
}

func TestAnUnknownAnalyzerIsRefused(t *testing.T) {
	if _, err := New("klingon"); !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), "standard, whitespace, english") {
		t.Fatal(err)
	}
}

// A scanner that is used again gives what a fresh one gives, and no text makes
// it fail, give empty tokens or positions that go back.
func FuzzScanner(f *testing.F) {
	f.Add("The quick 東京 brown", "e-mail ~ x")
	f.Add("\xff\xfe a", "")
	f.Add("0", strings.Repeat("\xb3", MaxToken+1))
	f.Fuzz(func(t *testing.T, one, two string) {
		for _, kind := range Names() {
			a, _ := New(kind)
			sc := a.Scan()
			for _, text := range []string{one, two} {
				var got []string
				last := -1
				sc.Reset(text)
				for sc.Next() {
					got = append(got, string(sc.Token()))
					if len(sc.Token()) == 0 || sc.Position() <= last {
						t.Fatalf("%s: token %q at %d after %d", kind, sc.Token(), sc.Position(), last)
					}
					last = sc.Position()
				}
				if want := a.Tokens(text); !slices.Equal(got, want) {
					t.Fatalf("%s: %q, want %q", kind, got, want)
				}
			}
		}
	})
}

func BenchmarkScanner(b *testing.B) {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 100)
	a, _ := New(Standard)
	sc := a.Scan()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		sc.Reset(text)
		for sc.Next() {
		}
	}
}
