//go:build unix

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/querynode/querynode/internal/console"
)

// Kinds of violations.
const (
	Lost        = "acknowledged row lost"
	Doubled     = "row doubled"
	Resurrected = "delete resurrected"
	Wrong       = "wrong answer"
	Missed      = "search missed a row"
	Refused     = "refused while healthy"
	Panicked    = "panic"
	Died        = "node died by itself"
	NotReady    = "node did not become ready"
	BadStop     = "stop not clean"
	Leftovers   = "leftovers"
	Leaked      = "leak"
	Unreported  = "damage not reported"
	Shared      = "data folder shared"
)

var allKinds = []string{Lost, Doubled, Resurrected, Wrong, Missed, Refused, Panicked, Died, NotReady, BadStop, Leftovers, Leaked, Unreported, Shared}

// Violation is something that must not be.
type Violation struct {
	Kind  string   `json:"kind"`
	What  string   `json:"what"`
	Key   int64    `json:"key,omitempty"`
	Log   []string `json:"log,omitempty"`   // the last operations on the key
	After string   `json:"after,omitempty"` // the last faults
	At    float64  `json:"at_seconds"`
}

// Spread is how long something took.
type Spread struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50_ms"`
	Max   float64 `json:"max_ms"`
	all   []time.Duration
}

func (s *Spread) add(d time.Duration) { s.all = append(s.all, d) }

func (s *Spread) finish() {
	if s.Count = len(s.all); s.Count > 0 {
		slices.Sort(s.all)
		s.P50, s.Max = float64(s.all[s.Count/2].Microseconds())/1e3, float64(s.all[s.Count-1].Microseconds())/1e3
	}
}

// Report is what a run has found.
type Report struct {
	Seed       uint64                    `json:"seed"`
	Queue      string                    `json:"queue"`
	Storage    string                    `json:"storage"`
	Seconds    float64                   `json:"seconds"`
	Again      string                    `json:"again"` // the command that makes these faults again
	Dir        string                    `json:"dir,omitempty"`
	Faults     map[string]int            `json:"faults"`
	LeftOut    map[string]string         `json:"left_out,omitempty"` // fault to why it could not be made
	Operations map[string]map[string]int `json:"operations"`         // by kind and outcome
	Rows       map[string]int            `json:"rows"`               // acknowledged changes of rows, and rows compared
	Recovery   Spread                    `json:"recovery"`           // start of the process to ready
	Stop       Spread                    `json:"stop"`               // SIGTERM to the end
	Baseline   []Balance                 `json:"baseline"`
	LogErrors  map[string]int            `json:"log_errors,omitempty"` // what the nodes logged as errors
	Violations []Violation               `json:"violations"`
	Counts     map[string]int            `json:"violations_by_kind"`

	mu       sync.Mutex
	began    time.Time
	progress io.Writer
	recent   []string
}

// Balance is what there was before any collection and after its release.
type Balance struct {
	What   string `json:"what"`
	Before int64  `json:"before"`
	After  int64  `json:"after"`
	Slack  int64  `json:"slack"`
}

// keepViolations bounds a report of a run in which everything is wrong.
const keepViolations = 100

func newReport(o Options) *Report {
	again := fmt.Sprintf("go run ./test/chaos --seed %d --duration %s --queue %s --storage %s", o.Seed, o.Duration, o.Queue, o.Storage)
	if o.MaxFaults > 0 {
		again += fmt.Sprintf(" --faults %d", o.MaxFaults)
	}
	if o.Only != "" {
		again += fmt.Sprintf(" --only %q", o.Only)
	}
	return &Report{Seed: o.Seed, Queue: o.Queue, Storage: o.Storage, Faults: map[string]int{}, LeftOut: map[string]string{},
		Operations: map[string]map[string]int{}, Rows: map[string]int{}, LogErrors: map[string]int{}, Counts: map[string]int{},
		Again: again, began: time.Now(), progress: o.Progress}
}

func (r *Report) violate(all ...Violation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range all {
		v.At, v.After = time.Since(r.began).Seconds(), strings.Join(r.recent, ", ")
		if r.Counts[v.Kind]++; len(r.Violations) < keepViolations {
			r.Violations = append(r.Violations, v)
			fmt.Fprintf(r.progress, "VIOLATION %s: %s\n", v.Kind, v.What)
		}
	}
}

func (r *Report) operation(kind string, code codes.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.Operations[kind]
	if m == nil {
		m = map[string]int{}
		r.Operations[kind] = m
	}
	m[code.String()]++
}

func (r *Report) rows(what string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Rows[what] += n
}

func (r *Report) leaveOut(fault, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.LeftOut[fault] = why
}

func (r *Report) fault(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Faults[name]++
	if r.recent = append(r.recent, name); len(r.recent) > 4 {
		r.recent = r.recent[1:]
	}
}

func (r *Report) total() (faults, operations, violations int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.Faults {
		faults += n
	}
	for _, m := range r.Operations {
		for _, n := range m {
			operations += n
		}
	}
	for _, n := range r.Counts {
		violations += n
	}
	return faults, operations, violations
}

func (r *Report) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.progress, "%7.1fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

func (r *Report) finish() {
	r.Seconds = time.Since(r.began).Seconds()
	r.Recovery.finish()
	r.Stop.finish()
	for _, k := range allKinds {
		r.Counts[k] += 0
	}
}

// Write prints the report for people: the violations, then one table.
func (r *Report) Write(w io.Writer) error {
	for i, v := range r.Violations {
		fmt.Fprintf(w, "violation %d at %.1fs: %s: %s\n  after the faults: %s\n", i+1, v.At, v.Kind, v.What, v.After)
		for _, l := range v.Log {
			fmt.Fprintf(w, "    %s\n", l)
		}
	}
	t := &console.Table{Columns: []console.Column{console.Left("what"), console.Left("kind"), console.Right("count"), console.Left("more")}}
	faults, operations, violations := r.total()
	for _, k := range slices.Sorted(maps.Keys(r.Faults)) {
		t.Add("fault", k, r.Faults[k], "")
	}
	for _, k := range slices.Sorted(maps.Keys(r.LeftOut)) {
		t.Add("fault", k, 0, "left out: "+r.LeftOut[k])
	}
	t.Add("fault", "all", faults, "")
	for _, k := range slices.Sorted(maps.Keys(r.Operations)) {
		n, more := 0, []string(nil)
		codes := slices.SortedFunc(maps.Keys(r.Operations[k]), func(a, b string) int { return cmp.Compare(r.Operations[k][b], r.Operations[k][a]) })
		for _, c := range codes {
			n += r.Operations[k][c]
			more = append(more, fmt.Sprintf("%s %d", c, r.Operations[k][c]))
		}
		t.Add("operation", k, n, strings.Join(more, ", "))
	}
	t.Add("operation", "all", operations, "")
	for _, k := range slices.Sorted(maps.Keys(r.Rows)) {
		t.Add("rows", k, r.Rows[k], "")
	}
	t.Add("time", "recovery (start to ready)", r.Recovery.Count, fmt.Sprintf("p50 %.0f ms, max %.0f ms", r.Recovery.P50, r.Recovery.Max))
	t.Add("time", "stop (SIGTERM to exit)", r.Stop.Count, fmt.Sprintf("p50 %.0f ms, max %.0f ms", r.Stop.P50, r.Stop.Max))
	for _, b := range r.Baseline {
		t.Add("baseline", b.What, b.After, fmt.Sprintf("before: %d, allowed: %d more", b.Before, b.Slack))
	}
	for _, k := range slices.Sorted(maps.Keys(r.LogErrors)) {
		t.Add("logged error", k, r.LogErrors[k], "")
	}
	for _, k := range allKinds {
		t.Add("violation", k, r.Counts[k], "")
	}
	t.Add("violation", "all", violations, "")
	c := console.New(console.Options{Out: w})
	c.Table(t)
	fmt.Fprintf(w, "seed %d, %.0f s; these faults again: %s\n", r.Seed, r.Seconds, r.Again)
	if r.Dir != "" {
		fmt.Fprintf(w, "files kept in %s\n", r.Dir)
	}
	return nil
}
