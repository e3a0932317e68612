package expr

import "github.com/querynode/querynode/internal/schema"

// jsonMatchPred is matchPred for the array at a JSON path: each element is a row of a
// JSON column. Unknown for what is no array.
type jsonMatchPred struct {
	matchPred
	path []step
}

// elementsAtOnce is about how many elements are evaluated together: rows are taken
// until they have as many.
const elementsAtOnce = 4096

// jsonElements are the elements of the arrays of some rows.
type jsonElements struct {
	texts []string
	rows  [64]uint8 // which rows
	ends  [64]int   // where the elements of each end
	n     int       // rows
}

// add appends the elements of the array at doc[at]; false if there is no array.
func (j *jsonElements) add(row int, doc string, at int) bool {
	if at < 0 || at >= len(doc) || doc[at] != '[' {
		return false
	}
	from, last := len(j.texts), -1
	e := elements{s: doc, i: at}
	for e.next() {
		if last >= 0 {
			j.texts = append(j.texts, doc[last:e.i])
		}
		last = e.i
	}
	if e.bad {
		j.texts = j.texts[:from]
		return false
	}
	if last >= 0 {
		j.texts = append(j.texts, doc[last:])
	}
	j.rows[j.n], j.ends[j.n] = uint8(row), len(j.texts)
	j.n++
	return true
}

func (p *jsonMatchPred) eval(s *scratch, b block, in, out []uint64) {
	c, e := s.cols[p.slot], s.subs[p.sub]
	j := jsonElements{texts: e.view.Str[:0]}
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
			j.add(i, doc, findJSON(doc, p.path))
			if len(j.texts) >= elementsAtOnce || m == 0 {
				r |= p.counted(e, &j)
			}
			if e.err != nil {
				s.err, s.work = e.err, 0
				return
			}
		}
		out[w] = r
	}
	e.view.Str = j.texts // for the next block
}

// counted returns the rows that match of those in j, which is empty then.
func (p *jsonMatchPred) counted(e *scratch, j *jsonElements) (r uint64) {
	e.view = schema.Column{Type: schema.JSON, Str: j.texts}
	for i := range e.cols {
		e.cols[i] = &e.view
	}
	met := p.plan.met(e, len(j.texts))
	from := 0
	for k := range j.n {
		to := j.ends[k]
		if p.holds(countBits(met, from, to), to-from) != p.neg {
			r |= 1 << j.rows[k]
		}
		from = to
	}
	j.texts, j.n = j.texts[:0], 0
	return r
}
