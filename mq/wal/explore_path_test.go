package wal

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// scenario bounds what happens on one path. All of it happens on every path,
// in every order.
type scenario struct {
	name    string
	old     int           // entries in the log before
	owners  int           // each opened while the one before it may still live
	appends int           // all together, to any owner that has been opened
	closes  int           // all together, each owner once at least
	each    []share       // instead of these two: what each owner gets
	asks    int           // barriers, all together
	waits   []string      // lengths of time that may pass while calls hang, each once
	calm    bool          // calls return ok, or hang; none fails
	replay  bool          // Options.Replay may hang too
	patient time.Duration // context of the appends; 0 = it has no end
	life    func(*WAL, <-chan struct{}) subject

	fails     int  // at most so many calls fail; 0 = any number. With each only
	unreduced bool // with each: all orders nevertheless
}

// share is what one owner gets.
type share struct{ appends, closes int }

// subject is what the explorer closes and appends to: a WAL, or a broken one.
type subject interface {
	Append(ctx context.Context, e Entry) (Receipt, error)
	Close(ctx context.Context) error
}

// owner is a WAL on a path.
type owner struct {
	term    uint64
	w       *WAL
	subject subject
	appends int
	closes  int
}

// appended and closed are an append and a close on a path.
type appended struct {
	body    string
	owner   *owner
	begun   time.Time
	done    chan struct{}
	took    time.Duration
	receipt Receipt
	err     error
}

// asked is a barrier on a path.
type asked struct {
	owner *owner
	begun time.Time
	taken uint64 // the newest term that had been taken when it began
	done  chan struct{}
	err   error
}

type closed struct {
	owner *owner
	begun time.Time
	done  chan struct{}
	took  time.Duration
	err   error
	stuck []*parkedCall // of its owner, when it returned
}

// path is one run: the real WAL against a queue whose calls are all held.
type path struct {
	s       scenario
	q       *mqtest.Memory
	gates   *gates
	start   time.Time
	owners  []*owner
	appends []*appended
	closes  []*closed
	asks    []*asked
	waits   []string
	failed  int             // calls that did
	broke   map[string]bool // a Close of producer or reader failed, by owner
	taken   int             // length of the log when the newest term was taken
	takenBy uint64
	escape  chan struct{} // lets a broken subject go at the very end
	trace   []string
	buf     []byte   // for stacks
	wrong   []string // what must not be
}

func newPath(s scenario) *path {
	p := &path{s: s, q: mqtest.NewMemory(mqtest.MemoryOptions{}), gates: newGates(), start: time.Now(),
		broke: map[string]bool{}, escape: make(chan struct{})}
	if s.old > 0 {
		p.seed()
	}
	p.open()
	synctest.Wait()
	return p
}

func (p *path) seed() {
	producer, err := p.q.OpenProducer(context.Background(), topic, mq.ProducerOptions{})
	for i := range p.s.old {
		m, _ := Encode(Entry{Type: Insert, VChannel: "v1", Body: fmt.Append(nil, "old", i), Timestamp: uint64(i + 1)})
		if err == nil {
			_, err = producer.Append(context.Background(), m)
		}
	}
	if err == nil {
		err = producer.Close(context.Background())
	}
	if err != nil {
		p.violate("seed: %v", err)
	}
}

func (p *path) violate(format string, args ...any) {
	p.wrong = append(p.wrong, fmt.Sprintf(format, args...))
}

// choices are what may happen next, in a fixed order; none at the end.
func (p *path) choices() []string {
	parked := p.gates.list()
	if p.s.each == nil {
		return p.theirs(parked, p.ours())
	}
	var all []string
	for i := range p.s.each {
		mine := p.oursOf(i)
		busy := slices.ContainsFunc(parked, func(c *parkedCall) bool { return c.term == uint64(i+1) })
		if len(mine) > 0 && !busy && p.s.meetInTheQueue() {
			return mine
		}
		all = append(all, mine...)
	}
	return p.theirs(parked, all)
}

// meetInTheQueue reports whether owners meet in calls into the queue alone. Time, and
// barriers, which note who had the topic when they began, are common to all.
//
// Then what one owner begins changes nothing for another until a call of it is let
// go on. So if an owner has something to begin and no call that is held, nothing
// that another one does before it could matter, and it goes first and alone: of
// the orders that differ in independent steps only, one is explored. That is a
// persistent set (Godefroid, Partial-Order Methods for the Verification of
// Concurrent Systems, 1996) in a space without cycles: it loses no end, and no
// state that an owner can be in. TestReductionLosesNothing compares.
func (s scenario) meetInTheQueue() bool { return len(s.waits) == 0 && s.asks == 0 && !s.unreduced }

// ours are the appends, closes, barriers and owners that may begin.
func (p *path) ours() []string {
	var out []string
	if len(p.owners) < p.s.owners {
		out = append(out, "open")
	}
	left := p.s.closes - len(p.closes) // of which some are kept for those not closed yet
	for _, o := range p.owners {
		if o.closes == 0 {
			left--
		}
	}
	left -= p.s.owners - len(p.owners)
	for _, o := range p.owners {
		if len(p.appends) < p.s.appends {
			out = append(out, fmt.Sprint("append to ", o.term))
		}
		if len(p.asks) < p.s.asks {
			out = append(out, fmt.Sprint("barrier of ", o.term))
		}
		if o.closes == 0 || left > 0 {
			out = append(out, fmt.Sprint("close ", o.term))
		}
	}
	return out
}

// oursOf is ours for the i-th owner, where each gets its share.
func (p *path) oursOf(i int) (out []string) {
	if i == len(p.owners) {
		return []string{"open"}
	}
	if i > len(p.owners) {
		return nil
	}
	o, s := p.owners[i], p.s.each[i]
	if o.appends < s.appends {
		out = append(out, fmt.Sprint("append to ", o.term))
	}
	if o.closes < s.closes {
		out = append(out, fmt.Sprint("close ", o.term))
	}
	return out
}

// theirs adds what the queue and time may do.
func (p *path) theirs(parked []*parkedCall, out []string) []string {
	ours := len(out)
	for _, c := range parked {
		for _, a := range p.s.answers(c.op) {
			if a == ok || p.s.fails == 0 || p.failed < p.s.fails {
				out = append(out, c.label+": "+string(a))
			}
		}
	}
	if len(parked) == 0 {
		return out
	}
	for _, w := range p.s.waits {
		if !slices.Contains(p.waits, w) {
			out = append(out, "wait "+w)
		}
	}
	if ours == 0 {
		// A call that hangs for ever is one that is never let go on. That may be
		// said last: until then it is parked all the same.
		out = append(out, "hang")
	}
	return out
}

// do takes one of the choices. It reports false if there is none of that name.
func (p *path) do(choice string) bool {
	p.trace = append(p.trace, choice)
	defer synctest.Wait()
	verb, object, _ := strings.Cut(choice, " ")
	switch verb {
	case "open":
		p.open()
	case "append":
		p.append(p.owner(object[len("to "):]))
	case "barrier":
		p.ask(p.owner(object[len("of "):]))
	case "close":
		p.close(p.owner(object))
	case "wait":
		p.waits = append(p.waits, object)
		d, _ := time.ParseDuration(object)
		time.Sleep(d)
	case "hang":
	default:
		return p.let(choice)
	}
	return true
}

func (p *path) let(choice string) bool {
	for _, c := range p.gates.list() {
		a, found := strings.CutPrefix(choice, c.label+": ")
		if !found {
			continue
		}
		if strings.HasPrefix(c.op, "close ") && answer(a) != ok {
			p.broke[fmt.Sprintf("%s of %d", c.op, c.term)] = true
		}
		if answer(a) != ok {
			p.failed++
		}
		p.gates.release(c, answer(a))
		return true
	}
	return false
}

func (p *path) owner(term string) *owner {
	for _, o := range p.owners {
		if fmt.Sprint(o.term) == term {
			return o
		}
	}
	panic("no owner " + term)
}

func (p *path) open() {
	o := &owner{term: uint64(len(p.owners) + 1)}
	opts := quiet(&gatedQueue{Memory: p.q, gates: p.gates, term: o.term, taken: func(term uint64) {
		p.taken, p.takenBy = len(p.q.Messages(topic)), term
	}})
	opts.Term, opts.Owner = o.term, fmt.Sprint("owner", o.term)
	if p.s.replay {
		opts.Replay = func(ctx context.Context, _ Entry) error {
			if p.gates.park(ctx, o.term, "recovery", "") == fail {
				return errInjected
			}
			return nil
		}
	}
	w, err := Open(opts)
	if err != nil {
		panic(err)
	}
	o.w, o.subject = w, w
	if p.s.life != nil {
		o.subject = p.s.life(w, p.escape)
	}
	p.owners = append(p.owners, o)
}

func (p *path) append(o *owner) {
	a := &appended{body: fmt.Sprint("a", o.term, "-", o.appends), owner: o, begun: time.Now(), done: make(chan struct{})}
	o.appends++
	p.appends = append(p.appends, a)
	go func() {
		defer close(a.done)
		ctx := context.Background()
		if p.s.patient > 0 {
			impatient, cancel := context.WithTimeout(ctx, p.s.patient)
			defer cancel()
			ctx = impatient
		}
		a.receipt, a.err = o.subject.Append(ctx, insert(a.body))
		a.took = time.Since(a.begun)
	}()
}

func (p *path) ask(o *owner) {
	a := &asked{owner: o, begun: time.Now(), taken: p.takenBy, done: make(chan struct{})}
	p.asks = append(p.asks, a)
	go func() {
		defer close(a.done)
		a.err = o.w.Barrier().Wait(context.Background())
	}()
}

func (p *path) close(o *owner) {
	c := &closed{owner: o, begun: time.Now(), done: make(chan struct{})}
	o.closes++
	p.closes = append(p.closes, c)
	go func() {
		defer close(c.done)
		c.err = o.subject.Close(context.Background())
		c.took = time.Since(c.begun)
		c.stuck = p.stuck(o)
	}()
}

// stuck returns the calls of an owner that have not come back.
func (p *path) stuck(o *owner) []*parkedCall {
	return slices.DeleteFunc(p.gates.list(), func(c *parkedCall) bool { return c.term != o.term })
}

// fingerprint tells states apart: where every goroutine of the bubble is, and
// what it may look at. Two paths with the same one go on in the same ways.
func (p *path) fingerprint() string {
	var b strings.Builder
	fmt.Fprintln(&b, time.Since(p.start), p.waits, p.taken, p.takenBy, p.broke)
	if p.s.fails > 0 {
		fmt.Fprintln(&b, p.failed)
	}
	for _, o := range p.owners {
		o.w.mu.Lock()
		fmt.Fprintln(&b, o.term, o.closes, o.w.mu.state, o.w.mu.over, o.w.mu.cause, o.w.mu.closeErrs)
		o.w.mu.Unlock()
		o.w.resources.mu.Lock()
		fmt.Fprintln(&b, o.w.resources.mu.swept, slices.Sorted(maps.Keys(o.w.resources.mu.open)))
		o.w.resources.mu.Unlock()
		entries, _, waiting, _ := o.w.pending.load()
		fmt.Fprintln(&b, entries, waiting, len(o.w.pending.wake), o.w.Running(), isClosed(o.w.closing), isClosed(o.w.ready))
	}
	for _, a := range p.appends {
		fmt.Fprintln(&b, a.body, a.owner.term, isClosed(a.done), outcomeText(a))
	}
	for _, c := range p.closes {
		fmt.Fprintln(&b, c.owner.term, isClosed(c.done), closeText(c))
	}
	for _, a := range p.asks {
		fmt.Fprintln(&b, a.owner.term, a.taken > a.owner.term, askText(a))
	}
	for _, c := range p.gates.list() {
		fmt.Fprintln(&b, c.label, c.ctx.Err())
	}
	for _, m := range p.q.Messages(topic) {
		fmt.Fprintf(&b, "%q ", m.Payload)
	}
	fmt.Fprintln(&b, p.q.OpenProducers(), p.q.OpenReaders())
	b.WriteString(bubbleStacks(p.buf))
	return b.String()
}

func outcomeText(a *appended) string {
	switch {
	case !isClosed(a.done):
		return "under way"
	case a.err == nil:
		return "stored at " + a.receipt.Position.ID
	}
	return fmt.Sprint(errclass.Of(a.err), errors.Is(a.err, mq.ErrUnknownOutcome))
}

func askText(a *asked) string {
	if !isClosed(a.done) {
		return "barrier under way"
	}
	return fmt.Sprint("barrier ", a.err == nil, errclass.Of(a.err))
}

func closeText(c *closed) string {
	if !isClosed(c.done) {
		return "under way"
	}
	return fmt.Sprint(c.err)
}

// bubbleStacks returns functions and lines of all goroutines of this bubble.
func bubbleStacks(buf []byte) string {
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	bubble := bubbleOf(stacks[0])
	var out []string
	for _, s := range stacks[1:] {
		if bubbleOf(s) != bubble {
			continue
		}
		var b strings.Builder
		lines := strings.Split(s, "\n")
		for _, l := range lines[1:] {
			if file, line, found := strings.Cut(l, ".go:"); found {
				line, _, _ = strings.Cut(line, " ")
				b.WriteString(file[strings.LastIndexByte(file, '/')+1:] + ":" + line + " ")
			}
		}
		out = append(out, b.String())
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func bubbleOf(stack string) string {
	header, _, _ := strings.Cut(stack, "\n")
	_, bubble, _ := strings.Cut(header, "synctest bubble ")
	return bubble
}
