package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/querynode/querynode/internal/console"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// showStats says what an answer was made from: a line for people, more if they
// asked for an explanation or something is missing; a line of JSON where something is
// missing, and one if asked.
func showStats(out *console.Console, st *qnpb.ReadStats, explain bool) error {
	if st == nil {
		return nil
	}
	for _, f := range st.GetFailures() {
		out.Notef("%s", out.PaintNote(console.Warn, fmt.Sprintf("missing: segment %d of %s: %s", f.GetSegmentId(), f.GetVchannel(), f.GetMessage())))
	}
	if s := st.GetSearchedShare(); s < 1 {
		out.Notef("%s", out.PaintNote(console.Warn, fmt.Sprintf("the answer is from %.1f %% of the rows", 100*s)))
	}
	if out.JSON() {
		if m := missing(st); m != nil {
			if err := out.Line(map[string]any{"missing": m}); err != nil {
				return err
			}
		}
		if !explain {
			return nil
		}
		raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(st)
		if err != nil {
			return err
		}
		return out.Line(map[string]any{"explain": json.RawMessage(raw)})
	}
	if explain {
		showReads(out, st)
	}
	out.Notef("%s", out.PaintNote(console.Faint, fmt.Sprintf("searched %d sealed and %d growing segments, %d pruned",
		len(st.GetSealedSegments()), len(st.GetGrowingSegments()), st.GetPrunedSegments())))
	return nil
}

// missing is what an answer lacks; nil if nothing.
func missing(st *qnpb.ReadStats) map[string]any {
	if len(st.GetFailures()) == 0 && st.GetSearchedShare() >= 1 {
		return nil
	}
	failures := []map[string]any{}
	for _, f := range st.GetFailures() {
		failures = append(failures, map[string]any{"segment": f.GetSegmentId(), "vchannel": f.GetVchannel(), "message": f.GetMessage()})
	}
	return map[string]any{"searched_share": st.GetSearchedShare(), "failures": failures}
}

// showReads is the table of an explanation.
func showReads(out *console.Console, st *qnpb.ReadStats) {
	several := false
	for _, s := range st.GetSegments() {
		several = several || s.GetSearch() > 0
	}
	t := &console.Table{Title: "segments", Columns: []console.Column{console.Right("segment"), console.Left("state"), console.Right("rows"), console.Right("matched"),
		console.Left("how"), console.Right("distances"), console.Right("hops"), console.Right("filter"), console.Right("search"), console.Right("parts")}}
	if several {
		t.Columns = append([]console.Column{console.Right("#")}, t.Columns...)
	}
	took := func(nanos int64) string {
		if nanos == 0 {
			return ""
		}
		return console.Took(time.Duration(nanos))
	}
	for _, s := range st.GetSegments() {
		state := "sealed"
		if s.GetGrowing() {
			state = "growing"
		}
		row := []any{s.GetSegmentId(), state, console.Count(s.GetRows())}
		if why := s.GetPruned(); why != "" {
			row = append(row, "", "pruned: "+why, "", "", "", "", "")
		} else {
			share := 0.0
			if s.GetRows() > 0 {
				share = 100 * float64(s.GetMatched()) / float64(s.GetRows())
			}
			row = append(row, fmt.Sprintf("%s (%.3g %%)", console.Count(s.GetMatched()), share), strings.Join(s.GetStrategies(), ", "),
				console.Count(s.GetDistances()), console.Count(s.GetHops()), took(s.GetFilterNanos()), took(s.GetSearchNanos()), s.GetParts())
		}
		if several {
			row = append([]any{s.GetSearch()}, row...)
		}
		t.Add(row...)
	}
	out.Table(t)
	out.Printf("waited %s, segments %s (%s of work), merge %s, output %s", took(st.GetWaitNanos()), took(st.GetSegmentsWallNanos()),
		took(st.GetSearchNanos()), took(st.GetMergeNanos()), took(st.GetOutputNanos()))
}
