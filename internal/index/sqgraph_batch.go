package index

// batchWays is how many walks of a batch go on in turns. While one computes, the
// records that the others have asked for are on their way.
const batchWays = 4

// sqWay is one of the walks of a batch.
type sqWay struct {
	sqWalk
	halves []int8
	query  int // its number; -1: none
}

// SearchBatch searches for several of the vectors in turns, compares all with every row
// that a filter allows, or reads lists together in place of walks.
func (g *sqGraph) SearchBatch(vectors []float32, q *Query, s *Scratch, found func(i int, rows []Neighbor)) {
	n := len(vectors) / g.dim
	k, ef := g.effort(q)
	if q.Allowed != nil && k > 0 {
		if c := min(q.Allowed.Count(), g.rows); g.comparesAll(n, c, ef) {
			g.compareBatch(vectors, q, min(k, c), ef, c, s, found)
			return
		}
	}
	if lists := g.shares.listsFor(n, k, ef, g); lists > 0 && q.Allowed == nil {
		g.shareBatch(vectors, q, k, ef, lists, s, found)
		return
	}
	if n < 2 || k <= 0 || q.Allowed != nil || g.scans(ef) {
		one(g, g.dim, vectors, q, s, found)
		return
	}
	s.begin(g.m0)
	next, busy := 0, 0
	// start gives a way the next query.
	start := func(w *sqWay) {
		if w.query = -1; next == n {
			return
		}
		w.query = next
		next, busy = next+1, busy+1
		sq := g.prepare(vectors[w.query*g.dim:][:g.dim], s)
		w.halves = append(w.halves[:0], sq.halves...)
		sq.halves = w.halves
		g.begin(&w.sqWalk, sq, ef, s)
		w.endBy(g, vectors[w.query*g.dim:][:g.dim], k, ef, s)
		w.next(g)
	}
	for len(s.ways) < batchWays {
		s.ways = append(s.ways, sqWay{})
	}
	ways := s.ways[:batchWays]
	for i := range ways {
		start(&ways[i])
	}
	for busy > 0 {
		for i := range ways {
			w := &ways[i]
			if w.query < 0 {
				continue
			}
			w.score(g)
			if (w.hops&15 != 0 || !s.stopped()) && w.next(g) {
				continue
			}
			s.out, s.twinSteps = s.out[:0], 0 // each query has steps of its own
			found(w.query, q.within(g.end(vectors[w.query*g.dim:][:g.dim], &w.sqWalk, k, nil, s)))
			busy--
			if s.stats.Stopped {
				w.query = -1
				continue
			}
			start(w)
		}
	}
	notFound(next, n, found) // Stop came before their turn
}
