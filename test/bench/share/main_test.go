package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

const traces = `File: querynode
Type: cpu
Duration: 8.06s, Total samples = 3.21s (39.85%)
-----------+-------------------------------------------------------
 goroutine:  start
      10ms   github.com/querynode/querynode/internal/vec.fastScanBelowAVX512
             github.com/querynode/querynode/internal/vec.Kernels.FastScanBelow
             github.com/querynode/querynode/internal/index.(*ivf).Search
             github.com/querynode/querynode/segments.(*Sealed).nearest
-----------+-------------------------------------------------------
     1.50s   slices.pdqsortOrdered[go.shape.uint64]
             github.com/querynode/querynode/internal/index.(*ivf).rank
-----------+-------------------------------------------------------
      20ms   runtime.mallocgc
             runtime.gcAssistAlloc1 (inline)
             github.com/querynode/querynode/internal/rowpb.Decode
             google.golang.org/grpc.(*Server).handleStream
-----------+-------------------------------------------------------
      30ms   internal/runtime/syscall/linux.Syscall6
             net.(*conn).Write
             github.com/querynode/querynode/internal/server.(*connection).Write
             google.golang.org/grpc/internal/transport.(*bufWriter).Flush
-----------+-------------------------------------------------------
         0   runtime.futex
-----------+-------------------------------------------------------
      40ms   runtime.scanobject
             runtime.gcBgMarkWorker
-----------+-------------------------------------------------------
      50ms   runtime.findRunnable
             runtime.mcall
`

func TestSamplesCountForTheirInnermostPart(t *testing.T) {
	s, err := sum(strings.NewReader(traces))
	if err != nil {
		t.Fatal(err)
	}
	for part, want := range map[string]time.Duration{
		kernels: 10 * time.Millisecond, walk: 1500 * time.Millisecond, node: 0, transport: 30 * time.Millisecond,
		garbage: 60 * time.Millisecond, other: 50 * time.Millisecond,
	} {
		if s[part] != want {
			t.Errorf("%s: %v, want %v", part, s[part], want)
		}
	}
	var out bytes.Buffer
	if err := s.write(&out, false); err != nil || !strings.Contains(out.String(), "91.5 %   kernels and walk") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if err := (shares{}).write(&out, true); err == nil {
		t.Error("nothing was shared out")
	}
}
