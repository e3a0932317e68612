package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestAnAnswerThatLacksRowsSaysSo to people and to scripts, and a whole one does not.
func TestAnAnswerThatLacksRowsSaysSo(t *testing.T) {
	part := &qnpb.ReadStats{SearchedShare: 0.75, Failures: []*qnpb.SegmentFailure{{SegmentId: 7, Vchannel: "p_3v0", Message: "block 2 is damaged"}}}
	var out, notes bytes.Buffer
	show := func(st *qnpb.ReadStats, asJSON bool) {
		t.Helper()
		out.Reset()
		notes.Reset()
		if err := showStats(console.New(console.Options{Out: &out, Err: &notes, JSON: asJSON}), st, false); err != nil {
			t.Fatal(err)
		}
	}
	show(part, false)
	contains(t, notes.String(), "segment 7 of p_3v0: block 2 is damaged", "75.0 % of the rows")
	show(part, true)
	var line struct {
		Missing struct {
			SearchedShare float64 `json:"searched_share"`
			Failures      []struct {
				Segment int64
				Message string
			}
		}
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if m := line.Missing; m.SearchedShare != 0.75 || len(m.Failures) != 1 || m.Failures[0].Segment != 7 || m.Failures[0].Message != "block 2 is damaged" {
		t.Errorf("%s", out.String())
	}
	if show(&qnpb.ReadStats{SearchedShare: 1}, true); out.Len() > 0 {
		t.Errorf("of a whole answer: %s", out.String())
	}
}
