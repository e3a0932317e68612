package expr

// None reports whether no row can match, whatever it holds.
func (p *Plan) None() bool {
	c, ok := p.root.(*constPred)
	return ok && !c.value
}
