package flush

import (
	"maps"
	"slices"
	"time"
)

// Unstored is a vchannel with segments that are sealed and that nobody stores: this node
// owns the log, so that no other does, and does not watch the vchannel, so that it has
// not got their rows. The log keeps them, and all behind them.
type Unstored struct {
	VChannel string
	PChannel string
	Segments int
	Since    time.Time
}

// unstored is one, and when the log was told of it.
type unstored struct {
	Unstored
	told time.Time
}

// notStored notes that segments were sealed on a vchannel that nobody watches here.
func (f *Flusher) notStored(log Log, segments int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.mu.unstored[log.VChannel]
	if u == nil {
		u = &unstored{Unstored: Unstored{VChannel: log.VChannel, PChannel: log.PChannel, Since: time.Now()}}
		f.mu.unstored[log.VChannel] = u
	}
	u.Segments += segments
}

// tellUnstored forgets those that are watched by now, or of a log that is not this node's
// any more, and tells the log of the others now and then.
func (f *Flusher) tellUnstored(watched map[string]bool) {
	f.mu.Lock()
	all := slices.Collect(maps.Values(f.mu.unstored))
	f.mu.Unlock()
	for _, u := range all {
		_, err := f.o.WAL(u.PChannel)
		f.mu.Lock()
		if watched[u.VChannel] || err != nil {
			delete(f.mu.unstored, u.VChannel)
		} else if now := time.Now(); now.Sub(u.told) >= repeat {
			u.told = now
			f.o.Logger.Warn("flush: segments are sealed and not stored, as this node owns their log and does not watch their channel; the log keeps them. Load the collection on this node, or assign the log to the one that serves it",
				"vchannel", u.VChannel, "segments", u.Segments, "since", u.Since)
		}
		f.mu.Unlock()
	}
}

// Live says which vchannels there are: of others nothing is to be stored.
func (f *Flusher) Live(vchannels map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.mu.unstored, func(name string, _ *unstored) bool { return !vchannels[name] })
}

// Unstored lists the vchannels with sealed segments that nobody stores, by name.
func (f *Flusher) Unstored() (all []Unstored) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.mu.unstored)) {
		all = append(all, f.mu.unstored[name].Unstored)
	}
	return all
}
