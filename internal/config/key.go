package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
)

// key is one thing that can be set.
type key struct {
	name      string // section.key
	env       string // QUERYNODE_SECTION_KEY
	def       string // "" = none, or computed
	allowed   []string
	secret    bool
	keepsZero bool
	goSection string // names in the Go source, for the reference
	goField   string
	index     []int // of the field in Config
}

// envPrefix begins every variable of ours.
const envPrefix = "QUERYNODE_"

// keys lists everything in Config, in order.
func keys() []key {
	var all []key
	root := reflect.TypeFor[Config]()
	for i := range root.NumField() {
		section := root.Field(i)
		for j := range section.Type.NumField() {
			f := section.Type.Field(j)
			name := section.Tag.Get("koanf") + "." + f.Tag.Get("koanf")
			k := key{
				name: name, env: envPrefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_")), def: f.Tag.Get("default"),
				secret: f.Tag.Get("secret") == "true", keepsZero: f.Tag.Get("zero") == "keep",
				goSection: section.Type.Name(), goField: f.Name, index: []int{i, j},
			}
			if a := f.Tag.Get("allowed"); a != "" {
				k.allowed = strings.Split(a, ",")
			}
			all = append(all, k)
		}
	}
	return all
}

func (k *key) field(c *Config) reflect.Value { return reflect.ValueOf(c).Elem().FieldByIndex(k.index) }

// kind says for people what the value is.
func (k *key) kind(c *Config) string {
	switch k.field(c).Interface().(type) {
	case time.Duration:
		return "a duration such as 500ms or 2m"
	case Bytes:
		return "a size in bytes such as 1048576 or 64MiB"
	case bool:
		return "true or false"
	case int:
		return "a whole number"
	}
	if len(k.allowed) > 0 {
		return "one of " + strings.Join(k.allowed, ", ")
	}
	return "text"
}

// set puts a value as a source gives it: text, or what YAML makes of it.
func (k *key) set(c *Config, v any) error {
	text, ok := scalar(v)
	if !ok {
		return errors.Newf("want %s", k.kind(c))
	}
	shown := strconv.Quote(text)
	if k.secret {
		shown = "the value"
	}
	f := k.field(c)
	switch p := f.Addr().Interface().(type) {
	case *time.Duration:
		if d, err := time.ParseDuration(text); err == nil {
			*p = d
			return nil
		}
	case encoding.TextUnmarshaler:
		if p.UnmarshalText([]byte(text)) == nil {
			return nil
		}
	case *bool:
		if b, err := strconv.ParseBool(text); err == nil {
			*p = b
			return nil
		}
	case *int:
		if n, err := strconv.Atoi(text); err == nil {
			*p = n
			return nil
		}
	case *string:
		*p = text
		return nil
	}
	return errors.Newf("%s is not %s", shown, k.kind(c))
}

// scalar returns the text of a single value.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool, int, int64, uint64:
		return fmt.Sprint(v), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	return "", false
}

// text is the value as set reads it.
func (k *key) text(c *Config) string { return fmt.Sprint(k.field(c).Interface()) }

func (k *key) isZero(c *Config) bool { return k.field(c).IsZero() }

// nearest returns the known word that looks most like got, "" if none does.
func nearest(got string, known []string) string {
	best, at := "", len(got)/2+2
	for _, w := range known {
		d := distance(got, w)
		if _, short, ok := strings.Cut(w, "."); ok && got == short {
			d = 1 // the section was forgotten
		}
		if d < at {
			best, at = w, d
		}
	}
	return best
}

// distance is the number of insertions, deletions and changes between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = slices.Min([]int{change, row[j] + 1, row[j+1] + 1})
		}
	}
	return row[len(b)]
}
