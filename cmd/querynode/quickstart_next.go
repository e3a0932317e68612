package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
)

// next shows the figures and what to try now.
func (q *quickstart) next() error {
	request, err := q.writeRequest()
	if err != nil {
		return err
	}
	if q.out.JSON() {
		return q.out.Document(&q.fig)
	}
	f, out := &q.fig, q.out
	out.Printf("")
	out.Printf("recall@10  %s over %d queries, against exact search over the raw vectors", out.Paint(console.Good, fmt.Sprintf("%.4f", f.Recall)), f.Queries)
	out.Printf("latency    p50 %s ms, p99 %s ms a search over gRPC, one at a time", out.Paint(console.Strong, fmt.Sprintf("%.2f", f.P50)), out.Paint(console.Strong, fmt.Sprintf("%.2f", f.P99)))
	out.Printf("in all     %.1f s, %s rows written by this run", f.Seconds.Total, console.Count(f.Written))
	if q.Exit {
		return nil
	}
	out.Printf("\n%s  API %s, metrics http://%s/metrics\n", out.Paint(console.Good, "serving"), f.Addr, f.AdminAddr)
	out.Printf("Try, in another terminal:")
	self := filepath.Base(os.Args[0])
	if path, err := exec.LookPath(self); err != nil || path == "" {
		self = os.Args[0]
	}
	addr := " --addr " + f.Addr
	if f.Addr == defaultAddr {
		addr = ""
	}
	king := q.words.ids[q.words.byText["king"]]
	for _, line := range []string{
		fmt.Sprintf("%s search words --id %d --output-fields word -k 5 --filter 'length < 6'%s", self, king, addr),
		fmt.Sprintf("%s status%s", self, addr),
		fmt.Sprintf("%s -plaintext -d @ %s querynode.v1.QueryService/Search < %s", tool("grpcurl"), f.Addr, request),
		fmt.Sprintf("%s --insecure --call querynode.v1.QueryService/Search --data-file %s -n 2000 -c 8 %s", tool("ghz"), request, f.Addr),
	} {
		out.Printf("  %s", out.Paint(console.Name, line))
	}
	out.Printf("\nCtrl-C stops. The next run finds the data in %s.", short(q.cfg.Node.DataDir))
	return nil
}

// tool is how a tool is called here: as installed, or as the clone has it.
func tool(name string) string {
	if _, err := exec.LookPath(name); err == nil {
		return name
	}
	mod := filepath.Join("tools", name+".mod")
	if _, err := os.Stat(mod); err == nil {
		return "go tool -modfile=" + mod + " " + name
	}
	return name
}

// writeRequest puts the search for the neighbours of "king" into a file, as JSON
// that grpcurl and ghz send.
func (q *quickstart) writeRequest() (string, error) {
	raw, err := json.Marshal(map[string]any{
		"collection": wordsCollection, "top_k": 5, "output_fields": []string{"word"},
		"vectors": map[string]any{"dim": q.words.dim, "values": q.words.vector(q.words.byText["king"])},
	})
	if err != nil {
		return "", errors.Wrap(err, "encode the request")
	}
	path := filepath.Join(q.cfg.Node.DataDir, "search-king.json")
	return short(path), errors.Wrap(os.WriteFile(path, append(raw, '\n'), 0o640), "write the request")
}

// short is the path as seen from here, if that is below.
func short(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(here, path)
	if err != nil || !filepath.IsLocal(rel) {
		return path
	}
	return rel
}
