package config

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// EnsureDefaults replaces what is zero by its default, unless zero is a value of
// its own, and computes the defaults that depend on other keys or the machine.
// Booleans are left alone: start from Default to have those.
func (c *Config) EnsureDefaults() {
	d := raw()
	for _, k := range keys() {
		if f := k.field(c); !k.keepsZero && f.IsZero() && f.Kind().String() != "bool" {
			f.Set(k.field(&d))
		}
	}
	if c.Node.Name == "" {
		c.Node.Name = "querynode"
		if h, err := os.Hostname(); err == nil && h != "" {
			c.Node.Name = h
		}
	}
	if abs, err := filepath.Abs(c.Node.DataDir); err == nil {
		c.Node.DataDir = abs
	}
	if c.Storage.URL == "" {
		c.Storage.URL = (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(c.Node.DataDir, "objects"))}).String()
	}
	if c.Queue.Dir == "" {
		c.Queue.Dir = filepath.Join(c.Node.DataDir, "queue")
	}
	if c.Memory.Limit == 0 {
		c.Memory.Limit = Bytes(dataMemory(machineMemory()))
	}
	if c.Memory.GoLimit == 0 {
		c.Memory.GoLimit = Bytes(processMemory(machineMemory()))
	}
}

// dataMemory is what the ledger may have of so much memory. What is left is for what may go beyond it, whatever there is, which is up to 48 MiB of
// calls and small reads, for the program, and for garbage.
func dataMemory(all int64) int64 {
	const spare = 72 << 20
	return all - max(all/4, min(spare, all/3))
}

// processMemory is what the process may have of so much memory: what is left is for the
// kernel, and for what comes between two looks at the process.
func processMemory(all int64) int64 {
	const spare = 32 << 20
	return all - max(all/10, min(spare, all/6))
}

// Validate lists all problems in one error of class Invalid. Call it after
// EnsureDefaults.
func (c *Config) Validate() error { return problemsError(c.problems()) }

// span is what a key may be.
type span struct {
	key      string
	v        int64
	min, max int64
	shown    func(int64) string
}

func (c *Config) problems() []string {
	var bad []string
	add := func(key, format string, args ...any) { bad = append(bad, key+": "+fmt.Sprintf(format, args...)) }
	for _, k := range keys() {
		if len(k.allowed) > 0 && !slices.Contains(k.allowed, k.text(c)) {
			add(k.name, "%q is not one of %s", k.text(c), strings.Join(k.allowed, ", "))
		}
	}
	for _, s := range c.spans() {
		switch {
		case s.v < s.min:
			add(s.key, "%s is too little: want %s to %s", s.shown(s.v), s.shown(s.min), s.shown(s.max))
		case s.v > s.max:
			add(s.key, "%s is too much: want %s to %s", s.shown(s.v), s.shown(s.min), s.shown(s.max))
		}
	}
	if why := listenProblem(c.GRPC.Listen); why != "" {
		add("grpc.listen", "%s", why)
	}
	if why := listenProblem(c.Admin.Listen); why != "" {
		add("admin.listen", "%s", why)
	}
	if c.GRPC.Listen == c.Admin.Listen && !strings.HasSuffix(c.GRPC.Listen, ":0") {
		add("admin.listen", "%q is the address of grpc.listen too: want another port", c.Admin.Listen)
	}
	if (c.GRPC.TLSCert == "") != (c.GRPC.TLSKey == "") {
		add("grpc.tls_cert", "goes together with grpc.tls_key: set both or none")
	}
	if c.GRPC.DefaultTimeout > c.GRPC.MaxTimeout {
		add("grpc.default_timeout", "%s is more than grpc.max_timeout, %s", c.GRPC.DefaultTimeout, c.GRPC.MaxTimeout)
	}
	if scheme, _, ok := strings.Cut(c.Storage.URL, "://"); !ok || scheme != "file" && scheme != "s3" {
		add("storage.url", "want file:///path or s3://bucket/prefix?endpoint=...") // not shown: it might hold a secret
	}
	if (c.Storage.AccessKey == "") != (c.Storage.SecretKey == "") {
		add("storage.access_key", "goes together with storage.secret_key: set both or none")
	}
	if (c.Queue.Kind == "pulsar") != (c.Pulsar.URL != "") {
		add("pulsar.url", "goes together with queue.kind pulsar: set both or none")
	}
	if (c.Pulsar.TLSCert == "") != (c.Pulsar.TLSKey == "") {
		add("pulsar.tls_cert", "goes together with pulsar.tls_key: set both or none")
	}
	if c.Pulsar.Token != "" && c.Pulsar.TokenFile != "" {
		add("pulsar.token", "set it or pulsar.token_file, not both")
	}
	if n := len(c.Node.Name); n > 200 || strings.ContainsAny(c.Node.Name, " \t\n/") {
		add("node.name", "want at most 200 bytes without spaces and slashes")
	}
	if p := c.Queue.PChannelPrefix; len(p) > 150 || strings.ContainsAny(p, " \t\n/") {
		add("queue.pchannel_prefix", "want at most 150 bytes without spaces and slashes")
	}
	return bad
}

func (c *Config) spans() []span {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	size := func(n int64) string { return Bytes(n).String() }
	long := func(n int64) string { return time.Duration(n).String() }
	var all []span
	d := func(key string, v, min, max time.Duration) {
		all = append(all, span{key, int64(v), int64(min), int64(max), long})
	}
	b := func(key string, v, min, max Bytes) {
		all = append(all, span{key, int64(v), int64(min), int64(max), size})
	}
	n := func(key string, v, min, max int) {
		all = append(all, span{key, int64(v), int64(min), int64(max), number})
	}
	const (
		ms   = time.Millisecond
		day  = 24 * time.Hour
		mib  = Bytes(1 << 20)
		huge = Bytes(1 << 50)
	)
	b("growing.delete_bytes", c.Growing.DeleteBytes, 1<<12, 1<<40)
	d("compaction.interval", c.Compaction.Interval, 10*ms, day)
	d("compaction.retention", c.Compaction.Retention, 0, 365*day)
	n("compaction.target_rows", c.Compaction.TargetRows, 1, 1<<31-1)
	b("compaction.target_bytes", c.Compaction.TargetBytes, 1<<12, 1<<40)
	n("compaction.min_small", c.Compaction.MinSmall, 2, 16)
	n("compaction.deleted_percent", c.Compaction.DeletedPercent, 1, 100)
	n("compaction.max_deltas", c.Compaction.MaxDeltas, 2, 1<<16)
	n("compaction.build_workers", c.Compaction.BuildWorkers, 1, 1024)
	d("node.bounded_staleness", c.Node.BoundedStaleness, ms, day)
	d("node.refresh_interval", c.Node.RefreshInterval, 10*ms, day)
	d("node.call_timeout", c.Node.CallTimeout, 100*ms, time.Hour)
	b("grpc.max_recv_bytes", c.GRPC.MaxRecvBytes, 1<<12, 1<<30)
	n("grpc.max_concurrent_streams", c.GRPC.MaxConcurrentStreams, 1, 1<<20)
	d("grpc.default_timeout", c.GRPC.DefaultTimeout, ms, day)
	d("grpc.max_timeout", c.GRPC.MaxTimeout, ms, day)
	d("grpc.min_ping", c.GRPC.MinPing, ms, time.Hour)
	d("grpc.max_connection_age", c.GRPC.MaxConnectionAge, 0, 365*day)
	d("storage.call_timeout", c.Storage.CallTimeout, 100*ms, time.Hour)
	d("storage.idle_timeout", c.Storage.IdleTimeout, 100*ms, time.Hour)
	n("storage.upload_parallel", c.Storage.UploadParallel, 1, 64)
	d("queue.sync_interval", c.Queue.SyncInterval, ms, time.Minute)
	d("pulsar.operation_timeout", c.Pulsar.OperationTimeout, 100*ms, time.Minute)
	b("pulsar.read_ahead_bytes", c.Pulsar.ReadAheadBytes, mib, 1<<30)
	b("queue.segment_bytes", c.Queue.SegmentBytes, 1<<12, 1<<30)
	b("queue.max_message_bytes", c.Queue.MaxMessageBytes, 1<<10, 256*mib)
	n("queue.pchannels", c.Queue.PChannels, 1, 1024)
	d("wal.timetick_interval", c.WAL.TimeTickInterval, ms, time.Minute)
	d("wal.append_timeout", c.WAL.AppendTimeout, 10*ms, time.Hour)
	d("wal.open_timeout", c.WAL.OpenTimeout, 10*ms, time.Hour)
	b("memory.limit", c.Memory.Limit, 16*mib, huge)
	b("memory.go_limit", c.Memory.GoLimit, 16*mib, huge)
	b("disk.limit", c.Disk.Limit, 0, huge)
	b("disk.queue_limit", c.Disk.QueueLimit, 0, huge)
	n("disk.fetches", c.Disk.Fetches, 1, 1024)
	n("search.workers", c.Search.Workers, 0, 4096)
	n("search.queue_len", c.Search.QueueLen, -1, 1<<24)
	n("search.max_cost", c.Search.MaxCost, 0, 1<<60)
	b("search.max_answer_bytes", c.Search.MaxAnswerBytes, 1<<12, 1<<40)
	n("growing.reserve_rows", c.Growing.ReserveRows, 1, 1<<30)
	n("growing.seal_rows", c.Growing.SealRows, 1, 1<<30)
	b("growing.seal_bytes", c.Growing.SealBytes, 1<<10, 1<<40)
	d("growing.seal_age", c.Growing.SealAge, 10*ms, 365*day)
	d("growing.checkpoint_interval", c.Growing.CheckpointInterval, 10*ms, day)
	d("growing.upload_timeout", c.Growing.UploadTimeout, 100*ms, day)
	n("growing.build_workers", c.Growing.BuildWorkers, 0, 4096)
	n("load.concurrency", c.Load.Concurrency, 1, 1024)
	d("load.timeout", c.Load.Timeout, 100*ms, day)
	n("load.quarantine_after", c.Load.QuarantineAfter, 1, 1<<30)
	n("dispatcher.buffer_messages", c.Dispatcher.BufferMessages, 1, 1<<24)
	b("dispatcher.buffer_bytes", c.Dispatcher.BufferBytes, 1<<10, 1<<40)
	b("dispatcher.max_buffered_bytes", c.Dispatcher.MaxBufferedBytes, 1<<10, 1<<50)
	n("dispatcher.max_catchup", c.Dispatcher.MaxCatchUp, 1, 1<<16)
	n("dispatcher.max_catchup_per_pchannel", c.Dispatcher.MaxCatchUpPerPChannel, 1, 1<<16)
	d("shutdown.drain", c.Shutdown.Drain, 0, time.Hour)
	d("shutdown.grace", c.Shutdown.Grace, ms, time.Hour)
	d("shutdown.total", c.Shutdown.Total, 100*ms, time.Hour)
	return all
}

func listenProblem(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Sprintf("%q is not host:port", addr)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Sprintf("%q: want a port from 0 to 65535", addr)
	}
	return ""
}
