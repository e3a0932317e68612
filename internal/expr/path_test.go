package expr

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

func TestPaths(t *testing.T) {
	s := parseSchema(t, "id Int64 pk\nmeta JSON nullable\nname VarChar\ntags Array:Int64\nv FloatVector\ndynamic")
	doc := `{"a":{"b":[1, 2.0, 2.5, true, null, "x", [1], {}, "\u0041\n\"", 1e2, -0.0, 9007199254740993]}, "c d": false}`
	for text, want := range map[string]string{
		`meta["a"]["b"][0]`:    `1`,
		`meta["a"]["b"][1]`:    `2`,
		`meta['a']['b'][2]`:    `2.5`,
		`meta["a"]["b"][3]`:    `true`,
		`meta["a"]["b"][4]`:    ``,
		`meta["a"]["b"]["5"]`:  `"x"`,
		`meta["a"]["b"][6]`:    ``,
		`meta["a"]["b"][7]`:    ``,
		`meta["a"]["b"][8]`:    `"A\u000a\""`,
		`meta["a"]["b"][9]`:    `100`,
		`meta["a"]["b"][10]`:   `0`,
		` meta["a"]["b"][11] `: `9007199254740993`,
		`meta["a"]["b"][12]`:   ``,
		`meta["c d"]`:          `false`,
		`$meta["c d"]`:         `false`,
		`a["b"][0]`:            `1`,
		`meta`:                 ``,
		`other`:                ``,
	} {
		f, p, err := ParsePath(text, s)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if in := strings.TrimSpace(text); (f.Name == "meta") != strings.HasPrefix(in, "meta") {
			t.Errorf("%s is of field %q", text, f.Name)
		}
		got, ok := p.Scalar(doc)
		if got != want || ok != (want != "") || ok && !json.Valid([]byte(got)) {
			t.Errorf("%s: %q %v, want %q", text, got, ok, want)
		}
		if _, again, err := ParsePath(p.String(), s); err != nil || again.String() != p.String() {
			t.Errorf("%s: normal form %s becomes %v (%v)", text, p, again, err)
		}
	}
	for _, text := range []string{``, `1`, `meta["a"] == 1`, `meta[`, `meta[x]`, `name`, `name["a"]`, `tags[0]`, `v`, `{x}`, `exists meta["a"]`, `$`, "meta[\"\x00"} {
		if _, _, err := ParsePath(text, s); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("%q: %v, want class Invalid", text, err)
		}
	}
}
