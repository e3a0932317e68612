//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sort"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/rowpb"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// read makes one read and compares it with the model.
func (w *workload) read(ctx context.Context, r *rand.Rand, c *client) {
	switch p := r.IntN(100); {
	case p < 30:
		w.get(ctx, r, c)
	case p < 60:
		w.search(ctx, r, c, "")
	case p < 75:
		w.search(ctx, r, c, groupFilter(r.Int64N(groups)))
	case p < 88:
		w.group(ctx, r, c)
	case p < 94:
		w.scan(ctx, c, "scan", "")
	default:
		w.count(ctx, c)
	}
}

// verdict counts a read and reports what is wrong with it.
func (w *workload) verdict(ctx context.Context, kind string, calm int64, err error, rows int, bad []Violation) {
	if ctx.Err() != nil && err != nil {
		return // we have hung up
	}
	w.outcome(kind, calm, err)
	if err == nil {
		w.report.rows("compared by "+kind, rows)
	}
	w.report.violate(bad...)
}

func (w *workload) get(ctx context.Context, r *rand.Rand, c *client) {
	m := w.gate.model
	seen := map[int64]bool{}
	var ids []int64
	for range 1 + r.IntN(40) {
		if k := r.Int64N(m.size()); !seen[k] {
			seen[k], ids = true, append(ids, k)
		}
	}
	slices.Sort(ids)
	w.getKeys(ctx, c, "get", ids)
}

// getKeys reads some keys, which are sorted.
func (w *workload) getKeys(ctx context.Context, c *client, what string, ids []int64) {
	m := w.gate.model
	calm, v := w.calm.Load(), m.look(c.run, ids...)
	call, cancel := within(ctx, callTimeout)
	defer cancel()
	resp, err := c.query.Get(call, &qnpb.GetRequest{Collection: w.gate.collection, Ids: idsOf(ids), Freshness: strong})
	var rows []row
	var bad []Violation
	if err == nil {
		rows, bad = w.decode(what, resp.GetFields(), int(resp.GetRows()))
		bad = append(bad, m.judge(v, what, rows, c.run)...)
	}
	w.verdict(ctx, what, calm, err, len(ids), bad)
}

// decode takes rows apart and checks that each is one that was written whole.
func (w *workload) decode(what string, fields []*qnpb.FieldData, n int) (rows []row, bad []Violation) {
	by := map[string]*qnpb.FieldData{}
	for _, f := range fields {
		by[f.GetField()] = f
	}
	id, ver := by["id"].GetInts().GetValues(), by["ver"].GetInts().GetValues()
	if len(id) != n || len(ver) != n {
		return nil, []Violation{{Kind: Wrong, What: fmt.Sprintf("%s says %d rows and has %d keys and %d versions", what, n, len(id), len(ver))}}
	}
	for i := range n {
		rows = append(rows, row{id[i], ver[i]})
		want := rowsOf(id[i:i+1], ver[i])
		if f := by["grp"]; f != nil && (i >= len(f.GetInts().GetValues()) || f.GetInts().GetValues()[i] != groupOf(id[i])) {
			bad = append(bad, w.gate.model.about(Wrong, id[i], "%s: grp of key %d version %d is not %d", what, id[i], ver[i], groupOf(id[i])))
		}
		if f := by["txt"]; f != nil && (i >= len(f.GetStrings().GetValues()) || f.GetStrings().GetValues()[i] != textOf(id[i], ver[i])) {
			bad = append(bad, w.gate.model.about(Wrong, id[i], "%s: txt of key %d version %d is not %q", what, id[i], ver[i], textOf(id[i], ver[i])))
		}
		if f := by["v"]; f != nil && !slices.Equal(vectorAt(f.GetVectors(), i), want[4].GetVectors().GetValues()) {
			bad = append(bad, w.gate.model.about(Wrong, id[i], "%s: the vector of key %d version %d is not the one that was written", what, id[i], ver[i]))
		}
	}
	return rows, bad
}

// query reads all pieces of an answer.
func (w *workload) query(ctx context.Context, c *client, what string, req *qnpb.QueryRequest) (rows []row, last *qnpb.QueryResponse, bad []Violation, err error) {
	st, err := c.query.Query(ctx, req)
	if err != nil {
		return nil, nil, nil, err
	}
	for {
		r, err := st.Recv()
		if errors.Is(err, io.EOF) {
			if last == nil {
				bad = append(bad, Violation{Kind: Wrong, What: what + " has ended without its last piece"})
			}
			return rows, last, bad, nil
		}
		if err != nil {
			return nil, nil, nil, err
		}
		if r.GetStats() != nil {
			last = r
		}
		if r.GetRows() > 0 {
			some, wrong := w.decode(what, r.GetFields(), int(r.GetRows()))
			rows, bad = append(rows, some...), append(bad, wrong...)
		}
	}
}

// group reads the rows of one group, which are those of known keys.
func (w *workload) group(ctx context.Context, r *rand.Rand, c *client) {
	m, g := w.gate.model, r.Int64N(groups)
	var ids []int64
	for k := g; k < m.size(); k += groups {
		ids = append(ids, k)
	}
	calm, v := w.calm.Load(), m.look(c.run, ids...)
	call, cancel := within(ctx, callTimeout)
	defer cancel()
	rows, _, bad, err := w.query(call, c, "filtered query", &qnpb.QueryRequest{Collection: w.gate.collection, Filter: groupFilter(g),
		OutputFields: []string{"ver", "grp", "txt"}, Freshness: strong})
	if err == nil {
		bad = append(bad, m.judge(v, "filtered query", rows, c.run)...)
	}
	w.verdict(ctx, "filtered query", calm, err, len(ids), bad)
}

// scan reads every row.
func (w *workload) scan(ctx context.Context, c *client, what, filter string) error {
	m := w.gate.model
	calm, v := w.calm.Load(), m.look(c.run)
	call, cancel := within(ctx, 2*callTimeout)
	defer cancel()
	rows, _, bad, err := w.query(call, c, what, &qnpb.QueryRequest{Collection: w.gate.collection, Filter: filter,
		OutputFields: []string{"*"}, Freshness: strong})
	if err == nil {
		if !slices.IsSortedFunc(rows, func(a, b row) int { return int(a.key - b.key) }) {
			bad = append(bad, Violation{Kind: Wrong, What: what + ": rows are not in order of their keys"})
		}
		bad = append(bad, m.judge(v, what, rows, c.run)...)
	}
	w.verdict(ctx, what, calm, err, len(v.keys), bad)
	return err
}

func (w *workload) count(ctx context.Context, c *client) error {
	m := w.gate.model
	calm, v := w.calm.Load(), m.look(c.run)
	call, cancel := within(ctx, callTimeout)
	defer cancel()
	_, last, bad, err := w.query(call, c, "count", &qnpb.QueryRequest{Collection: w.gate.collection, OutputFields: []string{"count(*)"}, Freshness: strong})
	if err == nil && last != nil {
		least, most := m.bounds(v)
		if n := last.GetCount(); n < least || n > most {
			kind := Lost
			if n > most {
				kind = Doubled
			}
			bad = append(bad, Violation{Kind: kind, What: fmt.Sprintf("count(*) (run %d) is %d, want %d to %d", c.run, n, least, most)})
		}
	}
	w.verdict(ctx, "count", calm, err, len(v.keys), bad)
	return err
}

const topK = 10

// search looks for the vector of a row that is there: it has to be found, and
// each hit has to be a row that may be seen, at its real distance. With a filter,
// only rows of that filter's group.
func (w *workload) search(ctx context.Context, r *rand.Rand, c *client, filter string) {
	m := w.gate.model
	calm, v := w.calm.Load(), m.look(c.run)
	key, version, ok := v.sure(r)
	if !ok {
		return
	}
	kind, among := "search", func(int64) bool { return true }
	if filter != "" {
		g := groupOf(key)
		kind, filter, among = "filtered search", groupFilter(g), func(k int64) bool { return groupOf(k) == g }
	}
	q := vectorOf(key, version)
	call, cancel := within(ctx, callTimeout)
	defer cancel()
	resp, err := c.query.Search(call, &qnpb.SearchRequest{Collection: w.gate.collection, Vectors: &qnpb.FloatVectors{Dim: dim, Values: q}, TopK: topK, Ef: 200,
		Filter: filter, OutputFields: []string{"ver", "grp", "txt"}, Freshness: strong})
	var bad []Violation
	if err == nil {
		bad = w.hits(v, kind, resp, q, key, among, c.run)
	}
	w.verdict(ctx, kind, calm, err, len(resp.GetScores()), bad)
}

func (w *workload) hits(v *mark, kind string, resp *qnpb.SearchResponse, q []float32, key int64, among func(int64) bool, run int) []Violation {
	m := w.gate.model
	certain := m.certain(v)
	ids, scores := resp.GetIds().GetInts().GetValues(), resp.GetScores()
	fields := append(slices.Clone(resp.GetFields()), &qnpb.FieldData{Field: "id", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: ids}}})
	rows, bad := w.decode(kind, fields, len(scores))
	bad = append(bad, m.judgeHits(v, kind, rows, run)...)
	found := map[int64]bool{}
	for i, h := range rows {
		found[h.key] = true
		if !among(h.key) {
			bad = append(bad, m.about(Wrong, h.key, "%s returns key %d of group %d", kind, h.key, groupOf(h.key)))
		}
		if d := distance(q, vectorOf(h.key, h.version)); d-scores[i] > 1e-4 || scores[i]-d > 1e-4 {
			bad = append(bad, m.about(Wrong, h.key, "%s: key %d version %d is at %v, not %v", kind, h.key, h.version, d, scores[i]))
		}
	}
	if !sort.SliceIsSorted(scores, func(i, j int) bool { return scores[i] < scores[j] }) {
		bad = append(bad, Violation{Kind: Wrong, What: fmt.Sprintf("%s: scores are not in order: %v", kind, scores)})
	}
	if _, still := certain[key]; still && !found[key] {
		bad = append(bad, m.about(Missed, key, "%s (run %d) for the vector of key %d at version %d does not find it; %d hits from sealed %v growing %v", kind, run, key, certain[key], len(rows),
			resp.GetStats().GetSealedSegments(), resp.GetStats().GetGrowingSegments()))
	}
	if !w.exact {
		return bad
	}
	for k, version := range certain {
		if !among(k) || found[k] {
			continue
		}
		if d := distance(q, vectorOf(k, version)); len(rows) < topK || d < scores[len(scores)-1]-1e-4 {
			bad = append(bad, m.about(Missed, k, "%s (run %d): key %d version %d at %v is missing among %d hits, the last at %v", kind, run, k, version, d, len(rows), scores[max(0, len(scores)-1):]))
		}
	}
	return bad
}

func distance(a, b []float32) (d float32) {
	for i := range a {
		d += (a[i] - b[i]) * (a[i] - b[i])
	}
	return d
}

// vectorAt is the i-th vector, however it was sent; nil if there is none.
func vectorAt(v *qnpb.FloatVectors, i int) []float32 {
	all, _, err := rowpb.Vectors(v)
	if err != nil || v.GetDim() != dim || (i+1)*dim > len(all) {
		return nil
	}
	return all[i*dim : (i+1)*dim]
}
