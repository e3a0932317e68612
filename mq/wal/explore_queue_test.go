package wal

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// answer is what the explorer lets a call into the queue do.
type answer string

const (
	ok   answer = "ok"   // does its work, also when its context has ended long ago
	fail answer = "fail" // does nothing and returns an error of no class
	lost answer = "lost" // does its work, and returns an error of no class
	full answer = "full" // does nothing; Exhausted, the producer goes on
)

// answers are what each kind of call may do, beside hanging for ever.
func (s scenario) answers(op string) []answer {
	switch {
	case s.calm:
		return []answer{ok}
	case op == "append":
		return []answer{ok, fail, lost, full}
	case op == "open producer":
		return []answer{ok, fail, lost}
	}
	return []answer{ok, fail}
}

// parkedCall is a call that waits for the explorer, deaf to its context.
type parkedCall struct {
	term    uint64
	op      string // as the WAL names the call
	label   string // op, term, and what tells it from others
	ctx     context.Context
	proceed chan answer
}

// gates hold every call into the queue until the explorer lets it go on.
type gates struct {
	mu     sync.Mutex
	parked map[string]*parkedCall
	count  map[string]int // calls so far by op and term
	late   []string       // calls that began when their context had ended
	auto   bool           // new calls are not held any more
}

func newGates() *gates { return &gates{parked: map[string]*parkedCall{}, count: map[string]int{}} }

func (g *gates) park(ctx context.Context, term uint64, op, detail string) answer {
	g.mu.Lock()
	if g.auto {
		g.mu.Unlock()
		return ok
	}
	kind := fmt.Sprintf("term %d %s", term, op)
	g.count[kind]++
	c := &parkedCall{term: term, op: op, ctx: ctx, proceed: make(chan answer),
		label: fmt.Sprintf("%s#%d%s", kind, g.count[kind], detail)}
	g.parked[c.label] = c
	if ctx.Err() != nil {
		g.late = append(g.late, c.label)
	}
	g.mu.Unlock()
	return <-c.proceed
}

// list returns the parked calls in the order of their labels.
func (g *gates) list() []*parkedCall {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []*parkedCall
	for _, c := range g.parked {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *parkedCall) int {
		if a.label < b.label {
			return -1
		}
		return 1
	})
	return out
}

// lateCalls returns the calls that began although their context had ended.
func (g *gates) lateCalls() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.late)
}

func (g *gates) release(c *parkedCall, a answer) {
	g.mu.Lock()
	delete(g.parked, c.label)
	g.mu.Unlock()
	c.proceed <- a
}

func (g *gates) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.auto = true
}

var errInjected = errors.New("injected")

// gatedQueue is the connection of one owner.
type gatedQueue struct {
	*mqtest.Memory
	gates *gates
	term  uint64
	taken func(term uint64) // the term is taken
}

// work does fn as the explorer wants it: with a context that has no end, so
// that a call which was slow does its work nevertheless.
func (q *gatedQueue) work(ctx context.Context, op, detail string, fn func(context.Context) error) error {
	switch q.gates.park(ctx, q.term, op, detail) {
	case fail:
		return errInjected
	case full:
		return errclass.New(errclass.Exhausted, "injected: full")
	case lost:
		if err := fn(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		return errInjected
	}
	return fn(context.WithoutCancel(ctx))
}

func (q *gatedQueue) OpenProducer(ctx context.Context, topic string, o mq.ProducerOptions) (mq.Producer, error) {
	var p mq.Producer
	err := q.work(ctx, "open producer", "", func(ctx context.Context) (err error) {
		if p, err = q.Memory.OpenProducer(ctx, topic, o); err == nil {
			q.taken(q.term)
		}
		return err
	})
	if err != nil {
		if p != nil { // the answer was lost: the backend lets go, the term stays
			_ = p.Close(context.WithoutCancel(ctx))
		}
		return nil, err
	}
	return &gatedProducer{p, q}, nil
}

func (q *gatedQueue) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (r mq.Reader, err error) {
	err = q.work(ctx, "open reader", "", func(ctx context.Context) (err error) {
		r, err = q.Memory.OpenReader(ctx, topic, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &gatedReader{r, q}, nil
}

func (q *gatedQueue) Bounds(ctx context.Context, topic string) (b mq.Bounds, err error) {
	err = q.work(ctx, "bounds", "", func(ctx context.Context) (err error) {
		b, err = q.Memory.Bounds(ctx, topic)
		return err
	})
	return b, err
}

type gatedProducer struct {
	mq.Producer
	q *gatedQueue
}

func (p *gatedProducer) Append(ctx context.Context, msgs ...mq.Message) (at []mq.Position, err error) {
	detail := ""
	for _, m := range msgs {
		if e, err := Decode(m); err == nil {
			detail += " " + string(e.Body)
		}
	}
	err = p.q.work(ctx, "append", detail, func(ctx context.Context) (err error) {
		at, err = p.Producer.Append(ctx, msgs...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return at, nil
}

func (p *gatedProducer) Close(ctx context.Context) error {
	return p.q.work(ctx, "close producer", "", p.Producer.Close)
}

type gatedReader struct {
	mq.Reader
	q *gatedQueue
}

func (r *gatedReader) Next(ctx context.Context) (m mq.Message, err error) {
	err = r.q.work(ctx, "read", "", func(ctx context.Context) (err error) {
		m, err = r.Reader.Next(ctx)
		return err
	})
	return m, err
}

func (r *gatedReader) Close(ctx context.Context) error {
	return r.q.work(ctx, "close reader", "", r.Reader.Close)
}
