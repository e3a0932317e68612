// Package ingest turns messages of the queue into changes of segments. It is the
// only place that knows both.
package ingest

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/cockroachdb/errors"
	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

// Options configure a Sink. The zero value works.
type Options struct {
	// Refresh is called when rows come that were written with a newer schema than
	// the collection has here: it brings the collection up to date, or returns an
	// error that may be retried. Nil = such rows are set aside.
	Refresh func(ctx context.Context, collectionID int64) error
	// OnDropCollection is called when the log says that the collection is gone. Nil = ignored.
	OnDropCollection func(collectionID int64)
	// OnQuarantine is called for each message that was set aside. Nil = only counted and logged.
	OnQuarantine func(vchannel string, at mq.Position, err error)
	// Logger gets one line per message set aside. Nil = discard.
	Logger *slog.Logger
}

// Sink applies the messages of one vchannel to its segments.Channel. A message
// that cannot be read is set aside: counted, logged with its position, skipped.
type Sink struct {
	ch          *segments.Channel
	o           Options
	quarantined atomic.Int64
	applied     atomic.Int64
	rowCount    atomic.Int64
	bytes       atomic.Int64
	first       atomic.Uint64
	waits       atomic.Pointer[error] // why the message that is next is not applied yet; nil = it is not tried again
	done        mq.Position           // of the last message that was counted; of whoever applies
}

// NewSink returns a sink for ch.
func NewSink(ch *segments.Channel, o Options) *Sink {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Sink{ch: ch, o: o}
}

// Quarantined is the number of messages set aside.
func (s *Sink) Quarantined() int64 { return s.quarantined.Load() }

// Waits is why the next message cannot be applied yet: there is no room for its rows. It is tried
// again. nil = nothing is known to be in the way.
func (s *Sink) Waits() error {
	if err := s.waits.Load(); err != nil {
		return *err
	}
	return nil
}

// Counts says what a sink has applied.
type Counts struct {
	Messages int64
	Rows     int64  // of inserts and upserts, those of sealed segments included
	Bytes    int64  // of the messages
	First    uint64 // timestamp of the first message; 0 = none yet
}

// Counts returns what was applied so far.
func (s *Sink) Counts() Counts {
	return Counts{Messages: s.applied.Load(), Rows: s.rowCount.Load(), Bytes: s.bytes.Load(), First: s.first.Load()}
}

// Apply applies messages in order. An error whose class may be retried (Exhausted:
// there was no room for a message; Closed: the channel is not watched any more)
// leaves that message and those after it unapplied: they may be sent again, those
// before them are remembered and not applied twice.
func (s *Sink) Apply(ctx context.Context, msgs []mq.Message) error {
	for i := range msgs {
		if err := ctx.Err(); err != nil {
			return errors.Wrap(err, "apply messages")
		}
		m := &msgs[i]
		again := s.counted(m) // it came before one that could not be applied
		if err := s.apply(ctx, m, again); err != nil {
			if errclass.Of(err).Retry() {
				s.waits.Store(&err)
				return errors.Wrapf(err, "apply message at %s", m.Position)
			}
			if !again {
				s.setAside(m, err)
			}
		}
		s.ch.Advance(segments.Position(at(m)))
		if again {
			continue
		}
		s.waits.Store(nil)
		s.done = m.Position
		s.applied.Add(1)
		s.bytes.Add(int64(len(m.Payload)))
		s.first.CompareAndSwap(0, m.Timestamp)
	}
	return nil
}

// counted reports whether a message was applied, or set aside, before.
func (s *Sink) counted(m *mq.Message) bool {
	return !s.done.IsZero() && !m.Position.IsZero() && !s.done.Before(m.Position)
}

// at is the message's position with its timestamp, whatever the backend filled in.
func at(m *mq.Message) mq.Position {
	return mq.Position{ID: m.Position.ID, Timestamp: m.Timestamp}
}

func (s *Sink) setAside(m *mq.Message, err error) {
	s.quarantined.Add(1)
	s.o.Logger.Error("ingest: message set aside", "vchannel", s.ch.Name(), "position", m.Position.String(), "error", err)
	if s.o.OnQuarantine != nil {
		s.o.OnQuarantine(s.ch.Name(), m.Position, err)
	}
}

func (s *Sink) apply(ctx context.Context, m *mq.Message, again bool) error {
	e, err := wal.Decode(*m)
	if err != nil {
		return err
	}
	pos := segments.Position(at(m))
	switch e.Type {
	case wal.Insert, wal.Upsert:
		return s.rows(ctx, e, pos, again)
	case wal.Delete:
		return s.deletes(e, pos)
	case wal.Seal:
		var body qnpb.WalSeal
		if err := decode(e, &body); err != nil {
			return err
		}
		if err := s.owns(body.GetCollectionId()); err != nil {
			return err
		}
		s.ch.ApplySeal(body.GetSegmentIds(), pos)
	case wal.DropPartition, wal.DropCollection:
		return s.drop(e)
	case wal.TimeTick, wal.Fence:
	default:
		return errclass.New(errclass.Unimplemented, "message type %d is unknown to this version", e.Type)
	}
	return nil
}

func decode(e wal.Entry, into proto.Message) error {
	return errclass.Wrap(proto.Unmarshal(e.Body, into), errclass.Corrupt, "decode %v", e.Type)
}

// owns refuses what is for another collection: ids are never used again, so it
// is a mistake of whoever wrote it.
func (s *Sink) owns(collection int64) error {
	if id := s.ch.Collection().Info().ID; collection != id {
		return errclass.New(errclass.Invalid, "message for collection %d on a channel of collection %d", collection, id)
	}
	return nil
}

func (s *Sink) rows(ctx context.Context, e wal.Entry, at segments.Position, again bool) error {
	var body qnpb.WalRows
	if err := decode(e, &body); err != nil {
		return err
	}
	if err := s.owns(body.GetCollectionId()); err != nil {
		return err
	}
	if err := s.catchUp(ctx, &body); err != nil {
		return err
	}
	b, err := rowpb.ToBatch(int(body.GetRows()), body.GetFields(), s.ch.Collection().Info().Schema)
	if err != nil {
		return err
	}
	err = s.ch.ApplyRows(segments.Rows{
		SegmentID: body.GetSegmentId(), PartitionID: body.GetPartitionId(), Batch: b, Upsert: e.Type == wal.Upsert,
	}, at)
	if err == nil && !again {
		s.rowCount.Add(int64(b.Rows))
	}
	return err
}

// catchUp makes sure that the schema here has every field of the rows: values of
// one that it lacks would be dropped for good.
func (s *Sink) catchUp(ctx context.Context, body *qnpb.WalRows) error {
	older := func() bool { return s.ch.Collection().Info().Schema.Version < body.GetSchemaVersion() }
	if older() && s.o.Refresh != nil {
		if err := s.o.Refresh(ctx, body.GetCollectionId()); err != nil {
			return errors.Wrapf(err, "rows of version %d of the schema", body.GetSchemaVersion())
		}
	}
	if older() {
		return errclass.New(errclass.Invalid, "rows of version %d of the schema, the catalog has %d", body.GetSchemaVersion(), s.ch.Collection().Info().Schema.Version)
	}
	return nil
}

func (s *Sink) deletes(e wal.Entry, at segments.Position) error {
	var body qnpb.WalDelete
	if err := decode(e, &body); err != nil {
		return err
	}
	if err := s.owns(body.GetCollectionId()); err != nil {
		return err
	}
	keys, err := rowpb.FromIDs(body.GetIds(), s.ch.Collection().Info().Schema.Primary())
	if err != nil {
		return err
	}
	s.ch.ApplyDeletes(body.GetPartitionId(), keys, at)
	return nil
}

func (s *Sink) drop(e wal.Entry) error {
	var body qnpb.WalDrop
	if err := decode(e, &body); err != nil {
		return err
	}
	if e.Type == wal.DropPartition {
		s.ch.Collection().DropPartition(body.GetPartitionId())
	} else if s.o.OnDropCollection != nil {
		s.o.OnDropCollection(body.GetCollectionId())
	}
	return nil
}
