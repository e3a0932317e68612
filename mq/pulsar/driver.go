package pulsar

import "context"

// driver is what this package needs of Pulsar: a log of entries for each topic.
// The real one is brokerDriver; tests have one in memory that can also lose
// acknowledgements and store entries twice. Every call returns soon after its
// context has ended, whatever the broker does.
type driver interface {
	// last returns the id of the topic's newest entry, none if it has none.
	last(ctx context.Context, topic string) (entryID, error)
	// read reads from entry from on, from the oldest if that is none. When from
	// is gone it begins, as Pulsar does, with the next there is.
	read(ctx context.Context, topic string, from entryID) (cursor, error)
	// write opens a sender. Several may be open: who may write is decided by fold.
	write(ctx context.Context, topic, name string) (sender, error)
	// protect sees to it that the broker keeps the topic and all its entries.
	protect(ctx context.Context, topic string) error
	// release allows the broker to drop the entries up to and with upTo.
	release(ctx context.Context, topic string, upTo entryID) error
	// close closes the connection, and what is left on it.
	close(ctx context.Context) error
}

// raw is an entry as stored.
type raw struct {
	id      entryID
	payload []byte
}

// cursor reads a log. It may give entries twice after a lost connection.
type cursor interface {
	next(ctx context.Context) (raw, error)
	close(ctx context.Context) error
}

// sender appends to a log. An error of class Invalid means that nothing was
// sent; after any other the entry may be stored, even later.
type sender interface {
	send(ctx context.Context, payload []byte) (entryID, error)
	close(ctx context.Context) error
}
