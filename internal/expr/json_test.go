package expr

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestJSONWalkerAgreesWithEncodingJSON(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t, rapid.Uint64().Draw(rt, "seed"), 0)
		for range 4 {
			doc := m.document()
			end, _ := skipValue(doc, skipSpace(doc, 0))
			if end != len(strings.TrimRight(doc, " \n\t")) {
				rt.Fatalf("%q: skipValue ends at %d", doc, end)
			}
			checkCuts(rt, doc)
		}
	})
}

// checkCuts verifies that no proper start of an object passes for one.
func checkCuts(rt *rapid.T, doc string) {
	rt.Helper()
	for i := range len(doc) - 1 {
		end, _ := skipValue(doc[:i], skipSpace(doc[:i], 0))
		if valid := json.Valid([]byte(doc[:i])); (end >= 0) != valid {
			rt.Fatalf("%q: skipValue says %d, encoding/json %v", doc[:i], end, valid)
		}
	}
}

func TestMalformedJSON(t *testing.T) {
	for _, doc := range []string{
		``, ` `, `{`, `{"a"`, `{"a"}`, `{"a":`, `{"a":}`, `{a:1}`, `{"a":1,}`, `{,"a":1}`, `{"a":1 "b":2}`, `{"a":01}`, `{"a":1.}`,
		`{"a":.5}`, `{"a":+1}`, `{"a":1e}`, `{"a":-}`, `{"a":tru}`, `{"a":truex}`, `{"a":nul}`, `{"a":"x}`, `{"a":"\x"}`,
		`{"a":"\u12"}`, "{\"a\":\"\n\"}", `{"a":[}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":{"b":1]}`, `[1}`, `{]`,
		`{"a":1x}`, `{"a"::1}`, `{"\u12":1}`, `{"b":[1,2,"a":1}`, strings.Repeat("[", 100_000), strings.Repeat(`{"a":`, 100_000),
	} {
		i := skipSpace(doc, 0)
		if end, _ := skipValue(doc, i); end >= 0 {
			t.Errorf("%s: passes for JSON", clip(doc))
		}
		if exists := (jsonExists{}).test(nil, doc, findJSON(doc, nil)); exists != no {
			t.Errorf("%s: exists", clip(doc))
		}
	}
}

func TestMalformedScalarsAreNoValue(t *testing.T) {
	for _, text := range []string{`01`, `1.`, `.5`, `+1`, `1e`, `-`, `--1`, `1x`, `tru`, `truex`, `fals`, `falsey`, `nul`, `null`, `"x`, `"\x"`, `1e999`, ``} {
		if v, _ := readJSON(text, 0, nil); v.k != kNone {
			t.Errorf("%s: read as %v %v", text, v.k, v)
		}
	}
}

func TestJSONNestingLimit(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + "1" + strings.Repeat("]", n) }
	if end, _ := skipValue(deep(MaxJSONDepth), 0); end != 2*MaxJSONDepth+1 {
		t.Fatalf("depth %d: %d", MaxJSONDepth, end)
	}
	if end, _ := skipValue(deep(MaxJSONDepth+1), 0); end >= 0 {
		t.Fatalf("depth %d is read", MaxJSONDepth+1)
	}
}

func TestJSONStrings(t *testing.T) {
	for raw, want := range map[string]string{
		`"\ud83d\ude00"`: "😀", `"\ud83d"`: "\ufffd", `"\ude00x"`: "\ufffdx", `"\ud83d\u0041"`: "\ufffdA",
		`"\"\\\/\b\f\n\r\t"`: "\"\\/\b\f\n\r\t", `"\u0000"`: "\x00", `"\uD83D\uDE00y"`: "😀y",
	} {
		v, _ := readJSON(raw, 0, nil)
		if v.k != kString || v.s != want || !equalUnescaped(raw[1:len(raw)-1], want) || equalUnescaped(raw[1:len(raw)-1], want+"x") {
			t.Errorf("%s: got %q, want %q", raw, v.s, want)
		}
	}
}

// FuzzJSONPath walks any text along any path and checks the outcome against
// encoding/json where the text is an object without duplicate keys.
func FuzzJSONPath(f *testing.F) {
	for _, doc := range []string{
		`{"a":{"b":[1,2.5,"x\u00e9",true,null]}}`, `{"a":[[],{}]}`, `[1,[2,[3]]]`, `{"a" : "\ud83d\ude00" , "b":-0.0e1}`, `{"a`, `{"a":1e999}`, "{\"a\":\"\x96\xfe\"}",
	} {
		f.Add(doc, "a", "b", uint8(1))
	}
	f.Fuzz(func(t *testing.T, doc, k1, k2 string, index uint8) {
		s := &scratch{}
		list := []value{intValue(1), stringValue("x"), floatValue(2.5), {k: kArray, list: []value{intValue(2)}}}
		tests := []jsonTest{
			&jsonCompare{all: []comparison{{opLt, intValue(5)}, {opNe, stringValue("x")}}}, &jsonIn{set: newValueSet(list)},
			&jsonLike{pattern: compileLike("%x_")}, jsonExists{}, &jsonContains{mode: containsAll, set: newValueSet(list)},
			&jsonContains{mode: containsAny, set: newValueSet(list)}, &jsonCompare{all: []comparison{{opEq, value{k: kArray, list: list}}}},
		}
		idx := newStep("0", false)
		idx.index = int(index)
		for _, path := range [][]step{nil, {newStep(k1, true)}, {newStep(k1, true), newStep(k2, true)}, {idx}, {newStep(k1, true), idx}} {
			i := findJSON(doc, path)
			if i < -1 || i >= len(doc) && i != -1 {
				t.Fatalf("offset %d of %d", i, len(doc))
			}
			for _, x := range tests {
				x.test(s, doc, i)
			}
			arrayLength(doc, i)
		}
		v, _ := readJSON(doc, findJSON(doc, []step{newStep(k1, true)}), nil)
		var want map[string]any
		if json.Unmarshal([]byte(doc), &want) != nil || strings.Count(doc, `"`)+strings.Count(doc, `\u`) > 4 {
			return // not JSON, or perhaps with keys that are there twice
		}
		text, isText := want[k1].(string)
		// encoding/json reads each byte that is of no character as one of its own, as does a conversion to runes.
		if isText != (v.k == kString) || isText && string([]rune(v.s)) != text {
			t.Fatalf("%q at %q: got %v %q, want %v", doc, k1, v.k, v.s, want[k1])
		}
	})
}

func TestMember(t *testing.T) {
	for doc, want := range map[string]string{
		`{"a":1}`: `1`, ` { "b" : [1,{"a":2}] , "a" : {"c": "}"} } `: `{"c": "}"}`, `{"\u0061":"x","a":2}`: `"x"`, `{"a":null}`: `null`,
		`{"b":{"a":1}}`: ``, `{}`: ``, `[1]`: ``, `"a"`: ``, ``: ``, ` `: ``, `{"a"`: ``, `{"a":`: ``, `{"a":[1`: ``, `{"a":"x`: ``, `{"b":x,"a":1}`: ``,
	} {
		if got, ok := Member(doc, "a"); got != want || ok != (want != "") {
			t.Errorf("%s: %q %v, want %q", doc, got, ok, want)
		}
	}
}
