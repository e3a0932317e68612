package index

import (
	"math"

	"github.com/querynode/querynode/internal/vec"
)

// Of partition.
const (
	partitionSort  = 32 // so few keys are sorted
	partitionPicks = 9  // keys that a pivot is picked from
)

// partition moves the n smallest keys to the front; n is less than their number.
func partition(kern vec.Kernels, keys []uint64, n int) { partitionAbout(kern, keys, n, n) }

// partitionAbout moves so many of the smallest keys to the front as is easiest, least of
// them at least and most at most, and returns how many; there are more keys than most.
func partitionAbout(kern vec.Kernels, keys []uint64, least, most int) int {
	done := 0 // keys in front of these
	for len(keys) > partitionSort {
		var picks [partitionPicks]uint64
		for i := range picks {
			picks[i] = keys[i*(len(keys)-1)/(partitionPicks-1)]
		}
		kern.Sort(picks[:])
		pivot := picks[min((least+most)/2*partitionPicks/len(keys), partitionPicks-1)]
		below := kern.Split(keys, pivot)
		if below == 0 { // the pivot is the smallest
			if pivot == math.MaxUint64 {
				return done + least // and all are equal
			}
			if below = kern.Split(keys, pivot+1); least <= below {
				return done + min(below, most)
			}
		}
		switch {
		case below > most:
			keys = keys[:below]
		case below < least:
			keys, least, most, done = keys[below:], least-below, most-below, done+below
		default:
			return done + below
		}
	}
	kern.Sort(keys)
	return done + least
}
