//go:build unix

package main

import (
	"io"
	"math/rand/v2"
	"testing"
)

// story is a model of one key and what is done to it.
type story struct {
	*model
	t *testing.T
	r *rand.Rand
}

func tell(t *testing.T) *story {
	t.Helper()
	return &story{newModel(1), t, rand.New(rand.NewPCG(1, 1))}
}

// change begins a change in a run; the key must be free.
func (s *story) change(what string, run int) draft {
	s.t.Helper()
	d := s.begin(s.r, what, 1, run, what == "insert")
	if len(d.keys) != 1 {
		s.t.Fatalf("%s in run %d: the key is not free", what, run)
	}
	return d
}

func (s *story) done(what string, run int) int64 {
	s.t.Helper()
	d := s.change(what, run)
	s.end(d, true, run, "")
	return d.version
}

// sees wants a read in a run that finds the versions to be wrong in this way; "" = right.
func (s *story) sees(run int, kind string, versions ...int64) {
	s.t.Helper()
	s.after(s.look(run), run, kind, versions...)
}

func (s *story) after(v *mark, run int, kind string, versions ...int64) {
	s.t.Helper()
	var rows []row
	for _, x := range versions {
		rows = append(rows, row{0, x})
	}
	bad := s.judge(v, "read", rows, run)
	switch {
	case kind == "" && len(bad) > 0:
		s.t.Errorf("versions %v are said to be wrong: %+v", versions, bad)
	case kind != "" && (len(bad) != 1 || bad[0].Kind != kind):
		s.t.Errorf("versions %v: found %+v, want %q", versions, bad, kind)
	}
}

func TestAcknowledgedRowsMustBeThere(t *testing.T) {
	s := tell(t)
	s.sees(1, "")
	a := s.done("insert", 1)
	s.sees(1, "", a)
	s.sees(1, Doubled, a, a)
	s.sees(1, Lost)
	s.sees(1, "") // has been said
	a = s.done("upsert", 1)
	s.sees(1, Wrong, a+100)
	b := s.done("upsert", 1)
	s.sees(1, "", b)
	s.sees(1, Wrong, a)
	s.done("delete", 1)
	s.sees(1, "")
	s.sees(1, Resurrected, b)
	s.done("delete", 1)
	s.sees(1, Wrong, 77)
}

func TestAnUnknownOutcomeMayBeEither(t *testing.T) {
	s := tell(t)
	a := s.done("insert", 1)
	d := s.change("upsert", 1)
	s.end(d, false, 1, "Unavailable")
	// In the same run it may still happen: nothing that is seen is final.
	s.sees(1, "", a)
	s.sees(1, "", d.version)
	s.sees(1, "", a)
	s.sees(1, Lost)
	if got := s.begin(s.r, "upsert", 1, 1, false); len(got.keys) != 0 {
		t.Fatal("the key is written again while its last change may still happen")
	}
	// In the next one it either has or it never will.
	s.sees(2, "", d.version)
	s.sees(2, "", d.version)
	s.sees(2, Wrong, a)
}

func TestAReadMaySeeWhatIsWrittenMeanwhile(t *testing.T) {
	s := tell(t)
	a := s.done("insert", 1)
	v := s.look(1)
	b := s.done("upsert", 1)
	s.done("delete", 1)
	s.after(v, 1, "", a)
	s.after(v, 1, "", b)
	s.after(v, 1, "")
	v = s.look(1)
	s.after(v, 1, Resurrected, a)
	d := s.change("upsert", 1)
	s.after(v, 1, "", d.version)
	s.after(v, 1, "")
	s.end(d, true, 1, "")
	s.sees(1, Lost)
}

func TestInsertsTakeOnlyKeysWithoutARow(t *testing.T) {
	s := tell(t)
	s.done("insert", 1)
	if d := s.begin(s.r, "insert", 1, 1, true); len(d.keys) != 0 {
		t.Fatal("a key that has a row is inserted again")
	}
	d := s.change("delete", 1)
	if again := s.begin(s.r, "upsert", 1, 1, false); len(again.keys) != 0 {
		t.Fatal("a key is written twice at a time")
	}
	s.end(d, false, 1, "Unavailable")
	if d := s.begin(s.r, "insert", 1, 2, true); len(d.keys) != 0 {
		t.Fatal("a key that perhaps has a row is inserted")
	}
}

func TestCountsHaveBounds(t *testing.T) {
	s := tell(t)
	bounds := func(least, most int64) {
		t.Helper()
		if l, m := s.bounds(s.look(2)); l != least || m != most {
			t.Errorf("%d to %d rows, want %d to %d", l, m, least, most)
		}
	}
	bounds(0, 0)
	d := s.change("insert", 1)
	bounds(0, 1)
	s.end(d, true, 1, "")
	bounds(1, 1)
	s.end(s.change("delete", 1), false, 1, "Unavailable")
	bounds(0, 1)
	if s.vague() != 1 {
		t.Error("the key is vague")
	}
}

func TestHitsAreJudged(t *testing.T) {
	s := tell(t)
	a := s.done("insert", 1)
	v := s.look(1)
	for _, c := range []struct {
		kind string
		rows []row
	}{{"", nil}, {"", []row{{0, a}}}, {Doubled, []row{{0, a}, {0, a}}}, {Wrong, []row{{5, 1}}}, {Wrong, []row{{0, a + 1}}}} {
		bad := s.judgeHits(v, "search", c.rows, 1)
		if (c.kind == "") != (len(bad) == 0) || (len(bad) > 0 && bad[0].Kind != c.kind) {
			t.Errorf("hits %v: %+v, want %q", c.rows, bad, c.kind)
		}
	}
	if got := s.certain(v); got[0] != a {
		t.Errorf("certain are %v", got)
	}
	s.done("delete", 1)
	if got := s.certain(v); len(got) != 0 {
		t.Errorf("a row that was deleted meanwhile is certain: %v", got)
	}
}

func TestViolationsAreKeptAndCounted(t *testing.T) {
	r := newReport(Options{Progress: io.Discard})
	for range keepViolations + 5 {
		r.violate(Violation{Kind: Lost, What: "x"})
	}
	r.finish()
	if len(r.Violations) != keepViolations || r.Counts[Lost] != keepViolations+5 || r.Counts[Doubled] != 0 {
		t.Errorf("kept %d, counted %v", len(r.Violations), r.Counts)
	}
}
