package mqtest

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// DefaultMaxPayloadBytes is the payload limit of a Memory queue whose options leave it 0.
const DefaultMaxPayloadBytes = 5 << 20

// Hooks make a Memory queue fail or hang. Each is called without any lock held,
// before the real work, with the caller's context; it may block until that ends.
// What it returns is returned to the caller, wrapped, and the work is not done.
// A nil hook does nothing.
type Hooks struct {
	BeforeOpenProducer func(ctx context.Context, topic string, o mq.ProducerOptions) error
	BeforeOpenReader   func(ctx context.Context, topic string, o mq.ReaderOptions) error
	// BeforeAppend that returns an mq.ErrUnknownOutcome makes the producer
	// refuse what follows, as a real one does.
	BeforeAppend func(ctx context.Context, topic string, msgs []mq.Message) error
	// AfterAppend is called when the messages are stored but not yet
	// acknowledged; its error becomes mq.ErrUnknownOutcome.
	AfterAppend func(ctx context.Context, topic string, at []mq.Position) error
	// BeforeNext is called once at the start of each Next; its context also
	// ends when the reader is closed.
	BeforeNext   func(ctx context.Context, topic string) error
	BeforeBounds func(ctx context.Context, topic string) error
	BeforeTrim   func(ctx context.Context, topic string, pos mq.Position) error
	// BeforeClose is called by Close of a producer ("producer <topic>/<name>")
	// and of a reader ("reader <topic>/<name>"). On its error the broker goes on
	// listing it: OpenProducers and OpenReaders show the leak; a later Close tries again.
	BeforeClose func(ctx context.Context, what string) error
}

// MemoryOptions configure NewMemory and NewBroker. The zero value is ready to use.
type MemoryOptions struct {
	// MaxPayloadBytes bounds Message.Payload. 0 = DefaultMaxPayloadBytes.
	MaxPayloadBytes int
	// Hooks to start with; SetHooks changes them later.
	Hooks Hooks
}

// Broker is the part of a Memory queue that outlives a connection: topics,
// terms, messages, and the lists of open producers and readers. It starts no
// goroutine and no timer, so it works in a testing/synctest bubble.
type Broker struct {
	maxPayload int

	mu struct {
		sync.Mutex
		hooks   Hooks
		topics  map[string]*memTopic
		handles map[memHandle]string // every open producer and reader -> what it is
	}
}

// memTopic is guarded by Broker.mu.
type memTopic struct {
	name    string
	term    uint64
	owner   *memProducer // nil when nobody writes
	msgs    []memMessage
	base    uint64        // sequence number of msgs[0]
	changed chan struct{} // closed and replaced when messages come or go
}

type memMessage struct {
	mq.Message
	corrupt bool
}

type memHandle interface {
	Close(ctx context.Context) error
}

// NewBroker returns an empty broker. It needs no closing.
func NewBroker(o MemoryOptions) *Broker {
	b := &Broker{maxPayload: o.MaxPayloadBytes}
	if b.maxPayload == 0 {
		b.maxPayload = DefaultMaxPayloadBytes
	}
	b.mu.hooks = o.Hooks
	b.mu.topics = map[string]*memTopic{}
	b.mu.handles = map[memHandle]string{}
	return b
}

// Connect returns a new connection, as another process would have one.
func (b *Broker) Connect() *Memory { return &Memory{Broker: b} }

// MaxPayloadBytes is what the options of the broker say.
func (b *Broker) MaxPayloadBytes() int { return b.maxPayload }

// SetHooks replaces the hooks; calls that are inside an old hook stay there.
func (b *Broker) SetHooks(h Hooks) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.hooks = h
}

func (b *Broker) hooks() Hooks {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.hooks
}

// OpenProducers lists the producers that the broker knows, sorted, as
// "producer <topic>/<name>". A fenced producer is listed until it is closed.
func (b *Broker) OpenProducers() []string { return b.open("producer ") }

// OpenReaders lists the readers that the broker knows, sorted, as "reader <topic>/<name>".
func (b *Broker) OpenReaders() []string { return b.open("reader ") }

func (b *Broker) open(prefix string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	names := []string{}
	for _, what := range b.mu.handles {
		if strings.HasPrefix(what, prefix) {
			names = append(names, what)
		}
	}
	slices.Sort(names)
	return names
}

// Messages returns a copy of what topic holds, oldest first.
func (b *Broker) Messages(topic string) []mq.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topicLocked(topic)
	out := make([]mq.Message, len(t.msgs))
	for i, m := range t.msgs {
		out[i] = cloneMessage(m.Message)
	}
	return out
}

// Corrupt makes readers get a *mq.CorruptError instead of the message at pos.
// It reports whether the topic holds that message.
func (b *Broker) Corrupt(topic string, pos mq.Position) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topicLocked(topic)
	i := decodeSeq(pos.ID) - t.base
	if i >= uint64(len(t.msgs)) {
		return false
	}
	t.msgs[i].corrupt = true
	return true
}

func (b *Broker) topicLocked(name string) *memTopic {
	t := b.mu.topics[name]
	if t == nil {
		t = &memTopic{name: name, base: 1, changed: make(chan struct{})}
		b.mu.topics[name] = t
	}
	return t
}

func (t *memTopic) next() uint64 { return t.base + uint64(len(t.msgs)) }

func (t *memTopic) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Memory is one connection to a Broker. It implements mq.Queue; data lives as
// long as the Broker. Its positions are 8-byte big-endian sequence numbers and
// Trim drops exactly what it may.
//
// Lock order: Memory.mu before Broker.mu; hooks run under neither.
type Memory struct {
	*Broker

	mu struct {
		sync.Mutex
		closed bool
		mine   []memHandle
	}
}

var _ mq.Queue = (*Memory)(nil)

// NewMemory returns a connection to a broker of its own.
func NewMemory(o MemoryOptions) *Memory { return NewBroker(o).Connect() }

func (q *Memory) check(ctx context.Context, what, topic string) error {
	q.mu.Lock()
	closed := q.mu.closed
	q.mu.Unlock()
	switch {
	case closed:
		return errors.Wrapf(mq.ErrClosed, "%s %s", what, topic)
	case topic == "":
		return errclass.New(errclass.Invalid, "%s: the topic has no name", what)
	case ctx.Err() != nil:
		return errors.Wrapf(ctx.Err(), "%s %s", what, topic)
	}
	return nil
}

// adopt puts h on the lists, unless the queue has been closed meanwhile.
func (q *Memory) adopt(h memHandle, what string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed {
		return errors.Wrapf(mq.ErrClosed, "open %s", what)
	}
	q.mu.mine = append(q.mu.mine, h)
	q.Broker.mu.Lock()
	defer q.Broker.mu.Unlock()
	q.Broker.mu.handles[h] = what
	return nil
}

func (q *Memory) forget(h memHandle) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.mine = slices.DeleteFunc(q.mu.mine, func(o memHandle) bool { return o == h })
	q.Broker.mu.Lock()
	defer q.Broker.mu.Unlock()
	delete(q.Broker.mu.handles, h)
}

// OpenProducer implements mq.Queue.
func (q *Memory) OpenProducer(ctx context.Context, topic string, o mq.ProducerOptions) (mq.Producer, error) {
	if err := q.check(ctx, "open producer", topic); err != nil {
		return nil, err
	}
	if h := q.hooks().BeforeOpenProducer; h != nil {
		if err := h(ctx, topic, o); err != nil {
			return nil, errors.Wrapf(err, "open producer %s", topic)
		}
	}
	if o.Name == "" {
		o.Name = "producer"
	}
	p := &memProducer{q: q, what: "producer " + topic + "/" + o.Name}
	if err := p.take(topic, o.Term); err != nil {
		return nil, err
	}
	if err := q.adopt(p, p.what); err != nil {
		p.letGo()
		return nil, err
	}
	return p, nil
}

// OpenReader implements mq.Queue.
func (q *Memory) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	if err := q.check(ctx, "open reader", topic); err != nil {
		return nil, err
	}
	if err := checkReaderOptions(o); err != nil {
		return nil, errors.Wrapf(err, "open reader %s", topic)
	}
	if h := q.hooks().BeforeOpenReader; h != nil {
		if err := h(ctx, topic, o); err != nil {
			return nil, errors.Wrapf(err, "open reader %s", topic)
		}
	}
	if o.Name == "" {
		o.Name = "reader"
	}
	r := &memReader{q: q, what: "reader " + topic + "/" + o.Name}
	if err := r.seek(topic, o); err != nil {
		return nil, errors.Wrapf(err, "open reader %s from %s", topic, o.From)
	}
	r.closing, r.wake = context.WithCancel(context.Background())
	if err := q.adopt(r, r.what); err != nil {
		return nil, err
	}
	return r, nil
}

func checkReaderOptions(o mq.ReaderOptions) error {
	starts := 0
	for _, set := range []bool{!o.From.IsZero(), o.FromTimestamp != 0, o.Latest} {
		if set {
			starts++
		}
	}
	if starts > 1 {
		return errclass.New(errclass.Invalid, "From, FromTimestamp and Latest exclude one another")
	}
	if !o.From.IsZero() && len(o.From.ID) != 8 {
		return errclass.New(errclass.Invalid, "position %s is not of this queue", o.From)
	}
	return nil
}

// Bounds implements mq.Queue.
func (q *Memory) Bounds(ctx context.Context, topic string) (mq.Bounds, error) {
	if err := q.check(ctx, "bounds", topic); err != nil {
		return mq.Bounds{}, err
	}
	if h := q.hooks().BeforeBounds; h != nil {
		if err := h(ctx, topic); err != nil {
			return mq.Bounds{}, errors.Wrapf(err, "bounds %s", topic)
		}
	}
	q.Broker.mu.Lock()
	defer q.Broker.mu.Unlock()
	t := q.topicLocked(topic)
	if len(t.msgs) == 0 {
		return mq.Bounds{}, nil
	}
	return mq.Bounds{First: t.msgs[0].Position, Last: t.msgs[len(t.msgs)-1].Position}, nil
}

// Trim implements mq.Queue. A position after the end is refused with
// mq.ErrAhead: whoever asks for it knows another topic than this one.
func (q *Memory) Trim(ctx context.Context, topic string, pos mq.Position) error {
	if err := q.check(ctx, "trim", topic); err != nil {
		return err
	}
	if h := q.hooks().BeforeTrim; h != nil {
		if err := h(ctx, topic, pos); err != nil {
			return errors.Wrapf(err, "trim %s to %s", topic, pos)
		}
	}
	if pos.IsZero() {
		return nil
	}
	if len(pos.ID) != 8 {
		return errclass.New(errclass.Invalid, "trim %s: position %s is not of this queue", topic, pos)
	}
	q.Broker.mu.Lock()
	defer q.Broker.mu.Unlock()
	t := q.topicLocked(topic)
	seq := decodeSeq(pos.ID)
	if seq >= t.next() {
		return errors.Wrapf(mq.ErrAhead, "trim %s to %s", topic, pos)
	}
	if seq > t.base {
		t.msgs = slices.Clone(t.msgs[seq-t.base:])
		t.base = seq
		t.wake()
	}
	return nil
}

// Close implements mq.Queue: it closes what this connection still has open.
func (q *Memory) Close(ctx context.Context) error {
	q.mu.Lock()
	q.mu.closed = true
	mine := slices.Clone(q.mu.mine)
	q.mu.Unlock()
	var stuck []string
	for _, h := range mine {
		if err := h.Close(ctx); err != nil {
			q.Broker.mu.Lock()
			stuck = append(stuck, q.Broker.mu.handles[h])
			q.Broker.mu.Unlock()
		}
	}
	if len(stuck) == 0 {
		return nil
	}
	slices.Sort(stuck)
	return errclass.New(errclass.Closed, "close queue: not closed: %q", stuck)
}

func encodeSeq(n uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return string(b[:])
}

func decodeSeq(id string) uint64 {
	if len(id) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64([]byte(id))
}

func cloneMessage(m mq.Message) mq.Message {
	m.Payload = slices.Clone(m.Payload)
	return m
}
