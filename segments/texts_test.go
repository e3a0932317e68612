package segments

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/analyze"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

const (
	bodyField  = 104
	wordsField = 105
)

// posts is items with a text whose words a function counts.
func posts() *schema.Schema {
	s := items()
	s.Fields = append(s.Fields, schema.Field{ID: bodyField, Name: "body", Type: schema.VarChar, Nullable: true, Analyzer: analyze.English},
		schema.Field{ID: wordsField, Name: "words", Type: schema.SparseFloatVector})
	s.Functions = []schema.Function{{Name: "count", Type: schema.BM25, Input: bodyField, Output: wordsField}}
	return s
}

// texts is a rig whose rows are texts, and what a naive search finds of them.
type texts struct {
	*rig
	rnd  *rand.Rand
	body map[string]string // by key and timestamp; "" = null
}

func newTexts(t *testing.T, seed uint64) *texts {
	t.Helper()
	return &texts{rig: newRig(t, rigOptions{schema: posts()}), rnd: rand.New(rand.NewPCG(seed, 1)), body: map[string]string{}}
}

var vocabulary = strings.Fields("apple banana cherry dogs running the and walked fish eagles of river rivers mountain stone light dark city cities house")

// sentence makes a text of words of which the first are common.
func (x *texts) sentence() string {
	var words []string
	for range x.rnd.IntN(1 + x.rnd.IntN(40)) {
		words = append(words, vocabulary[int(float64(len(vocabulary))*math.Pow(x.rnd.Float64(), 2))])
	}
	return strings.Join(words, " ")
}

// write puts rows with random texts, some null, into a segment.
func (x *texts) write(segment int64, upsert bool, partition int64, keys ...int64) {
	x.t.Helper()
	b := x.batch(keys, 0)
	body := b.Column(bodyField)
	for range keys {
		text := x.sentence()
		body.Str, body.Valid = append(body.Str, text), append(body.Valid, text != "")
	}
	b.Columns = b.Columns[:len(b.Columns)-1] // the function makes it
	must(x.t, analyze.Fill(b, x.o.schema))
	at := x.tick()
	must(x.t, x.ch.ApplyRows(Rows{SegmentID: segment, PartitionID: partition, Batch: b, Upsert: upsert}, at))
	x.ch.Advance(at)
	for i, k := range keys {
		if upsert {
			x.deletes = append(x.deletes, modelDelete{k, 0, at.Timestamp})
		}
		x.rows = append(x.rows, modelRow{key: k, price: k * 10, color: colors[k&3], v: vectorOf(k, 0), ts: at.Timestamp, partition: partition, segment: segment})
		x.body[fmt.Sprint(k, at.Timestamp)] = body.Str[i]
	}
}

// asked is what a query is to the node: how often words are in it.
func asked(text string) *schema.Column {
	a, _ := analyze.New(analyze.English)
	c := &schema.Column{FieldID: wordsField, Type: schema.SparseFloatVector}
	a.Counter().Append(c, text)
	return c
}

func (x *texts) ask(text string, q SearchRequest) *SearchResult {
	x.t.Helper()
	q.FieldID, q.Metric, q.NQ, q.Queries = wordsField, index.BM25, 1, asked(text)
	if q.TopK == 0 {
		q.TopK = 10
	}
	res, err := x.coll.Search(x.t.Context(), &q)
	must(x.t, err)
	return res
}

func (s *sabotaged) lengths(fieldID int64) []uint64 {
	s.hook(s.segment)
	return s.segment.lengths(fieldID)
}

type scored struct {
	key   int64
	score float64
}

// counts says how often words are in a text, and how many there are.
type counts struct {
	times map[string]float64
	words float64
}

func countsOf(text string) counts {
	a, _ := analyze.New(analyze.English)
	c := counts{times: map[string]float64{}}
	for _, w := range a.Tokens(text) {
		c.times[w]++
		c.words++
	}
	return c
}

// naive scores every row that can be seen, by BM25 as it is written down.
func (x *texts) naive(text string, at uint64, k1, b float64, of func(modelRow) bool) (out []scored) {
	rows, total := x.visible(at), 0.0
	counted, with := map[int64]counts{}, map[string]float64{}
	for k, row := range rows {
		c := countsOf(x.body[fmt.Sprint(k, row.ts)])
		counted[k] = c
		total += c.words
		for w := range c.times {
			with[w]++
		}
	}
	n := float64(len(rows))
	for k, row := range rows {
		score, c := 0.0, counted[k]
		for word, times := range countsOf(text).times { // a word that is there twice counts twice
			tf := c.times[word]
			score += times * math.Log(1+(n-with[word]+0.5)/(with[word]+0.5)) * tf * (k1 + 1) / (tf + k1*(1-b+b*c.words*n/total) + 1e-300)
		}
		if score > 0 && (of == nil || of(row)) {
			out = append(out, scored{k, score})
		}
	}
	slices.SortFunc(out, func(a, b scored) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.key, b.key)) })
	return out
}

// between returns scores that none of all is near to: about a quarter of them are
// larger than the one, a quarter smaller than the other.
func between(all []scored) (radius, far float32, in []scored) {
	gap := func(i int) int {
		for i+1 < len(all) && all[i].score-all[i+1].score < 1e-3 {
			i++
		}
		return i
	}
	middle := func(i int) float32 { return float32(all[i].score+all[min(i+1, len(all)-1)].score) / 2 }
	from, to := gap(len(all)/4), gap(len(all)*3/4)
	if from == to || to == len(all)-1 {
		return 0, 1e9, all
	}
	return middle(to), middle(from), all[from+1 : to+1]
}

// same compares an answer with what is right; rows that score alike may change places.
func (x *texts) same(what string, res *SearchResult, want []scored, k int) {
	x.t.Helper()
	score := map[int64]float64{}
	for _, s := range want {
		score[s.key] = s.score
	}
	want = want[:min(k, len(want))]
	if len(res.Scores) != len(want) {
		x.t.Fatalf("%s: %d rows with %v, want %d: %v", what, len(res.Scores), res.Scores, len(want), want)
	}
	seen := map[int64]bool{}
	for i, got := range res.Scores {
		key := res.Keys.Int[i]
		if right := score[key]; seen[key] || math.Abs(float64(got)-right) > 1e-5*right || math.Abs(float64(got)-want[i].score) > 1e-5*right {
			x.t.Fatalf("%s: number %d is %d with %v; it has %v, number %d has %v", what, i, key, got, right, i, want[i])
		}
		seen[key] = true
	}
}

// checkAll compares searches of all forms with the naive one.
func (x *texts) checkAll(what string, moments ...uint64) {
	x.t.Helper()
	for _, at := range moments {
		for _, text := range []string{"dog", "the rivers and a mountain", "fish fish apple", "eagles city banana running light", "unheard-of", ""} {
			what := fmt.Sprintf("%s, %q at %d", what, text, at)
			read := Read{ReadTimestamp: at}
			all := x.naive(text, at, DefaultK1, DefaultB, nil)
			x.same(what, x.ask(text, SearchRequest{Read: read}), all, 10)
			x.same(what+", all", x.ask(text, SearchRequest{Read: read, TopK: 1000}), all, 1000)
			read.Plan = x.plan("price > 300 and color == 'red'")
			x.same(what+", filter", x.ask(text, SearchRequest{Read: read}),
				x.naive(text, at, DefaultK1, DefaultB, func(r modelRow) bool { return r.price > 300 && r.color == "red" }), 10)
			x.same(what+", partition", x.ask(text, SearchRequest{Read: Read{ReadTimestamp: at, Partitions: []int64{8}}}),
				x.naive(text, at, DefaultK1, DefaultB, func(r modelRow) bool { return r.partition == 8 }), 10)
			if len(all) > 0 {
				radius, far, in := between(all)
				x.same(what+", range", x.ask(text, SearchRequest{Read: Read{ReadTimestamp: at}, TopK: 1000, Radius: &radius, RangeFilter: &far}), in, 1000)
			}
		}
	}
}

func TestTextsAreFoundAsANaiveSearchFindsThem(t *testing.T) {
	seeds := uint64(1)
	if os.Getenv("QUERYNODE_TEST_LONG") != "" {
		seeds = 20
	}
	for seed := range seeds {
		x := newTexts(t, seed)
		x.write(1, false, 7, seq(0, 90)...)
		x.write(2, false, 8, seq(100, 160)...)
		first := x.now
		x.checkAll("growing", first)
		x.delete(3, 4, 5, 110, 999)
		x.write(1, true, 7, seq(10, 25)...) // in the segment of the older rows
		x.write(2, true, 8, seq(30, 40)...) // and in another
		moments := []uint64{first, x.now - 15, x.now - 5, x.now}
		x.checkAll("growing with deletes", moments...)
		x.handOff(1)
		x.checkAll("one of two sealed", moments...)
		x.write(3, false, 7, seq(200, 240)...)
		x.handOff(2)
		moments = append(moments, x.now)
		x.checkAll("two of three sealed", moments...)
		horizon := x.now
		x.delete(205, 20)
		x.handOff(3)
		if dropped, _ := x.rewrite(10, horizon, 0, 1, 3); dropped == 0 {
			t.Fatal("nothing was dropped")
		}
		must(t, x.swapFor(10, 1, 3))
		x.checkAll("compacted", horizon, x.now)
	}
}

// TestScoresDoNotDependOnWhatIsAskedFor: the words of rows that the answer leaves
// out count all the same.
func TestScoresDoNotDependOnWhatIsAskedFor(t *testing.T) {
	x := newTexts(t, 9)
	x.write(1, false, 7, seq(0, 50)...)
	x.handOff(1)
	x.write(2, false, 7, seq(50, 90)...)
	all := x.naive("river fish", x.now, DefaultK1, DefaultB, nil)
	sealed := slices.DeleteFunc(slices.Clone(all), func(s scored) bool { return s.key >= 50 })
	x.same("without growing rows", x.ask("river fish", SearchRequest{Read: Read{IgnoreGrowing: true}, TopK: 100}), sealed, 100)
}

func TestK1AndB(t *testing.T) {
	x := newTexts(t, 10)
	x.write(1, false, 7, seq(0, 60)...)
	for _, p := range [][2]float64{{0, 0.75}, {3, 1}, {0.9, 0.4}, {1.2, 0}} {
		info := x.info()
		info.Indexes[wordsField] = VectorIndex{Type: "AUTOINDEX", Metric: index.BM25, K1: p[0], B: p[1]}
		x.coll.Update(info)
		x.same(fmt.Sprint(p), x.ask("the dog of the city", SearchRequest{}), x.naive("the dog of the city", x.now, p[0], p[1], nil), 10)
	}
}

func TestRowsThatAreTooOldDoNotCount(t *testing.T) {
	x := newTexts(t, 11)
	x.write(1, false, 7, seq(0, 30)...)
	x.now += uint64(time.Hour.Milliseconds()) << logicalBits
	x.write(1, false, 7, seq(30, 60)...)
	info := x.info()
	info.TTL = time.Minute
	x.coll.Update(info)
	x.rows = slices.DeleteFunc(x.rows, func(r modelRow) bool { return r.key < 30 })
	x.checkAll("aged", x.now)
	x.handOff(1)
	x.checkAll("aged and sealed", x.now)
}

// TestPagesOfTexts: pages that are read while segments are sealed and merged have
// each row once, in one order.
func TestPagesOfTexts(t *testing.T) {
	x := newTexts(t, 12)
	x.write(1, false, 7, seq(0, 80)...)
	x.write(2, false, 7, seq(100, 150)...)
	x.delete(7, 8, 110)
	at := x.now
	want := x.naive("the river city", at, DefaultK1, DefaultB, nil)
	var got SearchResult
	got.Keys = &schema.Column{}
	var after *Cursor
	for page := 0; ; page++ {
		res := x.ask("the river city", SearchRequest{Read: Read{ReadTimestamp: at, OneTime: true}, TopK: 13, Page: &Paging{After: after}})
		got.Keys.Int, got.Scores = append(got.Keys.Int, res.Keys.Int...), append(got.Scores, res.Scores...)
		if after = res.Last; !res.More {
			break
		}
		switch page {
		case 0:
			x.handOff(1)
		case 1:
			x.write(3, false, 7, seq(200, 230)...)
			x.delete(50)
		case 2:
			x.handOff(2)
		case 3:
			if dropped, _ := x.rewrite(10, at, 0, 1, 2); dropped != 3 {
				t.Fatalf("%d rows dropped", dropped)
			}
			must(t, x.swapFor(10, 1, 2))
		}
	}
	x.same("pages", &got, want, 1000)
}

func TestGroupsOfTexts(t *testing.T) {
	x := newTexts(t, 13)
	x.write(1, false, 7, seq(0, 60)...)
	x.handOff(1)
	x.write(2, false, 7, seq(60, 90)...)
	all := x.naive("fish city", x.now, DefaultK1, DefaultB, nil)
	best := map[string]float64{}
	for _, s := range all {
		c := colors[s.key&3]
		best[c] = max(best[c], s.score)
	}
	res := x.ask("fish city", SearchRequest{Group: &Grouping{FieldID: colorField, Size: 1, Strict: true}})
	if len(res.Scores) != len(best) {
		t.Fatalf("%d groups, want %d", len(res.Scores), len(best))
	}
	for i, s := range res.Scores {
		c := colors[res.Keys.Int[i]&3]
		if math.Abs(best[c]-float64(s)) > 1e-5*best[c] {
			t.Errorf("group %q: %v, its best is %v", c, s, best[c])
		}
	}
}

func TestWordsAndVectorsTogether(t *testing.T) {
	x := newTexts(t, 14)
	x.write(1, false, 7, seq(0, 60)...)
	x.handOff(1)
	x.write(2, false, 7, seq(60, 90)...)
	v := vectorOf(70, 0)
	res, err := x.coll.HybridSearch(t.Context(), &HybridRequest{NQ: 1, TopK: 20, Ranker: Ranker{Weights: []float32{1, 0.5}, Normalize: true}, Searches: []SubSearch{
		{FieldID: wordsField, Queries: asked("fish city"), TopK: 100, Metric: index.BM25},
		{FieldID: vectorField, Vectors: v, TopK: 100, Metric: index.L2},
	}})
	must(t, err)
	points := map[int64]float64{}
	for _, s := range x.naive("fish city", x.now, DefaultK1, DefaultB, nil) {
		points[s.key] = 2 * math.Atan(s.score) / math.Pi
	}
	for _, row := range x.rows {
		d := 0.0
		for i := range v {
			d += float64(v[i]-row.v[i]) * float64(v[i]-row.v[i])
		}
		points[row.key] += 0.5 * (1 - 2*math.Atan(d)/math.Pi)
	}
	var want []scored
	for k, p := range points {
		want = append(want, scored{k, p})
	}
	slices.SortFunc(want, func(a, b scored) int { return cmp.Compare(b.score, a.score) })
	x.same("hybrid", res, want, 20)
}

// TestASegmentThatCannotBeCountedIsNamed: its words cannot be known.
func TestASegmentThatCannotBeCountedIsNamed(t *testing.T) {
	x := newTexts(t, 15)
	x.write(1, false, 7, seq(0, 30)...)
	x.write(2, false, 7, seq(30, 60)...)
	x.sabotage(1, func(segment) { panic("no") })
	r := &SearchRequest{FieldID: wordsField, Metric: index.BM25, NQ: 1, Queries: asked("fish the"), TopK: 100}
	if _, err := x.coll.Search(t.Context(), r); errclass.Of(err) != errclass.Panicked {
		t.Fatalf("%v", err)
	}
	r.AllowPartial = true
	res, err := x.coll.Search(t.Context(), r)
	must(t, err)
	x.rows = slices.DeleteFunc(x.rows, func(r modelRow) bool { return r.segment == 1 })
	x.same("partial", res, x.naive("fish the", x.now, DefaultK1, DefaultB, nil), 100)
	if len(res.Stats.Failures) != 1 || res.Stats.SearchedShare != 0.5 {
		t.Errorf("%+v", res.Stats)
	}
}
