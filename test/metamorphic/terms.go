package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// like says whether a pattern matches: % is any text, _ one character, a
// backslash takes what follows as it is.
func like(pattern, s []rune) bool {
	switch {
	case len(pattern) == 0:
		return len(s) == 0
	case pattern[0] == '%':
		return like(pattern[1:], s) || len(s) > 0 && like(pattern, s[1:])
	case len(s) == 0:
		return false
	case pattern[0] == '_':
		return like(pattern[1:], s[1:])
	case pattern[0] == '\\':
		return pattern[1] == s[0] && like(pattern[2:], s[1:])
	}
	return pattern[0] == s[0] && like(pattern[1:], s[1:])
}

func (d *draft) onText(name string, ends bool, get func(*row) any) condition {
	word := func() string {
		if ends && d.r.IntN(2) == 0 {
			return textEnds[d.r.IntN(len(textEnds))]
		}
		return randomWord(d.r)
	}
	draw := func() any { return word() }
	switch d.r.IntN(10) {
	case 8:
		if name == "$" { // that is of fields
			break
		}
		return given("empty("+name+")", get, func(v any) bool { return v == "" })
	case 9:
		if name == "$" {
			break
		}
		part := d.one("a", "b", "gre", "größ", "100%", "under_")
		return given(fmt.Sprintf("%s(%s, %q)", d.one("starts_with", "STARTS_WITH"), name, part), get, func(v any) bool { return strings.HasPrefix(v.(string), part) })
	case 0, 1:
		part := d.one("a", "b", "re", "gre", "e", "ue", "größ", "", "\u0301", "\U0001f600")
		pattern := d.one(part+"%", "%"+part, "%"+part+"%", part, part+"_", "_"+part+"%", `%\%`, `under\_%`, "%e%e%", "a_c", `100\%`, "_____")
		return given(name+" like "+d.literal(pattern), get, func(v any) bool { return like([]rune(pattern), []rune(v.(string))) })
	case 2, 3:
		return d.among(name, get, draw)
	case 4:
		a, b := word(), word()
		return d.between(name, get, min(a, b), max(a, b))
	case 5:
		p := d.one("^a", "e$", "^(red|blue)$", "[0-9]+", "(?i)RED", "^.{3}$", "b.*e", "ö")
		e := regexp.MustCompile(p)
		if d.r.IntN(2) == 0 {
			return given(fmt.Sprintf("%s !~ %q", name, p), get, func(v any) bool { return !e.MatchString(v.(string)) })
		}
		return given(fmt.Sprintf("%s =~ %q", name, p), get, func(v any) bool { return e.MatchString(v.(string)) })
	}
	return d.against(name, get, draw)
}

// onWords makes a condition on the words of a text.
func (d *draft) onWords(name string, get func(*row) any) condition {
	var look []string
	for range 1 + d.r.IntN(3) {
		look = append(look, terms[d.r.IntN(len(terms))])
	}
	phrase := strings.Join(look, " ")
	if d.r.IntN(4) == 0 {
		return d.onMisspelt(name, get)
	}
	if d.r.IntN(2) == 0 {
		slop := d.r.IntN(3)
		text := fmt.Sprintf("phrase_match(%s, %q, %d)", name, phrase, slop)
		if slop == 0 && d.r.IntN(2) == 0 {
			text = fmt.Sprintf("phrase_match(%s, %q)", name, phrase)
		}
		return given(text, get, func(v any) bool { return hasPhrase(strings.Fields(v.(string)), look, nil, slop) })
	}
	slices.Sort(look)
	look = slices.Compact(look)
	least := 1
	text := fmt.Sprintf("text_match(%s, %q)", name, phrase)
	if d.r.IntN(2) == 0 {
		least = 1 + d.r.IntN(len(look))
		text = fmt.Sprintf("%s(%s, %q, minimum_should_match=%d)", d.one("text_match", "TEXT_MATCH"), name, phrase, least)
	}
	return given(text, get, func(v any) bool {
		n := 0
		for _, w := range look {
			if slices.Contains(strings.Fields(v.(string)), w) {
				n++
			}
		}
		return n >= least
	})
}

// onMisspelt makes a condition on words that are nearly in a text.
func (d *draft) onMisspelt(name string, get func(*row) any) condition {
	look := []string{d.one("bleu", "fix", "dgo", "son", "cut", "red"), d.one("fax", "rod", "cat", "unk")}[:1+d.r.IntN(2)]
	most := d.r.IntN(3)
	text := fmt.Sprintf("text_match_fuzzy(%s, %q, max_edit_distance=%d)", name, strings.Join(look, " "), most)
	return given(text, get, func(v any) bool {
		return slices.ContainsFunc(strings.Fields(v.(string)), func(w string) bool {
			return slices.ContainsFunc(look, func(l string) bool { return edits(w, l) <= most })
		})
	})
}

// edits is how many characters have to be added, left out, replaced or swapped with their neighbour to make one
// word of another, none of them twice.
func edits(a, b string) int {
	switch {
	case a == "" || b == "":
		return len(a) + len(b)
	case a[0] == b[0]:
		return edits(a[1:], b[1:])
	}
	least := 1 + min(edits(a[1:], b), edits(a, b[1:]), edits(a[1:], b[1:]))
	if len(a) > 1 && len(b) > 1 && a[0] == b[1] && a[1] == b[0] {
		least = min(least, 1+edits(a[2:], b[2:]))
	}
	return least
}

// hasPhrase says whether a place can be found for every word, so that the places
// where the phrase would begin by each word are at most slop apart.
func hasPhrase(text, phrase []string, begins []int, slop int) bool {
	n := len(begins)
	if n == len(phrase) {
		return slices.Max(begins)-slices.Min(begins) <= slop
	}
	for at, w := range text {
		if w == phrase[n] && hasPhrase(text, phrase, append(slices.Clone(begins), at-n), slop) {
			return true
		}
	}
	return false
}

func (d *draft) onArray(f *field, get func(*row) any) condition {
	draw := func() any { return f.element(d.r) }
	some := func() (l list) {
		for range 1 + d.r.IntN(3) {
			l = append(l, draw())
		}
		return l
	}
	has := func(v any, e any) bool {
		return slices.ContainsFunc(v.(list), func(x any) bool { return order(x, e) == 0 })
	}
	fn := d.one("array_contains", "ARRAY_CONTAINS", "json_contains")
	switch d.r.IntN(9) {
	case 6, 7:
		return d.onElements(f.name, func(x *row) any {
			l, ok := get(x).(list)
			if !ok {
				return nil
			}
			return l
		}, draw)
	case 0, 1:
		want := draw()
		return given(fmt.Sprintf("%s(%s, %s)", fn, f.name, d.literal(want)), get, func(v any) bool { return has(v, want) })
	case 2:
		l := some()
		return given(fmt.Sprintf("array_contains_any(%s, %s)", f.name, d.literal(l)), get, func(v any) bool {
			return slices.ContainsFunc(l, func(e any) bool { return has(v, e) })
		})
	case 3:
		l := some()
		return given(fmt.Sprintf("array_contains_all(%s, %s)", f.name, d.literal(l)), get, func(v any) bool {
			return !slices.ContainsFunc(l, func(e any) bool { return !has(v, e) })
		})
	case 4:
		op, n := d.one(operators...), d.r.Int64N(5)
		return given(fmt.Sprintf("array_length(%s) %s %s", f.name, op, d.literal(n)), get, func(v any) bool { return holds(op, order(int64(len(v.(list))), n)) })
	case 5:
		l := some()
		return given(fmt.Sprintf("%s == %s", f.name, text(l)), get, func(v any) bool {
			return slices.EqualFunc(v.(list), l, func(a, b any) bool { return order(a, b) == 0 })
		})
	}
	at := d.r.IntN(4)
	element := func(x *row) any {
		l, _ := get(x).(list)
		if at >= len(l) {
			return nil
		}
		return l[at]
	}
	name := fmt.Sprintf("%s[%d]", f.name, at)
	if f.elem == qnpb.DataType_DATA_TYPE_BOOL {
		return given(name+" == true", element, func(v any) bool { return v == true })
	}
	if d.r.IntN(3) == 0 {
		return d.among(name, element, draw)
	}
	return d.against(name, element, draw)
}

// onDocument makes a condition on a path of a JSON field, or of what has no field.
func (d *draft) onDocument(f *field, get func(*row) any) condition {
	path := func(keys ...string) string {
		p := f.name
		for i, k := range keys {
			if i == 0 && f.dynamic() && d.r.IntN(2) == 0 {
				p = k
				continue
			}
			p += pick(d.r.IntN(2) == 0, `["`+k+`"]`, `['`+k+`']`)
		}
		return p
	}
	// member is a part of the document; nil = it is not there.
	member := func(of func(*document) any) func(*row) any {
		return func(x *row) any {
			doc, ok := get(x).(*document)
			if !ok {
				return nil
			}
			return of(doc)
		}
	}
	there := member(func(doc *document) any { return doc.num })
	num := typed[int64, float64](there)
	word := member(func(doc *document) any { return deref(doc.word) })
	switch d.r.IntN(11) {
	case 9:
		return d.onTextAt(path("n"), typed[string, string](there))
	case 10:
		return d.amongTypes(path("n"), there, func() any { return d.numberAt(f.ends) })
	case 0:
		return d.onNumberAt(path("n"), f.ends, num)
	case 1:
		return d.onTextAt(path("w"), word)
	case 2:
		return d.onList(path("l"), member(func(doc *document) any {
			if doc.list == nil {
				return nil
			}
			return doc.list
		}))
	case 3:
		at := d.r.IntN(3)
		return d.against(fmt.Sprintf("%s[%d]", path("l"), at), member(func(doc *document) any {
			if at >= len(doc.list) {
				return nil
			}
			return doc.list[at]
		}), func() any { return d.r.Int64N(6) })
	case 4:
		return d.onExists(path, get)
	case 5:
		op, n := d.one(operators...), d.r.Int64N(4)
		return given(fmt.Sprintf("array_length(%s) %s %d", path("l"), op, n), member(func(doc *document) any {
			if doc.list == nil {
				return nil
			}
			return int64(len(doc.list))
		}), func(v any) bool { return holds(op, order(v, n)) })
	case 6:
		negated := d.r.IntN(2) == 0 // whatever the path holds, this is never unknown
		return condition{path("n") + pick(negated, " is not null", " is null"), func(x *row) truth {
			v := there(x)
			return of((v == nil || v == (jsonNull{})) != negated)
		}}
	}
	want := d.r.IntN(2) == 0
	return given(fmt.Sprintf("%s == %v", path("s", "b"), want), member(func(doc *document) any { return deref(doc.sub) }), func(v any) bool { return v == want })
}

// typed makes what is of another type than these unknown.
func typed[A, B any](get func(*row) any) func(*row) any {
	return func(x *row) any {
		switch v := get(x).(type) {
		case A:
			return v
		case B:
			return v
		}
		return nil
	}
}

func deref[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

// numberAt draws an integer to compare with one in a document.
func (d *draft) numberAt(ends bool) int64 {
	if ends && d.r.IntN(2) == 0 {
		return integerEnds[d.r.IntN(len(integerEnds))]
	}
	return d.r.Int64N(21) - 10
}

func (d *draft) onNumberAt(path string, ends bool, get func(*row) any) condition {
	draw := func() any { return d.numberAt(ends) }
	switch d.r.IntN(5) {
	case 0:
		return d.among(path, get, draw)
	case 1:
		a, b := d.numberAt(ends), d.numberAt(ends)
		return d.between(path, get, min(a, b), max(a, b))
	case 2:
		op, limit := d.one(operators...), d.numberAt(ends)
		return given(fmt.Sprintf("%s + 3 %s %d", path, op, limit), func(x *row) any {
			if v := get(x); v != nil {
				return calculate(v, "+", int64(3))
			}
			return nil
		}, func(v any) bool { return holds(op, order(v, limit)) })
	case 3:
		return d.against(path, get, func() any {
			if ends && d.r.IntN(2) == 0 {
				return doubleEnds[d.r.IntN(len(doubleEnds))]
			}
			return float64(d.r.IntN(40)-20) / 2
		})
	}
	return d.against(path, get, draw)
}

// amongTypes makes "in" or "not in" of a list of several types. It says nothing of a value of which
// type it has none.
func (d *draft) amongTypes(path string, get func(*row) any, draw func() any) condition {
	l := list{draw()}
	for range d.r.IntN(5) {
		switch d.r.IntN(4) {
		case 0:
			l = append(l, d.one("a", "3", "red"))
		case 1:
			l = append(l, d.r.IntN(2) == 0)
		case 2:
			l = append(l, float64(d.r.IntN(40)-20)/2)
		default:
			l = append(l, draw())
		}
	}
	negated := d.r.IntN(2) == 0
	return condition{path + pick(negated, " not in ", " in ") + d.literal(l), func(x *row) truth {
		v, out := get(x), unknown
		for _, e := range l {
			if v == nil || kind(e) != kind(v) {
				continue
			}
			if order(v, e) == 0 {
				return of(!negated)
			}
			out = of(negated)
		}
		return out
	}}
}

// kind tells scalars of JSON apart.
func kind(v any) string {
	switch v.(type) {
	case int64, float64:
		return "number"
	}
	return fmt.Sprintf("%T", v)
}

func (d *draft) onTextAt(path string, get func(*row) any) condition {
	draw := func() any { return d.one("a", "ab", "red", "blue", "green") }
	switch d.r.IntN(3) {
	case 0:
		return d.among(path, get, draw)
	case 1:
		pattern := d.one("a%", "%e%", "%d", "_b", "red")
		return given(path+" like "+d.literal(pattern), get, func(v any) bool { return like([]rune(pattern), []rune(v.(string))) })
	}
	return d.against(path, get, draw)
}

func (d *draft) onList(path string, get func(*row) any) condition {
	a, b := d.r.Int64N(6), d.r.Int64N(6)
	has := func(v any, want int64) bool { return slices.Contains(v.([]int64), want) }
	switch d.r.IntN(4) {
	case 2:
		return d.onElements(path, func(x *row) any {
			l, ok := get(x).([]int64)
			if !ok {
				return nil
			}
			out := list{}
			for _, e := range l {
				out = append(out, e)
			}
			return out
		}, func() any { return d.r.Int64N(6) })
	case 0:
		return given(fmt.Sprintf("%s(%s, %s)", d.one("json_contains", "JSON_CONTAINS", "array_contains"), path, d.literal(a)), get, func(v any) bool { return has(v, a) })
	case 1:
		return given(fmt.Sprintf("json_contains_any(%s, %s)", path, d.literal(list{a, b})), get, func(v any) bool { return has(v, a) || has(v, b) })
	}
	return given(fmt.Sprintf("json_contains_all(%s, %s)", path, d.literal(list{a, b})), get, func(v any) bool { return has(v, a) && has(v, b) })
}

// onExists: what is there and empty does not exist.
func (d *draft) onExists(path func(...string) string, get func(*row) any) condition {
	test := func(text string, there func(*document) bool) condition {
		return given(d.one("exists ", "EXISTS ")+text, get, func(v any) bool { return there(v.(*document)) })
	}
	switch d.r.IntN(4) {
	case 0:
		return test(path("n"), func(doc *document) bool { return doc.num != nil && doc.num != (jsonNull{}) })
	case 1:
		return test(path("l"), func(doc *document) bool { return len(doc.list) > 0 })
	case 2:
		return test(path("s", "b"), func(doc *document) bool { return doc.sub != nil })
	}
	return test(path("s"), func(doc *document) bool { return doc.sub != nil })
}
