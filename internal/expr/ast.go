package expr

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/querynode/querynode/internal/schema"
)

// nodeKind tells the nodes of the syntax tree apart.
type nodeKind uint8

const (
	nConst nodeKind = iota
	nName           // field, or path into a JSON field
	nArith
	nNeg
	nLength // array_length(name)
	nCmp
	nIn
	nLike
	nExists
	nIsNull
	nContains
	nTextMatch   // text_match(name, text, minimum_should_match = n)
	nPhraseMatch // phrase_match(name, text, n)
	nFuzzyMatch  // text_match_fuzzy(name, text, max_edit_distance = n)
	nMatch       // match_any(name, condition), ...
	nRegex       // name =~ text, name !~ text
	nSample      // random_sample(val)
	nNot
	nAnd
	nOr
)

// containsMode tells json_contains, _any and _all apart.
type containsMode uint8

const (
	containsOne containsMode = iota
	containsAny
	containsAll
)

var (
	containsNames      = [...]string{"json_contains", "json_contains_any", "json_contains_all"}
	arrayContainsNames = [...]string{"array_contains", "array_contains_any", "array_contains_all"}
)

// step is one step of a JSON path: key into an object, or index into an array.
type step struct {
	key    string
	index  int  // -1: the key is no number
	quoted bool // as it was written; only for printing
}

// node is a node of the syntax tree. The parser makes it, the binder fills in
// field and typ. Constants are folded by the parser.
type node struct {
	kind nodeKind
	op   uint8 // cmpOp, arithOp, containsMode or matchMode
	typ  kind
	// nIsNull: is not null; nIn, nLike: not in, not like. How it was written, for errors
	// only: nMatch: element_filter; nContains: array_contains.
	not   bool
	depth int32
	pos   int
	kids  []*node
	val   value  // nConst
	name  string // nName as written
	path  []step // nName: the steps; with the binder's name in front for a dynamic key
	field schema.Field
	base  *schema.Field // nName, nLength: the array that field is derived from; else nil
	count int64         // nTextMatch: words wanted; nPhraseMatch: slop; nFuzzyMatch: edits; nMatch: elements
}

func newNode(k nodeKind, pos int, kids ...*node) *node {
	n := &node{kind: k, pos: pos, kids: kids}
	for _, c := range kids {
		n.depth = max(n.depth, c.depth+1)
	}
	return n
}

// Binding strength of what is printed, as in the parser.
const (
	bindOr = iota + 1
	bindAnd
	bindNot
	bindEq
	bindRel
	bindIn
	bindBitOr
	bindBitXor
	bindBitAnd
	bindAdd
	bindMul
	bindUnary
	bindPow
	bindPrimary
)

func arithBinding(o arithOp) int {
	switch o {
	case opAdd, opSub:
		return bindAdd
	case opPow:
		return bindPow
	case opBitAnd:
		return bindBitAnd
	case opBitOr:
		return bindBitOr
	case opBitXor:
		return bindBitXor
	}
	return bindMul
}

func (n *node) binding() int {
	switch n.kind {
	case nOr:
		return bindOr
	case nAnd:
		return bindAnd
	case nNot:
		return bindNot
	case nCmp:
		if cmpOp(n.op) <= opNe {
			return bindEq
		}
		return bindRel
	case nIn, nLike, nIsNull, nRegex:
		return bindIn
	case nArith:
		return arithBinding(arithOp(n.op))
	case nNeg:
		return bindUnary
	case nConst:
		if n.val.k == kInt && n.val.i < 0 || n.val.k == kFloat && math.Signbit(n.val.f) {
			return bindUnary
		}
	}
	return bindPrimary
}

// print writes n in normal form: one spelling per operator, names resolved,
// variables and constants replaced by their values, no parentheses that are not needed.
func (n *node) print(b *strings.Builder, outer int) {
	if n.binding() < outer {
		b.WriteByte('(')
		defer b.WriteByte(')')
	}
	switch n.kind {
	case nConst:
		n.val.append(b)
	case nName:
		n.printName(b)
	case nArith:
		bind := n.binding()
		n.kids[0].print(b, bind)
		b.WriteString(" " + arithOp(n.op).String() + " ")
		n.kids[1].print(b, bind+1)
	case nNeg:
		b.WriteByte('-')
		n.kids[0].print(b, bindPow)
	case nLength:
		b.WriteString("array_length(")
		n.kids[0].print(b, 0)
		b.WriteByte(')')
	case nTextMatch, nPhraseMatch, nFuzzyMatch:
		n.printText(b)
	case nMatch:
		n.printMatch(b)
	case nCmp:
		n.kids[0].print(b, bindAdd)
		b.WriteString(" " + cmpOp(n.op).String() + " ")
		n.kids[1].print(b, bindAdd)
	case nIn, nLike:
		n.kids[0].print(b, bindAdd)
		b.WriteString(pick(n.not, " not", ""))
		b.WriteString(pick(n.kind == nIn, " in ", " like "))
		n.kids[1].print(b, bindAdd)
	case nRegex:
		n.kids[0].print(b, bindAdd)
		b.WriteString(pick(n.not, " !~ ", " =~ "))
		n.kids[1].print(b, bindAdd)
	case nSample:
		b.WriteString("random_sample(" + formatFloat(n.val.f) + ")")
	case nExists:
		b.WriteString("exists ")
		n.kids[0].print(b, bindPrimary)
	case nIsNull:
		n.kids[0].print(b, bindPrimary)
		b.WriteString(pick(n.not, " is not null", " is null"))
	case nContains:
		b.WriteString(pick(n.kids[0].typ == kArray, arrayContainsNames[n.op], containsNames[n.op]) + "(")
		n.kids[0].print(b, 0)
		b.WriteString(", ")
		n.kids[1].print(b, 0)
		b.WriteByte(')')
	case nNot:
		b.WriteString("not ")
		n.kids[0].print(b, bindNot)
	case nAnd, nOr:
		n.printJoined(b)
	}
}

// manyTerms is from how many on equal terms are looked for: to find one takes about as long as to read it again.
const manyTerms = 8

// distinct leaves one of equal terms in a conjunction or disjunction: lists of them are made by programs, and each would be
// tried for each row.
func (n *node) distinct() *node {
	if len(n.kids) < manyTerms {
		return n
	}
	seen := make(map[string]struct{}, len(n.kids))
	n.kids = slices.DeleteFunc(n.kids, func(k *node) bool {
		var b strings.Builder
		k.print(&b, 0)
		_, again := seen[b.String()]
		seen[b.String()] = struct{}{}
		return again
	})
	if len(n.kids) == 1 {
		return n.kids[0]
	}
	return n
}

func (n *node) printJoined(b *strings.Builder) {
	word := pick(n.kind == nAnd, " and ", " or ")
	for i, k := range n.kids {
		if i > 0 {
			b.WriteString(word)
		}
		k.print(b, n.binding()+1)
	}
}

func (n *node) printName(b *strings.Builder) {
	if n.base != nil {
		b.WriteString(n.base.Name)
	} else {
		b.WriteString(n.field.Name)
	}
	for _, s := range n.path {
		b.WriteByte('[')
		if s.quoted {
			quote(b, s.key)
		} else {
			b.WriteString(strconv.Itoa(s.index))
		}
		b.WriteByte(']')
	}
}

func pick(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

// isKeyword reports whether an identifier of the language is one of its words.
func isKeyword(w string) bool {
	switch strings.ToLower(w) {
	case "and", "or", "not", "in", "like", "is", "null", "exists", "true", "false":
		return true
	}
	return false
}
