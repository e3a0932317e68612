package dispatcher

import (
	"context"
	"fmt"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// Sink takes the messages of one subscription.
type Sink interface {
	// Apply applies msgs, which are in order and not empty. It is called by one
	// goroutine at a time. The slice is valid until Apply returns; payloads may
	// be kept but not changed: broadcast ones are shared with other sinks.
	//
	// nil moves the subscription's position over msgs. An error whose class says
	// Retry (Exhausted, Retryable, Closed) gets the same msgs again after a wait.
	// A panic, or an error of class Panicked, gets them again one by one, and
	// the message that does it again is skipped. Any other error ends the
	// subscription as Failed. ctx ends when the subscription is closed and
	// Options.DrainTimeout has passed.
	Apply(ctx context.Context, msgs []mq.Message) error
}

// Subscription says what to deliver where.
type Subscription struct {
	// PChannel is the topic. Required.
	PChannel string
	// VChannel gets the messages whose Key is VChannel, and those without a key. Required.
	VChannel string
	// From is the position last applied: delivery begins right after it. Zero =
	// the oldest message there is.
	From mq.Position
	// Latest begins after the newest message instead; From must be zero.
	Latest bool
	// Sink gets the messages. Required.
	Sink Sink
}

func (s Subscription) validate() error {
	switch {
	case s.PChannel == "" || s.VChannel == "":
		return errclass.New(errclass.Invalid, "subscribe %q on %q: both names are required", s.VChannel, s.PChannel)
	case len(s.VChannel) > mq.MaxKeyBytes:
		return errclass.New(errclass.Invalid, "subscribe: a vchannel of %d bytes, at most %d", len(s.VChannel), mq.MaxKeyBytes)
	case s.Sink == nil:
		return errclass.New(errclass.Invalid, "subscribe %s: no sink", s.VChannel)
	case s.Latest && !s.From.IsZero():
		return errclass.New(errclass.Invalid, "subscribe %s: From and Latest exclude one another", s.VChannel)
	}
	return nil
}

// ID names one registration: a vchannel that is subscribed again gets another.
type ID struct {
	PChannel, VChannel string
	Registration       uint64 // 1, 2, … per Manager
}

// String prints pchannel/vchannel#registration.
func (id ID) String() string {
	return fmt.Sprintf("%s/%s#%d", id.PChannel, id.VChannel, id.Registration)
}

// Handle is the owner's hold on one subscription. It stays valid, and tells how
// it ended, after the subscription is gone.
type Handle struct{ s *subscription }

// State is where the subscription is in its life.
func (h *Handle) State() State { return h.s.state() }

// Info describes the subscription.
func (h *Handle) Info() SubscriptionInfo { return h.s.info(time.Now()) }

// Done is closed once the subscription is Closed or Failed and no Apply runs.
func (h *Handle) Done() <-chan struct{} { return h.s.done }

// Err says why the subscription Failed; nil otherwise.
func (h *Handle) Err() error {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	return h.s.mu.err
}

// Close is Manager.Unsubscribe.
func (h *Handle) Close(ctx context.Context) error { return h.s.m.Unsubscribe(ctx, h) }
