package segments

import (
	"fmt"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// answerSize holds what one answer has against what it may have. The zero
// answerSize lets everything pass. Values count: 8 bytes of an integer, 4 of a
// score, of text and JSON its bytes.
type answerSize struct {
	most   int64 // bytes; 0 = unbounded
	bytes  int64 // so far
	perHit int64 // of each hit at least
	nq     int
	topK   int
}

// newAnswerSize is for an answer of at most topK hits for each of nq queries.
func (x *reader) newAnswerSize(nq, topK int) answerSize {
	a := answerSize{most: x.read.MaxBytes, perHit: 4, nq: nq, topK: topK}
	for _, id := range append([]int64{x.info.Schema.Primary().ID}, x.read.OutputFields...) {
		if f, ok := x.info.Schema.FieldByID(id); ok {
			a.perHit += leastBytes(f)
		}
	}
	return a
}

// leastBytes is what each value of a field takes.
func leastBytes(f schema.Field) int64 {
	switch t := f.Type; {
	case f.Nullable:
		return 0
	case t == schema.Bool:
		return 1
	case t == schema.Float:
		return 4
	case t == schema.FloatVector:
		return 4 * int64(f.Dim)
	case t.IsRaw():
		return int64(t.RowBytes(f.Dim))
	case t.IsInt(), t == schema.Double:
		return 8
	}
	return 0
}

// fits reports an answer of so many hits that is too large whatever is in it.
func (a *answerSize) fits(hits int) error {
	if n := int64(hits) * a.perHit; a.most > 0 && n > a.most {
		return a.tooLarge(n)
	}
	return nil
}

// add counts the bytes of values that have come to the answer.
func (a *answerSize) add(n int64) error {
	if a.bytes += n; a.most > 0 && a.bytes > a.most {
		return a.tooLarge(a.bytes)
	}
	return nil
}

func (a *answerSize) tooLarge(n int64) error {
	return errclass.New(errclass.Invalid, "the answer would have %s or more, at most %s are sent (search.max_answer_bytes): nq is %d, top_k %d; send fewer vectors at a time, or a smaller top_k, or ask for fewer output fields",
		mebibytes(n), mebibytes(a.most), a.nq, a.topK)
}

// mebibytes prints a size for people.
func mebibytes(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// valueBytes is what the values of a column count in an answer.
func valueBytes(c *schema.Column) int64 { return c.Bytes() - 16*int64(len(c.Str)) }

// surely is how many hits a query has at least that asks for the nearest want rows of
// a field, without a filter or a range: as many as the segment has that has most rows of
// which none is hidden.
func (x *reader) surely(fieldID int64, want int) int {
	if f, ok := x.info.Schema.FieldByID(fieldID); !ok || f.Nullable || x.read.Plan != nil {
		return 0
	}
	most := 0
	for i := range x.targets {
		t := &x.targets[i]
		if t.hidden().any(t.ts) || t.visible(x.expired(t.ts)) > 0 {
			continue
		}
		most = max(most, t.visible(t.ts))
	}
	return min(want, most)
}

// checkSize refuses a search whose answer is certain to be too large.
func (s *searching) checkSize() error {
	r := s.req
	if r.Radius != nil || r.RangeFilter != nil || r.Group != nil || r.Page != nil || r.scores != nil {
		return nil
	}
	return s.room.fits(r.NQ * max(0, s.surely(r.FieldID, s.want())-r.Offset))
}

// checkSize refuses a search whose answer is certain to be too large.
func (h *hybrid) checkSize() error {
	sure := 0
	for i := range h.req.Searches {
		if sub := &h.req.Searches[i]; sub.Radius == nil && sub.RangeFilter == nil && sub.Plan == nil && h.subs[i].req.scores == nil {
			sure = max(sure, h.surely(sub.FieldID, sub.TopK))
		}
	}
	return h.room.fits(h.req.NQ * max(0, min(sure, h.req.TopK+h.req.Offset)-h.req.Offset))
}
