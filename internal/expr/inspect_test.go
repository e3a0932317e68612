package expr

// None reports whether no row can match, whatever it holds.
func (p *Plan) None() bool {
	c, ok := p.root.(*constPred)
	return ok && !c.value
}

// Fields returns the ids of the fields the plan reads, in no special order.
func (p *Plan) Fields() []int64 {
	ids := make([]int64, 0, len(p.columns))
	for i := range p.columns {
		if c := &p.columns[i]; !c.derived() {
			ids = append(ids, c.field.ID)
		}
	}
	return ids
}
