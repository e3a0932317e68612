package e2e

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/querynode/querynode/internal/server"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestNamesMoveUnderReaders: an alias is pointed elsewhere and back, a collection
// is renamed; readers of the alias get one or the other, and never an error.
func TestNamesMoveUnderReaders(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.items("blue", 1)
	n.items("green", 1)
	n.insert("blue", seq(0, 10))
	n.insert("green", seq(0, 20))
	must2(t)(n.catalog.CreateAlias(within(t), &qnpb.CreateAliasRequest{Collection: "blue", Alias: "live"}))
	ctx, stop := context.WithCancel(within(t))
	defer stop()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if c := n.count("live"); c != 10 && c != 20 {
					t.Errorf("the alias has %d rows, want 10 or 20", c)
					return
				}
			}
		})
	}
	for range 10 {
		for coll, want := range map[string]int64{"green": 20, "blue": 10} {
			must2(t)(n.catalog.AlterAlias(within(t), &qnpb.AlterAliasRequest{Collection: coll, Alias: "live"}))
			if c := n.count("live"); c != want {
				t.Errorf("the alias of %s has %d rows, want %d", coll, c, want)
			}
		}
	}
	must2(t)(n.catalog.AlterAlias(within(t), &qnpb.AlterAliasRequest{Collection: "blue", Alias: "live"}))
	must2(t)(n.catalog.AlterCollection(within(t), &qnpb.AlterCollectionRequest{Collection: "blue", NewName: "azure", Properties: map[string]string{"owner": "me"}}))
	stop()
	wg.Wait()
	if c := n.count("azure"); c != 10 {
		t.Errorf("the renamed collection has %d rows, want 10", c)
	}
	n.insert("live", seq(10, 15))
	r, err := n.catalog.DescribeCollection(within(t), &qnpb.DescribeCollectionRequest{Collection: "live"})
	must(t, err)
	if c := r.GetCollection(); c.GetName() != "azure" || !slices.Equal(c.GetAliases(), []string{"live"}) || c.GetProperties()["owner"] != "me" {
		t.Errorf("described by its alias: %v", c)
	}
	_, err = n.catalog.DescribeCollection(within(t), &qnpb.DescribeCollectionRequest{Collection: "blue"})
	n.refuses(t, err, codes.NotFound, "blue")
	all, err := n.catalog.ListAliases(within(t), &qnpb.ListAliasesRequest{})
	must(t, err)
	if len(all.GetAliases()) != 1 || all.GetAliases()["live"] != "azure" {
		t.Errorf("aliases: %v", all)
	}
	must2(t)(n.catalog.DropAlias(within(t), &qnpb.DropAliasRequest{Alias: "live"}))
	_, err = n.query.Get(within(t), &qnpb.GetRequest{Collection: "live", Ids: intIDs(1)})
	n.refuses(t, err, codes.NotFound, "live")
}

// TestACollectionIsDroppedUnderItsUsers: readers, writers, flushes and loads end
// with a reason, the name is free at once, and nothing of the old one is left.
func TestACollectionIsDroppedUnderItsUsers(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{shardTopics: 2})
	for round := range int64(3) {
		n.items("items", 2)
		n.insert("items", seq(0, 100))
		n.flush("items")
		var wg sync.WaitGroup
		ctx, stop := context.WithCancel(within(t))
		var calls atomic.Int64
		use := func(what string, call func() error) {
			wg.Go(func() {
				for ctx.Err() == nil {
					err := call()
					calls.Add(1)
					switch codeOf(err) {
					case codes.OK:
					case codes.NotFound, codes.FailedPrecondition, codes.Unavailable:
						return
					default:
						t.Errorf("%s while the collection is dropped: %v", what, err)
						return
					}
				}
			})
		}
		use("search", func() error {
			_, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(1, 0)}, TopK: 3, Freshness: strong})
			return err
		})
		use("insert", func() error {
			_, err := n.write.Append(within(t), insertOf("items", 1, rows([]int64{1000 + round}, 0)...))
			return err
		})
		use("flush", func() error {
			_, err := n.write.Flush(within(t), &qnpb.FlushRequest{Collection: "items", Wait: true})
			return err
		})
		use("load", func() error {
			_, err := n.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items"})
			return err
		})
		use("partition", func() error {
			_, err := n.catalog.ListPartitions(within(t), &qnpb.ListPartitionsRequest{Collection: "items"})
			return err
		})
		for calls.Load() < 10 {
			n.alive(t)
		}
		must2(t)(n.catalog.DropCollection(within(t), &qnpb.DropCollectionRequest{Collection: "items"}))
		stop()
		wg.Wait()
		_, err := n.query.Get(within(t), &qnpb.GetRequest{Collection: "items", Ids: intIDs(1)})
		n.refuses(t, err, codes.NotFound, "items")
		d, err := n.control.GetDistribution(within(t), &qnpb.GetDistributionRequest{})
		must(t, err)
		if len(d.GetDistribution().GetSegments())+len(d.GetDistribution().GetChannels()) != 0 {
			t.Errorf("still served: %v", d)
		}
	}
	n.items("items", 2)
	if c := n.count("items"); c != 0 {
		t.Errorf("a new collection of an old name has %d rows", c)
	}
}

// TestAnIndexIsReplaced: the answers follow the metric at once, whatever the
// segments were built with.
func TestAnIndexIsReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir, options{})
	n.items("items", 1)
	n.insert("items", seq(0, 3000)) // enough for a graph
	n.flush("items")
	n.handedOff("items")
	n.insert("items", seq(3000, 3200))
	var base [][]float32
	for i := range int64(3200) {
		base = append(base, vectorOf(i, 0))
	}
	check := func(metric string) {
		t.Helper()
		q := vectorOf(9999, 0)
		r, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: q}, TopK: 10, Metric: metric, Ef: 500, Freshness: strong})
		must(t, err)
		want := best(metric, q, base, 10)
		for i, s := range r.GetScores() {
			if own := score(metric, q, base[r.GetIds().GetInts().GetValues()[i]]); !near(float64(s), own) || !near(float64(s), want[i]) {
				t.Fatalf("%s: hit %d has %v, the row %v, the best %v", metric, i, s, own, want[i])
			}
		}
	}
	check("L2")
	must2(t)(n.catalog.DropIndex(within(t), &qnpb.DropIndexRequest{Collection: "items", Index: "v_index"}))
	check("COSINE") // what a field without an index has
	for _, metric := range []string{"IP", "L2", "COSINE"} {
		must2(t)(n.catalog.CreateIndex(within(t), &qnpb.CreateIndexRequest{Collection: "items", Index: &qnpb.IndexSpec{Name: "mine", Field: "v", Type: "HNSW", Metric: metric, Params: map[string]string{"M": "8"}}}))
		check(metric)
		r, err := n.catalog.DescribeIndex(within(t), &qnpb.DescribeIndexRequest{Collection: "items"})
		must(t, err)
		if ix := r.GetIndexes(); len(ix) != 1 || ix[0].GetMetric() != metric || ix[0].GetName() != "mine" || ix[0].GetParams()["M"] != "8" {
			t.Errorf("described as %v", ix)
		}
		_, err = n.query.Search(within(t), &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: base[0]}, TopK: 1, Metric: map[string]string{"IP": "L2", "L2": "IP", "COSINE": "L2"}[metric]})
		n.refuses(t, err, codes.InvalidArgument, "indexed by "+metric)
		must2(t)(n.catalog.DropIndex(within(t), &qnpb.DropIndexRequest{Collection: "items", Index: "mine"}))
	}
	must2(t)(n.catalog.CreateIndex(within(t), &qnpb.CreateIndexRequest{Collection: "items", Index: &qnpb.IndexSpec{Field: "v", Type: "FLAT", Metric: "IP"}}))
	n.flush("items")
	n.handedOff("items")
	check("IP")
	n.stop()
	n = start(t, dir, options{})
	check("IP")
}

// TestANodeThatIsTold: one that is not its own coordinator serves what it is told
// to, and says what that is.
func TestANodeThatIsTold(t *testing.T) {
	t.Parallel()
	n := open(t, t.TempDir(), options{dispatched: true, shardTopics: 2})
	n.items("items", 2)
	_, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(1, 0)}, TopK: 1})
	n.refuses(t, err, codes.FailedPrecondition, "call LoadSegments")
	_, err = n.write.Append(within(t), insertOf("items", 1, rows(seq(0, 1), 0)...))
	n.refuses(t, err, codes.FailedPrecondition, "does not own the log")
	for _, topic := range []string{"topic-0", "topic-1"} {
		r, err := n.write.AssignChannel(within(t), &qnpb.AssignChannelRequest{Pchannel: topic, Term: 7})
		must(t, err)
		if r.GetTerm() != 7 {
			t.Errorf("term of %s: %v", topic, r)
		}
	}
	n.insert("items", seq(0, 100))
	_, err = n.write.Append(within(t), deleteOf("items", &qnpb.DeleteOperation{Filter: "id < 5"}))
	n.refuses(t, err, codes.FailedPrecondition, "call LoadSegments")

	watch, err := n.control.WatchDistribution(within(t), &qnpb.WatchDistributionRequest{})
	must(t, err)
	first, err := watch.Recv()
	must(t, err)
	if d := first.GetDistribution(); len(d.GetChannels())+len(d.GetSegments()) != 0 || d.GetNode() != "test" {
		t.Errorf("the distribution before anything is served: %v", d)
	}
	r, err := n.control.WatchChannels(within(t), &qnpb.WatchChannelsRequest{Collection: "items"})
	must(t, err)
	if len(r.GetVchannels()) != 2 {
		t.Fatalf("watched: %v", r)
	}
	if c := n.count("items"); c != 100 {
		t.Errorf("%d rows, want 100", c)
	}
	version := first.GetDistribution().GetVersion()
	for seen := false; !seen; {
		next, err := watch.Recv()
		must(t, err)
		if v := next.GetDistribution().GetVersion(); v <= version {
			t.Fatalf("version %d after %d", v, version)
		} else {
			version = v
		}
		seen = len(next.GetDistribution().GetChannels()) == 2 && len(next.GetDistribution().GetSegments()) == 2
	}
	ids := n.flush("items")
	d, err := n.control.GetDistribution(within(t), &qnpb.GetDistributionRequest{})
	must(t, err)
	same, err := n.control.GetDistribution(within(t), &qnpb.GetDistributionRequest{SinceVersion: d.GetDistribution().GetVersion()})
	must(t, err)
	if len(same.GetDistribution().GetSegments()) != 0 || same.GetDistribution().GetVersion() != d.GetDistribution().GetVersion() {
		t.Errorf("since the last version: %v", same)
	}
	loaded, err := n.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items", SegmentIds: ids})
	must(t, err)
	if loaded.GetRows() != 100 || len(loaded.GetSegmentIds()) != 2 || n.count("items") != 100 {
		t.Errorf("loaded %v, then %d rows", loaded, n.count("items"))
	}
	gone, err := n.control.UnwatchChannels(within(t), &qnpb.UnwatchChannelsRequest{Collection: "items", Vchannels: r.GetVchannels()[:1]})
	must(t, err)
	if !slices.Equal(gone.GetVchannels(), r.GetVchannels()[:1]) {
		t.Errorf("unwatched %v", gone)
	}
	if c := n.count("items"); c == 0 || c == 100 {
		t.Errorf("%d rows with one of two channels, want some", c)
	}
	must2(t)(n.control.LoadSegments(within(t), &qnpb.LoadSegmentsRequest{Collection: "items"}))
	if c := n.count("items"); c != 100 {
		t.Errorf("%d rows once all is loaded, want 100", c)
	}
	must2(t)(n.control.ReleaseSegments(within(t), &qnpb.ReleaseSegmentsRequest{Collection: "items"}))
	_, err = n.query.Get(within(t), &qnpb.GetRequest{Collection: "items", Ids: intIDs(1)})
	n.refuses(t, err, codes.FailedPrecondition, "call LoadSegments")
}

// TestWhatOperatorsSee: consumers, logs, metrics, state and the level of the log.
func TestWhatOperatorsSee(t *testing.T) {
	t.Parallel()
	var level slog.LevelVar
	n := pulsing(t, options{serve: func(o *server.Options) { o.LogLevel, o.Version = &level, "1.2.3" }})
	c, err := n.admin.ListConsumers(within(t), &qnpb.ListConsumersRequest{})
	must(t, err)
	if len(c.GetConsumers()) != 1 || c.GetRegistered()-c.GetClosed() != 1 || c.GetLeaked() != 0 {
		t.Fatalf("consumers: %v", c)
	}
	if x := c.GetConsumers()[0]; x.GetPchannel() != "topic-0" || len(x.GetVchannels()) != 1 || x.GetKind() != "shared" || x.GetPosition() == "" || x.GetError() != "" {
		t.Errorf("the consumer: %v", x)
	}
	logs, err := n.write.ListChannels(within(t), &qnpb.ListChannelsRequest{})
	must(t, err)
	if w := logs.GetWals(); len(w) != 1 || w[0].GetState() != "ready" || w[0].GetTerm() != 1 || w[0].GetLastTimestamp() == 0 || w[0].GetError() != "" {
		t.Errorf("logs: %v", w)
	}
	m, err := n.control.GetMetrics(within(t), &qnpb.GetMetricsRequest{})
	must(t, err)
	if m.GetNode() != "test" || m.GetVersion() != "1.2.3" || m.GetState() != "serving" || m.GetCpus() < 1 || m.GetMemoryBytes()["growing"] == 0 {
		t.Errorf("metrics: %v", m)
	}
	dump, err := n.admin.DumpState(within(t), &qnpb.DumpStateRequest{})
	must(t, err)
	var state map[string]any
	must(t, json.Unmarshal([]byte(dump.GetJson()), &state))
	for _, key := range []string{"node", "state", "history", "distribution", "wals", "consumers", "load", "goroutines"} {
		if state[key] == nil {
			t.Errorf("the state does not tell of %q: %s", key, dump.GetJson())
		}
	}
	for _, l := range []string{"debug", "ERROR", "info"} {
		before := level.Level()
		r, err := n.admin.SetLogLevel(within(t), &qnpb.SetLogLevelRequest{Level: l})
		must(t, err)
		if r.GetPrevious() == "" || level.Level() == before {
			t.Errorf("level %s: %v, then %v", l, r, level.Level())
		}
	}
	for _, l := range []string{"", "loud", "info+1", "-4"} {
		_, err := n.admin.SetLogLevel(within(t), &qnpb.SetLogLevelRequest{Level: l})
		n.refuses(t, err, codes.InvalidArgument, "want debug, info, warn or error")
	}
}
