package index

// Memory bounds what an index keeps of what it learns from searches. Its methods may be called
// by several goroutines at once.
type Memory interface {
	// Take reports whether so many bytes more may be kept, and takes them if so. Less than
	// 0 gives back, which always may be done.
	Take(bytes int64) bool
}

// Learner is a Searcher that keeps what it finds out about filters that come again.
type Learner interface {
	Searcher
	// LearnWithin has the index ask m before it keeps more. It is to be called before the
	// first search; an index that nobody told a bound keeps what it likes, which is bounded by
	// a few filters.
	LearnWithin(m Memory)
	// Forget drops what was learnt and gives its memory back. It may be called at any time.
	Forget()
}

// LearnWithin has the graph ask m before it keeps what it learns of filters.
func (g *sqGraph) LearnWithin(m Memory) { g.filters.within(m) }

// Forget drops what the graph knows of filters.
func (g *sqGraph) Forget() { g.filters.forget() }

// LearnWithin has the inverted file ask m before it keeps what it learns of filters.
func (x *ivf) LearnWithin(m Memory) { x.marks.within(m) }

// Forget drops what the inverted file knows of filters.
func (x *ivf) Forget() {
	x.marks.forget()
	x.forgetRows()
	x.forgetHalves()
}
