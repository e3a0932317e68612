package node

import (
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/segments"
)

func TestParametersOfAnIndex(t *testing.T) {
	got, err := vectorIndex(&catalog.Index{Type: catalog.IndexFlat, Metric: "L2", Params: map[string]string{"M": "8", "recall": "0.5", "row_bytes": "3"}})
	must(t, err)
	if got.M != 8 || got.Recall != 0.5 || got.RowBytes != 3 || got.Lists != 0 || got.K1 != segments.DefaultK1 || got.B != segments.DefaultB {
		t.Errorf("%+v", got)
	}
	_, err = vectorIndex(&catalog.Index{Type: catalog.IndexFlat, Metric: "L2", Params: map[string]string{"M": "8", "nlist": "many", "row_bytes": "few"}})
	if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), "index parameter nlist") {
		t.Errorf("the first that cannot be read is told as %v", err)
	}
}
