package expr

import (
	"math/rand/v2"
	"slices"
)

// sample parses the argument of random_sample; p.tok is at the bracket.
func (p *parser) sample(name *node) (*node, error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	a, err := p.primary()
	if err != nil {
		return nil, err
	}
	if a.kind != nConst || a.val.k != kFloat || a.val.f <= 0 || a.val.f >= 1 {
		return nil, p.fail(a.pos, "random_sample takes a number between 0.0 and 1.0, both not included")
	}
	return &node{kind: nSample, pos: name.pos, depth: 1, val: a.val}, p.take(")")
}

// sampleOf finds the random_sample of a filter where it has a meaning: alone, or a
// term of the outermost and. An or with nothing but constants beside it is looked through.
func sampleOf(n *node) *node {
	rest := 0
	for _, k := range n.kids {
		rest += int(b2i(k.kind != nConst))
	}
	switch {
	case n.kind == nSample:
		return n
	case n.kind == nAnd, n.kind == nOr && rest == 1:
		for _, k := range n.kids {
			if s := sampleOf(k); s != nil {
				return s
			}
		}
	}
	return nil
}

// samplePred keeps each of the rows that all other terms have left with the given
// probability. It draws anew each time.
type samplePred struct {
	below uint64 // of 2^64
}

func newSample(share float64) pred { return &samplePred{below: uint64(share * (1 << 32) * (1 << 32))} }

func (p *samplePred) eval(_ *scratch, _ block, in, out []uint64) {
	for w, m := range in {
		var r uint64
		for m != 0 {
			if i := nextBit(&m); rand.Uint64() < p.below {
				r |= 1 << i
			}
		}
		out[w] = r
	}
}

// Samples reports whether the filter draws rows by chance: it matches others each time.
func (p *Plan) Samples() bool { return samples(p.root) }

// samples looks where sampleOf lets one be.
func samples(p pred) bool {
	switch p := p.(type) {
	case *samplePred:
		return true
	case *andPred:
		return slices.ContainsFunc(p.terms, samples)
	}
	return slices.ContainsFunc(orTerms(p), samples)
}

// cost puts it behind all others.
func (p *samplePred) cost() int { return 1 << 30 }

func (p *samplePred) mayMatch(statistics) bool { return true }
