package node

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/rowpb"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// pieceBytes is how much of a change goes into one entry of the log: small enough
// for any queue, large enough that its overhead does not count.
const pieceBytes = 1 << 20

// pieceKeys is how many keys are deleted by one entry at most: each row of them is
// looked for while the channel's messages wait.
const pieceKeys = 16_384

// piece is one entry of the log to be.
type piece struct {
	vchannel catalog.VChannel
	typ      wal.Type
	batch    *schema.Batch  // insert, upsert
	keys     *schema.Column // delete
	rows     []int          // of the change: those in batch or keys
}

// body is the entry of a piece. segment is where rows go.
func (p *piece) body(coll *catalog.Collection, partition, segment int64) proto.Message {
	if p.typ == wal.Delete {
		return &qnpb.WalDelete{CollectionId: coll.ID, PartitionId: partition, Ids: rowpb.ToIDs(p.keys)}
	}
	return &qnpb.WalRows{
		CollectionId: coll.ID, PartitionId: partition, SegmentId: segment, Rows: int64(p.batch.Rows),
		Fields: rowpb.FromBatch(p.batch, &coll.Schema), SchemaVersion: coll.Schema.Version,
	}
}

func (p *piece) bytes() int64 {
	if p.typ == wal.Delete {
		return p.keys.Bytes()
	}
	return p.batch.Bytes()
}

// pieceSize is how many bytes of a change go into one entry of the log.
func (n *Node) pieceSize() int64 { return max(1, min(pieceBytes, int64(wal.LargestBody(n.o.Queue))/2)) }

// insertPieces cuts the rows of a batch that each vchannel gets. named are the rows of
// the request that those of the batch were, nil = the same.
func (n *Node) insertPieces(coll *catalog.Collection, typ wal.Type, b *schema.Batch, named []int) (pieces []piece) {
	size := n.pieceSize()
	for v, rows := range n.shard(coll, b.Column(coll.Schema.Primary().ID)) {
		whole := len(rows) == b.Rows && b.Bytes() <= size
		for _, some := range cut(rows, b.Rows, size, b.BytesAt) {
			part := b
			if !whole {
				part = take(b, some)
			}
			for i, r := range some {
				if named != nil {
					some[i] = named[r]
				}
			}
			pieces = append(pieces, piece{vchannel: coll.VChannels[v], typ: typ, batch: part, rows: some})
		}
	}
	return pieces
}

// deletePieces cuts the keys that each vchannel gets.
func (n *Node) deletePieces(coll *catalog.Collection, keys *schema.Column) (pieces []piece) {
	for v, rows := range n.shard(coll, keys) {
		for _, some := range cut(rows, pieceKeys, n.pieceSize(), keys.BytesAt) {
			c := schema.NewColumn(coll.Schema.Primary(), len(some))
			for _, r := range some {
				c.AppendRow(keys, r)
			}
			pieces = append(pieces, piece{vchannel: coll.VChannels[v], typ: wal.Delete, keys: c, rows: some})
		}
	}
	return pieces
}

// cut splits rows into runs of most rows and size bytes, or one row that has more. It
// goes by what each row takes: the large ones of a batch may come one after the other.
func cut(rows []int, most int, size int64, bytesAt func(row int) int64) (runs [][]int) {
	from, sum := 0, int64(0)
	for i, r := range rows {
		n := bytesAt(r)
		if i > from && (sum+n > size || i-from == most) {
			runs = append(runs, rows[from:i:i])
			from, sum = i, 0
		}
		sum += n
	}
	return append(runs, rows[from:])
}

// checkSizes refuses a change of which a row is too large for the log, before
// anything of it is written.
func (n *Node) checkSizes(coll *catalog.Collection, partition int64, pieces []piece) error {
	limit := wal.LargestBody(n.o.Queue)
	for i := range pieces {
		p := &pieces[i]
		if p.bytes() < int64(limit)/2 {
			continue // what it is as an entry is about as much
		}
		// A segment's id takes up to ten bytes, and is not known yet.
		size := proto.Size(p.body(coll, partition, -1))
		if size <= limit {
			continue
		}
		what := fmt.Sprintf("row %d takes", p.rows[0])
		if len(p.rows) > 1 {
			what = fmt.Sprintf("rows %d to %d take", p.rows[0], p.rows[len(p.rows)-1])
		}
		return errclass.New(errclass.Invalid, "%s %d bytes in the log, whose entries have %d at most: nothing was written", what, size, limit)
	}
	return nil
}
