package vec

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func drawNeighbors(t *rapid.T, name string) []Neighbor {
	// Few distinct distances, so that ties are common.
	distance := rapid.SampledFrom([]float32{-2.5, -1, float32(math.Copysign(0, -1)), 0, 1e-40, 0.5, 3, float32(math.Inf(1)), float32(math.NaN())})
	return rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Neighbor {
		return Neighbor{Row: rapid.Uint32().Draw(t, "row"), Distance: distance.Draw(t, "distance")}
	}), 0, 60, func(n Neighbor) uint32 { return n.Row }).Draw(t, name)
}

func sameKeys(a, b []Neighbor) bool {
	return slices.EqualFunc(a, b, func(x, y Neighbor) bool { return x.Compare(y) == 0 })
}

func TestTopKKeepsTheNearest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := drawNeighbors(t, "all")
		k := rapid.IntRange(0, 70).Draw(t, "k")
		var one, many TopK
		one.Reset(k)
		many.Reset(k)
		ids, ds := make([]uint32, len(all)), make([]float32, len(all))
		for i, n := range all {
			one.Push(n.Row, n.Distance)
			ids[i], ds[i] = n.Row, n.Distance
		}
		many.PushAll(ids, ds)
		want := slices.SortedFunc(slices.Values(all), Neighbor.Compare)
		want = want[:min(k, len(want))]
		if one.Full() && k > 0 && Key(one.Bound(), 0) != Key(want[k-1].Distance, 0) {
			t.Fatalf("bound %v, want %v", one.Bound(), want[k-1].Distance)
		}
		if got := one.AppendSorted(nil); !sameKeys(got, want) {
			t.Fatalf("Push: got %v, want %v", got, want)
		}
		if got := many.AppendSorted(nil); !sameKeys(got, want) {
			t.Fatalf("PushAll: got %v, want %v", got, want)
		}
	})
}

func TestMergeIsOneSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lists [][]Neighbor
		var all []Neighbor
		for range rapid.IntRange(0, 6).Draw(t, "lists") {
			l := drawNeighbors(t, "list")
			slices.SortFunc(l, Neighbor.Compare)
			lists = append(lists, l)
			all = append(all, l...)
		}
		slices.SortStableFunc(all, Neighbor.Compare)
		k := rapid.IntRange(0, 100).Draw(t, "k")
		if got := AppendMerged(nil, k, lists...); !sameKeys(got, all[:min(k, len(all))]) {
			t.Fatalf("got %v, want %v", got, all[:min(k, len(all))])
		}
	})
}

func TestKeyKeepsValueAndOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := Neighbor{Row: rapid.Uint32().Draw(t, "row"), Distance: rapid.Float32().Draw(t, "distance")}
		b := Neighbor{Row: rapid.Uint32().Draw(t, "row"), Distance: rapid.Float32().Draw(t, "distance")}
		if got := Unkey(Key(a.Distance, a.Row)); got.Row != a.Row || got.Distance != a.Distance {
			t.Fatalf("%v came back as %v", a, got)
		}
		if a.Distance < b.Distance && a.Compare(b) != -1 || a.Distance > b.Distance && a.Compare(b) != 1 {
			t.Fatalf("%v and %v are in the wrong order", a, b)
		}
	})
}

func TestNotANumberComesLast(t *testing.T) {
	nan := math.Float32frombits(0xffc00001) // negative, as x86 makes them
	if got := Unkey(Key(nan, 7)); got.Row != 7 || !math.IsInf(float64(got.Distance), 1) {
		t.Fatal(got)
	}
	var top TopK
	top.Reset(2)
	for i, d := range []float32{nan, float32(math.Inf(1)), 3, -1} {
		top.Push(uint32(i), d)
	}
	if got := top.AppendSorted(nil); got[0].Row != 3 || got[1].Row != 2 {
		t.Fatal(got)
	}
}

func TestMergePrefersTheEarlierList(t *testing.T) {
	var m Merger
	same := []Neighbor{{Row: 1, Distance: 2}}
	m.Reset([][]Neighbor{same, same, same, same, same})
	for want := range 5 {
		if list, _, ok := m.Next(); !ok || list != want {
			t.Fatalf("list %d, want %d", list, want)
		}
	}
	if _, _, ok := m.Next(); ok {
		t.Fatal("a sixth neighbor of five")
	}
}
