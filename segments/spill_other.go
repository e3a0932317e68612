//go:build !unix

package segments

import (
	"os"

	"github.com/querynode/querynode/internal/errclass"
)

// mapSpill refuses: without mapped files there are no cold segments.
func mapSpill(*os.File, int) ([]byte, error) {
	return nil, errclass.New(errclass.Unimplemented, "files cannot be mapped here")
}

func sealSpill([]byte) error { return nil }

func unmapSpill([]byte) error { return nil }
