package wal

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The explorer runs the real WAL through every order of a few appends, closes,
// owners and answers of the queue, depth first. A path is replayed from its
// start in a bubble of its own. A state that an earlier path has been in is not
// explored again.
//
// Between two steps all goroutines wait, so that a step and what follows from it
// is one transition. What is left out: orders of goroutines inside a step, where
// the race detector and the other tests look.
type explorer struct {
	s     scenario
	prune bool
	stop  bool // at the first violation

	seen  map[[32]byte]sleep
	buf   []byte
	stack []branch
	now   atomic.Pointer[[]string] // the path under way, for the watchdog

	paths, ends, states, diverged, lost int
	endings                             map[string]int
	strayed                             string // the first replay that went another way
	wrong                               []string
}

// branch is a state on the path under way: what is to be done, what is done now,
// and what need not be done at all.
type branch struct {
	choices []string
	taken   int
	asleep  sleep
}

// explore runs all paths and returns what was found.
func explore(t *testing.T, s scenario, prune, stop bool) *explorer {
	t.Helper()
	x := &explorer{s: s, prune: prune, stop: stop, seen: map[[32]byte]sleep{}, buf: make([]byte, 256<<10), endings: map[string]int{}}
	// A lock held across a wait keeps a bubble from ever being at rest: only real
	// time can tell.
	watchdog := time.AfterFunc(time.Hour, func() {
		panic(fmt.Sprintf("%s: no end of a step: a lock is held across a wait? path:\n  %s", s.name, strings.Join(*x.now.Load(), "\n  ")))
	})
	defer watchdog.Stop()
	begun := time.Now()
	for more := true; more && !(stop && len(x.wrong) > 0); more = x.next() {
		watchdog.Reset(20 * time.Second)
		replayed := false
		for tries := 0; !replayed && tries < 50; tries++ {
			synctest.Test(t, func(*testing.T) { replayed = x.run() })
			x.paths++
			if !replayed {
				x.diverged++
			}
		}
		if !replayed {
			x.lost++
		}
	}
	t.Logf("%s: %d paths, %d to an end, %d states, %d endings, %d diverged, %d violations, %s", s.name, x.paths, x.ends, x.states,
		len(x.endings), x.diverged, len(x.wrong), time.Since(begun).Round(time.Millisecond))
	if x.strayed != "" {
		t.Log(x.strayed)
	}
	return x
}

// next moves to the next path; false = there is none.
func (x *explorer) next() bool {
	for len(x.stack) > 0 {
		top := &x.stack[len(x.stack)-1]
		if top.taken++; top.taken < len(top.choices) {
			return true
		}
		x.stack = x.stack[:len(x.stack)-1]
	}
	return false
}

// run replays the path so far and goes on with the first choice of each new
// state. It returns false if the replay went another way: where a select has two
// ways to go, one is drawn by lot.
func (x *explorer) run() bool {
	p := newPath(x.s)
	p.buf = x.buf
	defer func() {
		for _, w := range p.wrong {
			x.wrong = append(x.wrong, w+"\n  "+strings.Join(p.trace, "\n  "))
		}
		if p.stillWaits() { // the bubble could not end, and would not say why
			panic(fmt.Sprintf("%q still wait when nothing hangs; path:\n  %s", p.wrong, strings.Join(p.trace, "\n  ")))
		}
	}()
	x.now.Store(&p.trace)
	for _, b := range x.stack {
		if !p.do(b.choices[b.taken]) {
			if x.strayed == "" {
				x.strayed = fmt.Sprintf("%q is not among %q after\n  %s", b.choices[b.taken], p.choices(), strings.Join(p.trace, "\n  "))
			}
			p.releaseAll()
			return false
		}
	}
	for {
		last := len(p.trace) > 0 && p.trace[len(p.trace)-1] == "hang"
		p.checkState()
		choices := p.choices()
		if last || len(choices) == 0 || len(p.wrong) > 0 {
			x.end(p)
			return true
		}
		next := branch{choices: choices, asleep: x.asleep()}
		if x.prune {
			x.prunes(p, &next)
		}
		if next.choices = next.asleep.without(next.choices); len(next.choices) == 0 {
			p.releaseAll()
			return true
		}
		x.stack = append(x.stack, next)
		p.do(next.choices[0])
	}
}

// asleep is what need not be done in the state that has just been reached.
func (x *explorer) asleep() sleep {
	if len(x.stack) == 0 || x.s.each == nil || !x.s.meetInTheQueue() {
		return nil
	}
	last := &x.stack[len(x.stack)-1]
	return last.asleep.with(last.choices[:last.taken]...).after(last.choices[last.taken], x.s)
}

// prunes leaves of a state that was seen before what was asleep there and is not
// now, which is nothing in most cases.
func (x *explorer) prunes(p *path, b *branch) {
	key := sha256.Sum256([]byte(p.fingerprint()))
	before, known := x.seen[key]
	if !known {
		x.states++
		x.seen[key] = b.asleep
		return
	}
	todo := b.asleep.without(before)
	both := before.without(todo)
	x.seen[key] = both
	b.choices = slices.DeleteFunc(b.choices, func(c string) bool { return !slices.Contains(todo, c) })
	b.asleep = both
}

func (x *explorer) end(p *path) {
	x.ends++
	if len(p.wrong) > 0 {
		p.releaseAll()
		return
	}
	p.finish()
	var answers []string // in any order: that of independent steps is not told
	for _, a := range p.appends {
		answers = append(answers, fmt.Sprintln(a.body, a.owner.term, outcomeText(a)))
	}
	for _, c := range p.closes {
		answers = append(answers, fmt.Sprintln(c.owner.term, closeText(c)))
	}
	for _, a := range p.asks {
		answers = append(answers, fmt.Sprintln(a.owner.term, askText(a)))
	}
	slices.Sort(answers)
	var log strings.Builder
	for _, m := range p.q.Messages(topic) {
		e, _ := Decode(m) // not its timestamp: all owners have one clock here
		fmt.Fprintf(&log, "%d/%d/%s ", e.Type, e.Term, e.Body)
	}
	x.endings[strings.Join(answers, "")+log.String()]++
}

func (x *explorer) mustBeRight(t *testing.T) {
	t.Helper()
	if len(x.wrong) > 0 {
		t.Fatalf("%d violations, the first: %s", len(x.wrong), x.wrong[0])
	}
	if x.ends == 0 || x.lost > 0 {
		t.Fatalf("%d of %d paths came to an end, %d could not be replayed", x.ends, x.paths, x.lost)
	}
}

func long() bool { return os.Getenv("QUERYNODE_TEST_LONG") != "" }

var shortScenarios = append(dealt(scenario{name: "a new owner, at most one call fails", owners: 2, appends: 1, fails: 1}), []scenario{
	{name: "an empty log", owners: 1, appends: 2, closes: 2, waits: []string{"1m"}},
	{name: "a log to replay", old: 1, owners: 1, appends: 1, closes: 1, waits: []string{"1m"}},
	{name: "a barrier", owners: 1, appends: 1, closes: 1, asks: 1, waits: []string{"1m"}},
	{name: "a barrier and a new owner, nothing fails", owners: 2, closes: 2, asks: 1, calm: true},
}...)

var longScenarios = append(slices.Concat(
	dealt(scenario{name: "a new owner", owners: 2, appends: 2}),
	dealt(scenario{name: "a new owner, at most two calls fail", owners: 2, appends: 3, fails: 2}),
), []scenario{
	{name: "three appends, two closes", owners: 1, appends: 3, closes: 2, waits: []string{"3s", "1m"}},
	{name: "two entries to replay", old: 2, owners: 1, appends: 2, closes: 2, waits: []string{"1m"}},
	{name: "a replay that hangs", old: 2, owners: 1, appends: 1, closes: 1, waits: []string{"1m"}, replay: true},
	{name: "impatient appends", owners: 1, appends: 3, closes: 1, waits: []string{"3s", "1m"}, patient: time.Second},
	{name: "two barriers and an append", owners: 1, appends: 1, closes: 2, asks: 2, waits: []string{"1m"}},
	{name: "a barrier and a new owner", owners: 2, closes: 2, asks: 1},
	{name: "a barrier, an append and a new owner, nothing fails", owners: 2, appends: 1, closes: 2, asks: 1, calm: true},
	{name: "a new owner, time passes, nothing fails", owners: 2, appends: 1, closes: 3, waits: []string{"1m"}, calm: true},
}...)

// dealt returns a scenario for each way to give the appends to the owners, each of
// which is closed once.
func dealt(s scenario) (all []scenario) {
	deals := [][]share{nil}
	for i := range s.owners {
		var next [][]share
		for _, d := range deals {
			left := s.appends
			for _, given := range d {
				left -= given.appends
			}
			for n := range left + 1 {
				if n == left || i < s.owners-1 {
					next = append(next, append(slices.Clip(d), share{n, 1}))
				}
			}
		}
		deals = next
	}
	for _, d := range deals {
		total := 0
		one := s
		one.each, one.appends = d, 0
		for _, given := range d {
			total += given.appends
			one.name += fmt.Sprintf(", %d", given.appends)
		}
		if one.name += " appends"; total == s.appends {
			all = append(all, one)
		}
	}
	return all
}

var raceScenarios = []scenario{
	{name: "one of each", old: 1, owners: 1, appends: 1, closes: 1},
	{name: "a new owner, nothing fails", each: []share{{1, 1}, {0, 1}}, owners: 2, calm: true},
}

// TestEveryInterleaving takes some half an hour with QUERYNODE_TEST_LONG=1: give it
// -timeout 90m.
func TestEveryInterleaving(t *testing.T) {
	scenarios := shortScenarios
	switch {
	case raceEnabled:
		scenarios = raceScenarios
	case long():
		scenarios = append(longScenarios, shortScenarios...)
	}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) { explore(t, s, true, true).mustBeRight(t) })
	}
}

// TestPruningLosesNothing compares the endings with those of all paths.
func TestPruningLosesNothing(t *testing.T) {
	small := []scenario{
		{name: "one of each", owners: 1, appends: 1, closes: 1},
		{name: "two appends, nothing fails", owners: 1, appends: 2, closes: 1, calm: true},
	}
	if long() {
		small = append(small, scenario{name: "one of each, time passes", owners: 1, appends: 1, closes: 1, waits: []string{"1m"}},
			scenario{name: "two owners", owners: 2, appends: 0, closes: 2, calm: true})
	}
	for _, s := range small {
		t.Run(s.name, func(t *testing.T) {
			all, pruned := explore(t, s, false, true), explore(t, s, true, true)
			all.mustBeRight(t)
			pruned.mustBeRight(t)
			if want, got := slices.Sorted(maps.Keys(all.endings)), slices.Sorted(maps.Keys(pruned.endings)); !slices.Equal(want, got) {
				got = slices.DeleteFunc(want, func(s string) bool { return slices.Contains(got, s) })
				t.Fatalf("not among the endings of the pruned paths: %q", got)
			}
		})
	}
}

// TestReductionLosesNothing compares the endings with those of all orders.
func TestReductionLosesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("a statement about the explorer; the race detector makes it ten times as long")
	}
	same := []scenario{{name: "two owners, an append to the first, nothing fails", each: []share{{1, 1}, {0, 1}}, calm: true}}
	if long() {
		same = append(same, scenario{name: "two owners, an append to each, nothing fails", each: []share{{1, 1}, {1, 1}}, calm: true},
			scenario{name: "two owners, an append to the first", each: []share{{1, 1}, {0, 1}}},
			scenario{name: "two owners, an append to the second", each: []share{{0, 1}, {1, 1}}})
	}
	for _, s := range same {
		t.Run(s.name, func(t *testing.T) {
			reduced := explore(t, s, true, true)
			s.unreduced = true
			all := explore(t, s, true, true)
			all.mustBeRight(t)
			reduced.mustBeRight(t)
			if want, got := slices.Sorted(maps.Keys(all.endings)), slices.Sorted(maps.Keys(reduced.endings)); !slices.Equal(want, got) {
				t.Fatalf("%d endings, of all orders %d; missing %q", len(got), len(want), slices.DeleteFunc(want, func(s string) bool { return slices.Contains(got, s) }))
			}
		})
	}
}

// originalOrder is the close that once kept a node Terminating for days: Append
// is counted and waits for Ready alone; Close waits for the appends that are
// counted, and closes what they could wait for only then.
type originalOrder struct {
	*WAL
	escape <-chan struct{} // for the end of the test
	mu     sync.Mutex
	inside int
	idle   chan struct{} // closed while nothing is inside
}

func newOriginalOrder(w *WAL, escape <-chan struct{}) subject {
	o := &originalOrder{WAL: w, escape: escape, idle: make(chan struct{})}
	close(o.idle)
	return o
}

func (o *originalOrder) count(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.inside == 0 {
		o.idle = make(chan struct{})
	}
	if o.inside += n; o.inside == 0 {
		close(o.idle)
	}
}

func (o *originalOrder) Append(ctx context.Context, e Entry) (Receipt, error) {
	o.count(1)
	defer o.count(-1)
	select {
	case <-o.ready:
	case <-o.escape:
	}
	return o.WAL.Append(ctx, e)
}

func (o *originalOrder) Close(ctx context.Context) error {
	o.mu.Lock()
	idle := o.idle
	o.mu.Unlock()
	select {
	case <-idle:
	case <-o.escape:
	}
	return o.WAL.Close(ctx)
}

func TestTheExplorerFindsTheOriginalBug(t *testing.T) {
	s := scenario{name: "original order", owners: 1, appends: 1, closes: 1, waits: []string{"1m"}}
	explore(t, s, true, true).mustBeRight(t)
	s.life = newOriginalOrder
	x := explore(t, s, true, false)
	stuck := slices.IndexFunc(x.wrong, func(w string) bool { return strings.Contains(w, "close of owner 1 has not returned") })
	if stuck < 0 {
		t.Fatalf("the explorer does not find the close that waits for ever: %q", x.wrong)
	}
	t.Log(x.wrong[stuck])
}
