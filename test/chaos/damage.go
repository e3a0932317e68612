//go:build unix

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// damage changes a file as a bad disk or a crash does, and says how.
func (g *rig) damage(path string) (how string, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if len(raw) == 0 {
		return "removed", os.Remove(path)
	}
	at := g.r.IntN(len(raw))
	switch g.r.IntN(4) {
	case 0:
		return fmt.Sprintf("cut to %d of %d bytes", at, len(raw)), os.Truncate(path, int64(at))
	case 1:
		return "removed", os.Remove(path)
	case 2:
		end := min(len(raw), at+4096)
		changed := slices.ContainsFunc(raw[at:end], func(b byte) bool { return b != 0 })
		if changed {
			clear(raw[at:end])
			return fmt.Sprintf("bytes %d to %d zeroed", at, end), overwrite(path, raw)
		}
		fallthrough // they were zeros
	default:
		raw[at] ^= 1 << g.r.IntN(8)
		return fmt.Sprintf("a bit of byte %d of %d turned", at, len(raw)), overwrite(path, raw)
	}
}

// overwrite keeps the file and changes its bytes, so that links to it see it too.
func overwrite(path string, raw []byte) error { return os.WriteFile(path, raw, 0o640) }

// damageTree damages some files below a folder and returns how many.
func (g *rig) damageTree(dir string) (n int) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && g.r.IntN(2) == 0 {
			if _, err := g.damage(path); err == nil {
				n++
			}
		}
		return nil
	})
	return n
}

// damageSegment damages a file of a sealed segment in object storage while the
// node is down. The node has to start, to say which segment is broken, and to
// refuse reads that need it or to answer them as partial; when the file is
// restored and the segment loaded again, all is as before.
func (g *rig) damageSegment(ctx context.Context) error {
	var loaded []int64
	if err := g.again(ctx, "list segments", func(ctx context.Context, c *client) error {
		d, err := c.control.GetDistribution(ctx, &qnpb.GetDistributionRequest{})
		for _, s := range d.GetDistribution().GetSegments() {
			if s.GetState() == "loaded" && s.GetCollection() == g.load.gate.collection {
				loaded = append(loaded, s.GetId())
			}
		}
		return err
	}); err != nil {
		return err
	}
	if len(loaded) == 0 {
		g.report.rows("segment damages without a segment", 1)
		return g.killServing(ctx)
	}
	slices.Sort(loaded)
	id := loaded[g.r.IntN(len(loaded))]
	g.kill(g.node)
	var files []string
	for _, folder := range []string{"", "-*"} { // of a compaction, of a flush
		found, _ := filepath.Glob(filepath.Join(g.data, "objects", "segments", "*", strconv.FormatInt(id, 10)+folder, "*"))
		files = append(files, found...)
	}
	if len(files) == 0 {
		g.report.violate(Violation{Kind: Lost, What: fmt.Sprintf("segment %d was loaded and has no files in object storage", id)})
		return g.start(ctx)
	}
	path := files[g.r.IntN(len(files))]
	whole, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	how, err := g.damage(path)
	if err != nil {
		return err
	}
	how = fmt.Sprintf("%s of segment %d: %s", filepath.Base(path), id, how)
	if err := g.start(ctx); err != nil {
		return err
	}
	g.reported(ctx, id, how)
	if err := os.WriteFile(path, whole, 0o640); err != nil {
		return err
	}
	if err := g.again(ctx, "load a restored segment", func(ctx context.Context, c *client) error {
		_, err := c.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: g.load.gate.collection, SegmentIds: []int64{id}})
		return err
	}); err != nil && ctx.Err() == nil {
		g.report.violate(Violation{Kind: Unreported, What: fmt.Sprintf("%s; restored: %v", how, err)})
		return g.killServing(ctx)
	}
	return nil
}

// reported checks what a node says that has a broken segment.
func (g *rig) reported(ctx context.Context, id int64, how string) {
	c, name := g.client(), g.load.gate.collection
	if c == nil {
		return
	}
	call, cancel := within(ctx, 2*callTimeout)
	defer cancel()
	bad := func(format string, args ...any) {
		if !g.node.ended() && ctx.Err() == nil {
			g.report.violate(Violation{Kind: Unreported, What: how + ": " + fmt.Sprintf(format, args...) + " (see " + g.node.log + ")"})
		}
	}
	d, err := c.control.GetDistribution(call, &qnpb.GetDistributionRequest{})
	state := "not there"
	for _, s := range d.GetDistribution().GetSegments() {
		if s.GetId() == id {
			state = s.GetState()
		}
	}
	if err != nil || state != "quarantined" {
		bad("the distribution has it as %s, %v", state, err)
	}
	count := &qnpb.QueryRequest{Collection: name, OutputFields: []string{"count(*)"}, Freshness: strong}
	if _, _, _, err := g.load.query(call, c, "count", count); status.Code(err) != codes.DataLoss {
		bad("a count that needs it ends with %v, want DataLoss", err)
	}
	count.AllowPartial = true
	_, last, _, err := g.load.query(call, c, "partial count", count)
	if err != nil {
		bad("a count that may be partial ends with %v", err)
		return
	}
	st := last.GetStats()
	if !slices.ContainsFunc(st.GetFailures(), func(f *qnpb.SegmentFailure) bool { return f.GetSegmentId() == id }) || st.GetSearchedShare() >= 1 {
		bad("a partial count has failures %v and searched %v of the rows", st.GetFailures(), st.GetSearchedShare())
	}
}

// damageDeletes damages a file of stored deletes while the node is down. What it
// serves then is compared by the clients: a delete that is forgotten is seen.
func (g *rig) damageDeletes(ctx context.Context) error {
	g.kill(g.node)
	files, _ := filepath.Glob(filepath.Join(g.data, "objects", "deltas", "*", "*", "*"))
	if len(files) == 0 {
		g.report.rows("delete damages without a file", 1)
		return g.start(ctx)
	}
	path := files[g.r.IntN(len(files))]
	whole, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if _, err := g.damage(path); err != nil {
		return err
	}
	if err := g.start(ctx); err != nil {
		return err
	}
	rest(ctx, g.upTo(time.Second))
	if err := os.WriteFile(path, whole, 0o640); err != nil {
		return err
	}
	if err := g.again(ctx, "load after deletes were restored", func(ctx context.Context, c *client) error {
		_, err := c.control.LoadSegments(ctx, &qnpb.LoadSegmentsRequest{Collection: g.load.gate.collection})
		return err
	}); err != nil && ctx.Err() == nil {
		g.report.violate(Violation{Kind: NotReady, What: fmt.Sprintf("%s was damaged and restored: %v", path, err)})
		return g.killServing(ctx)
	}
	return nil
}

// cutMapped cuts files that the node has mapped. Touching what is gone is a fault
// that kills a process unless it is caught: the node may refuse reads, and log
// what it caught, and must live.
func (g *rig) cutMapped(ctx context.Context) error {
	files, _ := filepath.Glob(filepath.Join(g.data, "run-*", "segments", "*", "*"))
	cut := 0
	for _, path := range files {
		st, err := os.Stat(path)
		if err != nil || !st.Mode().IsRegular() || st.Sys().(*syscall.Stat_t).Nlink > 1 || g.r.IntN(3) > 0 {
			continue // a link to object storage must stay whole
		}
		if os.Truncate(path, 0) == nil {
			cut++
		}
	}
	g.node.mayCatch = true
	g.report.rows("mapped files cut", cut)
	rest(ctx, 200*time.Millisecond+g.upTo(time.Second))
	if g.node.ended() {
		g.buried(g.node)
		return g.start(ctx)
	}
	return g.killServing(ctx)
}

// The layout of a segment file of the embedded queue, see mq/embedded/doc.go.
const (
	queueHeader = 64
	frameHeader = 40
)

// tornTail appends to the last file of a topic what a write leaves that the
// power failure cut: nothing of it was acknowledged, so nothing may be lost.
func (g *rig) tornTail(ctx context.Context) error {
	g.kill(g.node)
	topics, _ := filepath.Glob(filepath.Join(g.data, "queue", "*", "*.seg"))
	last := map[string]string{}
	for _, f := range topics {
		if d := filepath.Dir(f); f > last[d] {
			last[d] = f
		}
	}
	for _, topic := range slices.Sorted(func(yield func(string) bool) {
		for t := range last {
			if !yield(t) {
				return
			}
		}
	}) {
		how, err := g.tear(last[topic])
		if err != nil {
			return err
		}
		g.report.rows("torn tails: "+how, 1)
	}
	return g.start(ctx)
}

func (g *rig) tear(path string) (how string, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var tail []byte
	switch g.r.IntN(3) {
	case 0:
		how, tail = "zeros", make([]byte, 1+g.r.IntN(8192))
	case 1:
		how, tail = "half a frame", tornFrame(raw, 1+g.r.IntN(4096))
		tail = tail[:1+g.r.IntN(max(1, len(tail)-1))]
	default:
		// A marker alone is the start of a frame too.
		how, tail = "a few bytes of a frame", []byte("\xe7QN\x1a\x00\x00\x00")[:1+g.r.IntN(4)]
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = f.Write(tail)
	return how, err
}

// tornFrame is a frame with a good header that would follow the last one of a
// segment file, with a payload of so many bytes.
func tornFrame(raw []byte, payload int) []byte {
	if len(raw) < 2*queueHeader {
		return []byte{0xe7}
	}
	salt, seq, ts := binary.LittleEndian.Uint64(raw[24:]), binary.LittleEndian.Uint64(raw[16:]), uint64(0)
	for off := 2 * queueHeader; off+frameHeader <= len(raw) && string(raw[off:off+4]) == "\xe7QN\x1a"; {
		seq, ts = binary.LittleEndian.Uint64(raw[off+24:])+1, binary.LittleEndian.Uint64(raw[off+32:])
		off += frameHeader + int(binary.LittleEndian.Uint16(raw[off+16:])) + int(binary.LittleEndian.Uint32(raw[off+12:]))
	}
	b := make([]byte, frameHeader+payload)
	copy(b, "\xe7QN\x1a")
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[frameHeader:], castagnoli))
	binary.LittleEndian.PutUint32(b[12:], uint32(payload))
	binary.LittleEndian.PutUint64(b[24:], seq)
	binary.LittleEndian.PutUint64(b[32:], ts+1)
	sum := crc32.Checksum(binary.LittleEndian.AppendUint64(nil, salt), castagnoli)
	binary.LittleEndian.PutUint32(b[4:], crc32.Update(sum, castagnoli, b[8:frameHeader]))
	return b
}
