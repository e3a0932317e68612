// Package dispatcher owns every consumer of the message queue on this node and
// hands the messages of each pchannel to the vchannels subscribed on it.
//
// One actor per pchannel makes all decisions; it never does I/O and never
// waits. Each consumer has one goroutine (pump) that opens, reads and closes
// its mq.Reader; each subscription has one goroutine (applier) that calls its
// Sink, and only while there is work. They talk to the actor by channel.
//
//	          Subscribe/Unsubscribe                 Sink.Apply
//	                 |                                  ^
//	mq.Reader        v                                  |
//	   |  pump ---> actor of the pchannel ---> buffer -> applier
//	   |  (inbox)    who reads for whom      (per subscription,
//	 one per         at which place           lazily allocated)
//	 consumer
//
// # Consumers
//
// A consumer is a logical reader with a place (the last position it handed
// out) and the subscriptions attached to it. It is in the register before its
// reader is opened and leaves it after that reader's Close returned. There are
// two kinds:
//
//   - shared, at most one a pchannel: follows the tail and never waits. A
//     subscription whose buffer is full is detached (Lagging). If it is the only
//     one, the consumer itself becomes a catch-up consumer instead.
//   - catch-up, bounded per pchannel and per Manager: reads from an older (or
//     not yet verified) place and waits for its subscriptions' buffers. Those
//     that begin near one another share one. One with a full buffer that holds up
//     others on its consumer, or who wait for a slot, longer than
//     Options.SharePatience is detached too; it waits, without a consumer, until
//     its buffer is half empty, and then for its own.
//
// A new consumer begins as catch-up. When it reaches the newest message it
// becomes the shared one if there is none; else its subscriptions are handed
// over. The agreed position of a hand-over is the place p of the catch-up
// consumer once p >= q, the place of the shared one: both are in the hand of
// the same actor, the subscription takes from the shared consumer only what
// comes after p, so nothing is lost or doubled. A consumer without
// subscriptions is closed at once. The first consumer of a pchannel needs no
// slot under the caps, so a pchannel can always make progress.
//
// # Subscription states
//
//	Subscribing ---> CatchingUp ---> Tailing
//	    |    \____________|_^__________^ |
//	    |                 v |          | v
//	    |                Lagging ------+-+
//	    |                 |
//	    +--------+--------+   (from each of the four)
//	             v
//	          Draining ---> Closed
//	             |
//	    (any) ---+---> Failed
//
// Subscribing: no reader has been opened for it yet. CatchingUp: attached to a
// catch-up consumer. Tailing: attached to the shared consumer. Lagging: not
// keeping up: its buffer overflowed, its sink asks for a retry, or its consumer
// is being rebuilt. Draining: nothing more is delivered, a running Apply may
// end. The one transition function is move in state.go.
//
// # What is promised
//
// Apply sees each message of its vchannel and each broadcast one, in order, at
// least once; exactly once while the Manager lives and Apply returns nil (a
// batch whose Apply failed or panicked is given again). Position moves only
// after Apply returned nil, or when a message that panics was set aside.
package dispatcher
