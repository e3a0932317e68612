package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// valve is a client's end of a connection that passes so many bytes each way and
// then holds up the rest until it is closed.
type valve struct {
	net.Conn
	in, out atomic.Int64 // bytes that may still pass
	closed  chan struct{}
	once    sync.Once
}

func (v *valve) Close() error {
	v.once.Do(func() { close(v.closed) })
	return v.Conn.Close()
}

func (v *valve) Read(b []byte) (int, error) {
	if v.in.Load() <= 0 {
		<-v.closed
		return 0, net.ErrClosed
	}
	n, err := v.Conn.Read(b)
	v.in.Add(-int64(n))
	return n, err
}

// Write passes what may pass, and a byte of the rest every now and then.
func (v *valve) Write(b []byte) (int, error) {
	n := int(min(int64(len(b)), max(v.out.Load(), 0)))
	v.out.Add(-int64(n))
	n, err := v.Conn.Write(b[:n])
	for err == nil && n < len(b) {
		select {
		case <-v.closed:
			return n, net.ErrClosed
		case <-time.After(20 * time.Millisecond):
		}
		_, err = v.Conn.Write(b[n : n+1])
		n++
	}
	return n, err
}

// wire is a connection of its own to the node, whose valve passes so many bytes.
func (h *hostile) wire(in, out int64) (*grpc.ClientConn, *valve, error) {
	v := &valve{closed: make(chan struct{})}
	v.in.Store(in)
	v.out.Store(out)
	conn, err := grpc.NewClient("passthrough:///"+h.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)), grpc.WithInitialWindowSize(1<<30), grpc.WithInitialConnWindowSize(1<<30),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (_ net.Conn, err error) {
			if v.Conn != nil {
				return nil, net.ErrClosed // once
			}
			v.Conn, err = new(net.Dialer).DialContext(ctx, "tcp", addr)
			return v, err
		}))
	return conn, v, err
}

// alone makes a call over a connection of its own; the valve lets in and out so many
// bytes, and the connection is closed when ctx ends.
func (h *hostile) alone(in, out int64, call func(context.Context, *grpc.ClientConn) error) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, v, err := h.wire(in, out)
		if err != nil {
			return err
		}
		defer func() {
			v.once.Do(func() { close(v.closed) })
			_ = conn.Close()
		}()
		return call(ctx, conn)
	}
}

const open = math.MaxInt64

// insertRequest is an insert of rows from an id on; note is the text of each.
func insertRequest(from, n int64, note string) *qnpb.AppendRequest {
	ids, notes := idsFrom(from, n), make([]string, n)
	for i := range notes {
		notes[i] = note
	}
	return &qnpb.AppendRequest{Collection: "items", Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{
		Rows: n, Fields: []*qnpb.FieldData{
			{Field: "id", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: ids}}},
			{Field: "note", Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: notes}}},
			{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: hostileVectors(ids...)}},
		}}}}
}

// strange is an id that no row of the test has.
func strange() int64 { return 1_000_000 + rand.Int64N(1<<40) }

// createWords makes a collection of texts, their words, and sparse vectors.
func (h *hostile) createWords() {
	h.t.Helper()
	_, err := h.catalog.CreateCollection(h.within(), &qnpb.CreateCollectionRequest{Name: "words", Schema: &qnpb.CollectionSchema{
		Fields: []*qnpb.FieldSchema{
			{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
			{Name: "body", Type: qnpb.DataType_DATA_TYPE_VARCHAR, MaxLength: 65_535},
			{Name: "words", Type: qnpb.DataType_DATA_TYPE_SPARSE_FLOAT_VECTOR},
			{Name: "s", Type: qnpb.DataType_DATA_TYPE_SPARSE_FLOAT_VECTOR},
		},
		Functions: []*qnpb.FunctionSchema{{Name: "count", Type: qnpb.FunctionType_FUNCTION_TYPE_BM25, InputFields: []string{"body"}, OutputFields: []string{"words"}}}}})
	if err != nil {
		h.t.Fatal(err)
	}
}

// rareWords is a text of n words, few of which anybody has used before.
func rareWords(n int) string {
	var b strings.Builder
	for range n {
		b.WriteString(strconv.FormatUint(rand.Uint64(), 36))
		b.WriteByte(' ')
	}
	return b.String()
}

// rareDimensions are n vectors of values each in dimensions that few others have.
func rareDimensions(n, values int) *qnpb.SparseVectors {
	out := &qnpb.SparseVectors{}
	for range n {
		out.Lengths = append(out.Lengths, uint32(values))
		step := uint32(math.MaxUint32 / (values + 1))
		for i := range uint32(values) {
			out.Indices, out.Values = append(out.Indices, i*step+rand.Uint32N(step)), append(out.Values, 1+rand.Float32())
		}
	}
	return out
}

// wireAttacks are clients that send much, or slowly, or never to the end, or that do
// not take what they asked for.
func (h *hostile) wireAttacks() map[string]func(ctx context.Context) error {
	append1 := func(r func() *qnpb.AppendRequest) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := qnpb.NewWriteServiceClient(c).Append(ctx, r())
			return err
		}
	}
	rows := func() *qnpb.AppendRequest { return insertRequest(strange(), 8000, strings.Repeat("x", 900)) }
	search := func(r *qnpb.SearchRequest) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := qnpb.NewQueryServiceClient(c).Search(ctx, r)
			return err
		}
	}
	neighbours := &qnpb.SearchRequest{Collection: "items", TopK: 16_384, Vectors: hostileVectors(1), OutputFields: []string{"v", "note"}}
	everything := func(ctx context.Context, c *grpc.ClientConn) error {
		return drain(qnpb.NewQueryServiceClient(c).Query(ctx, &qnpb.QueryRequest{Collection: "items", Filter: "id >= 0", OutputFields: []string{"*"}}))
	}
	crowd := &qnpb.SearchRequest{Collection: "items", TopK: 10, Vectors: hostileVectors(idsFrom(0, 16_384)...)} // 16 MiB
	return map[string]func(context.Context) error{
		"large inserts, each alone":    h.alone(open, open, append1(rows)),
		"inserts that never end":       h.alone(open, 5<<20, append1(rows)),
		"inserts that barely begin":    h.alone(open, 40<<10, append1(rows)),
		"searches of many, each alone": h.alone(open, open, search(crowd)),
		"searches that never end":      h.alone(open, 9<<20, search(crowd)),
		"neighbours nobody reads":      h.alone(100, open, search(neighbours)),
		"neighbours read in part":      h.alone(1<<20, open, search(neighbours)),
		"rows nobody reads":            h.alone(100, open, everything),
		"rows read in part":            h.alone(2<<20, open, everything),
		"pages that are left open":     h.leavePages,
		"watchers that do not look":    h.alone(100, open, watchMany),
		"watchers":                     h.alone(open, open, watchMany),
		"large filters":                h.alone(open, open, h.largeFilters),
		"rows of rare words":           h.alone(open, open, append1(func() *qnpb.AppendRequest { return wordsRequest(200) })),
		"texts of rare words":          h.alone(open, open, h.searchWords),
		"idle connections": h.alone(open, open, func(ctx context.Context, c *grpc.ClientConn) error {
			c.Connect()
			<-ctx.Done()
			return nil
		}),
	}
}

// wordsRequest is an insert of n rows whose words and dimensions are all new.
func wordsRequest(n int64) *qnpb.AppendRequest {
	ids, bodies := idsFrom(strange(), n), make([]string, n)
	for i := range bodies {
		bodies[i] = rareWords(500)
	}
	return &qnpb.AppendRequest{Collection: "words", Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{
		Rows: n, Fields: []*qnpb.FieldData{
			{Field: "id", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: ids}}},
			{Field: "body", Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: bodies}}},
			{Field: "s", Values: &qnpb.FieldData_SparseVectors{SparseVectors: rareDimensions(int(n), 500)}},
		}}}}
}

// searchWords asks with large texts and with large sparse vectors.
func (h *hostile) searchWords(ctx context.Context, c *grpc.ClientConn) error {
	texts := &qnpb.SearchRequest{Collection: "words", Field: "words", TopK: 1000, OutputFields: []string{"body"}}
	for range 100 {
		texts.Texts = append(texts.Texts, rareWords(4000))
	}
	q := qnpb.NewQueryServiceClient(c)
	if _, err := q.Search(ctx, texts); err != nil {
		return err
	}
	_, err := q.Search(ctx, &qnpb.SearchRequest{Collection: "words", Field: "s", TopK: 1000, SparseVectors: rareDimensions(100, 20_000), OutputFields: []string{"s", "body"}})
	return err
}

// largeFilters are as large as a filter and its values may be.
func (h *hostile) largeFilters(ctx context.Context, c *grpc.ClientConn) error {
	var in strings.Builder
	for i := range 9000 {
		fmt.Fprintf(&in, "%d,", i)
	}
	values := &qnpb.StringArray{}
	for i := range 65_536 {
		values.Values = append(values.Values, fmt.Sprintf("note %d: %s", i, strings.Repeat("x", 80)))
	}
	var like strings.Builder // equal ones would be one
	for i := range 2000 {
		fmt.Fprintf(&like, ` or note like "%%x9%d%%"`, i)
	}
	q := qnpb.NewQueryServiceClient(c)
	for _, r := range []*qnpb.QueryRequest{
		{Filter: "id in [" + strings.TrimSuffix(in.String(), ",") + "]"},
		{Filter: "note in {notes}", FilterValues: map[string]*qnpb.Value{"notes": {Kind: &qnpb.Value_Strings{Strings: values}}}},
		{Filter: strings.Repeat("(", 200) + "id > 1" + strings.Repeat(")", 200) + like.String()},
	} {
		r.Collection, r.OutputFields = "items", []string{"count(*)"}
		if err := drain(q.Query(ctx, r)); err != nil {
			return err
		}
	}
	return nil
}

// leavePages begins to page, again and again, and does not go on.
func (h *hostile) leavePages(ctx context.Context) error {
	for i := range int64(20) {
		_, err := h.query.Search(ctx, &qnpb.SearchRequest{Collection: "items", TopK: 500, Iterate: true, Vectors: hostileVectors(i), OutputFields: []string{"v"}})
		if err == nil {
			err = drain(h.query.Query(ctx, &qnpb.QueryRequest{Collection: "items", Limit: 500, Iterate: true, Filter: "id >= 0", OutputFields: []string{"v"}}))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// watchMany watches what is served many times and never looks at it.
func watchMany(ctx context.Context, c *grpc.ClientConn) error {
	for range 200 {
		if _, err := qnpb.NewControlServiceClient(c).WatchDistribution(ctx, &qnpb.WatchDistributionRequest{}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// plain is a client that means no harm: what it asks is answered, or refused with
// the numbers, and what it deletes is deleted.
func (h *hostile) plain(ctx context.Context) (answered, refused int) {
	for id := int64(100); ctx.Err() == nil; id++ {
		if err := h.delete(id % h.rows); err != nil {
			h.t.Errorf("a delete did not pass: %v", err)
		}
		r, err := h.query.Search(h.within(), &qnpb.SearchRequest{Collection: "items", TopK: 1, Vectors: hostileVectors(h.rows - 1)})
		switch {
		case err == nil && len(r.GetIds().GetInts().GetValues()) == 1:
			answered++
		case status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "bytes"), status.Code(err) == codes.Unavailable:
			refused++
		default:
			h.t.Errorf("a plain search: %v, %v", r.GetIds(), err)
		}
		select {
		case <-ctx.Done():
		case <-h.p.done:
			return answered, refused
		case <-time.After(10 * time.Millisecond):
		}
	}
	return answered, refused
}

// cgroupPeak is the most that the kernel counted for the cgroup of the node, pages of
// files included, and how often it had to take some back; 0 = unknown.
func (h *hostile) cgroupPeak() (bytes, reclaims int64) {
	for _, v := range [][2]string{{"memory.max_usage_in_bytes", "memory.failcnt"}, {"memory.peak", ""}} {
		raw, err := os.ReadFile(filepath.Join(h.group, v[0]))
		if h.group == "" || err != nil {
			continue
		}
		bytes, _ = strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
		raw, _ = os.ReadFile(filepath.Join(h.group, v[1]))
		reclaims, _ = strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	}
	return bytes, reclaims
}

// TestNobodyOnTheWireGetsItKilled: a node in a cgroup that kills what takes more than
// it has survives clients that send much, slowly or without an end, and that do not
// take what they asked for, from many connections; others are answered meanwhile, or
// refused with the numbers, and deletes pass.
func TestNobodyOnTheWireGetsItKilled(t *testing.T) {
	t.Run("with the limit it finds", func(t *testing.T) { nobodyKills(t, 0) })
	if os.Getenv("QUERYNODE_TEST_LONG") != "" {
		t.Run("with a small limit", func(t *testing.T) { nobodyKills(t, 16<<20) })
	}
}

func nobodyKills(t *testing.T, limit int64) {
	const cgroup = 192 << 20
	rows, rounds, clients, patience := int64(4_000), 1, 2, 3*time.Second
	if os.Getenv("QUERYNODE_TEST_LONG") != "" {
		rows, rounds, clients, patience = 24_000, 4, 6, 15*time.Second
	}
	h := startHostile(t, cgroup, limit)
	h.fill(rows)
	h.createWords()
	highest := h.watchMemory()
	attacks := h.wireAttacks()
	var all, others sync.WaitGroup
	for what, attack := range attacks {
		for range clients {
			all.Go(func() {
				for range rounds {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					h.note(what, attack(ctx))
					cancel()
				}
			})
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var answered, refused int
	others.Go(func() { answered, refused = h.plain(ctx) })
	all.Wait()
	cancel()
	others.Wait()
	most := highest()
	h.alive()
	for what, c := range h.codes {
		t.Logf("%-30s %v", what, c)
	}
	peak, reclaims := h.cgroupPeak()
	t.Logf("%d connections at a time; a plain client was answered %d times, refused %d times", len(attacks)*clients, answered, refused)
	t.Logf("%d MiB of anonymous memory at most, of %d; the cgroup had %d MiB at most, the kernel took pages back %d times", most>>20, cgroup>>20, peak>>20, reclaims)
	if answered == 0 {
		t.Error("nobody was answered meanwhile")
	}
	h.answersAgain()
}

// alive fails the test if the node has ended.
func (h *hostile) alive() {
	h.t.Helper()
	select {
	case <-h.p.done:
		h.t.Fatalf("the node ended: %v\n%s", h.p.cmd.ProcessState, h.p.stderr)
	default:
	}
}

// answersAgain wants large reads and inserts to pass, now that nobody attacks.
func (h *hostile) answersAgain() {
	h.t.Helper()
	h.onceThereIsRoom(func() error {
		_, err := h.query.Search(h.within(), &qnpb.SearchRequest{Collection: "items", TopK: 1000, Vectors: hostileVectors(1), OutputFields: []string{"v"}})
		if err == nil {
			err = h.insert(idsFrom(strange(), 500))
		}
		return err
	})
}
