// Package expr is the filter language: Milvus' boolean expressions, compiled
// against a schema into a plan that is evaluated column at a time into 64-row
// bitmap words.
//
//	text -> lexer, Pratt parser -> syntax tree -> binder (names, types,
//	constants folded) -> plan (negations pushed to the leaves, ranges and lists
//	merged, cheap tests first) -> Eval
//
// # Language, loosest binding first
//
//	a or b, a || b
//	a and b, a && b
//	not a, !a
//	== !=
//	< <= > >=        also chained: 1 < a <= 5, 5 >= a > 1
//	a in [1, 2], a not in [..], a like "x%", a =~ "^x", a !~ "x$", a is null, a is not null
//	|
//	^
//	&
//	+ -
//	* / %
//	-a, +a
//	**               left to right: 2 ** 3 ** 2 is 64
//	name, meta["key"][0], $meta["key"], {variable}, literals, [lists], (a),
//	exists meta["a"], json_contains(meta["a"], 1), json_contains_all(..),
//	json_contains_any(..), array_length(meta["a"])
//	tags[0], array_contains(tags, 1), array_contains_any(tags, [1, 2]),
//	array_contains_all(..), array_length(tags), tags == [1, 2]
//	at > ISO "2026-01-02T15:04:05Z", at + INTERVAL "P1DT2H" < ISO ".."
//	match_any(tags, $ > 1), match_all(..), element_filter(tags, $ > 1),
//	match_least(tags, $ > 1, threshold=2), match_most(..), match_exact(..); also of meta["tags"]
//	text_match(title, "red blue"), phrase_match(title, "red blue", 2)
//	text_match_fuzzy(title, "bleu", max_edit_distance=1)
//	starts_with(title, "red"), empty(title)
//	random_sample(0.01)
//
// Of a vector field there are v is null and v is not null only.
//
// Words are case-insensitive; array_contains* are other names of
// json_contains*. A name that is no field is a key of the dynamic field when
// the schema has one: color means $meta["color"]. `not` binds looser than
// comparisons, where Milvus' binds tighter: what Milvus accepts means the same,
// and `not a == 1` is legal here as in Milvus' own documentation.
// A bool field may stand alone as a condition.
//
// Strings take the escapes of C; \% and \_ keep their backslash, for like, and so
// do those of a regular expression, such as \. and \d.
// r"..." keeps every backslash; u8, u, U and L in front of a string mean nothing. In like, % is any text, _ one character, and
// \%, \_ and \\ stand for the character itself. Integers are decimal, 0x, 0b, 0o or
// octal by a leading 0; one that does not fit 64 bits is an error. Floats may be
// hexadecimal (0x1.8p3).
//
// # Nulls and missing paths
//
// Conditions have three values (Kleene): a condition on a null, on a missing
// JSON path, on a JSON null or on a JSON value of another type is unknown, and
// so is its negation; a row matches when the whole is true. So neither
// meta["a"] == 1 nor meta["a"] != 1 nor not (meta["a"] == 1) matches a row without
// meta["a"], which is what Milvus does since its pull request 50702 of June 2026, in 3.0
// and late 2.6 (earlier versions matched the last two).
// Unknown as well: integer arithmetic that overflows or divides by zero.
//
//   - x in [] is false and x not in [] is true for every row, null or not.
//   - exists p is false for a missing path, a JSON null and a value with
//     nothing in it ({}, [], [{}]); unknown if the column itself is null.
//   - p is null, for a JSON path, is true where exists p is not true. It is
//     never unknown.
//   - json_contains* is unknown unless the path holds an array.
//   - A mixed list, p in [1, "a"], is unknown for a type it has no member of.
//
// # Arrays
//
// An element beyond the end of an array is null, and so are all of a null array
// and its length. Elements are compared as a field of their type would be;
// array_contains* and == of a null array are unknown, of an empty one they are not.
// A value of another type than the elements' is an error.
//
// In match_any and its kind $ is an element, and nothing else can be named. They count the elements for
// which the condition is true, and are unknown for a null array, and at a JSON path for what is
// no array, only: match_all is true for an empty one. element_filter is match_any that, as in Milvus, stands alone or last.
//
// # Times
//
// A Timestamptz field is compared with ISO and a time in RFC 3339, or with such a
// text alone; the offset decides the moment and is not kept, and digits beyond microseconds are refused. Without one it is UTC. INTERVAL takes an ISO
// 8601 duration. A time plus or minus an interval is a time, a time minus a time is an
// interval. Years and months are added to the date in UTC, where a day that the month
// does not have counts on into the next: January 31 and a month is March 3, or 2. Having no
// fixed length they can be added to a time only, not compared.
//
// # Text
//
// text_match is true where the text holds one of the words, or, with
// minimum_should_match=n, n different ones of them; phrase_match where it holds all
// words in their order, moved by at most the number that may follow; text_match_fuzzy
// where one of the words is there but for so many characters (0 to 2) that are added,
// left out, replaced or swapped with their neighbour. The
// field's analyzer cuts both texts into words (package analyze). Words of
// nothing match nothing.
//
// =~ is true where a regular expression (RE2) matches a part of the text, !~ where it does
// not; for a JSON path, !~ is true as well for what is no text.
//
// random_sample(p) keeps each row that the rest of the filter leaves with the
// probability p. It stands alone or is joined to the rest by and (an or with a
// constant does not count).
//
// # Numbers
//
// Integers are compared as 64-bit integers, integers with floats exactly. A
// literal compared with a Float (32-bit) field is rounded to 32 bits first, so
// that f == 1.1 finds what was stored as 1.1. Arithmetic on integers is 64-bit and / truncates;
// with a float on either side it is 64-bit floating point; % is for integers;
// ** gives a float (a folded constant stays an integer while it fits). NaN equals nothing,
// and != holds for it; rows that are written now have none.
//
// # JSON
//
// JSON text is walked per row, only as far as the path needs; of keys that are
// there twice the first counts. Text that is malformed up to that point counts as a missing path. A
// path step is an object's key and, if it is a number, an array's index, quoted
// or not, as in a JSON pointer.
package expr

// Limits on a filter. Beyond them Compile returns an error.
const (
	// MaxText is the length of the text in bytes, literal lists not counted.
	MaxText = 64 << 10
	// MaxTextWithLists is the length of the text with its lists: room for
	// MaxList 64-bit integers, which is how clients send keys.
	MaxTextWithLists = 2 << 20
	// MaxDepth is how deep parentheses, negations, lists and steps of
	// arithmetic nest. Chains of and/or are flat and have no limit of their own.
	MaxDepth = 256
	// MaxList is the number of elements of one list, literal or variable.
	MaxList = 65_536
	// MaxPattern is the length in bytes of a like pattern.
	MaxPattern = 4096
	// MaxProgram is the number of instructions of a regular expression, as many as its
	// characters and more if it repeats them (`x{100}`).
	MaxProgram = 2000
	// MaxPath is the number of steps of a JSON path.
	MaxPath = 64
	// MaxJSONDepth is the nesting of a JSON document; deeper is malformed.
	MaxJSONDepth = 512
)
