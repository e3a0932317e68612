package segments

import "github.com/querynode/querynode/internal/errclass"

// fault counts what a segment did to a read. The rule: bytes that are proven
// wrong do not get better, so one Corrupt error is enough. A panic may be the
// request's doing, so it takes Options.QuarantineAfter of them; a fault in
// mapped memory is a panic too, since a disk may answer the next time. Other
// errors (a deadline, no memory) say nothing about the segment.
func (s *Set) fault(h *holder, err error) {
	switch errclass.Of(err) {
	case errclass.Corrupt:
		s.quarantine(h, err)
	case errclass.Panicked:
		if h.faults.Add(1) >= int64(s.o.QuarantineAfter) {
			s.quarantine(h, err)
		}
	}
}

// quarantine makes a segment unreadable: reads fail, or go on without it if they
// allow a partial answer, and say so. It stays in the view, so that nobody takes
// its rows for gone. Release and then Load read it afresh.
func (s *Set) quarantine(h *holder, err error) {
	why := err.Error()
	if h.poison.CompareAndSwap(nil, &why) {
		s.o.Logger.Error("segments: quarantined", "segment", h.Meta().ID, "vchannel", h.Meta().VChannel, "error", err)
		s.changed()
	}
}
