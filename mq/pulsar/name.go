package pulsar

import (
	"fmt"
	"strings"

	"github.com/querynode/querynode/internal/errclass"
)

const maxTopicNameBytes = 512

// escape makes any name a legal topic name of Pulsar. What is not a letter,
// digit, "_", "-" or "." becomes =XX, also the dash that would make the name
// that of a partition of another topic.
func escape(name string) (string, error) {
	switch {
	case name == "":
		return "", errclass.New(errclass.Invalid, "the topic has no name")
	case len(name) > maxTopicNameBytes:
		return "", errclass.New(errclass.Invalid, "the name of the topic has %d bytes, at most %d are allowed", len(name), maxTopicNameBytes)
	}
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
		if plain && !(c == '-' && strings.HasPrefix(name[i:], "-partition-")) && !(c == '.' && len(name) <= 2) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String(), nil
}
