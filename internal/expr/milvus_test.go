package expr

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

// milvusSchema has the fields of the examples in Milvus' and pymilvus' documentation.
const milvusSchema = `
id Int64 pk
status VarChar
age Int64
price Double
rating Float
discount Int32
stock Int32
quantity Int16
color VarChar nullable
name VarChar
description VarChar nullable
year Int64
is_active Bool
publish_time Int64
film_id Int64
book_intro VarChar
title VarChar
word_count Int64
metadata JSON nullable
product JSON
user JSON
history_temperatures Array:Int64
scores Array:Double nullable
tags Array:VarChar
text VarChar
message VarChar
permissions Int64
tsz Timestamptz nullable
review JSON
embedding FloatVector
image FloatVector nullable
dynamic`

// documented are filters as Milvus' documentation and pymilvus' examples write them.
var documented = []string{
	`status == "active"`,
	`status != "inactive"`,
	`age > 30`,
	`price < 100`,
	`rating >= 4`,
	`discount <= 10`,
	`color in ["red", "green", "blue"]`,
	`name LIKE "Prod%"`,
	`name LIKE "%XYZ"`,
	`name LIKE "%Pro%"`,
	`name like "AB_%"`,
	`name LIKE r"\%"`,
	`name LIKE r"\_%"`,
	`name LIKE r"\\%"`,
	`id % 2 == 0`,
	`price ** 2 > 1000`,
	`price > 100 AND stock > 50`,
	`color == "red" OR color == "blue"`,
	`NOT color == "green"`,
	`NOT color LIKE "red%"`,
	`description IS NULL`,
	`description IS NOT NULL`,
	`description IS NOT NULL AND price > 10`,
	`description is null`,
	`metadata IS NULL`,
	`metadata IS NOT NULL`,
	`product["price"] > 1000`,
	`history_temperatures[0] > 30`,
	`json_contains(product["tags"], "sale")`,
	`JSON_CONTAINS(product["tags"], "sale")`,
	`json_contains_all(product["tags"], ["electronics", "sale", "new"])`,
	`json_contains_any(product["tags"], ["electronics", "new", "clearance"])`,
	`ARRAY_CONTAINS(history_temperatures, 23)`,
	`ARRAY_CONTAINS_ALL(history_temperatures, [23, 24])`,
	`ARRAY_CONTAINS_ANY(history_temperatures, [23, 24])`,
	`ARRAY_LENGTH(history_temperatures) < 10`,
	`metadata["category"] == "electronics" and metadata["price"] < 150`,
	`metadata["price"] > 50`,
	`metadata["brand"] == "BrandA"`,
	`json_contains(metadata["tags"], "featured")`,
	`exists metadata["key"]`,
	`EXISTS metadata["key"]`,
	`not exists metadata["key"]`,
	`metadata["category"] in ["electronics", "home_appliances"]`,
	`metadata["rating"] >= 4.5 or metadata["price"] < 10`,
	`overview["feature"] == "summary"`,
	`dynamic_field > 1`,
	`$meta["dynamic_field"] > 1`,
	`$meta["a"]["b"] == 1`,
	`color like "red%"`,
	`color like "red%" and likes > 50`,
	`color in ["red_7025", "red_4794", "red_9392"]`,
	`color == "red" and 10 < likes < 20`,
	`id in [1, 2, 3, 4]`,
	`id not in [1, 2, 3, 4]`,
	`id in [19, 29]`,
	`id > 0 && id < 5`,
	`id > 0 || id < -5`,
	`!(id > 5)`,
	`1 < id < 5`,
	`5 >= id > 1`,
	`id in []`,
	`1 <= word_count <= 1000`,
	`word_count <= 11000`,
	`(age > 30 and status == "active") or (age <= 30 and status != "active")`,
	`(color == "red" or color == "blue") and price > 100`,
	`NOT (price < 50 OR stock == 0)`,
	`age > 18 AND (rating > 3.5 OR stock in [1, 2, 3])`,
	`is_active == true`,
	`is_active == True`,
	`is_active == FALSE`,
	`is_active`,
	`not is_active`,
	`film_id + 1 > 10`,
	`price * 0.9 <= 50`,
	`-3 <= age`,
	`age + 5 == 10`,
	`quantity % 3 != 1`,
	`quantity / 2 == 4`,
	`year == 0x7cf`,
	`title == "\"quoted\""`,
	`title == 'it\'s'`,
	`title > "a" and title < "n"`,
	`age == year`,
	`stock < quantity`,
	`user["profile"]["age"] > 21`,
	`user["tags"][0] == "vip"`,
	`user["scores"] == [1, 2, 3]`,
	`review["stars"] in [4, 5] and review["text"] like "%good%"`,
	`"str14" > title > "str13"`,
	`A in ["1", 2, "abc", 2.2]`,
	`10 < A < 25`,
	`A % 10 != 2`,
	`product["price"] > discount`,
	`age not in [1, 2] and name not in ["x"]`,
	`history_temperatures[10] > 23`,
	`tags[0] LIKE "pop%"`,
	`ARRAY_CONTAINS(tags, "rock") AND ARRAY_LENGTH(tags) > 1`,
	`array_contains_any(scores, [1.5, 2])`,
	`tags IS NULL`,
	`tags is not null`,
	`TEXT_MATCH(text, 'machine deep')`,
	`TEXT_MATCH(text, 'machine') and TEXT_MATCH(text, 'deep')`,
	`not TEXT_MATCH(text, 'deep') and TEXT_MATCH(text, 'machine')`,
	`TEXT_MATCH(text, 'machine learning model', minimum_should_match=2)`,
	`PHRASE_MATCH(text, 'machine learning')`,
	`phrase_match(text, 'learning machine', 1)`,
	`tsz != ISO '2025-01-03T00:00:00+08:00'`,
	`tsz + INTERVAL 'P3D' != ISO '2025-01-03T00:00:00+08:00'`,
	`tsz >= ISO '2024-12-31T00:00:00Z' and tsz < ISO '2025-01-02T00:00:00Z'`,
	`RANDOM_SAMPLE(0.01)`,
	`color == "red" AND RANDOM_SAMPLE(0.001)`,
	`message =~ "E[0-9]{4}"`,
	`message !~ "^DEBUG"`,
	`message !~ "^DEBUG" OR message IS NULL`,
	`message =~ "(?i)error"`,
	`message =~ r"\.json$"`,
	`message =~ "\.json$"`,
	`message =~ "error|failed|timeout"`,
	`metadata["path"] =~ "^/api"`,
	`tags[0] =~ "^prod-[0-9]+$"`,
	`(permissions & 4) == 4`,
	`permissions | 1 == 5`,
	`permissions ^ 2 > 0`,
	`tsz + INTERVAL 'P0D' > ISO '2025-01-01T00:00:00+08:00'`,
	`tsz - INTERVAL 'PT2H' <= ISO '2025-01-01T00:00:00+08:00'`,
	`tsz + INTERVAL 'P1Y2M3DT4H5M6S' < ISO '2025-01-01T00:00:00+08:00'`,
	`ISO '2025-01-01T00:00:00+08:00' < tsz + INTERVAL 'P1M'`,
	`ISO '2025-01-01T00:00:00Z' <= tsz <= ISO '2026-01-01T00:00:00Z'`,
	`TEXT_MATCH_FUZZY(text, 'machin', max_edit_distance=1)`,
	`starts_with(title, "The")`,
	`not empty(title)`,
	`MATCH_ANY(tags, $ LIKE 'Red%')`,
	`MATCH_ALL(history_temperatures, $ > 20 && $ < 30)`,
	`MATCH_LEAST(tags, $ LIKE 'Red%', 3)`,
	`MATCH_MOST(tags, $ == 'Red', threshold=3)`,
	`match_exact(scores, $ in [1, 2.5], THRESHOLD = 3)`,
	`id > 0 && element_filter(tags, $ > "a")`,
	`random_sample(.5) OR false`,
	`age == 1 AND ((year == 2 AND random_sample(.5)) OR false)`,
	`200+300 < age <= 500+500`,
	`(age > 0 && age < 400) or (age > 500 && age < 1000)`,
	`age == 0 || age == 1 || age == 2`,
	`age in [1, 2, 3] and rating != 2`,
	`age in [1, 2, 3,]`,
	`price > 0x1.8p3 and price < 1.e3 and rating >= .5`,
	`product["info"]['作者'] == '塞林格' or product["título"] == "años"`,
	`product["a"][0]["b"] == true and product['c']["0"] not in [1, 2]`,
	`NOT NOT (age > 1)`,
	`!!is_active`,
	`((age)) in [1] and (product["x"]) == 2`,
	`-9223372036854775808 < id < 9223372036854775807`,
	"  age > 1\n\tand age < 5\r\n",
	`image is null`,
	`image IS NOT NULL and age > 1`,
	`embedding is not null`,
	`MATCH_ANY(metadata["tags"], $ == "x")`,
	`MATCH_ANY(metadata["path"]["color"], $ == "x" || $ == "y")`,
	`MATCH_ANY(metadata, $ > 1)`,
	`MATCH_ALL(metadata["n"], $ > 5 && $ < 10)`,
	`MATCH_ANY(metadata["n"], $ in [1, 1.5])`,
	`MATCH_LEAST(metadata["tags"], $ == "x", threshold=2)`,
	`match_exact($meta["tags"], $ == true, THRESHOLD=1)`,
	`match_any(labels, $ =~ "x.*")`,
	`title == u8"a" or title == U'b' or title in [L"c", u'd']`,
	`age>1and age<5or age in[7]`,
	`threshold == 1 and iso == 2 and interval > 3 and match_all == 4 and text_match != 5`,
	`tsz > ISO '2025-01-01T00:00:00.123456000Z'`,
	`age > 25 AND city IN ['北京', '上海']`,
	`JSON_CONTAINS(product["ref"], ["blue", "brown", "grey"])`,
	`(permissions | 2) == 7`,
	`(permissions ^ 7) == 2`,
	`dynamic_json["nested"]["value"] < 50`,
	`product['作者'] == 'J.D.塞林格' or product['Título'] == 'Cien años de soledad'`,
	`json_field["body"] =~ "error.*timeout"`,
	`email =~ "@example\.com$"`,
	`code =~ "^E[0-9]{4}$"`,
	`message =~ r"\d{4}-\d{2}-\d{2}"`,
	`TEXT_MATCH_FUZZY(text, 'machne', max_edit_distance = 1)`,
	`not TEXT_MATCH(text, 'deep') and TEXT_MATCH(text, 'machine') and TEXT_MATCH(text, 'learning')`,
	`phrase_match(text, 'vector database', 0)`,
	`PHRASE_MATCH(text, 'machine learning', 3)`,
	`title like "Flip_ed"`,
	`text LIKE "%st%um%"`,
	`name like "ki%" AND name like "%y"`,
	`name like "%kimchy%" AND ARRAY_CONTAINS(tags, "production")`,
	`customer_tier == "premium" AND region == "North America" AND RANDOM_SAMPLE(0.001)`,
	`status == "new" and organization_id == 7`,
	`(color == "red") and (1000 < tag < 1500)`,
	`color_coord[0] in [7, 8, 9] and ARRAY_LENGTH(color_coord) == 4`,
	`$meta["$key"] in ["a", "b", "c"]`,
	`_ab_stream == "articles"`,
	`name != ""`,
	`(age > 1 or year == 2) and id > 19530 and id not in [3,4]`,
	`MATCH_ANY(tags, $ in ["a", "b"]) and not MATCH_ALL(scores, $ < 0.5)`,
	`filename LIKE "%.json"`,
	`description LIKE "%vector database%"`,
	`product["model"] == "JSN-087" AND product["price"] < 1850`,
	`inventory["quantity"] in [310, 103]`,
	`color == "red" and tags[1] in ["a"] AND NOT message LIKE "%debug%"`,
	`name =~ "^prod-[0-9]+$"`,
	`code =~ "^ERR"`,
	`code =~ "[0-9]{4}"`,
	`message =~ "[0-9]+"`,
	`filename =~ r"\.json$"`,
	`email =~ "@gmail\.com$"`,
	`json_field["path"] !~ "pattern"`,
	`description LIKE "%vector%"`,
	`message LIKE "%database%"`,
	`code LIKE "AB_%"`,
	`price > 100 and stock > 50 and color in ["red"] or not (rating >= 4)`,
	`metadata["tags"][0] == "featured"`,
	`ARRAY_CONTAINS_ALL(tags, ["rock", "pop"]) or array_length(tags) == 0`,
}

func TestDocumentedFiltersCompile(t *testing.T) {
	s := parseSchema(t, milvusSchema)
	for _, filter := range documented {
		p, err := Compile(filter, s, nil, "")
		if err != nil {
			t.Errorf("%s: %v", filter, err)
			continue
		}
		if again := mustCompile(t, s, p.String(), nil); again.String() != p.String() {
			t.Errorf("%s: %s becomes %s", filter, p, again)
		}
	}
}

func TestDocumentedTemplatesCompile(t *testing.T) {
	s := parseSchema(t, milvusSchema)
	for filter, vars := range map[string]map[string]any{
		`age > {age} AND name in {name}`:              {"age": int64(25), "name": []string{"a", "b"}},
		`age > {age}`:                                 {"age": 25},
		`price < {p} or rating in {r}`:                {"p": 1.5, "r": []float64{1, 2.5}},
		`id in {ids}`:                                 {"ids": []int64{1, 2, 3}},
		`is_active == {yes}`:                          {"yes": true},
		`metadata["x"] in {any}`:                      {"any": []any{int64(1), "a", 2.5, true}},
		`json_contains_all(metadata["tags"], {tags})`: {"tags": []string{"x"}},
		`{lo} < age <= {hi}`:                          {"lo": int64(1), "hi": int64(5)},
		`name like {pattern}`:                         {"pattern": "a%"},
		`metadata["x"] in {list}`:                     {"list": json.RawMessage(`[1, "a", 2.5, true]`)},
		`tsz + INTERVAL {i} > ISO {t}`:                {"i": "P1D", "t": "2025-01-01T00:00:00Z"},
		`text_match(text, {q}, minimum_should_match={n}) or phrase_match(text, {q}, {n})`: {"q": "red blue", "n": int64(1)},
		`id in [{n}, {n}] and random_sample({f})`:                                         {"n": int64(1), "f": 0.5},
		`match_least(tags, $ in {l}, threshold={n}) and tags == {l}`:                      {"n": int64(1), "l": []string{"a"}},
		`starts_with(title, {q}) or {q} == title or title =~ {q}`:                         {"q": "a"},
		`id in {x} or id not in {x} or age in {x}`:                                        {"x": []int64{}},
		`array_contains_any(tags, {x}) or json_contains_all(metadata["tags"], {x})`:       {"x": []string{}},
		`json_contains_any(metadata["tags"], {x}) or metadata["p"] in {x}`:                {"x": []any{}},
	} {
		mustCompile(t, s, filter, vars)
	}
	for filter, vars := range map[string]map[string]any{
		`age > {age}`:     {"age": "25"},
		`age > {x}`:       {"x": struct{}{}},
		`age in {x}`:      {"x": []any{int64(1), nil}},
		`age in {xs}`:     {"xs": int64(1)},
		`name like {x}`:   {"x": int64(1)},
		`age > {missing}`: nil,
		`tsz > ISO {x}`:   {"x": int64(1)},
		`tsz > ISO {y}`:   {"y": "soon"},
	} {
		_, err := Compile(filter, s, vars, "")
		if err == nil {
			t.Errorf("%s with %v: no error", filter, vars)
			continue
		}
		explain(t, err, filter)
	}
}

// TestListsOfMixedTypesAsJSON: a value in JSON text means what the same text means in
// the filter.
func TestListsOfMixedTypesAsJSON(t *testing.T) {
	s := parseSchema(t, milvusSchema)
	for text, filter := range map[string]string{
		`[1, 2.5, "a", true]`: `metadata["x"] in {x}`,
		`[1, 2]`:              `age in {x}`,
		` [ 1.5, 2 ] `:        `rating in {x}`,
		`[]`:                  `age in {x}`,
		`[1, [2, "b"], []]`:   `json_contains_any(metadata["tags"], {x})`,
		`[[1, 2], ["x"]]`:     `json_contains_all(metadata["tags"], {x})`,
		`[3, 4]`:              `json_contains(metadata["tags"], {x})`,
		`9007199254740993`:    `id > {x}`,
		`"r\u00e9d \u65e5"`:   `color == {x}`,
		`1e3`:                 `price < {x}`,
		`-0.0`:                `metadata["x"] == {x}`,
		`false`:               `is_active == {x}`,
	} {
		literal := strings.ReplaceAll(text, `"r\u00e9d \u65e5"`, `"réd 日"`)
		got := mustCompile(t, s, filter, map[string]any{"x": json.RawMessage(text)}).String()
		if want := mustCompile(t, s, strings.ReplaceAll(filter, "{x}", literal), nil).String(); got != want {
			t.Errorf("%s with %s: %s, as a literal %s", filter, text, got, want)
		}
	}
	many := "[" + strings.Repeat("[[1],2],", MaxList/4) + "1]"
	for text, want := range map[string]string{
		``:                          "no JSON",
		`[1`:                        "no JSON",
		`[1,]`:                      "no JSON",
		`[1 2]`:                     "no JSON",
		`1 2`:                       "more than one",
		`[1] [2]`:                   "more than one",
		`[1, null]`:                 "null",
		`[{"a": 1}]`:                "object",
		`[9223372036854775808]`:     "does not fit a 64-bit integer",
		`[1e400]`:                   "does not fit a 64-bit float",
		many:                        "at most 65536 elements",
		strings.Repeat("[", 1000):   "256 levels",
		strings.Repeat("[1,", 1000): "256 levels",
		strconv.Quote(strings.Repeat("a", MaxTextWithLists)): "bytes, at most",
	} {
		_, err := Compile(`metadata["x"] in {x}`, s, map[string]any{"x": json.RawMessage(text)}, "")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want an error with %q", text, err, want)
			continue
		}
		explain(t, err, `metadata["x"] in {x}`)
	}
}
