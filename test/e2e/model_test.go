package e2e

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/flush"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestRandomOperationsAgainstModel runs random inserts, upserts, deletes,
// flushes, releases, loads and restarts, and compares every read, of now and of
// the past, with a map. The seed is printed; QUERYNODE_TEST_SEED repeats a run,
// QUERYNODE_TEST_OPS makes it longer.
func TestRandomOperationsAgainstModel(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("QUERYNODE_TEST_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		must(t, err)
		seed = v
	}
	ops := 80
	if s := os.Getenv("QUERYNODE_TEST_OPS"); s != "" {
		v, err := strconv.Atoi(s)
		must(t, err)
		ops = v
	}
	for _, text := range []bool{false, true} {
		t.Run(map[bool]string{false: "integer keys", true: "text keys"}[text], func(t *testing.T) {
			t.Parallel()
			t.Logf("QUERYNODE_TEST_SEED=%d QUERYNODE_TEST_OPS=%d", seed, ops)
			m := &model{t: t, r: rand.New(rand.NewPCG(seed, 1)), dir: t.TempDir(), rows: map[int64]int64{}, text: text}
			m.o = options{shardTopics: 2, flush: flush.Options{SealRows: 150, CheckpointInterval: 50 * time.Millisecond, Interval: 20 * time.Millisecond}}
			m.n = start(t, m.dir, m.o)
			m.create()
			for range ops {
				m.step()
			}
			m.check()
			m.checkPast()
		})
	}
}

// model is a collection and the map it has to be equal to: key to version.
type model struct {
	t    *testing.T
	r    *rand.Rand
	dir  string
	o    options
	n    *testNode
	text bool // keys are text: "k" and the number
	rows map[int64]int64
	next int64 // next version
	past []moment
	log  []string
}

// moment is what the rows were at a timestamp.
type moment struct {
	timestamp uint64
	rows      map[int64]int64
}

func (m *model) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\nthe last steps:\n%q", fmt.Sprintf(format, args...), m.log[max(0, len(m.log)-15):])
}

func (m *model) create() {
	m.t.Helper()
	key := &qnpb.FieldSchema{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true}
	if m.text {
		key.Type = qnpb.DataType_DATA_TYPE_VARCHAR
	}
	must2(m.t)(m.n.catalog.CreateCollection(within(m.t), &qnpb.CreateCollectionRequest{Name: "items", Shards: 3, Schema: &qnpb.CollectionSchema{
		Fields: []*qnpb.FieldSchema{key,
			{Name: "price", Type: qnpb.DataType_DATA_TYPE_INT64},
			{Name: "color", Type: qnpb.DataType_DATA_TYPE_VARCHAR, Nullable: true},
			{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: dim},
		}}, Indexes: []*qnpb.IndexSpec{{Field: "v", Type: "HNSW", Metric: "L2"}}}))
	must2(m.t)(m.n.catalog.CreatePartition(within(m.t), &qnpb.CreatePartitionRequest{Collection: "items", Partition: "odd"}))
}

// partitionOf says where a key lives: an upsert replaces rows of its partition.
func partitionOf(id int64) string { return []string{"_default", "odd"}[id%2] }

// price tells a row's version.
func price(id, version int64) int64 { return version*1000 + id }

// someKeys draws distinct keys from a small space, so that they meet again.
func (m *model) someKeys() []int64 {
	seen := map[int64]bool{}
	for range 1 + m.r.IntN(60) {
		seen[m.r.Int64N(400)] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

func (m *model) step() {
	m.t.Helper()
	switch p := m.r.IntN(100); {
	case p < 15:
		m.insertNew()
	case p < 42:
		m.next++
		ids := m.someKeys()
		m.note("upsert %v at version %d", ids, m.next)
		m.put(ids, m.next, upsertOf)
	case p < 60:
		m.remove()
	case p < 68:
		m.note("flush")
		m.n.flush("items")
	case p < 71:
		m.note("restart")
		m.n.stop()
		m.n = start(m.t, m.dir, m.o)
	case p < 74:
		m.note("release and load")
		must2(m.t)(m.n.control.ReleaseSegments(within(m.t), &qnpb.ReleaseSegmentsRequest{Collection: "items"}))
		must2(m.t)(m.n.control.LoadSegments(within(m.t), &qnpb.LoadSegmentsRequest{Collection: "items"}))
	case p < 84:
		m.search()
	case p < 91:
		m.checkPast()
	default:
		m.check()
	}
}

// insertNew inserts keys that are not there: an insert does not replace.
func (m *model) insertNew() {
	var ids []int64
	for _, id := range m.someKeys() {
		if _, ok := m.rows[id]; !ok {
			ids = append(ids, id)
		}
	}
	m.next++
	m.note("insert %v at version %d", ids, m.next)
	m.put(ids, m.next, insertOf)
}

// put writes rows, those of each partition with one call.
func (m *model) put(ids []int64, version int64, op func(string, int64, ...*qnpb.FieldData) *qnpb.AppendRequest) {
	m.t.Helper()
	for _, part := range []string{"_default", "odd"} {
		of := slices.DeleteFunc(slices.Clone(ids), func(id int64) bool { return partitionOf(id) != part })
		if len(of) == 0 {
			continue
		}
		fields := rows(of, version)
		var prices []int64
		for _, id := range of {
			prices = append(prices, price(id, version))
		}
		fields[0], fields[1] = m.keys(of), ints("price", prices...)
		r := op("items", int64(len(of)), fields...)
		r.Partition = part
		done, err := m.n.write.Append(within(m.t), r)
		must(m.t, err)
		for _, id := range of {
			m.rows[id] = version
		}
		m.remember(done)
	}
}

func (m *model) keys(ids []int64) *qnpb.FieldData {
	if !m.text {
		return ints("id", ids...)
	}
	return texts("id", textKeys(ids)...)
}

func textKeys(ids []int64) (keys []string) {
	for _, id := range ids {
		keys = append(keys, fmt.Sprintf("k%d", id))
	}
	return keys
}

// remove deletes keys: from wherever they are, or from one partition, which
// leaves those of the other.
func (m *model) remove() {
	m.t.Helper()
	ids, part := m.someKeys(), []string{"", "", "odd"}[m.r.IntN(3)]
	m.note("delete %v of partition %q", ids, part)
	r := deleteOf("items", &qnpb.DeleteOperation{Ids: intIDs(ids...)})
	if m.text {
		r = deleteOf("items", &qnpb.DeleteOperation{Ids: textIDs(textKeys(ids)...)})
	}
	r.Partition = part
	done, err := m.n.write.Append(within(m.t), r)
	must(m.t, err)
	for _, id := range ids {
		if part == "" || part == partitionOf(id) {
			delete(m.rows, id)
		}
	}
	m.remember(done)
}

// remember keeps one moment in ten to come back to.
func (m *model) remember(done *qnpb.AppendResponse) {
	if m.r.IntN(10) > 0 {
		return
	}
	m.past = append(m.past, moment{done.GetTimestamp(), maps.Clone(m.rows)})
	// Timestamps order the changes of one topic. Those of two topics are ordered
	// by the clock only, to the millisecond.
	time.Sleep(2 * time.Millisecond)
}

func (m *model) check() {
	m.t.Helper()
	m.note("check")
	for _, ch := range m.n.node.Channels() {
		if ch.Quarantined > 0 {
			m.fail("channel %s: %d messages were set aside", ch.VChannel, ch.Quarantined)
		}
	}
	m.compare("now", m.read(strong), m.rows)
	if c := m.n.count("items"); c != int64(len(m.rows)) {
		m.fail("count(*) is %d, want %d", c, len(m.rows))
	}
}

func (m *model) checkPast() {
	m.t.Helper()
	if len(m.past) == 0 {
		return
	}
	i := m.r.IntN(len(m.past))
	m.note("check moment %d of %d", i, len(m.past))
	m.compare(fmt.Sprintf("moment %d", i), m.read(&qnpb.Freshness{ReadTimestamp: m.past[i].timestamp}), m.past[i].rows)
}

func (m *model) compare(when string, got, want map[int64]int64) {
	m.t.Helper()
	for id, version := range want {
		switch p, ok := got[id]; {
		case !ok:
			m.fail("%s: row %d (version %d) is missing", when, id, version)
		case p != price(id, version):
			m.fail("%s: row %d has price %d, want version %d", when, id, p, version)
		}
	}
	for id, p := range got {
		if _, ok := want[id]; !ok {
			m.fail("%s: row %d is there with price %d, it was deleted", when, id, p)
		}
	}
}

// read returns key to price of every row.
func (m *model) read(f *qnpb.Freshness) map[int64]int64 {
	m.t.Helper()
	st, err := m.n.query.Query(within(m.t), &qnpb.QueryRequest{Collection: "items", OutputFields: []string{"price"}, Freshness: f})
	must(m.t, err)
	out := map[int64]int64{}
	for {
		r, err := st.Recv()
		must(m.t, err)
		if r.GetStats() != nil {
			return out
		}
		prices := r.GetFields()[1].GetInts().GetValues()
		for i, id := range m.ids(r.GetFields()[0].GetInts().GetValues(), r.GetFields()[0].GetStrings().GetValues()) {
			if _, twice := out[id]; twice {
				m.fail("key %d is there twice", id)
			}
			out[id] = prices[i]
		}
	}
}

// ids are the keys as numbers.
func (m *model) ids(numbers []int64, texts []string) []int64 {
	m.t.Helper()
	for _, k := range texts {
		id, err := strconv.ParseInt(k[1:], 10, 64)
		must(m.t, err)
		numbers = append(numbers, id)
	}
	return numbers
}

// search looks for the vector of a row that exists, and compares exact searches,
// filtered and in one partition, with the model.
func (m *model) search() {
	m.t.Helper()
	for id, version := range m.rows {
		m.note("search for row %d", id)
		if got := m.nearest(vectorOf(id, version), 1, "", nil); len(got) != 1 || got[0] != id {
			m.fail("the nearest to row %d is %v", id, got)
		}
		break
	}
	limit := m.r.Int64N(1000 * (m.next + 1))
	parts := [][]string{nil, {"odd"}, {"_default"}, {"odd", "_default"}}[m.r.IntN(4)]
	got := m.nearest(vectorOf(1, 1), 16, fmt.Sprintf("price < %d", limit), parts)
	may := func(id, version int64) bool {
		return price(id, version) < limit && (len(parts) != 1 || parts[0] == partitionOf(id))
	}
	if want := m.brute(vectorOf(1, 1), 16, may); !m.alike(vectorOf(1, 1), got, want, may) {
		m.fail("nearest with price < %d in %v: got %v, want %v", limit, parts, got, want)
	}
}

func (m *model) nearest(v []float32, k int64, filter string, partitions []string) []int64 {
	m.t.Helper()
	r, err := m.n.query.Search(within(m.t), &qnpb.SearchRequest{Collection: "items", Partitions: partitions,
		Vectors: &qnpb.FloatVectors{Dim: dim, Values: v}, TopK: k, Filter: filter, Freshness: strong})
	must(m.t, err)
	return m.ids(r.GetIds().GetInts().GetValues(), r.GetIds().GetStrings().GetValues())
}

// alike reports whether got is as good as want: rows at nearly the same distance may come
// either way, for kernels add up in another order.
func (m *model) alike(q []float32, got, want []int64, may func(id, version int64) bool) bool {
	if len(got) != len(want) || len(slices.Compact(slices.Sorted(slices.Values(got)))) != len(got) {
		return false
	}
	for i, id := range got {
		version, there := m.rows[id]
		if !there || !may(id, version) {
			return false
		}
		have, best := squared(q, vectorOf(id, version)), squared(q, vectorOf(want[i], m.rows[want[i]]))
		if math.Abs(float64(have-best)) > 1e-5*float64(best) {
			return false
		}
	}
	return true
}

func squared(a, b []float32) (d float32) {
	for i := range a {
		d += (a[i] - b[i]) * (a[i] - b[i])
	}
	return d
}

func (m *model) brute(q []float32, k int, may func(id, version int64) bool) []int64 {
	type near struct {
		id int64
		d  float32
	}
	var all []near
	for id, version := range m.rows {
		if !may(id, version) {
			continue
		}
		all = append(all, near{id, squared(q, vectorOf(id, version))})
	}
	slices.SortFunc(all, func(a, b near) int {
		if a.d < b.d {
			return -1
		}
		return 1
	})
	var ids []int64
	for _, n := range all[:min(k, len(all))] {
		ids = append(ids, n.id)
	}
	return ids
}
