package wal

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// checkState looks at what must hold at every moment at which all goroutines wait.
func (p *path) checkState() {
	if p.s.life == nil {
		p.checkOwners()
	}
	for _, late := range p.gates.lateCalls() {
		p.violate("%s began after the end of its context", late)
	}
	for _, a := range p.appends {
		switch {
		case !isClosed(a.done) && !a.owner.w.State().alive():
			p.violate("%s still waits, its owner %d is %s", a.body, a.owner.term, a.owner.w.State())
		case !isClosed(a.done) && time.Since(a.begun) >= time.Minute && !p.s.replay:
			// Longer than any one call may hang, and a callback is not bounded.
			p.violate("%s still waits after %s", a.body, time.Since(a.begun))
		case isClosed(a.done) && a.err == nil && a.receipt.Timestamp > a.owner.w.LastTimestamp():
			p.violate("%s is not covered by LastTimestamp", a.body)
		}
	}
	for _, a := range p.asks {
		p.checkBarrier(a)
	}
	for _, c := range p.closes {
		p.checkClose(c)
	}
}

// checkBarrier: a barrier is served by an owner that had not been replaced when it
// began, and waits no longer than an append.
func (p *path) checkBarrier(a *asked) {
	switch {
	case !isClosed(a.done) && !a.owner.w.State().alive():
		p.violate("a barrier still waits, its owner %d is %s", a.owner.term, a.owner.w.State())
	case !isClosed(a.done) && time.Since(a.begun) >= time.Minute && !p.s.replay:
		p.violate("a barrier still waits after %s", time.Since(a.begun))
	case isClosed(a.done) && a.err == nil && a.taken > a.owner.term:
		p.violate("a barrier of owner %d is served, term %d had been taken before it began", a.owner.term, a.taken)
	}
}

// checkOwners looks into the WALs; a broken one is told by what it does alone.
func (p *path) checkOwners() {
	for _, o := range p.owners {
		ended := !o.w.State().alive()
		if o.closes > 0 && !ended {
			p.violate("owner %d is %s after Close", o.term, o.w.State())
		}
		for _, c := range p.stuck(o) {
			if ended && c.ctx.Err() == nil && !strings.HasPrefix(c.op, "close ") {
				p.violate("owner %d has ended, the context of %s has not", o.term, c.label)
			}
		}
	}
}

func (p *path) checkClose(c *closed) {
	limit := c.owner.w.o.CloseTimeout
	switch {
	case !isClosed(c.done) && time.Since(c.begun) > limit:
		p.violate("close of owner %d has not returned in %s", c.owner.term, limit)
	case !isClosed(c.done):
	case c.took > limit:
		p.violate("close of owner %d took %s", c.owner.term, c.took)
	case c.took == limit:
		p.checkReport(c)
	}
}

// checkReport compares what a Close that missed its deadline reports with the
// calls that had not returned then: no less, and no more.
func (p *path) checkReport(c *closed) {
	if c.err == nil && len(c.stuck) > 0 {
		p.violate("close of owner %d does not report %s", c.owner.term, c.stuck[0].label)
		return
	}
	if c.err == nil {
		return
	}
	named := c.err.Error()
	_, named, _ = strings.Cut(named, "still running: ")
	for _, call := range c.stuck {
		late := strings.Replace(call.op, "close ", "open ", 1) // closed where it came, after the end
		if !strings.Contains(named, `"`+call.op+`"`) && !strings.Contains(named, `"`+late+`"`) {
			p.violate("close of owner %d does not report %s: %v", c.owner.term, call.label, c.err)
		}
		named = strings.Replace(named, `"`+call.op+`"`, "", 1)
		named = strings.Replace(named, `"`+late+`"`, "", 1)
	}
	for _, what := range []string{"close producer", "close reader"} {
		// After a failure it waits for the other calls to end, and tries again.
		if p.broke[fmt.Sprintf("%s of %d", what, c.owner.term)] && len(c.stuck) > 0 {
			named = strings.Replace(named, `"`+what+`"`, "", 1)
		}
	}
	if strings.Contains(named, `"`) {
		p.violate("close of owner %d reports more than %d calls that hang: %v", c.owner.term, len(c.stuck), c.err)
	}
}

// finish lets time pass for what hangs, and looks at what is left; then lets
// all calls return, and looks again.
func (p *path) finish() {
	p.gates.open()
	for range 4 {
		time.Sleep(time.Hour)
		synctest.Wait()
	}
	p.checkState()
	for _, a := range p.appends {
		if !isClosed(a.done) {
			p.violate("%s has not returned", a.body)
		}
	}
	for _, a := range p.asks {
		if !isClosed(a.done) {
			p.violate("a barrier of owner %d has not returned", a.owner.term)
		}
	}
	for _, o := range p.owners {
		if len(p.stuck(o)) == 0 {
			p.checkGone(o)
		} else if o.w.State() != Closing {
			p.violate("owner %d is %s while %s hangs", o.term, o.w.State(), p.stuck(o)[0].label)
		}
	}
	p.checkLog()
	p.releaseAll()
	for _, o := range p.owners {
		p.checkGone(o)
	}
	p.checkLog()
}

// releaseAll lets everything end.
func (p *path) releaseAll() {
	p.gates.open()
	for calls := p.gates.list(); len(calls) > 0; calls = p.gates.list() {
		p.gates.release(calls[0], ok)
		synctest.Wait()
	}
	time.Sleep(time.Hour)
	close(p.escape)
	for _, o := range p.owners {
		if err := o.w.Close(context.Background()); err != nil && o.w.State() != Closed {
			p.violate("owner %d does not close when nothing hangs: %v", o.term, err)
		}
	}
	synctest.Wait()
}

// stillWaits reports whether an append or a close has not returned.
func (p *path) stillWaits() bool {
	for _, a := range p.appends {
		if !isClosed(a.done) {
			return true
		}
	}
	for _, a := range p.asks {
		if !isClosed(a.done) {
			return true
		}
	}
	for _, c := range p.closes {
		if !isClosed(c.done) {
			return true
		}
	}
	return false
}

// checkGone says that an owner of which no call hangs has left nothing behind,
// or has told.
func (p *path) checkGone(o *owner) {
	if o.w.State() != Closed {
		p.violate("owner %d is %s at the end", o.term, o.w.State())
	}
	if left := o.w.Running(); len(left) > 0 {
		p.violate("owner %d has left %q running", o.term, left)
	}
	name := fmt.Sprintf("/owner%d", o.term)
	for _, open := range slices.Concat(p.q.OpenProducers(), p.q.OpenReaders()) {
		if !strings.HasSuffix(open, name) {
			continue
		}
		what, _, _ := strings.Cut(open, " ")
		err := o.w.Close(context.Background())
		if !p.broke[fmt.Sprintf("close %s of %d", what, o.term)] || !containsText(err, "close "+what) {
			p.violate("%s is left open: %v", open, err)
		}
	}
}

// checkLog compares the answers with what is stored.
func (p *path) checkLog() {
	stored := map[string]int{}
	at := map[string]mq.Message{}
	var last uint64
	for i, m := range p.q.Messages(topic) {
		e, err := Decode(m)
		if err != nil || e.Timestamp <= last {
			p.violate("message %d: timestamp %d after %d: %v", i, e.Timestamp, last, err)
		}
		last = e.Timestamp
		stored[string(e.Body)]++
		at[string(e.Body)] = m
		if i >= p.taken && e.Term < p.takenBy {
			p.violate("%s was stored by term %d after term %d had the topic", e.Body, e.Term, p.takenBy)
		}
	}
	for _, a := range p.appends {
		if !isClosed(a.done) {
			continue
		}
		n := stored[a.body]
		switch {
		case a.err == nil && n != 1:
			p.violate("%s was acknowledged and is stored %d times", a.body, n)
		case a.err == nil && (at[a.body].Timestamp != a.receipt.Timestamp || at[a.body].Position != a.receipt.Position):
			p.violate("%s: receipt %+v, stored as %+v", a.body, a.receipt, at[a.body])
		case a.err == nil:
		case n > 1 || n == 1 && !errors.Is(a.err, mq.ErrUnknownOutcome):
			p.violate("%s is stored %d times, its error says no: %v", a.body, n, a.err)
		case !typed(a.err):
			p.violate("%s: an error without a type: %v", a.body, a.err)
		}
	}
}

func typed(err error) bool {
	switch errclass.Of(err) {
	case errclass.Closed:
		return errors.Is(err, ErrClosed) || errors.Is(err, mq.ErrClosed) || errors.Is(err, mq.ErrUnknownOutcome)
	case errclass.Fenced:
		return errors.Is(err, mq.ErrFenced)
	case errclass.Retryable, errclass.Exhausted:
		return true
	}
	return false
}
