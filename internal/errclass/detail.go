package errclass

import "github.com/cockroachdb/errors"

// Detail is a stable word that tells apart errors of one class: what is missing, what is
// there already, of what there is no room. Clients choose by it what they advise; the
// text is for people, and may change. The zero Detail says nothing.
type Detail string

// The details. With NotFound, Exists, Invalid and Corrupt: of what.
const (
	Collection Detail = "collection"
	Partition  Detail = "partition"
	Field      Detail = "field"
	Index      Detail = "index"
	Alias      Detail = "alias"
	Segment    Detail = "segment"
	Channel    Detail = "channel"
)

// Others.
const (
	// Indexed: the field has an index already.
	Indexed Detail = "indexed"
	// NoKey: the schema has no primary key.
	NoKey Detail = "no_primary_key"
	// NoVector: the schema has no vector field.
	NoVector Detail = "no_vector_field"
	// NotLoaded: the node has not been told to serve the collection.
	NotLoaded Detail = "not_loaded"
	// Partial: the read would be answered without what is missing if it allowed that.
	Partial Detail = "partial"
	// Memory: there is none.
	Memory Detail = "memory"
	// DiskLimit: disk.limit is used up.
	DiskLimit Detail = "disk_limit"
	// QueueLimit: disk.queue_limit is used up.
	QueueLimit Detail = "queue_limit"
	// DiskFull: the disk itself is.
	DiskFull Detail = "disk_full"
	// Limit: a number that no retry changes has been reached.
	Limit Detail = "limit"
)

type detailed struct {
	error
	detail Detail
}

func (d *detailed) Unwrap() error { return d.error }

// With returns err with a detail; its class stays, nil stays nil. The outermost counts.
func With(err error, d Detail) error {
	if err == nil {
		return nil
	}
	return &detailed{error: err, detail: d}
}

// DetailOf returns the detail of err: the outermost, or none.
func DetailOf(err error) Detail {
	var d *detailed
	if errors.As(err, &d) {
		return d.detail
	}
	return ""
}
