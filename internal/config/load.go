package config

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cockroachdb/errors"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/querynode/querynode/internal/errclass"
)

// Sources say where a configuration comes from, besides the defaults.
type Sources struct {
	// File is a YAML file. "" = none.
	File string
	// Environ is the environment, as os.Environ gives it.
	Environ []string
	// Set are assignments key=value from the command line, the last wins.
	Set []string
	// Flags are values of flags of their own: key to value; they go before Set.
	Flags map[string]string
}

// Origin says where a value comes from.
type Origin struct {
	// Source names it: "default", "file node.yaml", "environment QUERYNODE_LOG_LEVEL",
	// "--set"...; a default that was worked out says of what.
	Source string
	// Set is whether a source other than the defaults gave it.
	Set bool
	// Weak is whether a variable QUERYNODE_DEFAULT_... gave the default.
	Weak bool
	// Given is what it gave, as WriteYAML prints it: a path may be relative, and zero
	// stand for the default. Nil if it is not set.
	Given any
}

// Origins says for each key where its value comes from.
type Origins map[string]Origin

const fromDefault = "default"

// derived are the defaults that depend on more than the version of the program.
var derived = map[string]string{
	"node.name":       "the name of the host",
	"node.data_dir":   "the current folder",
	"storage.url":     "node.data_dir",
	"queue.dir":       "node.data_dir",
	"memory.limit":    "the memory of the cgroup or the machine",
	"memory.go_limit": "the memory of the cgroup or the machine",
}

// maxFileBytes bounds the YAML file.
const maxFileBytes = 1 << 20

// raw has the defaults that the tags name and computes none.
func raw() Config {
	var c Config
	for _, k := range keys() {
		if k.def == "" {
			continue
		}
		if err := k.set(&c, k.def); err != nil {
			// invariant: the tags are constants of this package, and a test reads them all
			panic(errors.AssertionFailedf("default of %s: %v", k.name, err))
		}
	}
	return c
}

// Load merges the sources, fills in defaults and checks everything. The error is
// of class Invalid and lists all problems. The Config is filled as far as it was
// understood also when there is an error.
func Load(s Sources) (*Config, Origins, error) {
	l := &loader{config: raw(), origins: Origins{}, keys: keys()}
	for _, k := range l.keys {
		l.origins[k.name] = Origin{Source: fromDefault}
		if of := derived[k.name]; of != "" {
			l.origins[k.name] = Origin{Source: fromDefault + ", of " + of}
		}
		l.names = append(l.names, k.name)
	}
	l.weakVariables(s.Environ)
	l.file(s.File)
	l.environment(s.Environ)
	l.assignments(s.Set)
	for _, name := range slices.Sorted(maps.Keys(s.Flags)) {
		l.put(name, s.Flags[name], "flag --"+flagName(name), name)
	}
	l.config.EnsureDefaults()
	// What could not be read has its default by now: it is not checked twice.
	l.problems = append(l.problems, l.config.problems()...)
	return &l.config, l.origins, problemsError(l.problems)
}

// flagName is how the flag of a key of its own is called.
func flagName(name string) string {
	if name == "node.data_dir" {
		return "data-dir"
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, ".", "-"), "_", "-")
}

type loader struct {
	config   Config
	origins  Origins
	keys     []key
	names    []string
	problems []string
}

func (l *loader) bad(what string) { l.problems = append(l.problems, what) }

// put sets one key; given is the name that the source has for it.
func (l *loader) put(name string, value any, origin, given string) {
	i := slices.Index(l.names, name)
	if i < 0 {
		l.unknown(given, origin, nearest(name, l.names))
		return
	}
	if value == nil {
		return // "key:" without a value: not set
	}
	if err := l.keys[i].set(&l.config, value); err != nil {
		l.bad(name + " (" + origin + "): " + err.Error())
		return
	}
	l.origins[name] = Origin{Source: origin, Set: true, Given: l.keys[i].plain(&l.config)}
}

func (l *loader) unknown(given, origin, suggestion string) {
	what := given + " (" + origin + "): unknown key"
	if suggestion != "" {
		what += "; did you mean " + suggestion + "?"
	}
	l.bad(what)
}

func (l *loader) file(path string) {
	if path == "" {
		return
	}
	origin := "file " + filepath.Base(path)
	if st, err := os.Stat(path); err != nil {
		l.bad("--config: " + err.Error())
		return
	} else if st.Size() > maxFileBytes || st.IsDir() {
		l.bad("--config: " + path + ": want a file of at most 1 MiB")
		return
	}
	k := koanf.New(".")
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		l.bad("--config: " + path + ": " + err.Error())
		return
	}
	all := k.All()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name] == nil && l.isSection(name) {
			continue // a section whose lines are all commented out
		}
		if m, ok := all[name].(map[string]any); ok && len(m) == 0 && l.isSection(name) {
			continue
		}
		l.put(name, all[name], origin, name)
	}
}

func (l *loader) isSection(name string) bool {
	return slices.ContainsFunc(l.names, func(n string) bool { return strings.HasPrefix(n, name+".") })
}

// otherVariables are variables with our prefix that are no keys: the path of the
// file, the choice of kernels, and what tests use.
var otherVariables = []string{"QUERYNODE_CONFIG", "QUERYNODE_ADDR", "QUERYNODE_SIMD", "QUERYNODE_PYTHON"}

const testPrefix = "QUERYNODE_TEST_"

// weakPrefix begins variables that give a key another default, which the file beats:
// those of an image.
const weakPrefix = envPrefix + "DEFAULT_"

// weakVariables reads the variables that are weaker than the file.
func (l *loader) weakVariables(environ []string) {
	var known []string
	for _, k := range l.keys {
		known = append(known, weakPrefix+strings.TrimPrefix(k.env, envPrefix))
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, weakPrefix) {
			continue
		}
		i := slices.Index(known, name)
		if i < 0 {
			if !isService(name, value) { // one called querynode-default
				l.unknown(name, "environment", nearest(name, known))
			}
			continue
		}
		if err := l.keys[i].set(&l.config, value); err != nil {
			l.bad(l.names[i] + " (environment " + name + "): " + err.Error())
			continue
		}
		l.origins[l.names[i]] = Origin{Source: fromDefault + " " + name, Weak: true}
	}
}

// serviceVariable matches what Kubernetes puts into every pod for a Service
// whose name begins with "querynode".
var serviceVariable = regexp.MustCompile(`^QUERYNODE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// serviceURL is the value of a Service's ..._PORT; a key that ends the same way
// would not have it.
var serviceURL = regexp.MustCompile(`^(tcp|udp|sctp)://`)

func (l *loader) environment(environ []string) {
	byEnv := map[string]string{}
	var known []string
	for _, k := range l.keys {
		byEnv[k.env] = k.name
		known = append(known, k.env)
	}
	given := map[string]string{} // key to variable
	k := koanf.New(".")
	err := k.Load(env.Provider(".", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			if to, ok := byEnv[name]; ok {
				given[to] = name
				return to, value
			}
			if !isOther(name, value) {
				l.unknown(name, "environment", nearest(name, known))
			}
			return "", nil
		},
	}), nil)
	if err != nil {
		l.bad("environment: " + err.Error())
		return
	}
	all := k.All()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l.put(name, all[name], "environment "+given[name], given[name])
	}
}

func isOther(name, value string) bool {
	if slices.Contains(otherVariables, name) || strings.HasPrefix(name, testPrefix) || strings.HasPrefix(name, weakPrefix) {
		return true
	}
	return isService(name, value)
}

// isService says whether Kubernetes gave the variable, for a Service.
func isService(name, value string) bool {
	if !serviceVariable.MatchString(name) {
		return false
	}
	return !strings.HasSuffix(name, "_PORT") || serviceURL.MatchString(value) || strings.HasSuffix(name, "_SERVICE_PORT") ||
		strings.Contains(name, "_TCP_") || strings.Contains(name, "_UDP_") || strings.Contains(name, "_SCTP_")
}

func (l *loader) assignments(set []string) {
	for _, s := range set {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			l.bad("--set " + name + ": want key=value")
			continue
		}
		if i := slices.Index(l.names, name); i >= 0 && l.keys[i].secret {
			l.bad("--set " + name + ": the command line of a process can be read by others; use the variable " + l.keys[i].env + " or the file")
			continue
		}
		l.put(name, value, "--set", name)
	}
}

// problemsError joins problems into one message, one line each.
func problemsError(problems []string) error {
	switch len(problems) {
	case 0:
		return nil
	case 1:
		return errclass.New(errclass.Invalid, "configuration: %s", problems[0])
	}
	return errclass.New(errclass.Invalid, "configuration: %d problems:\n  %s", len(problems), strings.Join(problems, "\n  "))
}
