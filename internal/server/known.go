package server

import (
	"context"
	"time"

	"github.com/querynode/querynode/internal/catalog"
)

// catalogPatience is how long a question about this node waits for the catalog.
const catalogPatience = 2 * time.Second

// known returns the collections of the catalog or, if that does not answer, those
// that are served here, without the names of their partitions: what a node does is
// asked above all when its storage is away.
func (s *controlService) known(ctx context.Context) ([]*catalog.Collection, error) {
	soon, cancel := context.WithTimeout(ctx, catalogPatience)
	defer cancel()
	colls, err := s.node.Collections(soon)
	if err == nil || ctx.Err() != nil {
		return colls, err
	}
	for _, c := range s.node.Segments().Collections() {
		info := c.Info()
		colls = append(colls, &catalog.Collection{ID: info.ID, Name: info.Name, Schema: *info.Schema})
	}
	return colls, nil
}
