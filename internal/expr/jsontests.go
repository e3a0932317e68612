package expr

// valueTest is a jsonTest of a value that has been read.
type valueTest interface {
	jsonTest
	// testValue is test for the value v, which is at doc[at] and was read by readJSON.
	testValue(s *scratch, v value, doc string, at int) tri
}

// jsonTests is several conditions on one JSON path, of which any has to hold, or all: the path is walked, and its value read, once
// a row, and not for each of them.
type jsonTests struct {
	ref
	path  []step
	all   bool
	tests []wanted
}

// wanted is a condition and what it has to be.
type wanted struct {
	valueTest
	want tri
}

func (p *jsonTests) eval(s *scratch, b block, in, out []uint64) {
	eachText(s.cols[p.slot].Str, p.ref, s, b, in, out, func(doc string) bool { return p.met(s, doc) })
}

// met reports whether a document meets the conditions. Once the work is over the answer is of no use, and nobody asks again.
func (p *jsonTests) met(s *scratch, doc string) bool {
	at := findJSON(doc, p.path)
	var v value
	v, s.buf = readJSON(doc, at, s.buf[:0])
	keep, work := len(s.buf), 0
	if v.k == kString {
		work = len(v.s)
	}
	for i := range p.tests {
		t := &p.tests[i]
		s.buf = s.buf[:keep]
		if (t.testValue(s, v, doc, at) == t.want) != p.all {
			return !p.all
		}
		if s.over(work) {
			return false
		}
	}
	return p.all
}

func (p *jsonTests) cost() int {
	c := 100
	for i := range p.tests {
		c += p.tests[i].price()
	}
	return c
}

// mayMatch is not asked: statistics are compared with the terms that these are joined from.
func (p *jsonTests) mayMatch(statistics) bool { return true }

// steps is what is evaluated of the terms of a conjunction, or of a disjunction: those on one JSON path
// together, in the place of the first of them.
func steps(terms []pred, all bool) []pred {
	var on []*jsonPred
	for _, t := range terms {
		if j := onValue(t); j != nil {
			on = append(on, j)
		}
	}
	if len(on) < 2 {
		return terms
	}
	out, at, joined := make([]pred, 0, len(terms)), map[string]int{}, false
	for _, t := range terms {
		j := onValue(t)
		if j == nil {
			out = append(out, t)
			continue
		}
		key := pathKey(j)
		i, ok := at[key]
		if !ok {
			at[key] = len(out)
			out = append(out, t)
			continue
		}
		joined = true
		together, ok := out[i].(*jsonTests)
		if !ok {
			first := out[i].(*jsonPred)
			together = &jsonTests{ref: first.ref, path: first.path, all: all, tests: []wanted{first.wanted()}}
			out[i] = together
		}
		together.tests = append(together.tests, j.wanted())
	}
	if !joined {
		return terms
	}
	return out
}

// onValue returns a term that looks at the value at a path; nil for others.
func onValue(t pred) *jsonPred {
	if j, ok := t.(*jsonPred); ok {
		if _, ok := j.cond.(valueTest); ok {
			return j
		}
	}
	return nil
}

func (p *jsonPred) wanted() wanted {
	w := wanted{want: yes}
	if p.neg {
		w.want = no
	}
	w.valueTest, _ = p.cond.(valueTest)
	return w
}
