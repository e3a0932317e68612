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
// where its value comes from. What nobody has set is a comment: as a file, the
// text sets what was set and no more, on another machine and for another version
// too. Secrets are left out.
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
		line, err := k.line(name, c, from[k.name])
		if err != nil {
			return err
		}
		b.WriteString("  " + line + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// line is that of one key.
func (k *key) line(name string, c *Config, from Origin) (string, error) {
	source := from.Source
	if source == "" {
		source = fromDefault
	}
	if k.secret {
		if !k.isZero(c) {
			source += " " + hidden
		}
		return fmt.Sprintf("# %s:  # %s", name, source), nil
	}
	inForce, err := yamlValue(k.plain(c))
	if err != nil {
		return "", errors.Wrapf(err, "print %s", k.name)
	}
	if !from.Set {
		return fmt.Sprintf("# %s: %s  # %s", name, inForce, source), nil
	}
	given, err := yamlValue(from.Given)
	if err != nil {
		return "", errors.Wrapf(err, "print %s", k.name)
	}
	if given != inForce {
		source += ", in force: " + inForce
	}
	return fmt.Sprintf("%s: %s  # %s", name, given, source), nil
}

// yamlValue is a value on one line.
func yamlValue(v any) (string, error) {
	if text, ok := v.(string); ok && strings.ContainsAny(text, "\r\n") {
		return strconv.Quote(text), nil
	}
	text, err := yaml.Marshal(v)
	return strings.TrimSpace(string(text)), err
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
		if source := from[k.name].Source; source != "" {
			sources[k.name] = source
		}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return errors.Wrap(e.Encode(map[string]any{"values": values, "sources": sources}), "print configuration")
}
