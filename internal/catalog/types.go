package catalog

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
)

// Format is the newest format of manifests that this build reads and writes. Each
// manifest is written in the oldest one that can hold it. Formats 2 and 3 have what
// schema.Schema.Format says, format 4 is a collection's of which a field was dropped, format 5
// a channel's that has segments without an index (Segment.Unindexed).
const Format = 5

// Limits of a catalog. Dropped collections count until Sweep has removed them.
const (
	MaxCollections   = 10_000
	MaxPartitions    = 1_024 // of a collection
	MaxAliases       = 64    // of a collection
	MaxProperties    = 256   // of a collection
	MaxPropertyBytes = 4_096 // of one value; keys have the limit of names
	MaxShards        = 64
	MaxSegments      = 65_536 // of a channel; as many deltas
	MaxPosition      = 4_096  // bytes of the text of a queue position
	MaxPChannelBytes = 200
)

// DefaultPartition is the partition that every collection has.
const DefaultPartition = "_default"

// The types of an index and its metrics.
const (
	IndexFlat = "FLAT"
	IndexHNSW = "HNSW"
	IndexAuto = "AUTOINDEX"

	IndexHNSWSQ  = "HNSW_SQ"  // IndexHNSW on codes of a byte or less
	IndexIVFFlat = "IVF_FLAT" // an inverted file
	IndexIVFSQ8  = "IVF_SQ8"  // one of codes of a byte
	IndexScaNN   = "SCANN"    // one of codes of two bits and of a byte

	// Of scalar fields, as Milvus calls them. All but NGRAM are the same here: one
	// that knows the values in order, or the elements of arrays.
	IndexInverted = "INVERTED"
	IndexSorted   = "STL_SORT"
	IndexBitmap   = "BITMAP"
	IndexTrie     = "TRIE"
	IndexNgram    = "NGRAM" // pieces of texts, for like "%..%"

	indexHybrid = "HYBRID" // Milvus' name for what chooses between two of them: IndexAuto

	MetricL2     = "L2"
	MetricIP     = "IP"
	MetricCosine = "COSINE"

	MetricHamming = "HAMMING" // of vectors of bits
	MetricJaccard = "JACCARD"

	MetricBM25 = "BM25" // of words that a function counts

	IndexBinFlat        = "BIN_FLAT" // IndexFlat of vectors of bits
	IndexSparseInverted = "SPARSE_INVERTED_INDEX"
	IndexSparseWAND     = "SPARSE_WAND" // the same
)

// Parameters of an index with MetricBM25.
const (
	ParamK1 = "bm25_k1" // 0 to 3; 1.2 if it is not given
	ParamB  = "bm25_b"  // 0 to 1; 0.75 if it is not given
)

// Header is what every manifest begins with. Users read it, the catalog writes it.
type Header struct {
	Format  int    `json:"format"`
	Version uint64 `json:"version"` // 1 at creation, one more with each change
}

func (h *Header) header() *Header { return h }

func (h *Header) format() int { return 1 }

// Collection is what the catalog knows of a collection. What a Catalog returns
// belongs to the caller.
type Collection struct {
	Header
	ID               int64             `json:"id"` // never used twice, > 0
	Name             string            `json:"name"`
	Schema           schema.Schema     `json:"schema"`
	Partitions       []Partition       `json:"partitions"` // "_default" first, then in order of creation
	Indexes          []Index           `json:"indexes,omitempty"`
	Aliases          []string          `json:"aliases,omitempty"` // sorted
	VChannels        []VChannel        `json:"vchannels"`         // one per shard, in order
	Properties       map[string]string `json:"properties,omitempty"`
	CreatedTimestamp uint64            `json:"created_timestamp"`           // hybrid
	DroppedTimestamp uint64            `json:"dropped_timestamp,omitempty"` // hybrid; 0 = live
	LastFieldID      int64             `json:"last_field_id,omitempty"`     // of all fields there ever were; 0 = none was dropped
}

// Partition is a part of a collection that can be searched by itself.
type Partition struct {
	ID               int64  `json:"id"` // never used twice, > 0
	Name             string `json:"name"`
	CreatedTimestamp uint64 `json:"created_timestamp"` // hybrid
}

// Index says how a vector field is indexed. A field has at most one.
type Index struct {
	Name    string            `json:"name"` // "" when creating = "<field>_index"
	FieldID int64             `json:"field_id"`
	Type    string            `json:"type"`              // IndexFlat, IndexHNSW, ...; "" when creating = IndexAuto
	Metric  string            `json:"metric"`            // one that the field's type has; "" when creating = MetricCosine, or the first of them
	Params  map[string]string `json:"params,omitempty"`  // see floatIndexes; BM25: ParamK1, ParamB
	Default bool              `json:"default,omitempty"` // given by CreateCollection, not asked for; CreateIndex replaces it
}

// VChannel is a shard of a collection and the topic that carries it.
type VChannel struct {
	Name     string `json:"name"` // "<pchannel>_<collection id>v<shard>"
	PChannel string `json:"pchannel"`
}

// Channel is what is sealed of a shard, and from where the rest is replayed.
type Channel struct {
	Header
	VChannel            string    `json:"vchannel"`
	PChannel            string    `json:"pchannel"`
	CollectionID        int64     `json:"collection_id"`
	Term                uint64    `json:"term"`                 // of the last commit; a lower one is fenced
	Checkpoint          string    `json:"checkpoint"`           // text of a queue position, not read here; "" = the oldest
	CheckpointTimestamp uint64    `json:"checkpoint_timestamp"` // hybrid; all up to it is in Segments and Deltas
	Segments            []Segment `json:"segments"`             // in order of id
	Deltas              []Delta   `json:"deltas"`               // in order of path
}

// Segment is a sealed segment.
type Segment struct {
	ID           int64  `json:"id"` // never used twice, > 0
	CollectionID int64  `json:"collection_id"`
	PartitionID  int64  `json:"partition_id"`
	VChannel     string `json:"vchannel"`
	Path         string `json:"path"` // its folder in the bucket
	Rows         int64  `json:"rows"`
	Bytes        int64  `json:"bytes"`
	// MinTimestamp and MaxTimestamp are those of its rows, hybrid, inclusive. Rows that the
	// files say are older than MinTimestamp count as written then: those of a segment
	// that was built elsewhere are as old as its arrival in the channel.
	MinTimestamp  uint64 `json:"min_timestamp"`
	MaxTimestamp  uint64 `json:"max_timestamp"`
	StartPosition string `json:"start_position,omitempty"` // text of queue positions, not read here
	EndPosition   string `json:"end_position,omitempty"`
	// FoldedTimestamp says that every delete of the channel up to it is in the
	// segment itself, 0 = none: files of deletes up to it need not be applied.
	FoldedTimestamp uint64 `json:"folded_timestamp,omitempty"`
	// Unindexed says that the index of a field is missing, since there was no room to build it: the field is scanned until
	// a compaction has rewritten the segment.
	Unindexed bool `json:"unindexed,omitempty"`
}

// Delta is a file of deletes of a channel.
type Delta struct {
	Path         string `json:"path"`                   // its key in the bucket
	PartitionID  int64  `json:"partition_id,omitempty"` // only rows of this partition; 0 = all
	Rows         int64  `json:"rows"`
	Bytes        int64  `json:"bytes"`
	MinTimestamp uint64 `json:"min_timestamp"` // hybrid, of the deletes, inclusive
	MaxTimestamp uint64 `json:"max_timestamp"`
}

// Partition returns the partition called name.
func (c *Collection) Partition(name string) (Partition, bool) {
	i := slices.IndexFunc(c.Partitions, func(p Partition) bool { return p.Name == name })
	if i < 0 {
		return Partition{}, false
	}
	return c.Partitions[i], true
}

// IndexOf returns the index of the field.
func (c *Collection) IndexOf(fieldID int64) (Index, bool) {
	i := slices.IndexFunc(c.Indexes, func(x Index) bool { return x.FieldID == fieldID })
	if i < 0 {
		return Index{}, false
	}
	return c.Indexes[i], true
}

func (c *Collection) calls(name string) bool {
	return c.Name == name || slices.Contains(c.Aliases, name)
}

// problems collects what is wrong with a manifest or a request.
type problems []error

func (p *problems) add(format string, args ...any) { *p = append(*p, errors.Newf(format, args...)) }

func (p *problems) check(ok bool, format string, args ...any) {
	if !ok {
		p.add(format, args...)
	}
}

func (p *problems) err(err error) {
	if err != nil {
		*p = append(*p, err)
	}
}

func (p problems) join(c errclass.Class) error { return errclass.Mark(errors.Join(p...), c) }

func (c *Collection) format() int {
	if c.LastFieldID > 0 {
		return 4
	}
	for _, x := range c.Indexes {
		if f, ok := c.Schema.FieldByID(x.FieldID); ok && !f.Type.IsVector() {
			return max(2, c.Schema.Format())
		}
	}
	return c.Schema.Format()
}

// validate reports what cannot be in a collection's manifest.
func (c *Collection) validate() error {
	var p problems
	p.check(c.ID > 0, "collection id %d, want > 0", c.ID)
	p.err(schema.CheckName("collection", c.Name))
	p.err(c.Schema.Validate())
	p.check(len(c.Partitions) >= 1 && len(c.Partitions) <= MaxPartitions, "%d partitions, want 1 to %d", len(c.Partitions), MaxPartitions)
	p.check(len(c.Partitions) > 0 && c.Partitions[0].Name == DefaultPartition, "the first partition must be %s", DefaultPartition)
	ids, names := map[int64]bool{}, map[string]bool{}
	for _, part := range c.Partitions {
		p.err(schema.CheckName("partition", part.Name))
		p.check(part.ID > 0, "partition %s: id %d, want > 0", part.Name, part.ID)
		p.check(!ids[part.ID] && !names[part.Name], "partition %s (id %d) is there twice", part.Name, part.ID)
		ids[part.ID], names[part.Name] = true, true
	}
	p.err(checkIndexes(c.Indexes, &c.Schema))
	p.check(c.LastFieldID >= 0, "last_field_id %d", c.LastFieldID)
	p.check(len(c.Aliases) <= MaxAliases, "%d aliases, at most %d", len(c.Aliases), MaxAliases)
	for i, a := range c.Aliases {
		p.err(schema.CheckName("alias", a))
		p.check(i == 0 || c.Aliases[i-1] < a, "aliases are not in order at %q", a)
		p.check(a != c.Name, "alias %q is also the name", a)
	}
	p.check(len(c.VChannels) >= 1 && len(c.VChannels) <= MaxShards, "%d shards, want 1 to %d", len(c.VChannels), MaxShards)
	for i, v := range c.VChannels {
		p.err(checkPChannel(v.PChannel))
		p.check(v.Name == vchannelName(v.PChannel, c.ID, i), "shard %d is called %q, want %q", i, v.Name, vchannelName(v.PChannel, c.ID, i))
	}
	p.err(checkProperties(c.Properties))
	return p.join(errclass.Invalid)
}

func checkProperties(m map[string]string) error {
	var p problems
	p.check(len(m) <= MaxProperties, "%d properties, at most %d", len(m), MaxProperties)
	for k, v := range m {
		p.check(k != "" && len(k) <= schema.MaxNameBytes, "property key of %d bytes, want 1 to %d", len(k), schema.MaxNameBytes)
		p.check(len(v) <= MaxPropertyBytes, "property %q has %d bytes, at most %d", k, len(v), MaxPropertyBytes)
	}
	return p.join(errclass.Invalid)
}

func checkIndexes(indexes []Index, s *schema.Schema) error {
	var p problems
	names, fields := map[string]bool{}, map[int64]bool{}
	for _, x := range indexes {
		p.err(x.validate(s))
		p.check(!names[x.Name], "index %q is there twice", x.Name)
		p.check(!fields[x.FieldID], "index %q: field %d has another index", x.Name, x.FieldID)
		names[x.Name], fields[x.FieldID] = true, true
	}
	return p.join(errclass.Invalid)
}

func (x *Index) validate(s *schema.Schema) error {
	var p problems
	p.err(schema.CheckName("index", x.Name))
	f, ok := s.FieldByID(x.FieldID)
	p.check(ok, "index %q: field %d is not in the schema", x.Name, x.FieldID)
	if ok && !f.Type.IsVector() {
		x.validateScalar(&f, &p)
		return p.join(errclass.Invalid)
	}
	switch _, made := s.FunctionOf(f.ID); {
	case !ok, f.Type == schema.FloatVector:
		x.validateDense(floatIndexes(), &p)
	case f.Type == schema.BinaryVector, f.Type == schema.SparseFloatVector:
		x.validateVector(&f, made, &p)
	default:
		x.validateDense(narrowIndexes(), &p)
	}
	return p.join(errclass.Invalid)
}

// validateVector checks the index of a field of bits or sparse vectors; made
// says that a function makes it.
func (x *Index) validateVector(f *schema.Field, made bool, p *problems) {
	types, metrics := []string{IndexFlat, IndexAuto, IndexBinFlat}, []string{MetricHamming, MetricJaccard}
	if f.Type == schema.SparseFloatVector {
		types, metrics = []string{IndexFlat, IndexAuto, IndexSparseInverted, IndexSparseWAND}, []string{MetricIP}
		if made {
			metrics = []string{MetricBM25}
		}
	}
	p.check(slices.Contains(types, x.Type), "index %q: type %q, want one of %s for a field of type %s", x.Name, x.Type, strings.Join(types, ", "), f.Type)
	p.check(slices.Contains(metrics, x.Metric), "index %q: metric %q, want one of %s for a field of type %s", x.Name, x.Metric, strings.Join(metrics, ", "), f.Type)
	if made {
		x.validateBM25(p)
		return
	}
	p.check(len(x.Params) == 0, "index %q: parameters, but %s of a field of type %s has none", x.Name, x.Type, f.Type)
}

// validateBM25 checks the parameters of an index with MetricBM25.
func (x *Index) validateBM25(p *problems) {
	for k, v := range x.Params {
		most := map[string]float64{ParamK1: 3, ParamB: 1}[k]
		n, err := strconv.ParseFloat(v, 64)
		switch {
		case most == 0:
			p.add("index %q: unknown parameter %q; BM25 has %s and %s", x.Name, k, ParamK1, ParamB)
		case err != nil || !(n >= 0 && n <= most):
			p.add("index %q: %s is %q, want 0 to %v", x.Name, k, v, most)
		}
	}
}

// validateScalar checks the index of a field that is no vector.
func (x *Index) validateScalar(f *schema.Field, p *problems) {
	types := []string{IndexInverted, IndexBitmap, IndexAuto}
	switch {
	case f.Type == schema.Bool: // kept, and nothing is built: a column of bits is read as fast
	case f.Type == schema.JSON: // kept, and nothing is built
		types = []string{IndexInverted, IndexAuto}
	case f.Type == schema.VarChar:
		types = append(types, IndexTrie, IndexSorted, IndexNgram)
	case f.Type != schema.Array:
		types = append(types, IndexSorted)
	}
	p.check(slices.Contains(types, x.Type), "index %q: type %q, want one of %s for a field of type %s", x.Name, x.Type, strings.Join(types, ", "), f.Type)
	p.check(x.Metric == "", "index %q: metric %q, but a %s field has none", x.Name, x.Metric, f.Type)
	switch {
	case x.Type == IndexNgram:
		x.validateNgram(p)
	case f.Type == schema.JSON:
		for k := range x.Params {
			p.check(slices.Contains([]string{paramJSONPath, paramJSONCast, paramJSONFunction}, k), "index %q: unknown parameter %q; one of a JSON field has %s, %s and %s",
				x.Name, k, paramJSONPath, paramJSONCast, paramJSONFunction)
		}
	default:
		p.check(len(x.Params) == 0, "index %q: parameters, but %s has none", x.Name, x.Type)
	}
}

// Parameters that Milvus' users give to indexes of scalar fields. They are kept; what
// is built does not depend on them.
const (
	paramMinGram      = "min_gram" // both or none
	paramMaxGram      = "max_gram"
	paramJSONPath     = "json_path"
	paramJSONCast     = "json_cast_type"
	paramJSONFunction = "json_cast_function"
)

// validateNgram checks the lengths of the pieces of an index of texts.
func (x *Index) validateNgram(p *problems) {
	least, most := 1, 1
	for k, v := range x.Params {
		n, err := strconv.Atoi(v)
		p.check(err == nil && n >= 1, "index %q: %s is %q, want 1 or more", x.Name, k, v)
		switch k {
		case paramMinGram:
			least = n
		case paramMaxGram:
			most = n
		default:
			p.add("index %q: unknown parameter %q; %s has %s and %s", x.Name, k, IndexNgram, paramMinGram, paramMaxGram)
		}
	}
	_, from := x.Params[paramMinGram]
	_, to := x.Params[paramMaxGram]
	p.check(from == to, "index %q: %s and %s go together", x.Name, paramMinGram, paramMaxGram)
	p.check(from != to || least <= most, "index %q: %s is %d, more than %s, %d", x.Name, paramMinGram, least, paramMaxGram, most)
}

// ensureDefaults fills what may be left empty when an index is created.
func (x *Index) ensureDefaults(s *schema.Schema) {
	f, ok := s.FieldByID(x.FieldID)
	if ok && x.Name == "" {
		// A field's name fits the limit; with the suffix it might not.
		x.Name = f.Name[:min(len(f.Name), schema.MaxNameBytes-len("_index"))] + "_index"
	}
	x.Type = strings.ToUpper(x.Type) // Milvus' users write Trie
	if x.Type == "" || x.Type == indexHybrid && ok && !f.Type.IsVector() {
		x.Type = IndexAuto
	}
	switch {
	case x.Metric != "":
	case ok && f.Type == schema.BinaryVector:
		x.Metric = MetricHamming
	case ok && f.Type == schema.SparseFloatVector:
		x.Metric = MetricIP
		if _, made := s.FunctionOf(f.ID); made {
			x.Metric = MetricBM25
		}
	case !ok || f.Type.IsVector():
		x.Metric = MetricCosine
	}
}

var pchannelRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

func checkPChannel(name string) error {
	if len(name) > MaxPChannelBytes || !pchannelRE.MatchString(name) {
		return errclass.New(errclass.Invalid, "pchannel %q: want letters, digits, '_', '.' and '-', not first a '.' or '-', at most %d bytes", name, MaxPChannelBytes)
	}
	return nil
}

func checkVChannel(name string) error {
	if len(name) > MaxPChannelBytes+40 || !pchannelRE.MatchString(name) {
		return errclass.New(errclass.Invalid, "vchannel %q: want \"<pchannel>_<collection id>v<shard>\"", name)
	}
	return nil
}

func vchannelName(pchannel string, collectionID int64, shard int) string {
	return fmt.Sprintf("%s_%dv%d", pchannel, collectionID, shard)
}

func (c *Channel) format() int {
	if slices.ContainsFunc(c.Segments, func(seg Segment) bool { return seg.Unindexed }) {
		return 5
	}
	return 1
}

// validate reports what cannot be in a channel's manifest.
func (c *Channel) validate() error {
	var p problems
	p.err(checkPChannel(c.PChannel))
	p.err(checkVChannel(c.VChannel))
	p.check(c.CollectionID > 0, "collection id %d, want > 0", c.CollectionID)
	p.check(len(c.Checkpoint) <= MaxPosition, "a checkpoint of %d bytes, at most %d", len(c.Checkpoint), MaxPosition)
	p.check(len(c.Segments) <= MaxSegments && len(c.Deltas) <= MaxSegments, "%d segments and %d deltas, at most %d each", len(c.Segments), len(c.Deltas), MaxSegments)
	for i := range c.Segments {
		s := &c.Segments[i]
		p.err(s.validate(c))
		p.check(i == 0 || c.Segments[i-1].ID < s.ID, "segments are not in order at %d", s.ID)
	}
	for i := range c.Deltas {
		d := &c.Deltas[i]
		p.err(d.validate())
		p.check(i == 0 || c.Deltas[i-1].Path < d.Path, "deltas are not in order at %q", d.Path)
	}
	return p.join(errclass.Invalid)
}

func (s *Segment) validate(c *Channel) error {
	var p problems
	p.check(s.ID > 0 && s.PartitionID > 0, "ids of segment and partition must be > 0")
	p.check(s.CollectionID == c.CollectionID, "collection id %d, the channel has %d", s.CollectionID, c.CollectionID)
	p.check(s.VChannel == c.VChannel, "vchannel %q, the channel is %q", s.VChannel, c.VChannel)
	p.check(s.Rows >= 0 && s.Bytes >= 0, "%d rows, %d bytes", s.Rows, s.Bytes)
	p.check(s.MinTimestamp <= s.MaxTimestamp, "timestamps from %d to %d", s.MinTimestamp, s.MaxTimestamp)
	p.check(len(s.StartPosition) <= MaxPosition && len(s.EndPosition) <= MaxPosition, "a position has more than %d bytes", MaxPosition)
	p.err(objstore.CheckKey(s.Path))
	return errclass.Wrap(p.join(errclass.Invalid), errclass.Invalid, "segment %d", s.ID)
}

func (d *Delta) validate() error {
	var p problems
	p.check(d.Rows >= 0 && d.Bytes >= 0, "%d rows, %d bytes", d.Rows, d.Bytes)
	p.check(d.MinTimestamp <= d.MaxTimestamp, "timestamps from %d to %d", d.MinTimestamp, d.MaxTimestamp)
	p.err(objstore.CheckKey(d.Path))
	return errclass.Wrap(p.join(errclass.Invalid), errclass.Invalid, "delta %q", d.Path)
}
