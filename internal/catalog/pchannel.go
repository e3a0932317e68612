package catalog

import (
	"context"
	"math"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// PChannel tells who owns a pchannel.
type PChannel struct {
	Header
	Name  string `json:"name"`
	Owner string `json:"owner"`
	Term  uint64 `json:"term"` // of the owner; grows with each change of owner, >= 1
}

func (p *PChannel) validate() error {
	var bad problems
	bad.err(checkPChannel(p.Name))
	bad.check(len(p.Owner) <= 1024, "an owner of %d bytes, at most 1024", len(p.Owner))
	bad.check(p.Term >= 1, "term 0, want >= 1")
	return bad.join(errclass.Invalid)
}

// NextTerm makes owner the owner of the pchannel and returns its term, which is
// higher than every one returned before. Terms may be skipped, never repeated.
func (c *Catalog) NextTerm(ctx context.Context, pchannel, owner string) (uint64, error) {
	if err := checkPChannel(pchannel); err != nil {
		return 0, err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	key := c.pchannelKey(pchannel)
	for try := 0; ; try++ {
		p, err := change(ctx, c, key, maxSmallManifest, func(m *PChannel, _ bool) error {
			if m.Term == math.MaxUint64 {
				return errclass.New(errclass.Exhausted, "the terms are used up")
			}
			m.Owner, m.Term = owner, m.Term+1
			return nil
		})
		if err == nil {
			return p.Term, nil
		}
		if errclass.Is(err, errclass.NotFound) {
			err = c.put(ctx, key, &PChannel{Name: pchannel, Owner: owner, Term: 1}, maxSmallManifest, "")
			if err == nil {
				return 1, nil
			}
			if errors.Is(err, objstore.ErrPrecondition) {
				continue // another was first, or a lost try of ours: the next term is higher than both
			}
			if err = c.again(ctx, key, err, try); err == nil {
				continue
			}
		}
		return 0, errors.Wrapf(err, "next term of pchannel %s", pchannel)
	}
}
