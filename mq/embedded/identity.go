package embedded

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// identityBytes is how long an identity is before it is written in hex.
const identityBytes = 16

// loadIdentity returns what tells the queue in a folder from all others. It is made
// with the folder, or by the first build that knows of it, and never changed.
func loadIdentity(o *Options) (string, error) {
	path := filepath.Join(o.Dir, "ID")
	data, err := o.fs.readSmall(path, 1<<10)
	if err == nil {
		id := strings.TrimSpace(string(data))
		if raw, err := hex.DecodeString(id); err != nil || len(raw) != identityBytes {
			return "", errclass.New(errclass.Corrupt, "%s is damaged: restore it, or write into it the identity that the catalog has of this queue (in queues/*.json)", path)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", ioError(err, "read %s", path)
	}
	var raw [identityBytes]byte
	_, _ = rand.Read(raw[:]) // never fails
	id := hex.EncodeToString(raw[:])
	return id, ioError(o.fs.writeFile(path, []byte(id+"\n")), "write %s", path)
}

// Identity implements mq.Private: another queue has another one, also the next in the
// same folder if this one was removed.
func (q *Queue) Identity() string { return q.identity }

// End implements mq.Private.
func (q *Queue) End(ctx context.Context, topic string) (mq.Position, error) {
	t, err := q.topic(ctx, topic)
	if err != nil {
		return mq.Position{}, errors.Wrapf(err, "end of %q", topic)
	}
	var end mq.Position
	err = t.do(ctx, func() error {
		if t.next > 1 {
			end = position(t.next-1, t.lastTS)
		}
		return nil
	})
	return end, errors.Wrapf(err, "end of %q", topic)
}

// Begin implements mq.Private.
func (q *Queue) Begin(ctx context.Context, topic string, after mq.Position) error {
	seq, err := decodeSeq(after)
	if err != nil {
		return errors.Wrapf(err, "begin %q", topic)
	}
	t, err := q.topic(ctx, topic)
	if err != nil {
		return errors.Wrapf(err, "begin %q", topic)
	}
	return errors.Wrapf(t.do(ctx, func() error { return t.begin(seq, after.Timestamp) }), "begin %q", topic)
}

// begin makes an empty topic go on with the number after seq.
func (t *topic) begin(seq, ts uint64) error {
	switch {
	case !t.first.IsZero() || t.active != nil:
		return errclass.New(errclass.Conflict, "topic %s in %s has messages of its own", t.name, t.dir)
	case t.next > seq:
		return nil // was done before
	}
	begin, durable := t.meta.Begin, t.meta.Durable
	t.meta.Begin, t.meta.Durable = seq+1, mark{Next: seq + 1, MaxTimestamp: max(t.maxTS, ts), LastTimestamp: ts}
	if err := t.saveMeta(t.meta.Term); err != nil {
		t.meta.Begin, t.meta.Durable = begin, durable
		return err
	}
	t.next, t.maxTS, t.lastTS = seq+1, max(t.maxTS, ts), ts
	t.firstSeq.Store(t.next)
	t.publish(nil)
	return nil
}
