package config

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
)

//go:embed config.go
var source string

// WriteReference writes the reference of all keys as Markdown, made from the
// comments in config.go.
func WriteReference(w io.Writer) error {
	comments, err := fieldComments(source)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString(referenceHead)
	var c Config
	section := ""
	for _, k := range keys() {
		s, _, _ := strings.Cut(k.name, ".")
		if s != section {
			section = s
			about := comments["Config."+sectionField(&k)]
			if about == "" {
				return errors.AssertionFailedf("section %s has no comment", s)
			}
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | default | what |\n|---|---|---|\n", s, about)
		}
		about := comments[k.goSection+"."+k.goField]
		if about == "" {
			return errors.AssertionFailedf("%s has no comment", k.name)
		}
		def := k.def
		switch k.field(&c).Interface().(type) {
		case time.Duration, Bytes, int:
			if def == "" {
				def = "0"
			}
		}
		if def != "" {
			def = "`" + def + "`"
		}
		if k.secret {
			about += " Secret: never printed, not allowed in `--set`."
		}
		if len(k.allowed) > 0 {
			about += " Allowed: `" + strings.Join(k.allowed, "`, `") + "`."
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.name, def, strings.ReplaceAll(about, "|", "\\|"))
	}
	_, err = io.WriteString(w, b.String())
	return err
}

const referenceHead = `# Configuration

<!-- Made by "querynode config doc" from internal/config/config.go. Do not edit. -->

Later sources win: defaults, then the YAML file given with ` + "`--config`" + ` (or the variable
` + "`QUERYNODE_CONFIG`" + `), then environment variables, then flags (` + "`--set key=value`" + `, and
` + "`--data-dir`, `--grpc-listen`, `--admin-listen`, `--log-level`" + `).

The variable of a key is its name in capitals with ` + "`QUERYNODE_`" + ` before it: ` + "`grpc.listen`" + ` is
` + "`QUERYNODE_GRPC_LISTEN`" + `. With ` + "`QUERYNODE_DEFAULT_`" + ` before it the variable is another default, which the file beats: an image
says so what fits a container. Unknown keys are errors, in each of the sources. Other variables with this
prefix that are known: ` + "`QUERYNODE_CONFIG`; `QUERYNODE_ADDR` (the node that client commands talk to); `QUERYNODE_SIMD`" + `
(which kernels compare vectors); ` + "`QUERYNODE_PYTHON` and `QUERYNODE_TEST_...`" + ` (tests); and those that Kubernetes
sets for Services whose names begin with "querynode".

A value of zero means the default, unless the key says otherwise. Durations are written like ` + "`200ms` or `1h30m`" + `,
sizes like ` + "`1048576`, `64MiB` or `1.5GB`" + `. ` + "`querynode config print`" + ` shows what is in force and where each
value comes from. All of it is checked at the start, and all problems are listed at once.
`

func sectionField(k *key) string { return reflect.TypeFor[Config]().Field(k.index[0]).Name }

// fieldComments returns the comments of struct fields by "Type.Field".
func fieldComments(src string) (map[string]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), "config.go", src, parser.ParseComments)
	if err != nil {
		return nil, errors.Wrap(err, "read comments of the configuration")
	}
	found := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		t, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		s, ok := t.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, field := range s.Fields.List {
			for _, name := range field.Names {
				found[t.Name.Name+"."+name.Name] = strings.Join(strings.Fields(field.Doc.Text()), " ")
			}
		}
		return false
	})
	return found, nil
}
