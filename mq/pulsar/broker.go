package pulsar

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/apache/pulsar-client-go/pulsar"
	plog "github.com/apache/pulsar-client-go/pulsar/log"
	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// brokerDriver is the driver over pulsar-client-go. None of the client's calls
// can be trusted to return in time (CreateReader and Close know no context and
// wait for a frozen broker; SendAsync waits for room), so that each runs in a
// goroutine of the group.
type brokerDriver struct {
	o      *Options
	g      *lifecycle.Group
	client pulsar.Client
	closer closer
	said   trouble

	mu struct {
		sync.Mutex
		usable    map[string]bool // topics known to be no partitioned ones
		protected map[string]bool // topics whose subscription exists
	}
}

func newBrokerDriver(o *Options, g *lifecycle.Group) (*brokerDriver, error) {
	d := &brokerDriver{o: o, g: g}
	co := pulsar.ClientOptions{
		URL:                        o.URL,
		ConnectionTimeout:          o.OperationTimeout,
		OperationTimeout:           o.OperationTimeout,
		KeepAliveInterval:          o.KeepAlive,
		TLSTrustCertsFilePath:      o.TLS.CAFile,
		TLSCertificateFile:         o.TLS.CertFile,
		TLSKeyFilePath:             o.TLS.KeyFile,
		TLSAllowInsecureConnection: o.TLS.InsecureSkipVerify,
		TLSValidateHostname:        !o.TLS.InsecureSkipVerify,
		MemoryLimitBytes:           max(defaultMemory, 4*int64(o.MaxEntryBytes)),
		MetricsRegisterer:          o.Registerer,
		Logger:                     plog.NewLoggerWithSlog(clientLogger(o.Logger, &d.said)),
	}
	switch {
	case o.Token != "":
		co.Authentication = pulsar.NewAuthenticationToken(o.Token)
	case o.TokenFile != "":
		co.Authentication = pulsar.NewAuthenticationTokenFromFile(o.TokenFile)
	case o.TLS.CertFile != "":
		co.Authentication = pulsar.NewAuthenticationTLS(o.TLS.CertFile, o.TLS.KeyFile)
	}
	client, err := pulsar.NewClient(co)
	if err != nil {
		return nil, errclass.Wrap(err, errclass.Invalid, "pulsar client for %s", o.URL)
	}
	d.client = client
	d.closer = closer{g: g, name: "close client of " + o.URL, fn: client.Close}
	d.mu.usable, d.mu.protected = map[string]bool{}, map[string]bool{}
	return d, nil
}

// check refuses partitioned topics, whose positions have no order. A broker can
// be told to create topics with partitions by itself.
func (d *brokerDriver) check(ctx context.Context, topic string) error {
	if d.known(d.mu.usable, topic) {
		return nil
	}
	began := time.Now()
	parts, err := call(ctx, d.g, "partitions of "+topic, func() ([]string, error) { return d.client.TopicPartitions(topic) }, nil)
	if err != nil {
		return classify(err, d.said.since(began))
	}
	if len(parts) != 1 || parts[0] != topic {
		return errclass.New(errclass.Invalid, "topic %s has partitions: delete it, or set allowAutoTopicCreationType=non-partitioned at the broker", topic)
	}
	d.learn(d.mu.usable, topic)
	return nil
}

func (d *brokerDriver) known(set map[string]bool, topic string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return set[topic]
}

func (d *brokerDriver) learn(set map[string]bool, topic string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	set[topic] = true
}

// reader opens a reader of the client: not durable, so that it ends at the broker
// with its connection, under a name that nobody else has.
func (d *brokerDriver) reader(ctx context.Context, topic string, from pulsar.MessageID) (pulsar.Reader, *closer, error) {
	if err := d.check(ctx, topic); err != nil {
		return nil, nil, err
	}
	name := fmt.Sprintf("%s-reader-%016x", subscriptionName, newNonce())
	r, err := call(ctx, d.g, "open reader of "+topic, func() (pulsar.Reader, error) {
		return d.client.CreateReader(pulsar.ReaderOptions{
			Topic: topic, Name: name, SubscriptionName: name,
			StartMessageID: from,
			// "Inclusive" of the latest message is a seek to the client, and one that
			// dies before it has subscribed again leaves its cursor at the broker.
			StartMessageIDInclusive: from != pulsar.LatestMessageID(),
			ReceiverQueueSize:       d.o.receiverEntries(),
		})
	}, pulsar.Reader.Close)
	if err != nil {
		return nil, nil, classify(err, "")
	}
	return r, d.closing("close reader of "+topic, r.Close), nil
}

func (d *brokerDriver) last(ctx context.Context, topic string) (entryID, error) {
	r, c, err := d.reader(ctx, topic, pulsar.LatestMessageID())
	if err != nil {
		return none(), err
	}
	defer c.start() // nobody waits for it
	id, err := call(ctx, d.g, "last message id of "+topic, r.GetLastMessageID, nil)
	if err != nil {
		return none(), classify(err, "")
	}
	return entryOf(id), nil
}

// entryOf is none for the ids that mean "no message", -1:-1 and ledger:-1.
func entryOf(id pulsar.MessageID) entryID {
	if id == nil || id.LedgerID() < 0 || id.EntryID() < 0 {
		return none()
	}
	return entryID{id.LedgerID(), id.EntryID()}
}

func (d *brokerDriver) read(ctx context.Context, topic string, from entryID) (cursor, error) {
	id := pulsar.EarliestMessageID()
	if !from.isNone() {
		id = pulsar.NewMessageID(from.ledger, max(from.entry, 0), -1, 0)
	}
	r, c, err := d.reader(ctx, topic, id)
	if err != nil {
		return nil, err
	}
	return &brokerCursor{r, c}, nil
}

type brokerCursor struct {
	r pulsar.Reader
	c *closer
}

func (b *brokerCursor) next(ctx context.Context) (raw, error) {
	m, err := b.r.Next(ctx) // waits in a select with ctx; its acknowledgement only joins a list
	if err != nil {
		if ctx.Err() != nil {
			return raw{}, ctx.Err()
		}
		return raw{}, classify(err, "")
	}
	return raw{entryOf(m.ID()), m.Payload()}, nil
}

func (b *brokerCursor) close(ctx context.Context) error { return b.c.close(ctx) }

func (d *brokerDriver) write(ctx context.Context, topic, name string) (sender, error) {
	if err := d.check(ctx, topic); err != nil {
		return nil, err
	}
	p, err := call(ctx, d.g, "open producer of "+topic, func() (pulsar.Producer, error) {
		return d.client.CreateProducer(pulsar.ProducerOptions{
			Topic: topic,
			Name:  fmt.Sprintf("%s-%016x", name, newNonce()),
			// An entry is a batch already, and only single messages have a
			// sequence id each.
			DisableBatching:    true,
			MaxPendingMessages: 4,
			CompressionType:    d.compression(),
			// Deadlines are kept by who waits. With a timeout each closed
			// producer of the client leaves a goroutine until it is over.
			SendTimeout:                     -1,
			PartitionsAutoDiscoveryInterval: time.Hour,
		})
	}, pulsar.Producer.Close)
	if err != nil {
		return nil, classify(err, "")
	}
	return &brokerSender{p, d.g, topic, d.closing("close producer of "+topic, p.Close)}, nil
}

func (d *brokerDriver) compression() pulsar.CompressionType {
	switch d.o.Compression {
	case CompressLZ4:
		return pulsar.LZ4
	case CompressZstd:
		return pulsar.ZSTD
	}
	return pulsar.NoCompression
}

type brokerSender struct {
	p     pulsar.Producer
	g     *lifecycle.Group
	topic string
	c     *closer
}

func (b *brokerSender) send(ctx context.Context, payload []byte) (entryID, error) {
	id, err := call(ctx, b.g, "send to "+b.topic, func() (pulsar.MessageID, error) {
		return b.p.Send(ctx, &pulsar.ProducerMessage{Payload: payload})
	}, nil)
	if errors.Is(err, pulsar.ErrMessageTooLarge) {
		return none(), errclass.Wrap(err, errclass.Invalid, "an entry of %d bytes", len(payload))
	}
	if err != nil {
		return none(), classify(err, "")
	}
	return entryOf(id), nil
}

func (b *brokerSender) close(ctx context.Context) error { return b.c.close(ctx) }

// subscribe attaches to the one durable subscription of the topic. Failover lets
// several do so at once, and acknowledge.
func (d *brokerDriver) subscribe(ctx context.Context, topic string) (pulsar.Consumer, *closer, error) {
	if err := d.check(ctx, topic); err != nil {
		return nil, nil, err
	}
	c, err := call(ctx, d.g, "subscribe to "+topic, func() (pulsar.Consumer, error) {
		return d.client.Subscribe(pulsar.ConsumerOptions{
			Topic: topic, SubscriptionName: subscriptionName, Type: pulsar.Failover,
			Name:                        fmt.Sprintf("%s-%016x", subscriptionName, newNonce()),
			SubscriptionInitialPosition: pulsar.SubscriptionPositionEarliest,
			ReceiverQueueSize:           1, // nothing is consumed
			AckWithResponse:             true,
		})
	}, pulsar.Consumer.Close)
	if err != nil {
		return nil, nil, classify(err, "")
	}
	return c, d.closing("close subscription of "+topic, c.Close), nil
}

// protect creates the subscription. Its cursor keeps the broker from deleting
// entries behind it, whatever the retention, and the topic as an inactive one.
func (d *brokerDriver) protect(ctx context.Context, topic string) error {
	if d.known(d.mu.protected, topic) {
		return nil
	}
	_, c, err := d.subscribe(ctx, topic)
	if err != nil {
		return err
	}
	c.start()
	d.learn(d.mu.protected, topic)
	return nil
}

// release moves the subscription's cursor.
func (d *brokerDriver) release(ctx context.Context, topic string, upTo entryID) error {
	s, c, err := d.subscribe(ctx, topic)
	if err != nil {
		return err
	}
	err = do(ctx, d.g, "release "+topic, func() error {
		return s.AckIDCumulative(pulsar.NewMessageID(upTo.ledger, upTo.entry, -1, 0))
	})
	c.start()
	return classify(err, "")
}

func (d *brokerDriver) close(ctx context.Context) error { return d.closer.close(ctx) }

// closer closes something of the client once, in a goroutine that the group
// names while it lasts.
type closer struct {
	g    *lifecycle.Group
	name string
	fn   func()
	// patience bounds the wait for the broker's answer; 0 = only the context does.
	patience time.Duration
	log      *slog.Logger // not nil if patience is not 0

	once sync.Once
	done chan struct{}
}

// start begins to close and does not wait.
func (c *closer) start() {
	c.once.Do(func() {
		c.done = make(chan struct{})
		err := c.g.Go(c.name, func(context.Context) error {
			defer close(c.done)
			c.fn()
			return nil
		})
		if err != nil { // the group is at its end: the client has been closed, and this with it
			close(c.done)
		}
	})
}

// closing closes a part of the connection. Who used it has nothing to wait for
// but the broker's word, which may take the client's OperationTimeout: after a
// moment that wait is left to the queue, whose Close names what has not ended.
func (d *brokerDriver) closing(name string, fn func()) *closer {
	return &closer{g: d.g, name: name, fn: fn, patience: closePatience, log: d.o.Logger}
}

// close waits until ctx ends or patience does.
func (c *closer) close(ctx context.Context) error {
	c.start()
	select {
	case <-c.done:
		return nil
	default:
	}
	var enough <-chan time.Time
	if c.patience > 0 {
		t := time.NewTimer(c.patience)
		defer t.Stop()
		enough = t.C
	}
	select {
	case <-c.done:
		return nil
	case <-enough:
		c.log.Warn("the broker does not answer a close; the queue waits for it", "call", c.name)
		return nil
	case <-ctx.Done():
		return errors.Wrapf(ctx.Err(), "%s", c.name)
	}
}

// classify gives an error of the client the class that callers branch on. What
// the broker says arrives as text; said is what the client has logged meanwhile.
func classify(err error, said string) error {
	if err == nil || errclass.Of(err) != errclass.Internal && said == "" {
		return err
	}
	if said != "" {
		err = errors.Wrapf(err, "the client says %q", said)
	}
	var pe *pulsar.Error
	if errors.As(err, &pe) {
		switch pe.Result() {
		case pulsar.AuthenticationError, pulsar.AuthorizationError, pulsar.ErrorGettingAuthenticationData:
			return errclass.Mark(err, errclass.Denied)
		case pulsar.InvalidConfiguration, pulsar.InvalidTopicName, pulsar.InvalidURL:
			return errclass.Mark(err, errclass.Invalid)
		}
	}
	for _, word := range []string{"AuthorizationError", "AuthenticationError", "Unable to authenticate", "Failed to authenticate"} {
		if strings.Contains(err.Error(), word) {
			return errclass.Mark(err, errclass.Denied)
		}
	}
	if saysNotReady(err) {
		err = errors.Mark(err, errNotReady)
	}
	return errclass.Mark(err, errclass.Retryable)
}
