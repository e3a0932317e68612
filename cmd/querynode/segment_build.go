package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/dataset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/segments"
)

type segmentBuildCmd struct {
	Out        string `required:"" type:"path" placeholder:"DIR" help:"Folder to create."`
	Input      string `required:"" type:"existingfile" placeholder:"FILE" help:"Rows: .parquet, .npy, .fvecs or .bvecs."`
	Collection string `placeholder:"NAME" help:"Collection of the node at --addr to build for: schema, ids, channel and index come from there."`
	Partition  string `placeholder:"NAME" help:"Partition of that collection."`
	Storage    string `placeholder:"URL" help:"Object storage of the node, as in its storage.url: the segment is put there too, for \"querynode load --path\"."`
	Limit      int64  `help:"Rows to take at most; 0 = all."`

	Index          string `enum:"HNSW,FLAT,HNSW_SQ,IVF_FLAT,IVF_SQ8,SCANN,AUTOINDEX,hnsw,flat,hnsw_sq,ivf_flat,ivf_sq8,scann,autoindex," default:"" placeholder:"HNSW" help:"Index of the vectors: FLAT, HNSW, HNSW_SQ, IVF_FLAT, IVF_SQ8, SCANN or AUTOINDEX. Default: the collection's, else HNSW."`
	Metric         string `enum:"L2,IP,COSINE,l2,ip,cosine," default:"" placeholder:"L2" help:"L2, IP or COSINE. Default: the collection's, else COSINE."`
	M              int    `name:"m" placeholder:"16" help:"HNSW: links of a row."`
	EFConstruction int    `name:"ef-construction" placeholder:"200" help:"HNSW: candidates while building."`
	Workers        int    `help:"Goroutines that build the index; 0 = as many as there are processors."`

	CollectionID int64  `name:"collection-id" placeholder:"ID" help:"Without a node: id of the collection."`
	PartitionID  int64  `name:"partition-id" placeholder:"ID" help:"Without a node: id of the partition."`
	SegmentID    int64  `name:"segment-id" placeholder:"ID" help:"Id of the segment. Default: random above 2^52, where no node's ids are."`
	Vchannel     string `name:"vchannel" placeholder:"NAME" help:"Without a node: the channel that the segment belongs to."`
	clientFlags
}

// Help is shown by --help.
func (segmentBuildCmd) Help() string {
	return `Builds a sealed segment from a file, on this machine.

With --collection the node is asked what the segment must look like, and it can be loaded. The node reads it from its
object storage, so name that with --storage (the same URL as the node's; a node on this machine that was started
without one has it in DATA_DIR/objects), or copy the folder there yourself. The rows get the time of the build: they
hide older rows of the same keys. Collections of one shard only; rows of several shards go through "querynode insert".

Without --collection the schema follows from the file, for "segment inspect", tests and benchmarks.

Example:
  querynode segment build --out /tmp/words-1 --input words.parquet --collection words \
      --storage file://$PWD/querynode-data/objects
  querynode load words --path imports/words/4503599627370497     (as the command above prints it)
  querynode segment build --out /tmp/sift --input sift_base.fvecs --index HNSW --metric L2 --m 16 --ef-construction 200`
}

// plan is what is to be built.
type plan struct {
	meta segments.Meta
	info segments.CollectionInfo
	rows *dataset.Reader
	cols *mapping
}

// Run builds the segment and puts it where the node finds it.
func (s *segmentBuildCmd) Run(a *app) error {
	if s.Workers < 0 || s.M < 0 || s.EFConstruction < 0 || s.Limit < 0 {
		return usage(errors.New("numbers must not be negative"))
	}
	if s.Collection == "" && (s.Storage != "" || s.Partition != "") {
		return usage(errors.New("--storage and --partition go with --collection"))
	}
	return s.with(a, func(ctx context.Context, c *client) (err error) {
		p, err := s.plan(ctx, c)
		if err != nil {
			return err
		}
		defer func() { err = errors.CombineErrors(err, p.rows.Close()) }()
		m, err := s.build(ctx, c.out, p)
		if err != nil {
			return err
		}
		key := ""
		if s.Storage != "" {
			if key, err = s.upload(ctx, c.out, m); err != nil {
				return err
			}
		}
		return s.report(c, m, key)
	})
}

// plan asks the node, or makes the ids up.
func (s *segmentBuildCmd) plan(ctx context.Context, c *client) (*plan, error) {
	p := &plan{meta: segments.Meta{ID: s.SegmentID, CollectionID: s.CollectionID, PartitionID: s.PartitionID, VChannel: s.Vchannel}}
	if p.meta.ID == 0 {
		p.meta.ID = catalog.FirstForeignID + rand.Int64N(1<<52)
	}
	if s.Collection != "" && p.meta.ID < catalog.FirstForeignID {
		return nil, errclass.New(errclass.Invalid, "--segment-id %d: ids below 2^52 are the nodes' own; leave it out to have one made up", p.meta.ID)
	}
	var err error
	if s.Collection == "" {
		err = s.alone(p)
	} else {
		err = s.forNode(ctx, c, p)
	}
	if err != nil {
		return nil, err
	}
	if p.cols, err = mapColumns(p.rows, p.info.Schema, true); err != nil {
		return nil, errors.CombineErrors(err, p.rows.Close())
	}
	for _, x := range p.cols.skipped {
		c.out.Notef("column %q is left out: %s", x.Column, x.Why)
	}
	return p, nil
}

// alone plans a segment for no collection in particular.
func (s *segmentBuildCmd) alone(p *plan) (err error) {
	p.meta.CollectionID, p.meta.PartitionID = max(p.meta.CollectionID, 1), max(p.meta.PartitionID, 1)
	if p.meta.VChannel == "" {
		p.meta.VChannel = "local_1v0"
	}
	if p.rows, err = dataset.Open(s.Input, dataset.Options{Limit: s.Limit}); err != nil {
		return err
	}
	sc := p.rows.Schema()
	p.info = segments.CollectionInfo{ID: p.meta.CollectionID, Name: "local", Schema: &sc, Indexes: map[int64]segments.VectorIndex{}}
	for _, f := range sc.Fields {
		if f.Type.IsVector() {
			ix := segments.VectorIndex{Type: "HNSW", Metric: index.Cosine}
			if err := s.override(&ix); err != nil {
				return err
			}
			p.info.Indexes[f.ID] = ix
		}
	}
	return nil
}

// forNode plans a segment that the node can load.
func (s *segmentBuildCmd) forNode(ctx context.Context, c *client, p *plan) error {
	if s.CollectionID != 0 || s.PartitionID != 0 || s.Vchannel != "" {
		return usage(errors.New("--collection-id, --partition-id and --vchannel are for building without --collection"))
	}
	coll, err := c.describe(ctx, s.Collection)
	if err != nil {
		return err
	}
	if n := len(coll.GetChannels()); n != 1 {
		return &problem{text: fmt.Sprintf("%s has %d shards, and a segment belongs to one", coll.GetName(), n), next: "use \"querynode insert\", which spreads the rows"}
	}
	if primaryOf(coll.GetSchema()).GetAutoId() {
		return &problem{text: fmt.Sprintf("the node gives the keys of %s", coll.GetName()), next: "use \"querynode insert\""}
	}
	p.meta.CollectionID, p.meta.VChannel = coll.GetId(), coll.GetChannels()[0].GetVchannel()
	want := s.Partition
	if want == "" {
		want = "_default"
	}
	for _, part := range coll.GetPartitions() {
		if part.GetName() == want {
			p.meta.PartitionID = part.GetId()
		}
	}
	if p.meta.PartitionID == 0 {
		return &problem{text: fmt.Sprintf("%s has no partition %q", coll.GetName(), want)}
	}
	sc, err := schemaOf(coll.GetSchema())
	if err != nil {
		return err
	}
	p.info = segments.CollectionInfo{ID: coll.GetId(), Name: coll.GetName(), Schema: &sc, Indexes: map[int64]segments.VectorIndex{}}
	for _, x := range coll.GetIndexes() {
		f, ok := sc.Field(x.GetField())
		if !ok {
			continue
		}
		ix := segments.VectorIndex{Type: x.GetType()}
		if ix.Metric, err = index.ParseMetric(x.GetMetric()); err != nil {
			return err
		}
		ix.M, ix.EfConstruction = intOr(x.GetParams()["M"], 0), intOr(x.GetParams()["efConstruction"], 0)
		ix.Lists, ix.RowBytes = intOr(x.GetParams()["nlist"], 0), intOr(x.GetParams()["row_bytes"], 0)
		if s.Metric != "" && !strings.EqualFold(s.Metric, x.GetMetric()) {
			return &problem{text: fmt.Sprintf("field %q of %s is searched with %s, not with %s", x.GetField(), coll.GetName(), x.GetMetric(), strings.ToUpper(s.Metric)), next: "leave --metric out"}
		}
		if err := s.override(&ix); err != nil {
			return err
		}
		p.info.Indexes[f.ID] = ix
	}
	p.rows, err = openFor(s.Input, &sc, s.Limit)
	return err
}

func intOr(text string, otherwise int) int {
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	return otherwise
}

// override applies what was typed, and the defaults.
func (s *segmentBuildCmd) override(ix *segments.VectorIndex) (err error) {
	if s.Index != "" {
		ix.Type = strings.ToUpper(s.Index)
	}
	if s.Metric != "" {
		if ix.Metric, err = index.ParseMetric(strings.ToUpper(s.Metric)); err != nil {
			return err
		}
	}
	if s.M != 0 {
		ix.M = s.M
	}
	if s.EFConstruction != 0 {
		ix.EfConstruction = s.EFConstruction
	}
	if ix.M == 0 {
		ix.M = 16
	}
	if ix.EfConstruction == 0 {
		ix.EfConstruction = 200
	}
	return nil
}

// buildRows is how many rows are read at a time.
const buildRows = 4096

func (s *segmentBuildCmd) build(ctx context.Context, out *console.Console, p *plan) (*segfile.Manifest, error) {
	workers := s.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	reading := out.Bar("read "+path.Base(s.Input), p.rows.Rows(), console.Rows)
	var building *console.Bar
	defer func() { reading.Fail(); building.Fail() }() // what has ended well stays so
	now, read := wal.FromTime(time.Now()), int64(0)
	m, err := segments.Build(ctx, segments.BuildOptions{
		Dir: s.Out, Meta: p.meta, Info: p.info, Workers: workers,
		Progress: func(done, _ int) { building.Set(int64(done)) },
	}, func() (*schema.Batch, error) {
		b, err := p.rows.Next(buildRows)
		if errors.Is(err, io.EOF) {
			reading.Done()
			building = out.Bar("build index", read, console.Rows)
		}
		if err != nil {
			return nil, err
		}
		first := read
		read += int64(b.Rows)
		reading.Set(read)
		b, err = arrange(b, p, now)
		return b, errors.Wrapf(err, "rows from %d of the file", first)
	})
	if err != nil {
		return nil, err
	}
	building.Done()
	return m, nil
}

// arrange brings the columns of a file into the order of the schema; fields that
// the file does not have get their default value or become nulls.
func arrange(b *schema.Batch, p *plan, ts uint64) (*schema.Batch, error) {
	out := &schema.Batch{Rows: b.Rows, Timestamps: slices.Repeat([]uint64{ts}, b.Rows)}
	have := schema.Batch{Columns: p.cols.columns(b)}
	for _, f := range p.info.Schema.Given() {
		c := have.Column(f.ID)
		if c == nil {
			var err error
			if c, err = schema.AbsentColumn(f, b.Rows); err != nil {
				return nil, err
			}
		}
		out.Columns = append(out.Columns, c)
	}
	if err := out.CheckGiven(p.info.Schema); err != nil {
		return nil, err
	}
	return out, out.CheckFinite(p.info.Schema)
}

// upload puts the segment into object storage and returns its folder there.
func (s *segmentBuildCmd) upload(ctx context.Context, out *console.Console, m *segfile.Manifest) (key string, err error) {
	bucket, err := objstore.Open(ctx, s.Storage, objstore.Options{})
	if err != nil {
		return "", err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
		defer cancel()
		err = errors.CombineErrors(err, bucket.Close(ctx))
	}()
	key = path.Join("imports", s.Collection, strconv.FormatInt(m.SegmentID, 10))
	bar := out.Bar("upload", m.DiskBytes(), console.Bytes)
	if err := flush.Upload(ctx, bucket, s.Out, key, m, workTimeout, func(done, _ int64) { bar.Set(done) }); err != nil {
		bar.Fail()
		return "", err
	}
	bar.Done()
	return key, nil
}

func (s *segmentBuildCmd) report(c *client, m *segfile.Manifest, key string) error {
	if c.out.JSON() {
		return c.out.Document(map[string]any{"dir": s.Out, "segment_id": m.SegmentID, "rows": m.Rows, "bytes": m.DiskBytes(), "path": key})
	}
	c.out.Printf("segment %d: %s rows, %s in %s", m.SegmentID, console.Count(m.Rows), console.Size(m.DiskBytes()), s.Out)
	switch {
	case key != "":
		c.out.Printf("load it with: querynode load %s --path %s --addr %s", s.Collection, key, c.addr)
	case s.Collection != "":
		c.out.Printf("to load it, copy the folder into the node's object storage, e.g. as imports/%s/%d, then: querynode load %s --path imports/%s/%d --addr %s",
			s.Collection, m.SegmentID, s.Collection, s.Collection, m.SegmentID, c.addr)
	}
	return nil
}
