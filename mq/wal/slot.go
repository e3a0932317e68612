package wal

import (
	"context"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// slot is the manager's part for one pchannel. What is commanded and what is
// known are under mu; the WAL itself is opened and closed by run alone.
type slot struct {
	m        *Manager
	pchannel string

	mu struct {
		sync.Mutex
		commanded bool
		want      expected
		wantCtx   context.Context // ends when want changes, or the manager closes
		cancel    context.CancelFunc

		wal      *WAL // open; nil when none is
		settled  bool // want was carried out, or tried: err tells
		err      error
		failures int // how often want was tried in vain
		attempts int
		news     chan struct{} // closed and replaced when any of these changes
	}
}

func newSlot(m *Manager, pchannel string) *slot {
	s := &slot{m: m, pchannel: pchannel}
	s.mu.wantCtx, s.mu.cancel = context.WithCancel(m.group.Context())
	s.mu.news = make(chan struct{})
	return s
}

func (s *slot) newsLocked() {
	close(s.mu.news)
	s.mu.news = make(chan struct{})
}

// expect makes e what is wanted. It reports false if something newer is, and how often e
// has failed already.
func (s *slot) expect(e expected) (failures int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.commanded && !s.mu.want.before(e) {
		return s.mu.failures, s.mu.want == e
	}
	s.mu.cancel()
	s.mu.commanded, s.mu.want = true, e
	s.mu.wantCtx, s.mu.cancel = context.WithCancel(s.m.group.Context())
	s.mu.settled, s.mu.err, s.mu.attempts, s.mu.failures = false, nil, 0, 0
	s.newsLocked()
	return 0, true
}

// await waits until e is settled or something newer is wanted. That it failed before the
// call, so many times, and is tried again is no answer.
func (s *slot) await(ctx context.Context, e expected, before int) (Outcome, error) {
	for {
		s.mu.Lock()
		want, settled, err, failures, news := s.mu.want, s.mu.settled, s.mu.err, s.mu.failures, s.mu.news
		s.mu.Unlock()
		old := err != nil && e.available && failures == before && !errors.Is(err, mq.ErrFenced)
		switch {
		case want != e:
			return Ignored, nil
		case settled && !old:
			return Applied, err
		}
		select {
		case <-news:
		case <-s.m.closing:
			return Applied, errors.Wrapf(ErrClosed, "wal manager: %s", s.pchannel)
		case <-ctx.Done():
			return Applied, errclass.Wrap(context.Cause(ctx), errclass.Retryable, "wal manager: %s term %d is under way", s.pchannel, e.term)
		}
	}
}

// wanted returns what is wanted, and the context of that.
func (s *slot) wanted() (context.Context, expected, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.wantCtx, s.mu.want, s.mu.commanded
}

// settle tells those who wait how e went, if it is still what is wanted.
func (s *slot) settle(e expected, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.want != e {
		return
	}
	s.mu.settled, s.mu.err = true, err
	if err == nil {
		s.mu.attempts = 0
	} else {
		s.mu.failures++
	}
	s.newsLocked()
}

func (s *slot) current() *WAL {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.wal
}

func (s *slot) setCurrent(w *WAL) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.wal = w
}

func (s *slot) get() (*WAL, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.mu.want.available:
		return nil, errclass.With(errclass.New(errclass.NotFound, "wal manager: %s is not assigned to this node", s.pchannel), errclass.Channel)
	case s.mu.wal != nil && s.mu.wal.Term() == s.mu.want.term:
		return s.mu.wal, nil
	case s.mu.err != nil && errors.Is(s.mu.err, mq.ErrFenced):
		return nil, errors.Wrapf(mq.ErrFenced, "wal manager: %s term %d", s.pchannel, s.mu.want.term)
	case s.mu.err != nil:
		err := errors.Wrapf(ErrFailed, "wal manager: %s is opened again: %v", s.pchannel, s.mu.err)
		if c := errclass.Of(s.mu.err); c != errclass.Internal && !c.Retry() { // it takes more than time
			err = errclass.Mark(err, c)
		}
		return nil, err
	}
	return nil, errclass.New(errclass.Retryable, "wal manager: %s term %d is being opened", s.pchannel, s.mu.want.term)
}

func (s *slot) status() ChannelStatus {
	s.mu.Lock()
	st := ChannelStatus{PChannel: s.pchannel, Term: s.mu.want.term, Assigned: s.mu.want.available,
		State: Closed, Attempts: s.mu.attempts, Err: s.mu.err}
	w := s.mu.wal
	s.mu.Unlock()
	if w != nil {
		st.Progress = w.Progress()
		st.State = st.Progress.State
	}
	return st
}

// run brings the pchannel to what is wanted until the manager closes.
func (s *slot) run(ctx context.Context) error {
	for ctx.Err() == nil {
		wantCtx, want, commanded := s.wanted()
		err := s.retire() // of an older want
		switch {
		case !commanded:
		case want.available:
			s.serve(wantCtx, want)
		default:
			s.settle(want, err)
		}
		// The only way on is another command or the end: both end wantCtx.
		<-wantCtx.Done()
	}
	return s.m.last(s)
}

// serve keeps a WAL open for want until that is no longer wanted (ctx ends) or
// a newer owner has fenced it.
func (s *slot) serve(ctx context.Context, want expected) {
	backoff := s.m.o.MinBackoff
	for ctx.Err() == nil {
		long, err := s.serveOnce(ctx, want)
		if ctx.Err() != nil {
			return
		}
		s.settle(want, err)
		if errors.Is(err, mq.ErrFenced) {
			s.m.o.Logger.Info("wal is fenced and stays closed", "pchannel", s.pchannel, "term", want.term)
			return
		}
		if long {
			backoff = s.m.o.MinBackoff
		}
		s.m.o.Logger.Warn("wal failed and will be opened again", "pchannel", s.pchannel, "term", want.term,
			"in", backoff, "error", err)
		pause := time.NewTimer(backoff)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
		backoff = min(2*backoff, s.m.o.MaxBackoff)
	}
}

// serveOnce opens one WAL and returns when it has ended, or ctx has; in the
// second case the WAL is left for retire. long tells that it was ready for long.
func (s *slot) serveOnce(ctx context.Context, want expected) (long bool, err error) {
	s.mu.Lock()
	if s.mu.want == want {
		s.mu.attempts++
	}
	s.mu.Unlock()
	w, err := s.open(ctx, want)
	if err != nil {
		return false, err
	}
	s.setCurrent(w)
	ready, since := w.ready, time.Time{}
	for {
		select {
		case <-ready:
			ready, since = nil, time.Now()
			s.settle(want, w.Err())
		case <-w.Done():
			err := w.Err()
			if closeErr := s.retire(); closeErr != nil {
				s.m.o.Logger.Warn("wal did not close well", "pchannel", s.pchannel, "error", closeErr)
			}
			return !since.IsZero() && time.Since(since) >= s.m.o.MaxBackoff, err
		case <-ctx.Done():
			return false, nil
		}
	}
}

func (s *slot) open(ctx context.Context, want expected) (*WAL, error) {
	var o Options
	err := s.m.calls.run(ctx, "options of "+s.pchannel, s.m.o.OpenTimeout, func(ctx context.Context) (err error) {
		o, err = s.m.o.Open(ctx, s.pchannel, want.term)
		return err
	})
	if err != nil {
		return nil, errors.Wrapf(err, "wal manager: options of %s term %d", s.pchannel, want.term)
	}
	o.PChannel, o.Term = s.pchannel, want.term
	return Open(o)
}

// retire closes the WAL that is open, if any. One that does not stop in time is
// put on the manager's list; its successor fences it.
func (s *slot) retire() error {
	w := s.current()
	if w == nil {
		return nil
	}
	err := w.Close(context.Background()) // bounded by its CloseTimeout
	if w.State() != Closed {
		s.m.abandon(w)
	}
	s.setCurrent(nil)
	return err
}
