package expr

import (
	"math"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/querynode/querynode/internal/schema"
)

func TestIntSetAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		member := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-100, 100), rapid.Int64Range(math.MinInt64, math.MinInt64+40))
		list := rapid.SliceOfN(member, 1, 300).Draw(t, "list")
		want := map[int64]bool{}
		for _, x := range list {
			want[x] = true
		}
		set := newIntSet(sortedUnique(append([]int64(nil), list...)))
		probes := append(rapid.SliceOfN(member, 1, 200).Draw(t, "probes"), list...)
		for from := 0; from < len(probes); from += 64 {
			v := probes[from:min(from+64, len(probes))]
			r := set.find(v, ^uint64(0)>>(64-len(v)))
			for i, x := range v {
				if got := r>>i&1 == 1; got != want[x] {
					t.Fatalf("%d: got %v in %v", x, got, list)
				}
			}
		}
	})
}

func TestIntSetBeyondItsEnds(t *testing.T) {
	list := []int64{1, 3, 5, 7, 9, 64, 127} // span 126: two words, 128 places
	set := newIntSet(list)
	for _, x := range []int64{0, -1, 128, 129, 130, math.MinInt64, math.MaxInt64} {
		if set.find([]int64{x}, 1) != 0 {
			t.Errorf("%d is a member", x)
		}
	}
}

func TestLikeAgainstRegexp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.SampledFrom([]string{"%", "%", "_", "a", "b", "é", `\%`, `\_`, `\\`}), 0, 10).Draw(t, "pattern")
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "é", "%", "_", `\`, "\n"}), 0, 14).Draw(t, "text"), "")
		var re strings.Builder
		for _, p := range parts {
			switch p {
			case "%":
				re.WriteString(".*")
			case "_":
				re.WriteString(".")
			default:
				re.WriteString(regexp.QuoteMeta(strings.TrimPrefix(p, `\`)))
			}
		}
		want := regexp.MustCompile("(?s)^" + re.String() + "$").MatchString(text)
		if got := compileLike(strings.Join(parts, "")).match(text); got != want {
			t.Fatalf("%q like %q: got %v", text, strings.Join(parts, ""), got)
		}
	})
}

// TestIntervals checks each comparison of a number with a constant against
// exact comparison, around the places where floats and integers disagree.
func TestIntervals(t *testing.T) {
	var consts []value
	for _, i := range ints {
		consts = append(consts, intValue(i))
	}
	for _, f := range append(floats, math.MaxFloat64, -math.MaxFloat64, math.MaxFloat32, 1e39, -1e39, math.SmallestNonzeroFloat64) {
		consts = append(consts, floatValue(f), floatValue(-f))
	}
	for _, c := range consts {
		for op := opEq; op <= opGe; op++ {
			if op == opNe {
				continue
			}
			for _, x := range ints {
				iv := intInterval(op, c)
				checkInterval(t, op, intValue(x), c, iv.lo <= x && x <= iv.hi)
			}
			for _, x := range append(floats, math.Inf(1), math.Inf(-1), math.MaxFloat64, math.NaN()) {
				iv := doubleInterval(op, c)
				checkInterval(t, op, floatValue(x), c, iv.lo <= x && x <= iv.hi)
				y, r := float32(x), c
				if f := float32(c.float()); !math.IsInf(float64(f), 0) {
					r = floatValue(float64(f))
				}
				iv32 := floatInterval(op, c)
				checkInterval(t, op, floatValue(float64(y)), r, iv32.lo <= y && y <= iv32.hi)
			}
		}
	}
}

func checkInterval(t *testing.T, op cmpOp, x, c value, got bool) {
	t.Helper()
	if want := compareValues(op, x, c) == yes; got != want {
		t.Fatalf("%v %s %v: got %v", x, op, c, got)
	}
}

func TestValidityWords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		valid := rapid.SliceOfN(rapid.Bool(), 0, 64).Draw(t, "valid")
		w := validWord(&schema.Column{Valid: append([]bool{}, valid...)}, 0, len(valid))
		for i, ok := range valid {
			if (w>>i&1 == 1) != ok {
				t.Fatalf("bit %d of %b, want %v", i, w, valid)
			}
		}
		if len(valid) < 64 && w>>len(valid) != 0 {
			t.Fatalf("bits beyond %d: %b", len(valid), w)
		}
	})
}

// TestElementsOfListsAreReadAlikeAloneOrCalculated: what follows a literal may make it a part of something.
func TestElementsOfListsAreReadAlikeAloneOrCalculated(t *testing.T) {
	s := parseSchema(t, benchSchema)
	for short, long := range map[string]string{
		"a in [7, 3, -2, 5]": "a in [1 + 2 * 3, (3), -2, 5]", "f in [1.5, 2.0]": "f in [0.5 + 1, 2.0]", `color in ["a", "b"]`: `color in [("a"), 'b']`,
		"a in [1, 2, 3]": "a in [1,2, 3,]", "a in [-9223372036854775808]": "a in [ -9223372036854775807 - 1 ]",
	} {
		if a, b := mustCompile(t, s, short, nil).String(), mustCompile(t, s, long, nil).String(); a != b {
			t.Errorf("%s is %s, %s is %s", short, a, long, b)
		}
	}
	for _, bad := range []string{"a in [1 2]", "a in [1", "a in [1,", "a in [9223372036854775808]", `color in ["a" "b"]`, "a in [1 == 1 and a > 2]", "a in [1 +]"} {
		if _, err := Compile(bad, s, nil, ""); err == nil {
			t.Errorf("%s compiles", bad)
		}
	}
}
