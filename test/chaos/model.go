//go:build unix

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// absent is the version of a key that has no row.
const absent = int64(0)

// model knows for each key which versions a reader may see. A change that is
// acknowledged leaves one; one whose outcome is unknown adds one. A key is
// written by one client at a time, and after an unknown outcome not again before
// the process that may still carry it out is gone: so the order of the changes of
// a key is the order in which they were made.
type model struct {
	began time.Time
	mu    struct {
		sync.Mutex
		keys    []keyState
		version int64
	}
}

type keyState struct {
	possible []int64
	changes  []int64 // versions that changes began to write, all of them
	busy     bool    // a change is under way
	limbo    int     // a change of unknown outcome may still happen in this run; 0 = none
	log      []change
}

// change is one operation on a key, for people.
type change struct {
	at      time.Duration
	what    string
	version int64
	run     int
}

// keepLog is how many operations of a key are remembered.
const keepLog = 24

func newModel(keys int) *model {
	m := &model{began: time.Now()}
	m.mu.keys = make([]keyState, keys)
	for i := range m.mu.keys {
		m.mu.keys[i].possible = []int64{absent}
	}
	return m
}

func (m *model) size() int64 { return int64(len(m.mu.keys)) }

// note remembers an operation of a key. The caller has the lock.
func (m *model) noteLocked(k int64, what string, version int64, run int) {
	s := &m.mu.keys[k]
	if len(s.log) >= keepLog {
		s.log = slices.Delete(s.log, 0, 1)
	}
	s.log = append(s.log, change{time.Since(m.began), what, version, run})
}

// draft is a change that is under way.
type draft struct {
	keys    []int64
	version int64 // absent = a delete
	what    string
}

// begin takes up to n keys for a change and says which; none if none is free.
// With fresh, only keys that surely have no row.
func (m *model) begin(r *rand.Rand, what string, n, run int, fresh bool) draft {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := draft{what: what}
	if what != "delete" {
		m.mu.version++
		d.version = m.mu.version
	}
	for range 4 * n {
		k := r.Int64N(m.size())
		s := &m.mu.keys[k]
		if s.busy || s.limbo >= run || (fresh && !(len(s.possible) == 1 && s.possible[0] == absent)) {
			continue
		}
		s.busy, s.limbo = true, 0
		s.changes = append(s.changes, d.version)
		if !slices.Contains(s.possible, d.version) {
			s.possible = append(slices.Clone(s.possible), d.version)
		}
		m.noteLocked(k, what, d.version, run)
		if d.keys = append(d.keys, k); len(d.keys) == n {
			break
		}
	}
	slices.Sort(d.keys)
	return d
}

// end says how a change ended; run is the newest process that may have got it.
func (m *model) end(d draft, acknowledged bool, run int, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range d.keys {
		s := &m.mu.keys[k]
		s.busy = false
		if acknowledged {
			s.possible = []int64{d.version}
			m.noteLocked(k, "  done", d.version, run)
			continue
		}
		s.limbo = run
		m.noteLocked(k, "  unknown: "+why, d.version, run)
	}
}

// mark is what a reader knew when it began.
type mark struct {
	keys     []int64
	possible [][]int64
	changes  []int
	calm     []bool // nothing was under way
}

// look is called before a read; no keys = all.
func (m *model) look(run int, keys ...int64) *mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(keys) == 0 {
		keys = make([]int64, m.size())
		for i := range keys {
			keys[i] = int64(i)
		}
	}
	v := &mark{keys: keys, possible: make([][]int64, len(keys)), changes: make([]int, len(keys)), calm: make([]bool, len(keys))}
	for i, k := range keys {
		s := &m.mu.keys[k]
		v.possible[i], v.changes[i] = s.possible, len(s.changes)
		v.calm[i] = !s.busy && s.limbo < run
	}
	return v
}

// allowedLocked is what a read that began at the mark and ends now may see of
// the mark's i-th key, and whether no change has touched it since.
func (m *model) allowedLocked(v *mark, i int) (allowed []int64, untouched bool) {
	s := &m.mu.keys[v.keys[i]]
	since := s.changes[v.changes[i]:]
	if len(since) == 0 && v.calm[i] {
		return s.possible, true // what another reader has seen meanwhile holds for this one too
	}
	return append(slices.Clone(v.possible[i]), since...), false
}

// row is what was read of a key.
type row struct {
	key, version int64
}

// judge compares the rows of a read with what it may see of the mark's keys. What
// was seen of a key at rest is true from then on. The read was of all the mark's
// keys: one that is not among the rows was seen to be absent.
func (m *model) judge(v *mark, what string, rows []row, run int) []Violation {
	seen := make(map[int64][]int64, len(rows))
	for _, r := range rows {
		seen[r.key] = append(seen[r.key], r.version)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var bad []Violation
	for i, k := range v.keys {
		got := seen[k]
		delete(seen, k)
		if len(got) > 1 {
			bad = append(bad, m.violationLocked(Doubled, k, "%s has key %d %d times, versions %v", what, k, len(got), got))
			continue
		}
		version := absent
		if len(got) == 1 {
			version = got[0]
		}
		allowed, untouched := m.allowedLocked(v, i)
		if !slices.Contains(allowed, version) {
			bad = append(bad, m.violationLocked(m.kindLocked(k, version, allowed), k, "%s (run %d) sees key %d at version %d, possible were %v", what, run, k, version, allowed))
			if s := &m.mu.keys[k]; untouched { // said once: from here on it is one of the possible
				s.possible = append(slices.Clone(allowed), version)
			}
			continue
		}
		if untouched && len(allowed) > 1 {
			s := &m.mu.keys[k]
			if s.possible = []int64{version}; s.limbo < run {
				m.noteLocked(k, "  seen by "+what, version, run)
			}
		}
	}
	for k, got := range seen {
		bad = append(bad, Violation{Kind: Wrong, Key: k, What: fmt.Sprintf("%s has a row of key %d, version %v, that was not asked for", what, k, got)})
	}
	return bad
}

// judgeHits checks rows of a read that need not have all of the mark's keys.
func (m *model) judgeHits(v *mark, what string, rows []row, run int) []Violation {
	m.mu.Lock()
	defer m.mu.Unlock()
	var bad []Violation
	seen := map[int64]bool{}
	for _, r := range rows {
		if seen[r.key] {
			bad = append(bad, m.violationLocked(Doubled, r.key, "%s has key %d twice", what, r.key))
		}
		seen[r.key] = true
		i, ok := slices.BinarySearch(v.keys, r.key)
		if !ok {
			bad = append(bad, Violation{Kind: Wrong, Key: r.key, What: fmt.Sprintf("%s has key %d, which it should not", what, r.key)})
			continue
		}
		if allowed, _ := m.allowedLocked(v, i); !slices.Contains(allowed, r.version) {
			bad = append(bad, m.violationLocked(m.kindLocked(r.key, r.version, allowed), r.key, "%s (run %d) sees key %d at version %d, possible were %v", what, run, r.key, r.version, allowed))
		}
	}
	return bad
}

// certain are the rows that a read begun at the mark and ending now must be able
// to see, key to version.
func (m *model) certain(v *mark) map[int64]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[int64]int64{}
	for i, k := range v.keys {
		if allowed, untouched := m.allowedLocked(v, i); untouched && len(allowed) == 1 && allowed[0] != absent {
			out[k] = allowed[0]
		}
	}
	return out
}

// bounds are the least and the most rows that a read begun at the mark and
// ending now may count.
func (m *model) bounds(v *mark) (least, most int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range v.keys {
		allowed, _ := m.allowedLocked(v, i)
		if !slices.Contains(allowed, absent) {
			least++
		}
		if slices.ContainsFunc(allowed, func(x int64) bool { return x != absent }) {
			most++
		}
	}
	return least, most
}

// sure returns a random key that has a row of a known version at the mark.
func (v *mark) sure(r *rand.Rand) (key, version int64, ok bool) {
	for range 20 {
		i := r.IntN(len(v.keys))
		if p := v.possible[i]; v.calm[i] && len(p) == 1 && p[0] != absent {
			return v.keys[i], p[0], true
		}
	}
	return 0, 0, false
}

// kindLocked names what is wrong with a version that is not allowed.
func (m *model) kindLocked(k, version int64, allowed []int64) string {
	switch {
	case version == absent:
		return Lost
	case !slices.Contains(m.mu.keys[k].changes, version):
		return Wrong // nobody has written it
	case len(allowed) == 1 && allowed[0] == absent:
		return Resurrected
	}
	return Wrong
}

func (m *model) violationLocked(kind string, k int64, format string, args ...any) Violation {
	v := Violation{Kind: kind, Key: k, What: fmt.Sprintf(format, args...)}
	for _, c := range m.mu.keys[k].log {
		v.Log = append(v.Log, fmt.Sprintf("%9.3fs run %d %s version %d", c.at.Seconds(), c.run, c.what, c.version))
	}
	return v
}

// about is a violation of a key that the model itself did not find.
func (m *model) about(kind string, k int64, format string, args ...any) Violation {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.violationLocked(kind, k, format, args...)
}

// vague counts keys whose state is not known for sure.
func (m *model) vague() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.mu.keys {
		if len(m.mu.keys[i].possible) > 1 {
			n++
		}
	}
	return n
}
