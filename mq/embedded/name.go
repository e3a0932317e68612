package embedded

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// escape turns a topic name into a folder name: letters, digits, '-' and '_'
// stay, all else becomes %XX; a long name is cut and ends in a hash.
func escape(topic string) string {
	var b strings.Builder
	for i := range len(topic) {
		c := topic[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() <= 200 {
		return b.String()
	}
	return fmt.Sprintf("%s%%~%x", b.String()[:120], sha256.Sum256([]byte(topic)))
}
