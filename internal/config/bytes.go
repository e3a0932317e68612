package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cockroachdb/errors"
)

// Bytes is a number of bytes. As text it may have a unit: 1024, 64KiB, 1.5 GiB,
// 10MB (powers of 1000).
type Bytes int64

// units from large to small; String uses the first that divides the value.
var units = []struct {
	name string
	n    int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3},
}

// String prints whole binary units, else plain bytes; UnmarshalText reads it.
func (b Bytes) String() string {
	for _, u := range units[:4] {
		if b != 0 && int64(b)%u.n == 0 {
			return fmt.Sprintf("%d%s", int64(b)/u.n, u.name)
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalText is String.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText parses a number with or without a unit.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	number, unit := s, int64(1)
	for _, u := range units {
		if rest, ok := cutSuffixFold(s, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.n
			break
		}
	}
	if unit == 1 {
		if rest, ok := cutSuffixFold(s, "B"); ok {
			number = strings.TrimSpace(rest)
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/unit {
			return errors.Newf("%q is out of range", s)
		}
		*b = Bytes(n * unit)
		return nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f >= 0 && f*float64(unit) < math.MaxInt64) || strings.ContainsAny(number, "xXpPeE_") {
		return errors.Newf("%q is not a size such as 64MiB", s)
	}
	*b = Bytes(f * float64(unit))
	return nil
}

func cutSuffixFold(s, suffix string) (string, bool) {
	if len(s) < len(suffix) || !strings.EqualFold(s[len(s)-len(suffix):], suffix) {
		return s, false
	}
	return s[:len(s)-len(suffix)], true
}
