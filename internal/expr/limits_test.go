package expr

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// refused compiles a filter that has to fail with a message that contains want.
func refused(t *testing.T, s *schema.Schema, filter, want string, vars map[string]any) {
	t.Helper()
	_, err := Compile(filter, s, vars, "")
	var e *Error
	if err == nil || !errors.As(err, &e) || !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), want) {
		t.Fatalf("%s: got %v, want an *Error of class Invalid with %q", clip(filter), err, want)
	}
	if e.Pos < 0 || e.Pos > len(filter) || e.Line < 1 || e.Column < 1 {
		t.Fatalf("%s: position %d, line %d, column %d", clip(filter), e.Pos, e.Line, e.Column)
	}
	if c := e.Caret(filter); strings.Count(c, "\n") != 1 || !strings.HasSuffix(c, "^") || len(c) > 1000 {
		t.Fatalf("caret: %q", c)
	}
}

func TestDeepNestingIsRefused(t *testing.T) {
	s := parseSchema(t, modelSchema)
	const n = 10_000
	wrap := func(open, inner, closing string) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(closing, n)
	}
	for _, filter := range []string{
		wrap("(", "id == 1", ")"), wrap("not ", "id == 1", ""), wrap("!", "b", ""), wrap("-", "id == 1", ""),
		wrap("+", "id == 1", ""), "id in " + wrap("[", "1", "]"), wrap("exists ", "meta[1]", ""),
		wrap("json_contains(", "meta", ", 1)"), wrap("(id == 1 or (", "id == 1", "))"), wrap("array_length(", "meta", ")"),
		wrap("(not ", "b", ")"), "(" + strings.Repeat("(", n), "meta == " + wrap("[", "", "]"),
	} {
		refused(t, s, filter, "nested more than 256 levels deep", nil)
	}
	refused(t, s, "id"+strings.Repeat(" + id", n)+" > 1", "more than 256 steps of arithmetic", nil)
	refused(t, s, "meta"+strings.Repeat("[1]", n)+" == 1", "a path has at most 64 steps", nil)
}

func TestNestingWithinTheLimitWorks(t *testing.T) {
	m := newModel(t, 1, 130)
	for _, f := range []string{
		strings.Repeat("(", MaxDepth) + "id == 1" + strings.Repeat(")", MaxDepth),
		strings.Repeat("not ", MaxDepth) + "id == 1",
	} {
		sameRows(t, m.cols, m.n, mustCompile(t, m.s, f, nil), mustCompile(t, m.s, "id == 1", nil))
	}
	deep := strings.Repeat("(i > 0 and (j > 0 or ", MaxDepth/2) + "b" + strings.Repeat("))", MaxDepth/2)
	matching(t, mustCompile(t, m.s, deep, nil), m.cols, m.n)
	matching(t, mustCompile(t, m.s, "j"+strings.Repeat(" + 1 - j", MaxDepth/2)+" > 1", nil), m.cols, m.n)
}

func TestLongFlatChains(t *testing.T) {
	m := newModel(t, 2, 200)
	const n = 5000
	terms := func(format, join string) string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf(format, i)
		}
		return strings.Join(all, join)
	}
	for filter, same := range map[string]string{
		terms("j==%d", " or "):              "j >= 0",
		terms("j>%d", "||"):                 "j > 0",
		terms("j!=%d", "&&"):                "j < 0",
		terms("j<%d", " and "):              "j < 0",
		"not (" + terms("j<%d", "&&") + ")": "j >= 0",
		terms("j%%8!=%d", "&&"):             "j < 0 and j % 8 != 0",
	} {
		sameRows(t, m.cols, m.n, mustCompile(t, m.s, filter, nil), mustCompile(t, m.s, same, nil))
	}
}

func TestSizeLimits(t *testing.T) {
	s := parseSchema(t, modelSchema)
	long := "id == 1" + strings.Repeat(" ", MaxText-len("id == 1"))
	mustCompile(t, s, long, nil)
	mustCompile(t, s, long+" ", nil) // blanks at the end are no token
	refused(t, s, long+"and", "longer than 65536 bytes", nil)
	refused(t, s, strings.Repeat(" ", MaxTextWithLists+1), "at most 2097152 are allowed", nil)

	list := "[" + strings.Repeat("9223372036854775807,", MaxList) + "]"
	mustCompile(t, s, "id in "+list, nil)
	refused(t, s, "id in "+strings.Replace(list, "[", "[1,", 1), "at most 65536 elements", nil)
	mustCompile(t, s, "id in {x}", map[string]any{"x": make([]int64, MaxList)})
	refused(t, s, "id in {x}", "at most 65536 elements", map[string]any{"x": make([]int64, MaxList+1)})

	mustCompile(t, s, `s like "`+strings.Repeat("%", MaxPattern)+`"`, nil)
	refused(t, s, `s like "`+strings.Repeat("%", MaxPattern+1)+`"`, "at most 4096 are allowed", nil)

	var loop []any
	loop = append(loop, nil)
	loop[0] = loop
	refused(t, s, "meta == {x}", "nested more than 256 levels deep", map[string]any{"x": loop})
	refused(t, s, "d == {x}", "finite", map[string]any{"x": math.NaN()})
}

func TestBlankMatchesAll(t *testing.T) {
	m := newModel(t, 3, 70)
	for _, filter := range []string{"", " ", "\n\t\r "} {
		p := mustCompile(t, m.s, filter, nil)
		if !p.All() || len(p.Fields()) != 0 || p.String() != "" || len(matching(t, p, nil, m.n)) != m.n {
			t.Fatalf("%q does not match all", filter)
		}
	}
}

func TestColumnsThatDoNotFitAreAnError(t *testing.T) {
	m := newModel(t, 4, 70)
	p := mustCompile(t, m.s, "id > 0 and s == 'a'", nil)
	var out bitset.Set
	short := table{}
	for id, c := range m.cols {
		short[id] = c.Slice(0, 69)
	}
	wrong := table{100: m.cols[105], 105: m.cols[105]}
	if err := p.Eval(table{}, m.n, nil, nil, &out); !errclass.Is(err, errclass.Retryable) { // dropped meanwhile
		t.Fatalf("missing columns: %v", err)
	}
	for name, cols := range map[string]table{"short": short, "wrong type": wrong} {
		if err := p.Eval(cols, m.n, nil, nil, &out); !errclass.Is(err, errclass.Internal) || err == nil {
			t.Fatalf("%s columns: %v", name, err)
		}
	}
}

func TestPlanIsSharedByGoroutines(t *testing.T) {
	m := newModel(t, 5, 9000)
	filter := `(i > 0 or meta["a"] > 1 and s like "%a%") and not (j + 1 == 2) or json_contains_all(meta["b"], [1, "a"]) or meta["a"] == i`
	p := mustCompile(t, m.s, filter, nil)
	want := matching(t, p, m.cols, m.n)
	if len(want) == 0 {
		t.Fatal("the filter matches nothing")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 3 {
				var out bitset.Set
				if err := p.Eval(m.cols, m.n, nil, nil, &out); err != nil || !slices.Equal(out.AppendTo(nil), want) {
					t.Errorf("another result (error %v)", err)
				}
			}
		})
	}
	wg.Wait()
}

func TestEvalDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool forgets at random under the race detector")
	}
	m := newModel(t, 6, 5_000)
	for _, filter := range []string{
		`i > 0 and s in ["red", "blue"]`,
		`i in [1, 2, 3, 5, 1000, 1099511627776] or d <= 1.5 and not b`,
		`s like "%a_b%" or s > "b" or f in [1.1, 2]`,
		`meta["a"] > 1 or color == "é" or exists meta["b"]["c"] or meta["q\"k"] like "%é"`,
		`j % 3 == 1 or i * 2 > d or meta["a"] + 1 == 2 or $meta["a"] in [1, 2, 3, 4, 5, "a", "grün"]`,
		`json_contains_all(meta["a"], [1, 2]) or meta["a"] == [1, 2]`,
	} {
		p := mustCompile(t, m.s, filter, nil)
		var out bitset.Set
		eval := func() {
			if err := p.Eval(m.cols, m.n, nil, nil, &out); err != nil {
				t.Fatal(err)
			}
		}
		eval()
		if n := testing.AllocsPerRun(10, eval); n > 1 { // the pool may be emptied at any time
			t.Errorf("%s: %v allocations", filter, n)
		}
	}
}

func TestPrimaryKeys(t *testing.T) {
	s := parseSchema(t, modelSchema)
	for _, c := range []struct {
		filter string
		keys   []int64
		ok     bool
		only   bool
	}{
		{`id == 7`, []int64{7}, true, true},
		{`7 == id`, []int64{7}, true, true},
		{`id in [5, 1, 5, 3]`, []int64{1, 3, 5}, true, true},
		{`id in [1, 2, 3]`, []int64{1, 2, 3}, true, true},
		{`id in []`, nil, true, true},
		{`id == 1 or id in [4, 9]`, []int64{1, 4, 9}, true, true},
		{`id in [1, 2] or id in [8, 9]`, []int64{1, 2, 8, 9}, true, true},
		{`1 <= id <= 3`, []int64{1, 2, 3}, true, true},
		{`id in [1, 5] and s == "x"`, []int64{1, 5}, true, false},
		{`(id == 1 and s == "x") or id == 2`, []int64{1, 2}, true, false},
		{`id in [1, 5, 9] and id in [1, 9, 20, 30]`, []int64{1, 5, 9}, true, false},
		{`id == 9223372036854775807`, []int64{math.MaxInt64}, true, true},
		{`id == 1 or s == "x"`, nil, false, false},
		{`id not in [1]`, nil, false, false},
		{`id != 1`, nil, false, false},
		{`id > 1`, nil, false, false},
		{`i == 1`, nil, false, false},
		{``, nil, false, false},
	} {
		p := mustCompile(t, s, c.filter, nil)
		col, ok := p.PrimaryKeys(s.Primary())
		if ok != c.ok || p.OnlyPrimaryKeys(s.Primary()) != c.only || ok && !slices.Equal(col.Int, c.keys) {
			t.Errorf("%s: got %v %v only %v", c.filter, col, ok, p.OnlyPrimaryKeys(s.Primary()))
		}
	}
	text := parseSchema(t, "k VarChar pk\nv FloatVector")
	col, ok := mustCompile(t, text, `k in ["b", "a", "a"] or k == "c"`, nil).PrimaryKeys(text.Primary())
	if !ok || !slices.Equal(col.Str, []string{"a", "b", "c"}) || col.Type != schema.VarChar {
		t.Fatalf("got %v %v", col, ok)
	}
}

func TestMayMatch(t *testing.T) {
	s := parseSchema(t, modelSchema)
	known := func(id int64) (lo, hi any, nulls, rows int64, ok bool) {
		switch f, _ := s.FieldByID(id); f.Name {
		case "id":
			return int64(10), int64(20), 0, 100, true
		case "i":
			return nil, nil, 100, 100, true
		case "d":
			return 1.0, 2.0, 5, 100, true
		case "f":
			return float32(1), float32(2), 0, 100, true
		case "j":
			return int64(1), int64(1), 0, 100, true
		case "s":
			return "b", "d", 5, 100, true
		case "b":
			return true, true, 0, 100, true
		case "meta":
			return nil, nil, 100, 100, true
		}
		return nil, nil, 0, 0, false
	}
	for filter, want := range map[string]bool{
		`id == 15`: true, `id == 9`: false, `id in [1, 2, 30]`: false, `id in [1, 12, 30]`: true, `id > 20`: false,
		`id >= 20`: true, `id < 10 or id == 10`: true, `id < 10 or id == 11`: true, `id < 10 or id > 20`: false,
		`id != 15`: true, `not (id >= 10)`: false, `id not in [1, 5]`: true, `not (10 <= id <= 20)`: false,
		`id == 15 and d == 3`: false, `id == 15 and d == 1.5`: true, `d > 2`: false, `d != 1`: true,
		`j != 1`: false, `not (f >= 1)`: true, `not (d >= 1)`: true, `f == 1.1`: true, `f > 2`: false, `f in [3, 4]`: false, `d in [1.5, 3]`: true, `d in [3]`: false,
		`i > 0`: false, `i is null`: true, `i is not null`: false, `i not in [1]`: false, `i not in []`: true,
		`id is null`: false, `d is null`: true, `$meta["j"] > 1000`: true, `$meta is null`: true,
		`s == "a"`: false, `s == "c"`: true, `s < "b"`: false, `s > "d"`: false, `s >= "d"`: true, `s like "a%"`: false,
		`s like "b%"`: true, `s like "ca%"`: true, `s like "e%"`: false, `s like "%x"`: true, `s like "a_"`: false,
		`s in ["a", "x"]`: false, `s in ["a", "c"]`: true, `s != "c"`: true, `not s like "a%"`: true,
		`b`: true, `not b`: false, `meta["a"] == 1`: false, `meta["a"] is null`: true, `exists meta["a"]`: false,
		`$meta["a"] == 1`: true, `i + 1 == 2`: false, `id + 1 == 2`: true, `i == id`: false, ``: true, `false`: false,
	} {
		if got := mustCompile(t, s, filter, nil).MayMatch(known); got != want {
			t.Errorf("%s: got %v, want %v", filter, got, want)
		}
	}
}
