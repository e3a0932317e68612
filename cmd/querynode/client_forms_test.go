package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestReadForms are the searches and queries beyond the plain ones, as a person
// types them.
func TestReadForms(t *testing.T) {
	sh, _ := served(t)
	rows := fvecs(t, 300)
	sh.ok("collection", "create", "points", "--field", "id:int64:pk", "--field", "v:vector(4)", "--index", "v:HNSW:L2:M=8")
	sh.ok("insert", "points", rows)
	sh.ok("flush", "points", "--wait")
	sh.ok("insert", "points", rows, "--upsert")
	near := []string{"search", "points", "--vector", "7,0,1,1", "--consistency", "strong"}
	with := func(more ...string) []string { return append(append([]string{}, near...), more...) }

	contains(t, sh.ok(with("-k", "3", "--explain")...), "SEGMENT", "MATCHED", "growing", "segments ", "merge ")
	contains(t, sh.ok(with("-k", "3", "--explain", "--json")...), `"explain"`, `"distances"`)
	contains(t, sh.ok(with("-k", "2", "--group-by", "id", "--strict-group-size", "--group-size", "2")...), "GROUP")
	if out := sh.ok(with("-k", "300", "--radius", "1.5", "--range-filter", "0.5", "--round-decimal", "1", "--json")...); strings.Contains(out, `"id":7,`) {
		t.Errorf("a row that is too near: %s", out)
	}
	lines := strings.Split(strings.TrimSpace(sh.ok(with("-k", "70", "--all", "--json")...)), "\n")
	seen := map[int64]bool{}
	for _, line := range lines {
		var page struct{ Hits []struct{ ID int64 } }
		if err := json.Unmarshal([]byte(line), &page); err != nil {
			t.Fatal(err)
		}
		for _, h := range page.Hits {
			if seen[h.ID] {
				t.Errorf("row %d is there twice", h.ID)
			}
			seen[h.ID] = true
		}
	}
	if len(seen) != 300 || len(lines) != 5 {
		t.Errorf("%d rows in %d pages", len(seen), len(lines))
	}
	sh.fails(exitUsage, []string{"one --vector"}, with("--vector", "1,2,3,4", "--pages", "2")...)
	sh.fails(exitError, []string{"token"}, with("--token", "nonsense")...)

	for _, last := range []string{"id:desc", "id desc", "id DESC "} {
		if out := sh.ok("query", "points", "--order-by", last, "--limit", "2", "--consistency", "strong", "--json"); out != "{\"id\":299}\n{\"id\":298}\n" {
			t.Errorf("the last two by %q: %q", last, out)
		}
	}
	if out := sh.ok("query", "points", "--output-fields", "count(*),sum(id),avg(id)", "--consistency", "strong", "--json"); out != "{\"avg(id)\":149.5,\"count(*)\":300,\"sum(id)\":44850}\n" {
		t.Errorf("aggregates: %q", out)
	}
	if out := sh.ok("query", "points", "--output-fields", "COUNT( * )", "--filter", "id < 7", "--consistency", "strong"); out != "7\n" {
		t.Errorf("a count as it is written elsewhere: %q", out)
	}
	contains(t, sh.ok("query", "points", "--group-by", "id", "--filter", "id < 3", "--consistency", "strong"), "COUNT(*)")
	if out := sh.ok("query", "points", "--limit", "70", "--all", "--consistency", "strong", "--json"); strings.Count(out, "\n") != 300 {
		t.Errorf("%d rows in pages", strings.Count(out, "\n"))
	}
	sh.fails(exitUsage, []string{"want asc, desc"}, "query", "points", "--order-by", "id:up")

	contains(t, sh.ok("hybrid", "points", "--search", "v=7,0,1,1", "--search", "v=8,1,2,1", "-k", "2", "--consistency", "strong", "--explain"), "SCORE", "DISTANCES")
	contains(t, sh.ok("hybrid", "points", "--id", "9", "--weights", "1", "--norm-score", "-k", "1", "--consistency", "strong"), "1  9   1.0000")
	contains(t, sh.ok("hybrid", "points", "--id", "9", "--rrf-k", "1", "-k", "1", "--json"), `"score":0.5`)
	contains(t, sh.ok("hybrid", "points", "--id", "9", "--group-by", "id", "--strict-group-size", "--group-scorer", "sum", "-k", "2", "--consistency", "strong"), "GROUP_BY_ID")
	contains(t, sh.ok("hybrid", "points", "--id", "9", "--group-by", "id", "-k", "1", "--consistency", "strong", "--json"), `"group":9`)
	sh.fails(exitError, []string{"want max, sum or avg"}, "hybrid", "points", "--id", "9", "--group-by", "id", "--group-scorer", "median")
	sh.fails(exitUsage, []string{"--search or --id"}, "hybrid", "points")
	sh.fails(exitUsage, []string{"choose one"}, "hybrid", "points", "--id", "1", "--rrf-k", "3", "--weights", "1")
	sh.fails(exitError, []string{"1 weights for 2 searches"}, "hybrid", "points", "--search", "v=7,0,1,1", "--search", "v=7,0,1,1", "--weights", "1")
}
