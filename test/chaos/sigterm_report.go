//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/querynode/querynode/internal/console"
)

// exit is how one node ended.
type exit struct {
	hangs, moment string
	took          time.Duration
	code          int
	inTime        bool
	goroutines    int // that were left when all parts were closed; -1 = it does not say
}

// Exits are those of one kind.
type Exits struct {
	Hangs  string `json:"hangs"`  // what did not answer
	Moment string `json:"moment"` // when the signal came
	Spread
	P99        float64 `json:"p99_ms"`
	Clean      int     `json:"clean"` // exit code 0 within the deadline
	Late       int     `json:"late"`
	Goroutines int     `json:"goroutines"` // the most that were left when all parts were closed
}

// Bucket counts the exits up to a time.
type Bucket struct {
	UpTo  float64 `json:"up_to_ms"`
	Count int     `json:"count"`
}

// TermReport is what a series of SIGTERMs has found.
type TermReport struct {
	Seed       uint64   `json:"seed"`
	Queue      string   `json:"queue"`
	Exits      int      `json:"exits"`
	Deadline   float64  `json:"deadline_ms"`
	Slowest    float64  `json:"slowest_ms"`
	Kinds      []*Exits `json:"kinds"`
	Took       []Bucket `json:"distribution"`
	Early      int      `json:"before_main"` // signals that came before main; made again
	Rows       int64    `json:"rows"`        // acknowledged, and all there at the end
	AtBroker   int64    `json:"held_at_broker"`
	Seconds    float64  `json:"seconds"`
	Again      string   `json:"again"`
	Dir        string   `json:"dir,omitempty"`
	Violations []string `json:"violations"`

	mu       sync.Mutex
	began    time.Time
	progress io.Writer
}

// idleGoroutines is what a process has at least when all parts are closed: main,
// the signals, the watch for a second one, and what the runtime and the clients
// of storage and queue are about to end.
const idleGoroutines = 12

func newTermReport(o Options) *TermReport {
	r := &TermReport{Seed: o.Seed, Queue: o.Queue, Deadline: float64(termDeadline.Milliseconds()), began: time.Now(), progress: o.Progress, Violations: []string{},
		Again: fmt.Sprintf("go run ./test/chaos --sigterms %d --seed %d --queue %s", o.Terms, o.Seed, o.Queue)}
	for _, ms := range []float64{250, 500, 1000, 2000, 3000, 5000, 7500, r.Deadline} {
		r.Took = append(r.Took, Bucket{UpTo: ms})
	}
	for _, hangs := range []string{hangsNothing, hangsStorage, hangsBroker} {
		for _, moment := range []string{atStart, atRecovery, atAppend} {
			r.Kinds = append(r.Kinds, &Exits{Hangs: hangs, Moment: moment})
		}
	}
	return r
}

func (r *TermReport) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.progress, "%7.1fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

func (r *TermReport) violate(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.Violations) < keepViolations {
		r.Violations = append(r.Violations, what)
	}
	fmt.Fprintf(r.progress, "VIOLATION %s\n", what)
}

func (r *TermReport) early() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Early++
}

func (r *TermReport) rows(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Rows += n
}

func (r *TermReport) add(e exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.Kinds, func(k *Exits) bool { return k.Hangs == e.hangs && k.Moment == e.moment })
	k := r.Kinds[i]
	k.Spread.add(e.took)
	k.Goroutines = max(k.Goroutines, e.goroutines)
	ms := float64(e.took.Microseconds()) / 1e3
	r.Slowest = max(r.Slowest, ms)
	if e.inTime && e.code == 0 {
		k.Clean++
	}
	if !e.inTime {
		k.Late++
	}
	for b := range r.Took {
		if ms <= r.Took[b].UpTo {
			r.Took[b].Count++
			break
		}
	}
	if r.Exits++; r.Exits%50 == 0 {
		fmt.Fprintf(r.progress, "%7.1fs  %d exits, the slowest %.0f ms, %d violations\n", time.Since(r.began).Seconds(), r.Exits, r.Slowest, len(r.Violations))
	}
}

func (r *TermReport) finish() {
	r.Seconds = time.Since(r.began).Seconds()
	for _, k := range r.Kinds {
		if k.Spread.finish(); k.Count > 0 {
			k.P99 = float64(k.all[k.Count*99/100].Microseconds()) / 1e3
		}
		if k.Goroutines > idleGoroutines {
			r.Violations = append(r.Violations, fmt.Sprintf("%s, %s: %d goroutines are left when all parts are closed", k.Hangs, k.Moment, k.Goroutines))
		}
	}
}

// leftIn finds in a node's log how many goroutines it had left.
func leftIn(log string) int {
	for _, line := range slices.Backward(strings.Split(strings.TrimSpace(log), "\n")) {
		var entry struct {
			Msg        string
			Goroutines *int
		}
		if json.Unmarshal([]byte(line), &entry) == nil && strings.HasPrefix(entry.Msg, "stopped") && entry.Goroutines != nil {
			return *entry.Goroutines
		}
	}
	return -1
}

// Write prints the report for people.
func (r *TermReport) Write(w io.Writer) error {
	for i, v := range r.Violations {
		fmt.Fprintf(w, "violation %d: %s\n", i+1, v)
	}
	t := &console.Table{Columns: []console.Column{console.Left("hangs"), console.Left("signal at"), console.Right("exits"), console.Right("clean"),
		console.Right("p50 ms"), console.Right("p99 ms"), console.Right("slowest ms"), console.Right("late"), console.Right("goroutines left")}}
	for _, k := range r.Kinds {
		if k.Count > 0 {
			t.Add(k.Hangs, k.Moment, k.Count, k.Clean, int(k.P50), int(k.P99), int(k.Max), k.Late, k.Goroutines)
		}
	}
	c := console.New(console.Options{Out: w})
	c.Table(t)
	for _, b := range r.Took {
		fmt.Fprintf(w, "up to %5.0f ms: %d\n", b.UpTo, b.Count)
	}
	fmt.Fprintf(w, "%d exits in %.0f s, the slowest after %.0f ms of %.0f; %d violations; %d acknowledged rows are there; %d things left at the broker; %d signals came before main and were sent again\n",
		r.Exits, r.Seconds, r.Slowest, r.Deadline, len(r.Violations), r.Rows, r.AtBroker, r.Early)
	fmt.Fprintf(w, "seed %d; again: %s\n", r.Seed, r.Again)
	if r.Dir != "" {
		fmt.Fprintf(w, "files kept in %s\n", r.Dir)
	}
	return nil
}
