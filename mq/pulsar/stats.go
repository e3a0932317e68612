package pulsar

import "sync/atomic"

// counters behind Stats.
type counters struct {
	entries, messages, bytes, claims, fenced, unknown atomic.Uint64
	rereads, duplicates, void, foreign, corrupt, gaps atomic.Uint64
	timeSearches, timeProbes, readerErrors, retries   atomic.Uint64
}

// Stats counts since Open.
type Stats struct {
	Producers, Readers int      // open now
	Calls              []string // of the client that have not returned, and goroutines; sorted

	Entries    uint64 // stored by producers of this queue
	Messages   uint64 // in them
	Bytes      uint64 // their size before compression
	Claims     uint64 // topics taken
	Fenced     uint64 // producers that lost their topic
	Unknown    uint64 // appends whose outcome is unknown
	Rereads    uint64 // times a producer had to read what came between two of its entries
	Duplicates uint64 // entries met that were sent twice
	Void       uint64 // entries met of writers without the topic
	Foreign    uint64 // entries met that are not of this package
	Corrupt    uint64 // *mq.CorruptError given to readers
	Gaps       uint64 // holes met in what the client delivered
	ReadErrors uint64 // errors of the connection given to readers
	Retries    uint64 // calls tried again because the broker was not ready

	TimeSearches uint64 // readers that were opened at a timestamp in the past
	TimeProbes   uint64 // entries that were looked at for them
}

// Stats returns the counters and what is open.
func (q *Queue) Stats() Stats {
	c := &q.count
	s := Stats{
		Calls:   q.group.Running(),
		Entries: c.entries.Load(), Messages: c.messages.Load(), Bytes: c.bytes.Load(), Claims: c.claims.Load(),
		Fenced: c.fenced.Load(), Unknown: c.unknown.Load(), Rereads: c.rereads.Load(), Duplicates: c.duplicates.Load(),
		Void: c.void.Load(), Foreign: c.foreign.Load(), Corrupt: c.corrupt.Load(), Gaps: c.gaps.Load(),
		ReadErrors: c.readerErrors.Load(), Retries: c.retries.Load(), TimeSearches: c.timeSearches.Load(), TimeProbes: c.timeProbes.Load(),
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for h := range q.mu.handles {
		if _, ok := h.(*producer); ok {
			s.Producers++
		} else {
			s.Readers++
		}
	}
	return s
}
