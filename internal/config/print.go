package config

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"go.yaml.in/yaml/v3"
)

// hidden stands for a secret that is set.
const hidden = "(set, not shown)"

// WriteYAML writes the configuration as a file that Load reads, each line with
// where its value comes from. Secrets are left out.
func WriteYAML(w io.Writer, c *Config, from Origins) error {
	var b strings.Builder
	section := ""
	for _, k := range keys() {
		s, name, _ := strings.Cut(k.name, ".")
		if s != section {
			if section != "" {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "%s:\n", s)
			section = s
		}
		origin := from[k.name]
		if origin == "" {
			origin = fromDefault
		}
		if k.secret {
			if !k.isZero(c) {
				origin += " " + hidden
			}
			fmt.Fprintf(&b, "  %s:  # %s\n", name, origin)
			continue
		}
		value, err := yaml.Marshal(k.plain(c))
		if err != nil {
			return errors.Wrapf(err, "print %s", k.name)
		}
		if text, ok := k.plain(c).(string); ok && strings.ContainsAny(text, "\r\n") {
			value = []byte(strconv.Quote(text)) // one line a key
		}
		fmt.Fprintf(&b, "  %s: %s  # %s\n", name, strings.TrimSpace(string(value)), origin)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// plain is the value as YAML and JSON show it: sizes and durations as text.
func (k *key) plain(c *Config) any {
	switch v := k.field(c).Interface().(type) {
	case time.Duration, Bytes:
		return fmt.Sprint(v)
	default:
		return v
	}
}

// WriteJSON writes the same as two objects: values by section, and sources by key.
func WriteJSON(w io.Writer, c *Config, from Origins) error {
	values := map[string]map[string]any{}
	sources := map[string]string{}
	for _, k := range keys() {
		s, name, _ := strings.Cut(k.name, ".")
		if values[s] == nil {
			values[s] = map[string]any{}
		}
		values[s][name] = k.plain(c)
		if k.secret && !k.isZero(c) {
			values[s][name] = hidden
		}
		sources[k.name] = fromDefault
		if from[k.name] != "" {
			sources[k.name] = from[k.name]
		}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return errors.Wrap(e.Encode(map[string]any{"values": values, "sources": sources}), "print configuration")
}
