package expr

// jsonTest is a condition on the value at a JSON path.
type jsonTest interface {
	// test returns whether the condition holds for the value at doc[at]; at is -1
	// when the path is missing.
	test(s *scratch, doc string, at int) tri
	// price is added to the cost of walking the text.
	price() int
}

// jsonPred is a condition on a JSON path.
type jsonPred struct {
	ref
	path []step
	neg  bool
	cond jsonTest
}

func (p *jsonPred) eval(s *scratch, b block, in, out []uint64) {
	c := s.cols[p.slot]
	want := yes
	if p.neg {
		want = no
	}
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		var r uint64
		for m &= validWord(c, lo, hi); m != 0; {
			i := nextBit(&m)
			doc := c.Str[lo+i]
			if s.over(len(doc)) {
				return
			}
			s.buf = s.buf[:0]
			if p.cond.test(s, doc, findJSON(doc, p.path)) == want {
				r |= 1 << i
			}
		}
		out[w] = r
	}
}

func (p *jsonPred) cost() int { return 100 + p.cond.price() }

// jsonNullPred is path is null: the column is, or exists is not true.
type jsonNullPred struct {
	ref
	path []step
	null bool
}

func (p *jsonNullPred) eval(s *scratch, b block, in, out []uint64) {
	c := s.cols[p.slot]
	flip := maskOf(p.null)
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		var solid uint64
		for k := m & validWord(c, lo, hi); k != 0; {
			i := nextBit(&k)
			doc := c.Str[lo+i]
			if (jsonExists{}).test(s, doc, findJSON(doc, p.path)) == yes {
				solid |= 1 << i
			}
		}
		out[w] = (solid ^ flip) & m
	}
}

func (p *jsonNullPred) cost() int { return 100 }

// jsonCompare is one comparison, or several that all have to hold.
type jsonCompare struct{ all []comparison }

type comparison struct {
	op  cmpOp
	val value
}

func (j *jsonCompare) test(s *scratch, doc string, at int) tri {
	var v value
	v, s.buf = readJSON(doc, at, s.buf)
	return j.testValue(s, v, doc, at)
}

func (j *jsonCompare) testValue(s *scratch, v value, doc string, at int) tri {
	result := yes
	for i := range j.all {
		var t tri
		if c := &j.all[i]; v.k == kArray && c.val.k == kArray {
			if t, s.buf = equalArray(doc, at, c.val.list, s.buf); t != unknown && c.op == opNe {
				t = 1 - t
			}
		} else {
			t = compareValues(c.op, v, c.val)
		}
		if t == no {
			return no
		}
		if t == unknown {
			result = unknown
		}
	}
	return result
}

func (j *jsonCompare) price() int { return 10 }

// jsonIn is path in a list.
type jsonIn struct{ set *valueSet }

func (j *jsonIn) test(s *scratch, doc string, at int) tri {
	var v value
	v, s.buf = readJSON(doc, at, s.buf)
	return j.testValue(s, v, doc, at)
}

func (j *jsonIn) testValue(s *scratch, v value, doc string, at int) tri {
	if !j.set.kinds[family(v.k)] {
		return unknown
	}
	if v.k != kArray {
		return triOf(j.set.index(v) >= 0)
	}
	return j.set.hasArray(s, doc, at)
}

func (j *jsonIn) price() int { return 30 }

// hasArray reports whether the array at doc[at] is a member.
func (s *valueSet) hasArray(sc *scratch, doc string, at int) tri {
	for i := range s.list {
		if s.list[i].k != kArray {
			continue
		}
		var t tri
		if t, sc.buf = equalArray(doc, at, s.list[i].list, sc.buf); t != no {
			return t
		}
	}
	return no
}

// jsonLike is path like a pattern.
type jsonLike struct{ pattern *pattern }

func (j *jsonLike) test(s *scratch, doc string, at int) tri {
	var v value
	v, s.buf = readJSON(doc, at, s.buf)
	return j.testValue(s, v, doc, at)
}

func (j *jsonLike) testValue(_ *scratch, v value, _ string, _ int) tri {
	if v.k != kString {
		return unknown
	}
	return triOf(j.pattern.match(v.s))
}

func (j *jsonLike) price() int { return 30 }

// jsonExists is exists path.
type jsonExists struct{}

func (jsonExists) test(_ *scratch, doc string, at int) tri {
	if at < 0 {
		return no
	}
	end, solid := skipValue(doc, at)
	return triOf(end >= 0 && solid)
}

func (jsonExists) price() int { return 0 }

// jsonContains is json_contains and its sisters.
type jsonContains struct {
	mode containsMode // containsAny or containsAll; one is any of one
	set  *valueSet
}

func (j *jsonContains) test(s *scratch, doc string, at int) tri {
	if at < 0 || at >= len(doc) || doc[at] != '[' {
		return unknown
	}
	want := len(j.set.list)
	if j.mode == containsAll {
		s.seen = append(s.seen[:0], make([]uint64, (want+63)/64)...)
	}
	missing := want
	e := elements{s: doc, i: at}
	for e.next() {
		if j.mode == containsAny {
			if j.has(s, doc, e.i) {
				return yes
			}
			continue
		}
		missing -= j.mark(s, doc, e.i)
		if missing == 0 {
			return yes
		}
	}
	if e.bad {
		return unknown
	}
	return triOf(j.mode == containsAll && missing == 0)
}

func (j *jsonContains) price() int { return 100 }

// has reports whether the element at doc[at] is a member of the list.
func (j *jsonContains) has(s *scratch, doc string, at int) bool {
	var v value
	s.buf = s.buf[:0]
	v, s.buf = readJSON(doc, at, s.buf)
	if !j.set.kinds[family(v.k)] {
		return false
	}
	if v.k == kArray {
		return j.set.hasArray(s, doc, at) == yes
	}
	return j.set.index(v) >= 0
}

// mark notes the members of the list that equal the element at doc[at], and
// returns how many of them are new.
func (j *jsonContains) mark(s *scratch, doc string, at int) (n int) {
	var v value
	s.buf = s.buf[:0]
	v, s.buf = readJSON(doc, at, s.buf)
	if !j.set.kinds[family(v.k)] {
		return 0
	}
	note := func(i int) {
		if bit := uint64(1) << (i & 63); s.seen[i>>6]&bit == 0 {
			s.seen[i>>6] |= bit
			n++
		}
	}
	if v.k != kArray {
		if i := j.set.index(v); i >= 0 {
			note(i)
		}
		return n
	}
	for i := range j.set.list {
		if j.set.list[i].k != kArray {
			continue
		}
		var t tri
		if t, s.buf = equalArray(doc, at, j.set.list[i].list, s.buf); t == yes {
			note(i)
		}
	}
	return n
}
