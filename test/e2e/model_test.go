package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/flush"
)

// TestRandomOperationsAgainstModel runs random inserts, upserts, deletes,
// flushes and restarts, and compares every read with a map. The seed is printed;
// QUERYNODE_TEST_SEED repeats a run, QUERYNODE_TEST_OPS makes it longer.
func TestRandomOperationsAgainstModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("QUERYNODE_TEST_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		must(t, err)
		seed = v
	}
	ops := 150
	if s := os.Getenv("QUERYNODE_TEST_OPS"); s != "" {
		v, err := strconv.Atoi(s)
		must(t, err)
		ops = v
	}
	t.Logf("QUERYNODE_TEST_SEED=%d QUERYNODE_TEST_OPS=%d", seed, ops)
	m := &model{t: t, r: rand.New(rand.NewPCG(seed, 1)), dir: t.TempDir(), rows: map[int64]int64{}}
	m.o = options{shardTopics: 2, flush: flush.Options{SealRows: 150, CheckpointInterval: 50 * time.Millisecond, Interval: 20 * time.Millisecond}}
	m.n = start(t, m.dir, m.o)
	m.n.items("items", 3)
	for range ops {
		m.step()
	}
	m.check()
}

// model is a collection and the map it has to be equal to: key to version.
type model struct {
	t    *testing.T
	r    *rand.Rand
	dir  string
	o    options
	n    *testNode
	rows map[int64]int64
	next int64 // next version
	log  []string
}

func (m *model) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\nthe last steps:\n%v", fmt.Sprintf(format, args...), m.log[max(0, len(m.log)-15):])
}

// someKeys draws distinct keys from a small space, so that they meet again.
func (m *model) someKeys() []int64 {
	seen := map[int64]bool{}
	for range 1 + m.r.IntN(60) {
		seen[m.r.Int64N(400)] = true
	}
	var ids []int64
	for id := range seen {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (m *model) step() {
	m.t.Helper()
	switch p := m.r.IntN(100); {
	case p < 15:
		m.insertNew()
	case p < 45:
		m.next++
		ids := m.someKeys()
		m.note("upsert %d keys at version %d", len(ids), m.next)
		m.n.upsert("items", ids, m.next)
		for _, id := range ids {
			m.rows[id] = m.next
		}
	case p < 65:
		ids := m.someKeys()
		m.note("delete %v", ids)
		m.n.delete("items", ids)
		for _, id := range ids {
			delete(m.rows, id)
		}
	case p < 75:
		m.note("flush")
		m.n.flush("items")
	case p < 79:
		m.note("restart")
		m.n.stop()
		m.n = start(m.t, m.dir, m.o)
	case p < 90:
		m.search()
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
	if len(ids) == 0 {
		return
	}
	m.note("insert %d keys", len(ids))
	m.n.insert("items", ids)
	for _, id := range ids {
		m.rows[id] = 0
	}
}

func (m *model) check() {
	m.t.Helper()
	m.note("check")
	for _, ch := range m.n.node.Channels() {
		if ch.Quarantined > 0 {
			m.fail("channel %s: %d messages were set aside", ch.VChannel, ch.Quarantined)
		}
	}
	got := m.n.all("items", "")
	for id, version := range m.rows {
		price, ok := got[id]
		if !ok {
			m.fail("row %d (version %d) is missing", id, version)
		}
		if price != id*10+version {
			m.fail("row %d has price %d, want version %d", id, price, version)
		}
	}
	for id := range got {
		if _, ok := m.rows[id]; !ok {
			m.fail("row %d is there, it was deleted", id)
		}
	}
	if c := m.n.count("items"); c != int64(len(m.rows)) {
		m.fail("count(*) is %d, want %d", c, len(m.rows))
	}
}

// search looks for the vector of a row that exists, and compares an exact
// filtered search with the model.
func (m *model) search() {
	m.t.Helper()
	for id, version := range m.rows {
		m.note("search for row %d", id)
		if got := m.n.nearest("items", vectorOf(id, version), 1, ""); len(got) != 1 || got[0] != id {
			m.fail("the nearest to row %d is %v", id, got)
		}
		break
	}
	limit := m.r.Int64N(4000)
	got := m.n.nearest("items", vectorOf(1, 1), 16, fmt.Sprintf("price < %d", limit))
	want := m.brute(vectorOf(1, 1), 16, limit)
	if !slices.Equal(got, want) {
		m.fail("nearest with price < %d: got %v, want %v", limit, got, want)
	}
}

func (m *model) brute(q []float32, k int, below int64) []int64 {
	type near struct {
		id int64
		d  float32
	}
	var all []near
	for id, version := range m.rows {
		if id*10+version >= below {
			continue
		}
		d := float32(0)
		for i, v := range vectorOf(id, version) {
			d += (v - q[i]) * (v - q[i])
		}
		all = append(all, near{id, d})
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
