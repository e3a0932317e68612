package expr

import (
	"math"
	"math/bits"
	"slices"
)

// linear is up to how many members a set is searched one by one.
const linear = 4

// intSet is a set of integers in the form that is fastest to ask: a short list,
// a bitmap when the members lie close together, else a hash table with open
// addressing.
type intSet struct {
	list  []int64 // sorted, without duplicates; all members
	words []uint64
	slots []int64 // a free slot holds free, which is no member
	free  int64
	shift uint8
}

// sortedInts is sortedUnique, which is several times slower for integers that lie close together.
func sortedInts(v []int64) []int64 {
	if len(v) <= linear {
		return sortedUnique(v)
	}
	lo, hi := slices.Min(v), slices.Max(v)
	const words = 64
	if uint64(hi)-uint64(lo) >= words*64 {
		return sortedUnique(v)
	}
	var has [words]uint64
	for _, x := range v {
		d := uint64(x) - uint64(lo)
		has[d>>6] |= 1 << (d & 63)
	}
	v = v[:0]
	for i, w := range has {
		for w != 0 {
			v = append(v, lo+int64(i<<6+nextBit(&w)))
		}
	}
	return v
}

// newIntSet takes a sorted list without duplicates, and keeps it.
func newIntSet(list []int64) intSet {
	s := intSet{list: list}
	n := len(list)
	if n <= linear {
		return s
	}
	span := uint64(list[n-1]) - uint64(list[0])
	if span < 1<<12 || span < uint64(n)*32 {
		s.words = make([]uint64, span>>6+1)
		for _, x := range list {
			d := uint64(x) - uint64(list[0])
			s.words[d>>6] |= 1 << (d & 63)
		}
		return s
	}
	logSize := bits.Len(uint(n)) + 1 // at most half full
	s.shift = uint8(64 - logSize)
	s.slots = make([]int64, 1<<logSize)
	for s.free = math.MinInt64; s.free-math.MinInt64 < int64(n) && list[s.free-math.MinInt64] == s.free; {
		s.free++
	}
	for i := range s.slots {
		s.slots[i] = s.free
	}
	for _, x := range list {
		i := s.slot(x)
		for s.slots[i] != s.free {
			i = (i + 1) & (len(s.slots) - 1)
		}
		s.slots[i] = x
	}
	return s
}

func (s *intSet) slot(x int64) int {
	return int(uint64(x) * 0x9E3779B97F4A7C15 >> s.shift)
}

// find returns bit i set where v[i] is a member, for the rows of m at least.
func (s *intSet) find(v []int64, m uint64) (r uint64) {
	switch {
	case s.words != nil:
		first, span := uint64(s.list[0]), uint64(len(s.words))<<6
		for i, x := range v {
			if d := uint64(x) - first; d < span {
				r |= (s.words[d>>6] >> (d & 63) & 1) << i
			}
		}
	case s.slots != nil:
		for m != 0 {
			i := nextBit(&m)
			r |= uint64(b2i(s.has(v[i]))) << i
		}
	default:
		for _, x := range s.list {
			r |= inRange(v, x, x)
		}
	}
	return r
}

// has looks x up in the hash table.
func (s *intSet) has(x int64) bool {
	if x == s.free {
		return false
	}
	for i := s.slot(x); ; i = (i + 1) & (len(s.slots) - 1) {
		switch s.slots[i] {
		case x:
			return true
		case s.free:
			return false
		}
	}
}

// stringSet is a set of strings.
type stringSet struct {
	list    []string // sorted, without duplicates; all members
	lengths uint64   // bit min(len, 63) of every member
	table   map[string]struct{}
}

// newStringSet takes a sorted list without duplicates, and keeps it.
func newStringSet(list []string) stringSet {
	s := stringSet{list: list}
	for _, x := range list {
		s.lengths |= 1 << min(len(x), 63)
	}
	if len(list) > linear {
		s.table = make(map[string]struct{}, len(list))
		for _, x := range list {
			s.table[x] = struct{}{}
		}
	}
	return s
}

// find returns bit i set where v[i] is a member, for the rows of m.
func (s *stringSet) find(v []string, m uint64) (r uint64) {
	for m != 0 {
		i := nextBit(&m)
		x := v[i]
		if s.lengths>>min(len(x), 63)&1 == 0 {
			continue
		}
		if s.table != nil {
			if _, ok := s.table[x]; ok {
				r |= 1 << i
			}
			continue
		}
		for _, y := range s.list {
			if x == y {
				r |= 1 << i
				break
			}
		}
	}
	return r
}

// valueSet is a set of constants of any type, for JSON values.
type valueSet struct {
	list    []value // without duplicates among scalars
	small   bool
	ints    map[int64]int
	floats  map[float64]int
	strings map[string]int
	bools   [2]int
	kinds   [kDyn]bool // types that have members; kInt stands for both numbers
}

func newValueSet(list []value) *valueSet {
	s := &valueSet{
		ints: map[int64]int{}, floats: map[float64]int{}, strings: map[string]int{}, bools: [2]int{-1, -1},
	}
	for _, v := range list {
		v = integral(v)
		if v.k != kArray && s.lookup(v) >= 0 {
			continue
		}
		n := len(s.list)
		s.list = append(s.list, v)
		s.kinds[family(v.k)] = true
		switch v.k {
		case kInt:
			s.ints[v.i] = n
		case kFloat:
			s.floats[v.f] = n
		case kString:
			s.strings[v.s] = n
		case kBool:
			s.bools[v.i] = n
		}
	}
	s.small = len(s.list) <= linear
	return s
}

// family is k, with one value for all numbers.
func family(k kind) kind {
	if k == kFloat {
		return kInt
	}
	return k
}

// integral turns a float that is a 64-bit integer into one.
func integral(v value) value {
	if v.k == kFloat && v.f >= -two63 && v.f < two63 && v.f == math.Trunc(v.f) {
		return intValue(int64(v.f))
	}
	return v
}

// index returns the place of the scalar v in list, -1 if it is no member.
func (s *valueSet) index(v value) int {
	if !s.small {
		return s.lookup(integral(v))
	}
	for i := range s.list {
		if compareValues(opEq, v, s.list[i]) == yes {
			return i
		}
	}
	return -1
}

func (s *valueSet) lookup(v value) int {
	i, ok := -1, false
	switch v.k {
	case kInt:
		i, ok = s.ints[v.i]
	case kFloat:
		i, ok = s.floats[v.f]
	case kString:
		i, ok = s.strings[v.s]
	case kBool:
		return s.bools[v.i]
	}
	if !ok {
		return -1
	}
	return i
}
