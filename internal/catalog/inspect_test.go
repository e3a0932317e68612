package catalog

import (
	"context"

	"github.com/cockroachdb/errors"
)

// PChannel returns the owner and term of a pchannel, or NotFound.
func (c *Catalog) PChannel(ctx context.Context, pchannel string) (*PChannel, error) {
	if err := checkPChannel(pchannel); err != nil {
		return nil, err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	p, _, err := load[PChannel](ctx, c, c.pchannelKey(pchannel), maxSmallManifest)
	if err != nil {
		return nil, errors.Wrapf(err, "pchannel %s", pchannel)
	}
	return p, nil
}
