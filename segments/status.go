package segments

import "github.com/querynode/querynode/internal/index"

// SegmentState says where a segment is on its way.
type SegmentState string

// The states.
const (
	StateGrowing     SegmentState = "growing"
	StateSealed      SegmentState = "sealed" // growing, and waiting for its flush
	StateLoaded      SegmentState = "loaded"
	StateQuarantined SegmentState = "quarantined" // not searched any more
)

// SegmentStates lists them all.
func SegmentStates() []SegmentState {
	return []SegmentState{StateGrowing, StateSealed, StateLoaded, StateQuarantined}
}

// SegmentStatus describes one segment for people and coordinators.
type SegmentStatus struct {
	Meta
	State        SegmentState
	Rows         int
	DeletedRows  int // hidden by deletes and by newer rows of the same key
	MemoryBytes  int64
	MappedBytes  int64
	Tier         Tier
	RemoteBytes  int64            // vectors and indexes that are only in object storage now
	Cold         bool             // sealed, and its scalars are in a mapped file
	Indexes      map[int64]string // by field id
	Error        string
	MinTimestamp uint64
	MaxTimestamp uint64
}

// Segments describes the segments of the collection that are searchable now.
func (c *Collection) Segments() []SegmentStatus {
	snap := c.Acquire()
	defer snap.Release()
	out := make([]SegmentStatus, 0, len(snap.view.segments))
	for _, h := range snap.view.segments {
		st := SegmentStatus{Meta: h.Meta(), DeletedRows: len(h.hidden().entries), MemoryBytes: h.bytes(), Indexes: map[int64]string{}}
		h.describe(&st)
		if why := h.quarantined(); why != "" {
			st.State, st.Error = StateQuarantined, why
		}
		out = append(out, st)
	}
	return out
}

// SealedIDs are the ids of the sealed segments of a vchannel, "" = of all, those in
// quarantine included, which a growing one can be in, too.
func (c *Collection) SealedIDs(vchannel string) (ids []int64) {
	snap := c.Acquire()
	defer snap.Release()
	for _, h := range snap.view.segments {
		if m := h.Meta(); !h.growing && (vchannel == "" || m.VChannel == vchannel) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func (g *Growing) describe(st *SegmentStatus) {
	st.State, st.Rows, st.Tier = StateGrowing, g.Rows(), TierMemory
	if g.sealed.Load() {
		st.State = StateSealed
	}
	if st.Rows > 0 {
		st.MinTimestamp, st.MaxTimestamp = g.timestamp(0), g.timestamp(uint32(st.Rows-1))
	}
	for _, v := range g.vectors() {
		st.Indexes[v.fieldID] = string(index.KindFlat)
		if v.lists.Load() != nil {
			st.Indexes[v.fieldID] = string(index.KindIVFSQ8)
		}
	}
}

func (s *Sealed) describe(st *SegmentStatus) {
	st.State, st.Rows = StateLoaded, s.rows.Rows
	st.MappedBytes = s.mappedBytes()
	st.Cold = s.spilled > 0
	s.describeTier(st)
	if st.Rows > 0 {
		st.MinTimestamp, st.MaxTimestamp = s.oldest, s.newest
	}
	s.scalars.describe(st)
	for _, v := range s.vectors {
		st.Indexes[v.fieldID] = string(index.KindFlat)
		if v.info.Kind != "" {
			st.Indexes[v.fieldID] = string(v.info.Kind)
		}
	}
}
