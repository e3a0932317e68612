package pulsar

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// errNotReady marks an answer of a broker that could not do yet what it was
// asked for: it has just started, the topic is on its way to another broker, or
// its storage has no place for a new ledger at the moment.
var errNotReady = errors.New("the broker is not ready")

// passing are the broker's codes for that. TopicFencedException and a bundle
// that moves arrive as ServiceNotReady, too few bookies as PersistenceError.
func passing() []string {
	return []string{"PersistenceError", "ServiceNotReady", "MetadataError", "TooManyRequests"}
}

// saysNotReady recognises these codes in what the client makes of them: the code
// alone for a lookup, else "server error: CODE: text" or "ack response error: …".
func saysNotReady(err error) bool {
	text := errors.UnwrapAll(err).Error()
	text = strings.TrimPrefix(strings.TrimPrefix(text, "server error: "), "ack response error: ")
	for _, code := range passing() {
		if rest, ok := strings.CutPrefix(text, code); ok && (rest == "" || rest[0] == ':') {
			return true
		}
	}
	return false
}

// Pauses between two tries, before jitter.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = time.Second
)

// patient is a driver that asks again while the broker says that it is not
// ready, until the context ends or the time is over. Without it whoever opens a
// topic while its broker restarts fails at once, however long it would wait.
// Sends are not among it: the client sends again by itself.
type patient struct {
	driver
	timeout time.Duration
	retries *atomic.Uint64
}

// insist calls fn until its error is not errNotReady.
func insist[T any](ctx context.Context, p *patient, fn func() (T, error)) (T, error) {
	end := time.Now().Add(p.timeout)
	for pause, tries := firstPause, 1; ; pause, tries = min(2*pause, lastPause), tries+1 {
		v, err := fn()
		if !errors.Is(err, errNotReady) {
			return v, err
		}
		wait := pause/2 + rand.N(pause/2)
		if time.Now().Add(wait).After(end) {
			return v, errors.Wrapf(err, "tried %d times", tries)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			p.retries.Add(1)
		case <-ctx.Done():
			timer.Stop()
			return v, errclass.Wrap(ctx.Err(), errclass.Retryable, "tried %d times, the last: %v", tries, err)
		}
	}
}

func (p *patient) last(ctx context.Context, topic string) (entryID, error) {
	return insist(ctx, p, func() (entryID, error) { return p.driver.last(ctx, topic) })
}

func (p *patient) read(ctx context.Context, topic string, from entryID) (cursor, error) {
	return insist(ctx, p, func() (cursor, error) { return p.driver.read(ctx, topic, from) })
}

func (p *patient) write(ctx context.Context, topic, name string) (sender, error) {
	return insist(ctx, p, func() (sender, error) { return p.driver.write(ctx, topic, name) })
}

func (p *patient) protect(ctx context.Context, topic string) error {
	_, err := insist(ctx, p, func() (struct{}, error) { return struct{}{}, p.driver.protect(ctx, topic) })
	return err
}

func (p *patient) release(ctx context.Context, topic string, upTo entryID) error {
	_, err := insist(ctx, p, func() (struct{}, error) { return struct{}{}, p.driver.release(ctx, topic, upTo) })
	return err
}
