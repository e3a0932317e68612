package segments

import (
	"slices"
	"strings"

	"github.com/querynode/querynode/internal/errclass"
)

// Warmup says when the vectors and indexes of a segment come to the local disk. Its
// scalars, its keys and their filter always come before it is ready: without them
// deletes could not be applied.
type Warmup string

// The policies. Where the local disk has no free room, all of them are WarmupNone.
const (
	WarmupSync  Warmup = "sync"  // before the segment is ready, and their pages are read into memory unless it is short
	WarmupAsync Warmup = "async" // in the background once it is ready; a read that needs them sooner waits
	WarmupNone  Warmup = "none"  // when a read needs them
)

var warmups = []Warmup{WarmupSync, WarmupAsync, WarmupNone}

// ParseWarmup reads a policy; "" = none is given.
func ParseWarmup(s string) (Warmup, error) {
	w := Warmup(strings.ToLower(s))
	if s != "" && !slices.Contains(warmups, w) {
		return "", errclass.New(errclass.Invalid, "warm-up %q: want sync, async or none", s)
	}
	return w, nil
}

// warmup is the policy of a load: that of the request, or else of the collection, or
// else of the node.
func (c *Collection) warmup(r LoadRequest) Warmup {
	for _, w := range []Warmup{r.Warmup, c.Info().Warmup} {
		if w != "" {
			return w
		}
	}
	return c.set.o.Warmup
}

// Tier says where most of a segment is. What is on the local disk is mapped.
type Tier string

// The tiers.
const (
	TierMemory Tier = "memory" // growing, or its scalars are on the heap, and the rest on the local disk
	TierDisk   Tier = "disk"   // all of it is on the local disk
	TierRemote Tier = "remote" // vectors or indexes are only in object storage now
)

// describeTier fills in where the segment is.
func (s *Sealed) describeTier(st *SegmentStatus) {
	st.Tier = TierMemory
	if s.spilled > 0 {
		st.Tier = TierDisk
	}
	for _, v := range s.vectors {
		if !v.files.isLocal() {
			st.Tier = TierRemote
			st.RemoteBytes += v.files.bytes
		}
	}
}
