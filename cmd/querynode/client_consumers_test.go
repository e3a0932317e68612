package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestConsumersFitTheirTerminal: names, states and how far behind they are stay.
func TestConsumersFitTheirTerminal(t *testing.T) {
	list := []*qnpb.Consumer{{Pchannel: "querynode-dml-1", Vchannels: []string{"querynode-dml-1_1v0", "querynode-dml-1_19v0"}, Kind: "shared", State: "reading",
		LagMillis: 94, Rate: 4.6, AgeSeconds: 1715, Position: "0000000000001dd8@470653946848608256"}}
	for _, width := range []int{60, 80, 90} {
		var b bytes.Buffer
		out := console.New(console.Options{Out: &b, Terminal: func(io.Writer) (bool, int) { return true, width }, Getenv: func(string) string { return "" }})
		out.Table(consumersTable(out, list))
		contains(t, text.StripEscape(b.String()), "topic", "channels", "state", "reading", "behind", "94 ms", "left out")
		for line := range strings.Lines(b.String()) {
			if n := text.StringWidthWithoutEscSequences(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("%d of %d columns: %s", n, width, line)
			}
		}
	}
}
