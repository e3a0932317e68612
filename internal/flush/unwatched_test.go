package flush

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// given assigns rows of a partition; what is returned ends their append.
func (r *road) given(log Log, partition int64, rows int, bytes int64) (id int64, done func()) {
	r.t.Helper()
	id, done, err := r.f.Assign(r.t.Context(), log, 1, partition, rows, bytes)
	must(r.t, err)
	return id, done
}

// sealedInLog reads the log until all ids are sealed, and fails if others are.
func (r *road) sealedInLog(ids ...int64) {
	r.t.Helper()
	reader, err := r.broker.OpenReader(r.t.Context(), "p", mq.ReaderOptions{})
	must(r.t, err)
	defer func() { must(r.t, reader.Close(r.t.Context())) }()
	for len(ids) > 0 {
		m, err := reader.Next(r.t.Context())
		must(r.t, err)
		e, err := wal.Decode(m)
		must(r.t, err)
		if e.Type != wal.Seal {
			continue
		}
		var s qnpb.WalSeal
		must(r.t, proto.Unmarshal(e.Body, &s))
		for _, id := range s.SegmentIds {
			if !slices.Contains(ids, id) {
				r.t.Fatalf("segment %d is sealed, want %v", id, ids)
			}
			ids = slices.DeleteFunc(ids, func(i int64) bool { return i == id })
		}
	}
}

// Nobody here watches the channel, so that nobody has the rows of its segments. What is
// full is sealed all the same: whoever replays the log stores them one after the other.
func TestAFullSegmentIsSealedThoughNobodyWatches(t *testing.T) {
	r := newRoad(t, 1, Options{Interval: 5 * time.Millisecond, SealRows: 10, MaxUnreadBytes: 1000})
	log := r.channels[0].log()
	log.VChannel = "elsewhere"
	full, done := r.given(log, 1, 10, 100)
	open, ended := r.given(log, 1, 1, 100)
	ended()
	if open == full {
		t.Fatal("a full segment takes rows")
	}
	done() // no row may follow its seal
	r.sealedInLog(full)
	// Nobody stores it, and that is not silent.
	for all := r.f.Unstored(); len(all) != 1 || all[0].VChannel != "elsewhere" || all[0].Segments != 1; all = r.f.Unstored() {
		if r.t.Context().Err() != nil {
			t.Fatalf("told is %v", all)
		}
		time.Sleep(time.Millisecond)
	}
	if again, ended := r.given(log, 1, 1, 100); again != open {
		t.Errorf("rows go to segment %d, though %d is open", again, open)
	} else {
		ended()
	}
	// Of small ones in many partitions there is no more than a replay has room for.
	large, ended := r.given(log, 2, 1, 900)
	ended()
	r.sealedInLog(full, large)
}

// A channel of which it is not known yet whether it reads all of its log is nobody's to store, and is
// watched all the same: its log is not one of which nobody has the rows.
func TestNothingIsDoneWithAChannelThatIsNotProven(t *testing.T) {
	var r *road
	var proven atomic.Bool
	r = newRoad(t, 2, Options{Interval: time.Hour, SealRows: 10, Channels: func() []Channel {
		list := slices.Clone(r.channels)
		list[0].Unproven = !proven.Load()
		return list
	}})
	ch, other := r.channels[0], r.channels[1]
	id := r.sealed(ch)
	_, done := r.given(ch.log(), 1, 10, 100)
	done()
	for range 2 { // of the first pass all is under way when the second begins
		r.stored(other, r.sealed(other))
	}
	if told := r.f.Unstored(); ch.IsFlushed(id) || r.underWay(ch.Name()) || len(told) > 0 {
		t.Errorf("stored: %v, a step is under way: %v, told: %v", ch.IsFlushed(id), r.underWay(ch.Name()), told)
	}
	proven.Store(true)
	r.stored(ch, id)
	if told := r.f.Unstored(); len(told) > 0 {
		t.Errorf("told: %v", told)
	}
}

// A channel that is still replaying has not got the rows that are appended meanwhile.
func TestAFullSegmentIsSealedWhileItsChannelReplays(t *testing.T) {
	r := newRoad(t, 1, Options{Interval: 5 * time.Millisecond, SealRows: 10})
	ch := r.channels[0]
	r.logged(ch) // of an earlier run, and not applied
	full, done := r.given(ch.log(), 1, 10, 100)
	done()
	r.sealedInLog(full)
	if at := ch.Tsafe(); at != 1 {
		t.Fatalf("the channel has got to %d", at)
	}
}

// The collection of a log is dropped while a step on the log is under way, which fails then.
func TestAFailureOfWhatWasDroppedIsNotKept(t *testing.T) {
	var r *road
	log := Log{PChannel: "q", VChannel: "dropped", CollectionID: 1}
	asked, failed := 0, make(chan struct{})
	r = newRoad(t, 1, Options{Interval: 5 * time.Millisecond, SealRows: 10, WAL: func(pchannel string) (*wal.WAL, error) {
		if pchannel != log.PChannel {
			return r.w, nil
		}
		if asked++; asked == 2 { // its seal is to be written
			r.f.Drop(log.VChannel)
			close(failed)
			return nil, errclass.New(errclass.Retryable, "the log is somewhere else")
		}
		return r.w, nil
	}})
	_, done := r.given(log, 1, 10, 100)
	done()
	<-failed
	eventually(t, "the step ends", func() bool { return !r.underWay(log.VChannel) })
	if all := r.f.Failures(); len(all) > 0 {
		t.Errorf("a failure that nobody takes back: %+v", all)
	}
}

func (r *road) underWay(vchannel string) bool {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.mu.steps[vchannel] != nil
}

// What an assigner remembers of channels ends with what it is needed for.
func TestNothingIsRememberedForEver(t *testing.T) {
	r := newRoad(t, 1, Options{Interval: 5 * time.Millisecond, SealRows: 10})
	left := func(vchannel string) (n int) {
		a := r.f.assigner
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, s := range a.mu.sealed {
			if s.vchannel == vchannel {
				n++
			}
		}
		if _, there := a.mu.terms[vchannel]; there && vchannel != r.channels[0].Name() {
			n++
		}
		return n
	}
	gone := func(vchannel string) {
		t.Helper()
		eventually(t, "nothing is remembered of "+vchannel, func() bool { return left(vchannel) == 0 })
	}
	// An append that was on its way when the collection was dropped.
	dropped := Log{PChannel: "p", VChannel: "dropped", CollectionID: 1}
	r.f.Drop(dropped.VChannel)
	late, done := r.given(dropped, 1, 10, 100)
	done()
	gone(dropped.VChannel)
	// A segment without rows: its append was refused. It will never be in the catalog.
	ch := r.channels[0]
	ch.Advance(r.logged(ch))
	id, done := r.given(ch.log(), 1, 10, 100)
	done()
	r.sealedInLog(late, id)
	ch.Advance(r.logged(ch))
	gone(ch.Name())
}
