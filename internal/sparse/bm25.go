package sparse

// BM25 scores rows that are texts: dimensions are words, values how often a word
// is in a row, and the weight of a term is how much the word tells. It is the
// function of Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25
// and Beyond, 2009:
//
//	weight * tf*(K1+1) / (tf + K1*(1 - B + B*length/mean))
type BM25 struct {
	// Ends says how long rows are: row i has Ends[i+1]-Ends[i] words. One more than
	// there are rows.
	Ends []uint64

	k1   float64
	flat float64 // K1*(1-B)
	per  float64 // K1*B/mean
}

// Defaults of K1 and B.
const (
	DefaultK1 = 1.2
	DefaultB  = 0.75
)

// NewBM25 returns a Scorer without rows. k1 is how much it counts that a word is
// there again, from 0; b how much the length of a row counts, 0 to 1; mean is the
// mean length of all rows that are compared, in words.
func NewBM25(k1, b, mean float64) BM25 {
	s := BM25{k1: k1, flat: k1 * (1 - b)}
	if mean > 0 {
		s.per = k1 * b / mean
	}
	return s
}

// Score is what a term gives a row that has its word value times.
func (s *BM25) Score(t *Term, row uint32, value float32) float32 {
	return s.at(t.Weight, value, s.Ends[row+1]-s.Ends[row])
}

// Bound is the most that a term gives: a row that has its word as often as any has,
// and is as short as any. More words and a shorter text never score less.
func (s *BM25) Bound(t *Term) float32 { return s.at(t.Weight, t.Max, uint64(t.Shortest)) }

func (s *BM25) at(weight, value float32, length uint64) float32 {
	tf := float64(value)
	return float32(float64(weight) * tf * (s.k1 + 1) / (tf + s.flat + s.per*float64(length)))
}
