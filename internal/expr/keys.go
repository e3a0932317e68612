package expr

import (
	"slices"
	"strings"

	"github.com/querynode/querynode/internal/schema"
)

// CompileKeys is Compile of `primary key in [keys]`, whatever the field is called: names
// that are words of the language cannot be written in a filter. keys is an Int64 or a
// VarChar column without nulls.
func CompileKeys(keys *schema.Column, s *schema.Schema) (*Plan, error) {
	vars := any(keys.Int)
	if keys.Type == schema.VarChar {
		vars = keys.Str
	}
	v, bad := variableValue(vars, 0)
	if bad != "" {
		return nil, errAt("", 0, nil, "keys: %s", bad)
	}
	return compile(newNode(nIn, 0, &node{kind: nName, name: s.Primary().Name}, &node{kind: nConst, val: v}), "", s, "")
}

// wordsOfFilters are those of the language that stand where the name of a field may.
var wordsOfFilters = [...]string{"and", "or", "not", "in", "like", "is", "null", "exists", "true", "false"}

// IsWord reports whether a name is a word of the language, in any case: no filter can
// name a field that is called so.
func IsWord(name string) bool {
	return slices.ContainsFunc(wordsOfFilters[:], func(w string) bool { return strings.EqualFold(w, name) })
}

// PrimaryKeys returns the only primary keys a matching row can have, when the
// filter says so: `pk == x`, `pk in [...]`, an `or` of such, or any of these and-ed
// with more (then some of the keys may not match; see OnlyPrimaryKeys). The column
// is sorted, without duplicates, at most MaxList long, perhaps empty, and the caller's.
func (p *Plan) PrimaryKeys(pk schema.Field) (col *schema.Column, ok bool) {
	keys, ok := keysOf(p.root, pk)
	if !ok {
		return nil, false
	}
	col = schema.NewColumn(pk, 0)
	col.Int, col.Str = slices.Clone(keys.ints), slices.Clone(keys.words)
	return col, true
}

// OnlyPrimaryKeys reports whether a row matches exactly when its key is one of
// PrimaryKeys: the filter asks for nothing else.
func (p *Plan) OnlyPrimaryKeys(pk schema.Field) bool {
	_, ok := keysOf(p.root, pk)
	return ok && !hasAnd(p.root)
}

// hasAnd reports whether p, a plan of keys, asks for more than keys.
func hasAnd(p pred) bool {
	_, and := p.(*andPred)
	return and || slices.ContainsFunc(orTerms(p), hasAnd)
}

type keyList struct {
	ints  []int64
	words []string
}

func (k keyList) len() int { return len(k.ints) + len(k.words) }

// keysOf returns the keys that rows for which p is true can have.
func keysOf(p pred, pk schema.Field) (best keyList, ok bool) {
	switch p := p.(type) {
	case *constPred:
		return keyList{}, !p.value
	case *rangePred[int64]:
		if p.field.ID != pk.ID || p.neg || uint64(p.hi)-uint64(p.lo) >= MaxList {
			return best, false
		}
		for x := p.lo; ; x++ {
			best.ints = append(best.ints, x)
			if x == p.hi {
				return best, true
			}
		}
	case *intInPred:
		return keyList{ints: p.set.list}, p.field.ID == pk.ID && !p.neg && len(p.set.list) <= MaxList
	case *stringPred:
		return keyList{words: []string{p.val}}, p.field.ID == pk.ID && p.op == opEq
	case *stringInPred:
		return keyList{words: p.set.list}, p.field.ID == pk.ID && !p.neg && len(p.set.list) <= MaxList
	case *orPred:
		return unionKeys(p.terms, pk)
	case *andPred:
		for _, t := range p.terms {
			if k, found := keysOf(t, pk); found && (!ok || k.len() < best.len()) {
				best, ok = k, true
			}
		}
	}
	return best, ok
}

// unionKeys returns the keys of all terms together, if each has some.
func unionKeys(terms []pred, pk schema.Field) (all keyList, ok bool) {
	for _, t := range terms {
		k, ok := keysOf(t, pk)
		if !ok || all.len()+k.len() > MaxList {
			return keyList{}, false
		}
		all.ints, all.words = append(all.ints, k.ints...), append(all.words, k.words...)
	}
	return keyList{ints: sortedUnique(all.ints), words: sortedUnique(all.words)}, true
}
