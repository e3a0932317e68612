package expr

import (
	"strconv"
	"strings"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// Path is a place in the documents of a JSON field, or of the dynamic field. It is immutable.
type Path struct {
	steps []step
	text  string
}

// ParsePath reads a path as filters write it, meta["a"][0], or the name of a key of the dynamic
// field; meta alone is the whole document. Errors are of class Invalid.
func ParsePath(text string, s *schema.Schema) (schema.Field, *Path, error) {
	n, err := parse(text, nil, "")
	if err != nil {
		return schema.Field{}, nil, err
	}
	if n == nil || n.kind != nName {
		return schema.Field{}, nil, errclass.New(errclass.Invalid, "%q is no path: it is written meta[\"key\"]", clip(text))
	}
	if err := (&binder{text: text, schema: s}).name(n); err != nil {
		return schema.Field{}, nil, err
	}
	if n.typ != kDyn {
		return schema.Field{}, nil, errclass.New(errclass.Invalid, "%q is no path into JSON: field %q is %s", clip(text), n.field.Name, n.field.Type)
	}
	var b strings.Builder
	n.print(&b, 0)
	return n.field, &Path{steps: n.path, text: b.String()}, nil
}

// String is the path in normal form: meta["a"][0].
func (p *Path) String() string { return p.text }

// Scalar returns the value at the path as JSON text: equal values have the same, whatever
// their document writes, 1.0 that of 1. False for what is not there, null, an array or an object.
func (p *Path) Scalar(doc string) (text string, ok bool) {
	v, _ := readJSON(doc, findJSON(doc, p.steps), nil)
	switch v.k {
	case kBool:
		return strconv.FormatBool(v.i != 0), true
	case kInt:
		return strconv.FormatInt(v.i, 10), true
	case kFloat:
		if n := integral(v); n.k == kInt {
			return strconv.FormatInt(n.i, 10), true
		}
		return strconv.FormatFloat(v.f, 'g', -1, 64), true
	case kString:
		return quoteJSON(v.s), true
	}
	return "", false
}

// quoteJSON writes a text as JSON does, with the fewest escapes.
func quoteJSON(s string) string {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}
