package expr

import (
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestElementsMeanTheSameHoweverTheyAreRead: in brackets of its own an element is read token by token, alone mostly
// at one glance. Both take and refuse the same.
func TestElementsMeanTheSameHoweverTheyAreRead(t *testing.T) {
	s := parseSchema(t, modelSchema)
	elements := []string{
		"0", "1", "-1", "-0", "42", "010", "-07", "00", "0x1F", "1_000", "123456789012345678", "-123456789012345678", "1234567890123456789",
		"9223372036854775807", "9223372036854775808", "-9223372036854775808", "1.5", "-.5", "1e3", "- 3", "+4", "1 + 2", "2 ** 3", "1and", "",
		`"red"`, `'red'`, `"a,b"`, `"a]b"`, `'"'`, `""`, `"a\"b"`, `"a\\"`, `"\q"`, `"é"`, "\"a\nb\"", `"open`, `r"a\q"`, `u8"x"`, `"a" "b"`,
		"true", "[1]", "[1, 2]", "[]", "{x}", "meta", "1 2", "]", "~",
	}
	spaces := rapid.SampledFrom([]string{"", "", " ", "\t\r\n "})
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.SampledFrom(elements), 0, 6).Draw(t, "list")
		var plain, apart []string
		for _, e := range list {
			before, after := spaces.Draw(t, "before"), spaces.Draw(t, "after")
			plain, apart = append(plain, before+e+after), append(apart, "("+e+")")
		}
		field := rapid.SampledFrom([]string{"id", "s", `meta["a"]`}).Draw(t, "field")
		compile := func(elements []string) (string, error) {
			p, err := Compile(field+" in ["+strings.Join(elements, ",")+"]", s, map[string]any{"x": int64(7)}, "")
			if err != nil {
				return "", err
			}
			return p.String(), nil
		}
		got, err := compile(plain)
		want, refusal := compile(apart)
		if slices.Contains(list, "]") || slices.Contains(list, "") { // these mean something else in brackets of their own
			return
		}
		if (err != nil) != (refusal != nil) || got != want {
			t.Fatalf("%q: %s, %v; element by element %s, %v", plain, got, err, want, refusal)
		}
	})
}

func TestCommasAndBracketsOfLists(t *testing.T) {
	s := parseSchema(t, modelSchema)
	for filter, want := range map[string]string{
		"id in [1, 2,]":                  "id in [1, 2]",
		"id in [ 1 , -2 ]":               "id in [1, -2]",
		"id in [010, 0x10, -010, 3]":     "id in [8, 16, -8, 3]",
		"id in []":                       "id in []",
		`s in ["a,b", 'c]d', "e"]`:       `s in ["a,b", "c]d", "e"]`,
		`meta["a"] in [[1, "]"], 2, []]`: `meta["a"] in [[1, "]"], 2, []]`,
	} {
		if p := mustCompile(t, s, filter, nil); p.String() != want {
			t.Errorf("%s: %s, want %s", filter, p, want)
		}
	}
	for filter, want := range map[string]string{
		"id in [,]": "unexpected", "id in [1,,2]": "unexpected", "id in [1 2]": `","`, "id in [1": "unexpected", `s in ["a`: "unterminated",
		"id in [1, 08, 2]": "octal", "id in [1, 9223372036854775808]": "does not fit", "id in [1, id]": "constants only",
	} {
		refused(t, s, filter, want, nil)
	}
}

func TestListsHaveAnEnd(t *testing.T) {
	s := parseSchema(t, modelSchema)
	for _, element := range []string{"1,", "'a',", "(1),"} {
		full := "meta in [" + strings.Repeat(element, MaxList)
		mustCompile(t, s, full+"]", nil)
		refused(t, s, full+"1]", "at most 65536 elements", nil)
	}
}

// A filter of 2 MiB must not have the parser reserve memory that its lists never need.
func TestBracketsAloneTakeNoMemory(t *testing.T) {
	s := parseSchema(t, modelSchema)
	text := `meta["a"] in ` + strings.Repeat("[", MaxDepth) + strings.Repeat(",", MaxTextWithLists/2)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Compile(text, s, nil, ""); err == nil {
		t.Fatal("it compiled")
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Fatalf("%d bytes", took)
	}
}

func TestIntegersAreSortedHoweverFarApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		near := rapid.Int64Range(-2000, 2100)
		member := rapid.SampledFrom([]*rapid.Generator[int64]{
			near, rapid.Int64Range(math.MinInt64, math.MinInt64+4000), rapid.Int64Range(math.MaxInt64-4095, math.MaxInt64), rapid.Int64(), rapid.OneOf(near, rapid.Int64()),
		}).Draw(t, "members")
		list := rapid.SliceOfN(member, 1, 200).Draw(t, "list")
		got, want := sortedInts(slices.Clone(list)), sortedUnique(slices.Clone(list))
		if !slices.Equal(got, want) {
			t.Fatalf("%v: %v, want %v", list, got, want)
		}
	})
}
