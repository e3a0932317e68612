package index

import (
	"strings"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// Neighbor is a row and its distance from the query; smaller is nearer.
type Neighbor = vec.Neighbor

// Metric says how near two vectors are. The zero Metric is not valid. The
// numbers are part of the file format.
type Metric uint8

const (
	// L2 is the squared Euclidean distance.
	L2 Metric = 1
	// IP is the inner product. Its distance is the product's negative.
	IP Metric = 2
	// Cosine is the cosine of the angle. Its distance is 1 - cosine, and 1 where
	// one of the vectors has length 0.
	Cosine Metric = 3

	// Hamming is the number of bits that differ, of vectors of bits.
	Hamming Metric = 4
	// Jaccard is 1 - |a and b| / |a or b|, of vectors of bits.
	Jaccard Metric = 5

	// BM25 says how well a text answers a query of words. Its distance is the
	// negative of that.
	BM25 Metric = 6
)

var metricNames = [...]string{L2: "L2", IP: "IP", Cosine: "COSINE", Hamming: "HAMMING", Jaccard: "JACCARD", BM25: "BM25"}

// String returns the name that users write.
func (m Metric) String() string {
	if m >= L2 && m <= BM25 {
		return metricNames[m]
	}
	return "unknown"
}

// Valid reports whether m is one of the metrics of vectors of numbers, which the
// indexes of this package are for.
func (m Metric) Valid() bool { return m >= L2 && m <= Cosine }

// OfBits reports whether m is one of the metrics of vectors of bits.
func (m Metric) OfBits() bool { return m == Hamming || m == Jaccard }

// ParseMetric returns the metric of that name, in any case of letters.
func ParseMetric(s string) (Metric, error) {
	for m := L2; m <= BM25; m++ {
		if strings.EqualFold(s, metricNames[m]) {
			return m, nil
		}
	}
	return 0, errclass.New(errclass.Invalid, "metric %q: want one of %s", s, strings.Join(metricNames[L2:], ", "))
}

// Score turns a distance into what users see: the squared distance (L2), the
// inner product (IP) or the cosine in [-1, 1] (Cosine); of bits, the distance; of
// texts, the points (BM25).
func (m Metric) Score(distance float32) float32 {
	switch m {
	case IP, BM25:
		return 0 - distance // not -0
	case Cosine:
		return min(max(1-distance, -1), 1)
	}
	return distance
}

// Better reports whether score a is nearer than score b under m.
func (m Metric) Better(a, b float32) bool {
	if m.Ascends() {
		return a < b
	}
	return a > b
}

// Ascends reports whether smaller scores are nearer.
func (m Metric) Ascends() bool { return m != IP && m != Cosine && m != BM25 }
