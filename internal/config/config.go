package config

import (
	"net"
	"strconv"
	"time"
)

// The comments of the fields below are the reference: docs/configuration.md is
// made from this file. "default" is what an absent or zero value means; a field
// without one says itself what zero means. "zero:keep" = zero is a value of its
// own. "secret" = never printed. "allowed" lists the words that may stand there.

// Config is everything that can be configured. Make one with Load or Default;
// a literal needs EnsureDefaults and Validate.
type Config struct {
	// Who the node is and where it keeps its files.
	Node Node `koanf:"node"`
	// The API.
	GRPC GRPC `koanf:"grpc"`
	// HTTP for operators: metrics, health, profiles. Keep it inside the cluster.
	Admin Admin `koanf:"admin"`
	// Object storage: sealed segments and the catalog.
	Storage Storage `koanf:"storage"`
	// The message queue that the write-ahead logs are in.
	Queue Queue `koanf:"queue"`
	// Apache Pulsar, when queue.kind is pulsar.
	Pulsar Pulsar `koanf:"pulsar"`
	// The write-ahead logs that this node owns.
	WAL WAL `koanf:"wal"`
	// Memory that grows with data.
	Memory Memory `koanf:"memory"`
	// The local disk, from where segments leave for object storage by use.
	Disk Disk `koanf:"disk"`
	// The workers that search.
	Search Search `koanf:"search"`
	// Segments that take rows, and when they are sealed and flushed.
	Growing Growing `koanf:"growing"`
	// Sealed segments that are loaded from object storage.
	Load LoadSegments `koanf:"load"`
	// Rewriting of sealed segments.
	Compaction Compaction `koanf:"compaction"`
	// Consumers of the message queue.
	Dispatcher Dispatcher `koanf:"dispatcher"`
	// Logs, written to standard error.
	Log Log `koanf:"log"`
	// What happens at SIGTERM and SIGINT. A second signal cuts.
	Shutdown Shutdown `koanf:"shutdown"`
}

// Node says who the node is.
type Node struct {
	// Name of the node in lists and logs; must be unique in a cluster. Empty: the host name.
	Name string `koanf:"name"`
	// Folder of the node's files. One process at a time may use it.
	DataDir string `koanf:"data_dir" default:"querynode-data"`
	// The node is its own coordinator: it owns every pchannel and serves every collection of the catalog.
	Standalone bool `koanf:"standalone" default:"true"`
	// How old the answer of a read with BOUNDED consistency may be.
	BoundedStaleness time.Duration `koanf:"bounded_staleness" default:"5s"`
	// How often the catalog is looked at for what other nodes have changed.
	RefreshInterval time.Duration `koanf:"refresh_interval" default:"5s"`
	// Deadline of each call of catalog and queue.
	CallTimeout time.Duration `koanf:"call_timeout" default:"30s"`
}

// GRPC configures the API.
type GRPC struct {
	// Address to listen on. There is no authentication: whoever reaches it may read, write and drop. Port 0 takes a free one: see node.json in the data folder.
	Listen string `koanf:"listen" default:"127.0.0.1:19530"`
	// Largest request.
	MaxRecvBytes Bytes `koanf:"max_recv_bytes" default:"64MiB"`
	// Calls at a time on one connection.
	MaxConcurrentStreams int `koanf:"max_concurrent_streams" default:"1024"`
	// Deadline of a call that brings none.
	DefaultTimeout time.Duration `koanf:"default_timeout" default:"30s"`
	// Longest deadline of a call.
	MaxTimeout time.Duration `koanf:"max_timeout" default:"10m"`
	// How often a client may ping without being told to go away.
	MinPing time.Duration `koanf:"min_ping" default:"5s"`
	// Age at which a connection is closed kindly, so that clients find new nodes. 0 = never.
	MaxConnectionAge time.Duration `koanf:"max_connection_age" zero:"keep"`
	// Server reflection, for tools such as grpcurl.
	Reflection bool `koanf:"reflection" default:"true"`
	// PEM file of the certificate. Empty: plain text. It is read again for new connections when it has changed.
	TLSCert string `koanf:"tls_cert"`
	// PEM file of the certificate's key.
	TLSKey string `koanf:"tls_key"`
}

// Admin configures the port for operators.
type Admin struct {
	// Address to listen on. There is no authentication, and profiles show what is in memory: never open it to strangers. Port 0 takes a free one: see node.json in the data folder.
	Listen string `koanf:"listen" default:"127.0.0.1:9091"`
}

// Storage configures object storage.
type Storage struct {
	// file:///path or s3://bucket/prefix?endpoint=host:port&region=...&path_style=true&insecure=true. Empty: the folder objects in the data folder.
	URL string `koanf:"url"`
	// Key id for s3. Empty: AWS_ACCESS_KEY_ID and its companions, MINIO_ROOT_USER, the shared credentials file, the role of the machine or pod, anonymous; in that order.
	AccessKey string `koanf:"access_key" secret:"true"`
	// Secret of the key id.
	SecretKey string `koanf:"secret_key" secret:"true"`
	// Token of temporary credentials.
	SessionToken string `koanf:"session_token" secret:"true"`
	// Deadline of every call but the transfer of a body.
	CallTimeout time.Duration `koanf:"call_timeout" default:"30s"`
	// Longest wait for the next bytes of a body.
	IdleTimeout time.Duration `koanf:"idle_timeout" default:"20s"`
	// Parts of one object that are sent at once to s3; each takes 8 MiB of memory.
	UploadParallel int `koanf:"upload_parallel" default:"4"`
}

// Queue configures the message queue.
type Queue struct {
	// Which queue: embedded = files of this process; pulsar = Apache Pulsar, see there. The keys from dir to max_message_bytes are for the embedded one.
	Kind string `koanf:"kind" default:"embedded" allowed:"embedded,pulsar"`
	// Folder of the embedded queue. Empty: the folder queue in the data folder.
	Dir string `koanf:"dir"`
	// When appended messages are forced to the disk: always = before they are acknowledged; interval = every sync_interval, a power failure may cost that much; none = the operating system decides.
	Sync string `koanf:"sync" default:"always" allowed:"always,interval,none"`
	// How often to sync when sync is interval.
	SyncInterval time.Duration `koanf:"sync_interval" default:"100ms"`
	// Size at which a new file is begun. Where disk.limit, or disk.queue_limit, is small, files are smaller: those that are written have an eighth of it at most.
	SegmentBytes Bytes `koanf:"segment_bytes" default:"64MiB"`
	// Largest message.
	MaxMessageBytes Bytes `koanf:"max_message_bytes" default:"16MiB"`
	// How many topics new collections are spread over. Raise it at any time; never lower it while collections use them.
	PChannels int `koanf:"pchannels" default:"2"`
	// The id of an embedded queue, as a node says that refuses to open it: it takes the place of one that is gone, and what only that had is given up. Only a queue without messages can. It has no effect on other queues, nor once that is done.
	Adopt string `koanf:"adopt"`
	// Names of the topics: this and a number from 0.
	PChannelPrefix string `koanf:"pchannel_prefix" default:"querynode-dml-"`
}

// Pulsar configures the connection to Apache Pulsar.
type Pulsar struct {
	// pulsar://host:port or pulsar+ssl://host:port; several hosts with commas between. Required when queue.kind is pulsar.
	URL string `koanf:"url"`
	// Namespace that the topics are in: tenant/namespace.
	Namespace string `koanf:"namespace" default:"public/default"`
	// JSON web token.
	Token string `koanf:"token" secret:"true"`
	// File with the token; it is read again for every new connection.
	TokenFile string `koanf:"token_file"`
	// PEM file of the roots to trust, for pulsar+ssl. Empty: those of the system.
	TLSCA string `koanf:"tls_ca"`
	// PEM file of the node's own certificate. Empty: none.
	TLSCert string `koanf:"tls_cert"`
	// PEM file of its key.
	TLSKey string `koanf:"tls_key"`
	// Deadline of one request to the broker; how long a broker that does not answer can hold up a close.
	OperationTimeout time.Duration `koanf:"operation_timeout" default:"4s"`
	// How batches are compressed.
	Compression string `koanf:"compression" default:"none" allowed:"none,lz4,zstd"`
	// What one reader may have received and not yet handed on.
	ReadAheadBytes Bytes `koanf:"read_ahead_bytes" default:"32MiB"`
}

// WAL configures the write-ahead logs.
type WAL struct {
	// How often a timetick is written: how long a Strong read may have to wait on an idle channel.
	TimeTickInterval time.Duration `koanf:"timetick_interval" default:"200ms"`
	// Deadline of one batch in the queue.
	AppendTimeout time.Duration `koanf:"append_timeout" default:"10s"`
	// Deadline of each call while a log is opened; not of the replay as a whole.
	OpenTimeout time.Duration `koanf:"open_timeout" default:"30s"`
}

// Memory configures the ledger.
type Memory struct {
	// Bytes that sealed and growing segments, deletes, loads and searches may take together. Beyond it inserts and loads are refused; deletes and releases always pass. 0 = 75 % of the memory of the cgroup, or else of the machine; below 288 MiB, all but 72 MiB; below 216 MiB, two thirds.
	Limit Bytes `koanf:"limit"`
	// Memory that the process may have in all, files that it maps not counted. Near it garbage is collected more often, what is not on the Go heap taken off; what would go through it is refused. 0 = nine tenths of the memory of the cgroup, or else of the machine; below 320 MiB, all but 32 MiB; below 192 MiB, five sixths. For the garbage collector the variable GOMEMLIMIT goes before it.
	GoLimit Bytes `koanf:"go_limit"`
}

// Disk configures the local disk as a tier below memory.
type Disk struct {
	// Bytes that the node may take on the local disk: files of sealed segments, of compactions and flushes under way, deletes that wait for object storage, and the embedded queue; not object storage in a folder. Beyond it vectors and indexes that were used the longest time ago leave the disk, and are fetched from object storage again when a read needs them. Where that is not enough, loads, compactions and inserts are refused; deletes pass. 0 = 80 % of what is free at the start. An embedded queue on a volume of its own does not count: see queue_limit.
	Limit Bytes `koanf:"limit"`
	// Bytes that an embedded queue may take where queue.dir is on another volume than the data folder: inserts are refused from 95 % on, growing segments are flushed. 0 = 80 % of what is free there at the start and of what the queue has. It says nothing where both are on one volume.
	QueueLimit Bytes `koanf:"queue_limit"`
	// Vector fields of segments that are fetched at once for reads and in the background.
	Fetches int `koanf:"fetches" default:"4"`
}

// Search configures the pool that searches run on.
type Search struct {
	// Tasks that run at a time; one task is one segment, or a slice of a large one. 0 = as many as there are CPUs.
	Workers int `koanf:"workers" zero:"keep"`
	// Tasks that wait for a worker; more are refused as RESOURCE_EXHAUSTED. A search has one for each segment. -1 = none.
	QueueLen int `koanf:"queue_len" default:"4096"`
	// Sum of the costs of waiting and running tasks; the cost of a task is about the number of vectors it compares. 0 = no bound.
	MaxCost int `koanf:"max_cost" zero:"keep"`
	// Bytes that the values of one answer of Search, HybridSearch or Get may have: 8 of an integer, 4 of a score, of text its own. More is refused as INVALID_ARGUMENT, before the work where it is sure. Rows of a query come in pieces, and are not bounded.
	MaxAnswerBytes Bytes `koanf:"max_answer_bytes" default:"100MiB"`
}

// Growing configures growing segments and their flush.
type Growing struct {
	// Rows that a growing segment reserves address space for. More rows than that cost a copy.
	ReserveRows int `koanf:"reserve_rows" default:"1000000"`
	// Rows at which a segment is sealed.
	SealRows int `koanf:"seal_rows" default:"500000"`
	// Size at which a segment is sealed.
	SealBytes Bytes `koanf:"seal_bytes" default:"256MiB"`
	// Age at which a segment is sealed.
	SealAge time.Duration `koanf:"seal_age" default:"30m"`
	// Deletes that a channel keeps before its segments are sealed, so that the deletes go to object storage; no more than a sixteenth of `memory.limit`. What cannot go there goes to the local disk, from twice as much on, of all channels.
	DeleteBytes Bytes `koanf:"delete_bytes" default:"64MiB"`
	// How often the checkpoint of an idle channel is moved.
	CheckpointInterval time.Duration `koanf:"checkpoint_interval" default:"30s"`
	// Deadline of the upload of one file.
	UploadTimeout time.Duration `koanf:"upload_timeout" default:"2m"`
	// Goroutines that build an index. 0 = as many as there are CPUs.
	BuildWorkers int `koanf:"build_workers" zero:"keep"`
}

// Compaction configures the rewriting of sealed segments, on the owner of their log.
type Compaction struct {
	// Whether the owner of a log looks for segments that are worth it; false = only when asked to compact.
	Enabled bool `koanf:"enabled" default:"true"`
	// How often it looks.
	Interval time.Duration `koanf:"interval" default:"10s"`
	// How long reads in the past are answered, for collections without the property collection.retention.seconds: rows that were hidden earlier are dropped. 0 = not at all.
	Retention time.Duration `koanf:"retention" default:"1h" zero:"keep"`
	// Rows of a segment that a merge makes; half as many are a small segment.
	TargetRows int `koanf:"target_rows" default:"500000"`
	// The same in bytes of files.
	TargetBytes Bytes `koanf:"target_bytes" default:"256MiB"`
	// Small segments of about the same size that are worth a merge.
	MinSmall int `koanf:"min_small" default:"4"`
	// Percent of a segment's rows that no read can see any more at which it is rewritten.
	DeletedPercent int `koanf:"deleted_percent" default:"20"`
	// Files of deletes of a channel beyond which they are made one.
	MaxDeltas int `koanf:"max_deltas" default:"16"`
	// Goroutines that build an index.
	BuildWorkers int `koanf:"build_workers" default:"1"`
}

// LoadSegments configures loads.
type LoadSegments struct {
	// Segments that are loaded at once.
	Concurrency int `koanf:"concurrency" default:"2"`
	// Deadline of the load of one segment.
	Timeout time.Duration `koanf:"timeout" default:"10m"`
	// Panics, faults in mapped memory included, after which a segment is put into quarantine. Bytes that are proven wrong put it there at once.
	QuarantineAfter int `koanf:"quarantine_after" default:"3"`
	// When vectors and indexes of a segment come to the local disk: sync = before it is ready, and they are read into memory unless that is short; async = in the background once it is ready; none = when a read needs them. Where the disk has no free room it is none. The property collection.warmup of a collection goes before it.
	Warmup string `koanf:"warmup" default:"sync" allowed:"sync,async,none"`
}

// Dispatcher configures the consumers.
type Dispatcher struct {
	// Messages that one subscription may have before it and not applied yet.
	BufferMessages int `koanf:"buffer_messages" default:"1024"`
	// The same in bytes.
	BufferBytes Bytes `koanf:"buffer_bytes" default:"8MiB"`
	// Bytes of all subscriptions together.
	MaxBufferedBytes Bytes `koanf:"max_buffered_bytes" default:"256MiB"`
	// Catch-up consumers of all pchannels together.
	MaxCatchUp int `koanf:"max_catchup" default:"64"`
	// Catch-up consumers of one pchannel.
	MaxCatchUpPerPChannel int `koanf:"max_catchup_per_pchannel" default:"10"`
}

// Log configures the logs.
type Log struct {
	// The least important messages to write. SetLogLevel changes it while the node runs.
	Level string `koanf:"level" default:"info" allowed:"debug,info,warn,error"`
	// auto = text on a terminal, else json.
	Format string `koanf:"format" default:"auto" allowed:"auto,text,json"`
}

// Shutdown configures the stop.
type Shutdown struct {
	// How long requests are still answered after the node has said that it is not ready, so that nobody sends any more: at least the time that a load balancer takes to notice. 0 = not at all.
	Drain time.Duration `koanf:"drain" default:"200ms" zero:"keep"`
	// How long running calls may go on after that before they are cut.
	Grace time.Duration `koanf:"grace" default:"2s"`
	// Deadline of the stop after the drain. What has not stopped by then is named, and the exit code is 3. Keep drain and total together below terminationGracePeriodSeconds.
	Total time.Duration `koanf:"total" default:"10s"`
}

// PChannelNames are the topics that new collections are spread over.
func (c *Config) PChannelNames() []string {
	names := make([]string, c.Queue.PChannels)
	for i := range names {
		names[i] = c.Queue.PChannelPrefix + strconv.Itoa(i)
	}
	return names
}

// DialAddress turns an address to listen on into one to connect to: an
// unspecified host becomes the loopback. That of IPv4, also for [::], as which a
// listener on 0.0.0.0 shows itself: such a listener takes both, and in most
// containers there is no [::1].
func DialAddress(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
