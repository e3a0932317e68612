package expr

import (
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// The functions here walk JSON text without building anything. They take the
// text and an offset, and return the offset after what they read; -1 means
// malformed (or nested deeper than MaxJSONDepth). None recurses on the text.

func skipSpace(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\n' || s[i] == '\t' || s[i] == '\r') {
		i++
	}
	return i
}

// findJSON returns the offset at which the value at path starts; -1 when there
// is none or the text is malformed up to there. Of equal keys the first counts.
func findJSON(s string, path []step) int {
	i := skipSpace(s, 0)
	for k := range path {
		if i >= len(s) {
			return -1
		}
		switch {
		case s[i] == '{':
			i = findKey(s, i+1, path[k].key)
		case s[i] == '[' && path[k].index >= 0:
			i = findIndex(s, i+1, path[k].index)
		default:
			return -1
		}
		if i < 0 {
			return -1
		}
	}
	if i >= len(s) {
		return -1
	}
	return i
}

// Member returns the text of a key's value in doc, a JSON object; false if it is
// not there, or doc is malformed up to its end. Of equal keys the first counts.
func Member(doc, key string) (text string, ok bool) {
	i := skipSpace(doc, 0)
	if i >= len(doc) || doc[i] != '{' {
		return "", false
	}
	if i = findKey(doc, i+1, key); i < 0 {
		return "", false
	}
	end, _ := skipValue(doc, i)
	if end < 0 {
		return "", false
	}
	return doc[i:end], true
}

// findKey looks for key in the object whose brace was before i.
func findKey(s string, i int, key string) int {
	i = skipSpace(s, i)
	for i < len(s) && s[i] == '"' {
		end, escaped := skipString(s, i)
		if end < 0 {
			return -1
		}
		found := s[i+1:end-1] == key
		if escaped {
			found = equalUnescaped(s[i+1:end-1], key)
		}
		if i = skipSpace(s, end); i >= len(s) || s[i] != ':' {
			return -1
		}
		i = skipSpace(s, i+1)
		if found {
			return i
		}
		if i, _ = skipValue(s, i); i < 0 {
			return -1
		}
		if i = skipSpace(s, i); i >= len(s) || s[i] != ',' {
			return -1
		}
		i = skipSpace(s, i+1)
	}
	return -1
}

// findIndex looks for element n of the array whose bracket was before i.
func findIndex(s string, i, n int) int {
	i = skipSpace(s, i)
	if i >= len(s) || s[i] == ']' {
		return -1
	}
	for ; n > 0; n-- {
		if i, _ = skipValue(s, i); i < 0 {
			return -1
		}
		if i = skipSpace(s, i); i >= len(s) || s[i] != ',' {
			return -1
		}
		i = skipSpace(s, i+1)
	}
	return i
}

// skipString reads the string whose opening quote is at i.
func skipString(s string, i int) (end int, escaped bool) {
	for i++; ; i++ {
		for i < len(s) && s[i] != '"' && s[i] != '\\' && s[i] >= ' ' {
			i++
		}
		switch {
		case i >= len(s), s[i] < ' ':
			return -1, false
		case s[i] == '"':
			return i + 1, escaped
		default:
			escaped = true
			i++
			if i >= len(s) {
				return -1, false
			}
			switch s[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex4(s, i+1); !ok {
					return -1, false
				}
				i += 4
			default:
				return -1, false
			}
		}
	}
}

func hex4(s string, i int) (r rune, ok bool) {
	if i+4 > len(s) {
		return 0, false
	}
	for _, c := range []byte(s[i : i+4]) {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// skipScalar reads a string, a number, true, false or null. solid is whether it
// is not null.
func skipScalar(s string, i int) (end int, solid bool) {
	if i >= len(s) {
		return -1, false
	}
	switch c := s[i]; {
	case c == '"':
		end, _ = skipString(s, i)
		return end, true
	case c == 't':
		return skipWord(s, i, "true"), true
	case c == 'f':
		return skipWord(s, i, "false"), true
	case c == 'n':
		return skipWord(s, i, "null"), false
	}
	end, _ = skipNumber(s, i)
	return end, true
}

func skipWord(s string, i int, w string) int {
	if end := i + len(w); end <= len(s) && s[i:end] == w && ends(s, end) {
		return end
	}
	return -1
}

// ends reports whether a number or word may end at i.
func ends(s string, i int) bool {
	if i == len(s) {
		return true
	}
	switch s[i] {
	case ',', '}', ']', ' ', '\n', '\t', '\r':
		return true
	}
	return false
}

func skipNumber(s string, i int) (end int, integer bool) {
	if i < len(s) && s[i] == '-' {
		i++
	}
	switch {
	case i >= len(s) || !isDigit(s[i]):
		return -1, false
	case s[i] == '0':
		i++
	default:
		i = skipDigits(s, i)
	}
	integer = true
	if i < len(s) && s[i] == '.' {
		from := i + 1
		if i = skipDigits(s, from); i == from {
			return -1, false
		}
		integer = false
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		from := i + 1
		if from < len(s) && (s[from] == '+' || s[from] == '-') {
			from++
		}
		if i = skipDigits(s, from); i == from {
			return -1, false
		}
		integer = false
	}
	if !ends(s, i) {
		return -1, false
	}
	return i, integer
}

func skipDigits(s string, i int) int {
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	return i
}

// skipValue reads any value. solid is whether there is a scalar other than null
// in it, at any depth.
func skipValue(s string, i int) (end int, solid bool) {
	if i < len(s) && s[i] != '{' && s[i] != '[' {
		return skipScalar(s, i)
	}
	var objects [MaxJSONDepth / 64]uint64 // bit d: level d is an object
	depth := 0
	for {
		// A value starts at i.
		if i >= len(s) {
			return -1, false
		}
		opened := false
		switch c := s[i]; c {
		case '{', '[':
			if depth == MaxJSONDepth {
				return -1, false
			}
			bit := uint64(1) << (depth & 63)
			objects[depth>>6] &^= bit
			if c == '{' {
				objects[depth>>6] |= bit
			}
			depth++
			i, opened = skipSpace(s, i+1), true
		default:
			var full bool
			if i, full = skipScalar(s, i); i < 0 {
				return -1, false
			}
			solid = solid || full
		}
		// After a value or an opening bracket: close what closes here.
		for {
			if depth == 0 {
				return i, solid
			}
			if i = skipSpace(s, i); i >= len(s) {
				return -1, false
			}
			object := objects[(depth-1)>>6]>>((depth-1)&63)&1 == 1
			if object && s[i] == '}' || !object && s[i] == ']' {
				depth--
				i++
				opened = false
				continue
			}
			if !opened {
				if s[i] != ',' {
					return -1, false
				}
				i = skipSpace(s, i+1)
			}
			if object {
				if i = skipKey(s, i); i < 0 {
					return -1, false
				}
			}
			break
		}
	}
}

// skipKey reads a key and its colon.
func skipKey(s string, i int) int {
	if i >= len(s) || s[i] != '"' {
		return -1
	}
	if i, _ = skipString(s, i); i < 0 {
		return -1
	}
	if i = skipSpace(s, i); i >= len(s) || s[i] != ':' {
		return -1
	}
	return skipSpace(s, i+1)
}

// readJSON reads the value at i. Scalars are checked, arrays and objects are not
// looked into. A string with escapes is decoded to the end of buf, which is
// returned; the value aliases s or buf. A null, a malformed value and a number
// beyond a 64-bit float are kNone.
func readJSON(s string, i int, buf []byte) (value, []byte) {
	if i < 0 || i >= len(s) {
		return value{}, buf
	}
	switch s[i] {
	case '{':
		return value{k: kObject, s: s[i:]}, buf
	case '[':
		return value{k: kArray, s: s[i:]}, buf
	case '"':
		end, escaped := skipString(s, i)
		switch {
		case end < 0:
			return value{}, buf
		case !escaped:
			return stringValue(s[i+1 : end-1]), buf
		}
		from := len(buf)
		buf = appendUnescaped(buf, s[i+1:end-1])
		return stringValue(view(buf[from:])), buf
	case 't':
		if skipWord(s, i, "true") > 0 {
			return boolValue(true), buf
		}
		return value{}, buf
	case 'f':
		if skipWord(s, i, "false") > 0 {
			return boolValue(false), buf
		}
		return value{}, buf
	}
	return readNumber(s, i), buf
}

func readNumber(s string, i int) value {
	end, integer := skipNumber(s, i)
	if end < 0 {
		return value{}
	}
	if integer {
		if n, ok := readInt(s[i:end]); ok {
			return intValue(n)
		}
	}
	f, err := strconv.ParseFloat(s[i:end], 64)
	if err != nil || math.IsInf(f, 0) {
		return value{}
	}
	return floatValue(f)
}

// readInt converts digits with perhaps a sign; not ok when they do not fit.
// Unlike strconv it does not allocate then.
func readInt(s string) (n int64, ok bool) {
	digits := s
	if s[0] == '-' {
		digits = s[1:]
	}
	if len(digits) > 19 {
		return 0, false
	}
	var u uint64 // 19 digits fit
	for i := range len(digits) {
		u = u*10 + uint64(digits[i]-'0')
	}
	if len(digits) < len(s) {
		return -int64(u), u <= 1<<63
	}
	return int64(u), u < 1<<63
}

// nextRune decodes the first character of raw, the inside of a valid string
// with escapes: its bytes are in b[:n], and it took size bytes of raw.
func nextRune(raw string) (b [utf8.UTFMax]byte, n, size int) {
	if raw[0] != '\\' {
		b[0] = raw[0]
		return b, 1, 1
	}
	switch c := raw[1]; c {
	case 'b':
		b[0] = '\b'
	case 'f':
		b[0] = '\f'
	case 'n':
		b[0] = '\n'
	case 'r':
		b[0] = '\r'
	case 't':
		b[0] = '\t'
	case 'u':
		r, _ := hex4(raw, 2)
		size = 6
		if utf16.IsSurrogate(r) {
			low, ok := rune(0), false
			if len(raw) >= 12 && raw[6] == '\\' && raw[7] == 'u' {
				low, ok = hex4(raw, 8)
			}
			if r = utf16.DecodeRune(r, low); ok && r != utf8.RuneError {
				size = 12
			}
		}
		return b, utf8.EncodeRune(b[:], r), size
	default:
		b[0] = c
	}
	return b, 1, 2
}

func appendUnescaped(buf []byte, raw string) []byte {
	for len(raw) > 0 {
		b, n, size := nextRune(raw)
		buf = append(buf, b[:n]...)
		raw = raw[size:]
	}
	return buf
}

// equalUnescaped compares the inside of a valid string with escapes with s.
func equalUnescaped(raw, s string) bool {
	for len(raw) > 0 {
		b, n, size := nextRune(raw)
		if len(s) < n || string(b[:n]) != s[:n] {
			return false
		}
		raw, s = raw[size:], s[n:]
	}
	return len(s) == 0
}
