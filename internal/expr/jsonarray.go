package expr

// elements walks an array. bad is set when the text turns out malformed.
type elements struct {
	s     string
	i     int // of the bracket, then of the element at hand
	begun bool
	bad   bool
}

// next moves to the next element, whose offset is then e.i.
func (e *elements) next() bool {
	if !e.begun {
		e.begun = true
		e.i = skipSpace(e.s, e.i+1)
		if e.i < len(e.s) && e.s[e.i] == ']' {
			return false
		}
		return e.check()
	}
	if e.i, _ = skipValue(e.s, e.i); e.i < 0 {
		e.bad = true
		return false
	}
	e.i = skipSpace(e.s, e.i)
	if e.i < len(e.s) && e.s[e.i] == ']' {
		return false
	}
	if e.i >= len(e.s) || e.s[e.i] != ',' {
		e.bad = true
		return false
	}
	e.i = skipSpace(e.s, e.i+1)
	return e.check()
}

func (e *elements) check() bool {
	e.bad = e.i >= len(e.s) || e.s[e.i] == ']' || e.s[e.i] == ','
	return !e.bad
}

// equalArray compares the array at s[i] with a constant one; unknown when the
// text is malformed. It recurses on the constant, whose nesting is limited.
func equalArray(s string, i int, list []value, buf []byte) (tri, []byte) {
	e := elements{s: s, i: i}
	n := 0
	for ; e.next(); n++ {
		if n == len(list) {
			return no, buf
		}
		var t tri
		if t, buf = equalJSON(s, e.i, list[n], buf); t != yes {
			return t, buf
		}
	}
	if e.bad {
		return unknown, buf
	}
	return triOf(n == len(list)), buf
}

// equalJSON compares the element at s[i] with v; another type is not equal.
func equalJSON(s string, i int, v value, buf []byte) (tri, []byte) {
	x, buf := readJSON(s, i, buf)
	if x.k == kArray && v.k == kArray {
		return equalArray(s, i, v.list, buf)
	}
	return triOf(compareValues(opEq, x, v) == yes), buf
}

// arrayLength counts the elements of the array at s[i].
func arrayLength(s string, i int) value {
	if i < 0 || i >= len(s) || s[i] != '[' {
		return value{}
	}
	e := elements{s: s, i: i}
	n := 0
	for e.next() {
		n++
	}
	if e.bad {
		return value{}
	}
	return intValue(int64(n))
}
