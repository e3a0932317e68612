package bitset

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestAgainstMap runs random operations on a Set and on a plain map.
func TestAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(t, "n")
		draw := func(name string) (*Set, map[int]bool) {
			s, m := New(n), map[int]bool{}
			for _, i := range rapid.SliceOf(rapid.IntRange(0, n-1)).Draw(t, name) {
				s.Add(i)
				m[i] = true
			}
			return s, m
		}
		a, am := draw("a")
		b, bm := draw("b")
		want := func(keep func(i int) bool) (rows []uint32) {
			for i := range n {
				if keep(i) {
					rows = append(rows, uint32(i))
				}
			}
			return rows
		}
		check := func(name string, s *Set, w []uint32) {
			if got := s.AppendTo(nil); !slices.Equal(got, w) {
				t.Fatalf("%s: got %v, want %v", name, got, w)
			}
			if s.Count() != len(w) {
				t.Fatalf("%s: Count %d, want %d", name, s.Count(), len(w))
			}
			var walked []uint32
			for i := s.Next(0); i >= 0; i = s.Next(i + 1) {
				walked = append(walked, uint32(i))
			}
			if !slices.Equal(walked, w) {
				t.Fatalf("%s: Next walks %v, want %v", name, walked, w)
			}
		}
		op := func(name string, f func(*Set), keep func(i int) bool) {
			c := full(n)
			c.And(a)
			f(c)
			check(name, c, want(keep))
		}
		op("and", func(s *Set) { s.And(b) }, func(i int) bool { return am[i] && bm[i] })
		op("fill", func(s *Set) { s.Fill() }, func(int) bool { return true })
		op("reset", func(s *Set) { s.Reset(n) }, func(int) bool { return false })
	})
}

// full holds all of n rows.
func full(n int) *Set {
	s := New(n)
	s.Fill()
	return s
}

// TestAndOfAnotherLength: rows beyond the other's end are not in it.
func TestAndOfAnotherLength(t *testing.T) {
	for _, n := range []int{1, 64, 70, 130, 300} {
		s, o := full(130), full(n)
		s.And(o)
		if want := min(n, 130); s.Count() != want || s.Len() != 130 {
			t.Errorf("130 rows and %d: %d of %d, want %d", n, s.Count(), s.Len(), want)
		}
	}
}
