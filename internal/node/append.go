package node

import (
	"context"
	"hash/fnv"
	"syscall"

	"github.com/cockroachdb/errors"
	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

// memoryReserve is the part of the memory limit that inserts leave free, so that
// rows already in the log, deletes and searches still have room: 1/memoryReserve.
const memoryReserve = 20

// Appended tells what a change wrote.
type Appended struct {
	Keys      *schema.Column // in the order of the request
	Rows      int
	Timestamp uint64 // highest of the change
}

// Insert adds rows to a partition ("" = the default one), durably. The batch has
// a column for each field that rows are written with, except an auto_id key, which is
// added, and fields that the caller did not know of yet.
// With upsert, older rows of the same keys are deleted by the same change; of
// rows with the same key in the batch the last one stays.
//
// A batch that is spread over several log entries is not atomic: after an error
// some of it may be written, and repeating an upsert is safe.
func (n *Node) Insert(ctx context.Context, collection, partition string, b *schema.Batch, upsert bool) (Appended, error) {
	coll, part, err := n.place(ctx, collection, partition)
	if err != nil {
		return Appended{}, err
	}
	if err := n.roomForRows(); err != nil {
		return Appended{}, err
	}
	b = complete(b, &coll.Schema)
	var named []int // rows of the request that are written; nil = all
	if upsert {
		b, named = lastOfEachKey(b, coll.Schema.Primary())
	} else if b, err = n.giveKeys(ctx, b, &coll.Schema); err != nil {
		return Appended{}, err
	}
	if b.Rows < 1 {
		return Appended{}, errclass.New(errclass.Invalid, "insert: no rows")
	}
	if err := b.CheckGiven(&coll.Schema); err != nil {
		return Appended{}, err
	}
	typ := wal.Insert
	if upsert {
		typ = wal.Upsert
	}
	pieces := n.insertPieces(coll, typ, b, named)
	if err := n.checkSizes(coll, part, pieces); err != nil {
		return Appended{}, err
	}
	if n.o.Sole { // the queue is on the local disk
		written, err := n.o.Segments.RoomInQueue(b.Bytes())
		if err != nil {
			return Appended{}, errors.Wrap(err, "rows that are growing are being stored: try again")
		}
		defer written()
	}
	ts, err := n.appendPieces(ctx, coll, part, pieces)
	return Appended{Keys: b.Column(coll.Schema.Primary().ID), Rows: b.Rows, Timestamp: ts}, err
}

// Delete removes keys from a partition ("" = all partitions), durably.
func (n *Node) Delete(ctx context.Context, collection, partition string, keys *schema.Column) (Appended, error) {
	coll, err := n.current(ctx, collection)
	if err != nil {
		return Appended{}, err
	}
	part := int64(0)
	if partition != "" {
		p, ok := coll.Partition(partition)
		if !ok {
			return Appended{}, errclass.With(errclass.New(errclass.NotFound, "collection %q has no partition %q", coll.Name, partition), errclass.Partition)
		}
		part = p.ID
	}
	if keys.Rows() == 0 {
		return Appended{}, errclass.New(errclass.Invalid, "delete: no keys")
	}
	pieces := n.deletePieces(coll, keys)
	if err := n.checkSizes(coll, part, pieces); err != nil {
		return Appended{}, err
	}
	ts, err := n.appendPieces(ctx, coll, part, pieces)
	return Appended{Keys: keys, Rows: keys.Rows(), Timestamp: ts}, err
}

func (n *Node) place(ctx context.Context, collection, partition string) (*catalog.Collection, int64, error) {
	coll, err := n.current(ctx, collection)
	if err != nil {
		return nil, 0, err
	}
	if partition == "" {
		partition = catalog.DefaultPartition
	}
	p, ok := coll.Partition(partition)
	if !ok {
		return nil, 0, errclass.With(errclass.New(errclass.NotFound, "collection %q has no partition %q: create it first", coll.Name, partition), errclass.Partition)
	}
	return coll, p.ID, nil
}

// roomForRows refuses inserts while memory is nearly used up; deletes always pass.
func (n *Node) roomForRows() error {
	l := n.o.Segments.Ledger()
	if l.Above(100 - 100/memoryReserve) {
		process, ceiling := l.Observed()
		return errclass.With(errclass.New(errclass.Exhausted,
			"memory is nearly used up: %d of %d bytes, to which rows in the log and storing growing rows will add %d, and %d of the %d that the process may have; growing rows are being stored: try again, release segments, or give the node more memory",
			l.Total(), l.Limit(), l.Ahead(), process, ceiling), errclass.Memory)
	}
	return nil
}

// complete adds the fields that the schema has gained since the caller arranged the
// batch by it: rows have them as those have that were written before.
func complete(b *schema.Batch, s *schema.Schema) *schema.Batch {
	out, added := &schema.Batch{Rows: b.Rows}, 0
	for _, f := range s.Given() {
		c := b.Column(f.ID)
		if c == nil && !f.PrimaryKey {
			absent, err := schema.AbsentColumn(f, max(b.Rows, 0))
			if err != nil {
				return b // CheckGiven will say what is missing
			}
			c = absent
			added++
		}
		if c != nil {
			out.Columns = append(out.Columns, c)
		}
	}
	if added == 0 || len(out.Columns) != len(b.Columns)+added {
		return b
	}
	return out
}

// giveKeys adds the primary key column if the node gives the keys.
func (n *Node) giveKeys(ctx context.Context, b *schema.Batch, s *schema.Schema) (*schema.Batch, error) {
	pk := s.Primary()
	if !pk.AutoID {
		return b, nil
	}
	if b.Column(pk.ID) != nil {
		return nil, errclass.New(errclass.Invalid, "field %q has auto_id: leave it out", pk.Name)
	}
	if b.Rows < 1 {
		return nil, errclass.New(errclass.Invalid, "insert: no rows")
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	first, err := n.o.Catalog.AllocateIDs(ctx, b.Rows)
	if err != nil {
		return nil, errors.Wrap(err, "give keys")
	}
	keys := schema.NewColumn(pk, b.Rows)
	for i := range b.Rows {
		keys.Int = append(keys.Int, first+int64(i))
	}
	out := &schema.Batch{Rows: b.Rows}
	given := b.Columns
	for _, f := range s.Columns() {
		if f.ID == pk.ID {
			out.Columns = append(out.Columns, keys)
		} else if len(given) > 0 {
			out.Columns, given = append(out.Columns, given[0]), given[1:]
		}
	}
	return out, nil
}

// lastOfEachKey drops rows whose key comes again later in the batch. It returns
// which rows have stayed; nil = all.
func lastOfEachKey(b *schema.Batch, pk schema.Field) (*schema.Batch, []int) {
	keys := b.Column(pk.ID)
	if keys == nil || keys.Rows() != b.Rows {
		return b, nil // CheckGiven will say what is wrong
	}
	ints, strs := map[int64]int{}, map[string]int{}
	for r := range b.Rows {
		if pk.Type == schema.VarChar {
			strs[keys.Str[r]] = r
		} else {
			ints[keys.Int[r]] = r
		}
	}
	if len(ints)+len(strs) == b.Rows {
		return b, nil
	}
	var rows []int
	for r := range b.Rows {
		if (pk.Type == schema.VarChar && strs[keys.Str[r]] == r) || (pk.Type != schema.VarChar && ints[keys.Int[r]] == r) {
			rows = append(rows, r)
		}
	}
	return take(b, rows), rows
}

// take returns the given rows of b as a batch of their own.
func take(b *schema.Batch, rows []int) *schema.Batch {
	out := &schema.Batch{Rows: len(rows)}
	for _, c := range b.Columns {
		n := c.New()
		for _, r := range rows {
			n.AppendRow(c, r)
		}
		out.Columns = append(out.Columns, n)
	}
	return out
}

// shard returns the rows of keys that belong to each vchannel, in order.
func (n *Node) shard(coll *catalog.Collection, keys *schema.Column) map[int][]int {
	out := map[int][]int{}
	shards := uint64(len(coll.VChannels))
	for r := range keys.Rows() {
		v := 0
		if shards > 1 {
			v = int(hashKey(keys, r) % shards)
		}
		out[v] = append(out[v], r)
	}
	return out
}

// hashKey is stored implicitly in where rows are: it never changes.
func hashKey(keys *schema.Column, r int) uint64 {
	h := fnv.New64a()
	if keys.Type == schema.VarChar {
		_, _ = h.Write([]byte(keys.Str[r]))
	} else {
		k := uint64(keys.Int[r])
		_, _ = h.Write([]byte{byte(k), byte(k >> 8), byte(k >> 16), byte(k >> 24), byte(k >> 32), byte(k >> 40), byte(k >> 48), byte(k >> 56)})
	}
	// The low bits of FNV of small integers are regular; mix them.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

// appendPieces appends all pieces and waits for all: entries of one call join
// the same group commit.
func (n *Node) appendPieces(ctx context.Context, coll *catalog.Collection, partition int64, pieces []piece) (uint64, error) {
	if len(pieces) == 1 {
		return n.appendPiece(ctx, coll, partition, pieces[0])
	}
	type result struct {
		ts  uint64
		err error
	}
	results := make(chan result, len(pieces))
	var last uint64
	became := parts{all: len(pieces)}
	sem := make(chan struct{}, 64)
	started := 0
	for _, p := range pieces {
		sem <- struct{}{} // given back when an append returns, which ctx bounds
		err := n.group.Go("append", func(context.Context) error {
			defer func() { <-sem }()
			res := result{err: errclass.Wrap(mq.ErrUnknownOutcome, errclass.Internal, "append ended without a result")}
			defer func() { results <- res }()
			res.ts, res.err = n.appendPiece(ctx, coll, partition, p)
			return nil
		})
		if err != nil {
			<-sem
			became.refusal = err
			break
		}
		started++
	}
	for range started {
		r := <-results
		last = max(last, r.ts)
		became.ended(r.err)
	}
	return last, became.err()
}

func (n *Node) appendPiece(ctx context.Context, coll *catalog.Collection, partition int64, p piece) (uint64, error) {
	w, err := n.wals.Get(p.vchannel.PChannel)
	if err != nil {
		return 0, n.noLog(p.vchannel.PChannel, err)
	}
	if err := n.noteWritten(ctx, w, p.vchannel); err != nil {
		return 0, err
	}
	segment := int64(0)
	if p.typ != wal.Delete {
		id, done, err := n.flusher.Assign(ctx, flush.Log{PChannel: p.vchannel.PChannel, VChannel: p.vchannel.Name, CollectionID: coll.ID}, w.Term(), partition, p.batch.Rows, p.batch.Bytes())
		if err != nil {
			return 0, err
		}
		defer done()
		segment = id
	}
	entry := wal.Entry{Type: p.typ, VChannel: p.vchannel.Name}
	if entry.Body, err = proto.Marshal(p.body(coll, partition, segment)); err != nil {
		return 0, errclass.Wrap(err, errclass.Invalid, "encode rows")
	}
	r, err := w.Follow(ctx, entry, n.coming(coll.ID, &p, segment).Settled)
	if errors.Is(err, syscall.ENOSPC) {
		return 0, errclass.Wrap(err, errclass.Exhausted, "the disk of the write-ahead log is full: free some space, then write again; reads go on. Append to %s", p.vchannel.Name)
	}
	if err != nil {
		return 0, errors.Wrapf(err, "append to %s", p.vchannel.Name)
	}
	return r.Timestamp, nil
}

// coming has the ledger know of the rows of a piece that is about to be written, until the channel has read them; nil if
// the channel is not watched here, or these are no rows. Who watches it later replays them.
func (n *Node) coming(collection int64, p *piece, segment int64) *segments.Coming {
	if p.typ == wal.Delete {
		return nil
	}
	var w *watch
	n.mu.Lock()
	if s := n.mu.serving[collection]; s != nil {
		w = s.channels[p.vchannel.Name]
	}
	n.mu.Unlock()
	if w == nil {
		return nil
	}
	return w.channel.Coming(segment, p.batch, n.flusher.Workers())
}

// tellDropped writes the drop to the logs, so that other nodes that follow the
// channels let go of the rows at once; the catalog has the last word.
func (n *Node) tellDropped(ctx context.Context, coll *catalog.Collection, partition int64) {
	typ := wal.DropCollection
	if partition != 0 {
		typ = wal.DropPartition
	}
	body, err := proto.Marshal(&qnpb.WalDrop{CollectionId: coll.ID, PartitionId: partition})
	for _, v := range coll.VChannels {
		w, werr := n.wals.Get(v.PChannel)
		if err == nil && werr == nil {
			_, werr = w.Append(ctx, wal.Entry{Type: typ, VChannel: v.Name, Body: body})
		}
		if err := errors.CombineErrors(err, werr); err != nil {
			n.o.Logger.Warn("node: drop not written to the log; other nodes see it in the catalog", "vchannel", v.Name, "error", err)
		}
	}
}
