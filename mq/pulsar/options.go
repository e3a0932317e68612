package pulsar

import (
	"cmp"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// Compression of entries.
type Compression string

// The compressions.
const (
	CompressNone Compression = "none"
	CompressLZ4  Compression = "lz4"
	CompressZstd Compression = "zstd"
)

const (
	mib                = 1 << 20
	brokerEntryBytes   = 5*mib - 16<<10 // a stock broker takes 5 MiB with its own header
	defaultMaxPayload  = 4 * mib
	defaultGroup       = 1 * mib
	defaultMaxPending  = 64 * mib
	defaultReadAhead   = 32 * mib
	defaultGrace       = 500 * time.Millisecond
	closePatience      = 250 * time.Millisecond
	defaultMemory      = 64 * mib
	subscriptionName   = "querynode"
	maxReceiverEntries = 1000
	minReceiverEntries = 4
)

// TLS configures pulsar+ssl:// URLs. The zero value trusts the system's roots
// and checks the broker's name.
type TLS struct {
	// CAFile is a PEM file of the roots to trust instead of the system's.
	CAFile string
	// CertFile and KeyFile are PEM files of the client's own certificate.
	CertFile, KeyFile string
	// InsecureSkipVerify trusts every broker. For tests.
	InsecureSkipVerify bool
}

// Options configure Open. The zero value of every field but URL is usable.
type Options struct {
	// URL of the broker or proxy: pulsar://host:port or pulsar+ssl://host:port;
	// several hosts are separated by commas. Required.
	URL string
	// Namespace that the topics are in, "tenant/namespace". Empty = public/default.
	Namespace string
	// Token or TokenFile is a JSON web token, the file is read for every new
	// connection. Both empty = no authentication, or TLS if it has a certificate.
	Token, TokenFile string
	// TLS is for pulsar+ssl://.
	TLS TLS

	// OperationTimeout bounds one request to the broker, and with it how long a
	// broker that does not answer holds up a close. 0 = 4 s.
	OperationTimeout time.Duration
	// AppendTimeout is how long an entry may be on its way before its outcome is
	// said to be unknown, if no context ends earlier. 0 = 30 s.
	AppendTimeout time.Duration
	// ReadyTimeout is how long opens and trims try again while the broker says
	// that it is not ready, if no context ends earlier. 0 = 30 s.
	ReadyTimeout time.Duration
	// KeepAlive is how often a silent connection is tried; after two it is given
	// up. A broker that takes connections and does not greet holds up calls, and a
	// close, as long. 0 = OperationTimeout, at least 1 s.
	KeepAlive time.Duration

	// MaxPayloadBytes bounds Message.Payload. 0 = 4 MiB.
	MaxPayloadBytes int
	// MaxEntryBytes bounds one batch with its headers; it is the broker's
	// maxMessageSize, less 16 KiB. 0 = 5 MiB - 16 KiB.
	MaxEntryBytes int
	// GroupBytes is what concurrent appends are put together up to. 0 = 1 MiB.
	GroupBytes int
	// MaxPendingBytes bounds what waits to be sent per producer; beyond it Append
	// fails with an Exhausted error. 0 = 64 MiB.
	MaxPendingBytes int
	// ReadAheadBytes is what one reader may have in its receive queue, at
	// GroupBytes an entry. 0 = 32 MiB.
	ReadAheadBytes int
	// Compression of entries. Empty = none.
	Compression Compression

	// Logger gets what was found damaged or lost, and the client's own log, each
	// line one level lower than the client has it. nil = nothing is logged.
	Logger *slog.Logger
	// Registerer gets the client's own metrics. nil = a private one, never the default.
	Registerer prometheus.Registerer

	driver driver        // nil = the real one
	grace  time.Duration // how long Append waits for an outcome after its context
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	o.Namespace = cmp.Or(o.Namespace, "public/default")
	o.OperationTimeout = cmp.Or(o.OperationTimeout, 4*time.Second)
	o.AppendTimeout = cmp.Or(o.AppendTimeout, 30*time.Second)
	o.ReadyTimeout = cmp.Or(o.ReadyTimeout, 30*time.Second)
	o.KeepAlive = cmp.Or(o.KeepAlive, max(o.OperationTimeout, time.Second))
	o.MaxPayloadBytes = cmp.Or(o.MaxPayloadBytes, defaultMaxPayload)
	o.MaxEntryBytes = cmp.Or(o.MaxEntryBytes, max(brokerEntryBytes, o.MaxPayloadBytes+entryOverhead))
	o.GroupBytes = cmp.Or(o.GroupBytes, min(defaultGroup, o.MaxEntryBytes))
	o.MaxPendingBytes = cmp.Or(o.MaxPendingBytes, max(defaultMaxPending, o.MaxEntryBytes))
	o.ReadAheadBytes = cmp.Or(o.ReadAheadBytes, defaultReadAhead)
	o.Compression = cmp.Or(o.Compression, CompressNone)
	o.grace = cmp.Or(o.grace, defaultGrace)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
}

// entryOverhead is what an entry with one message has beside the payload.
const entryOverhead = headerBytes + frameBytes + mq.MaxKeyBytes

// Validate lists all that is wrong.
func (o *Options) Validate() error {
	var bad []string
	check := func(ok bool, what string) {
		if !ok {
			bad = append(bad, what)
		}
	}
	scheme, hosts, _ := strings.Cut(o.URL, "://")
	check((scheme == "pulsar" || scheme == "pulsar+ssl") && validHosts(hosts), "URL: pulsar://host:port or pulsar+ssl://host:port, without user or path")
	parts := strings.Split(o.Namespace, "/")
	check(len(parts) == 2 && parts[0] != "" && parts[1] != "", "Namespace: tenant/namespace")
	check(o.Token == "" || o.TokenFile == "", "Token, TokenFile: only one of them")
	check((o.TLS.CertFile == "") == (o.TLS.KeyFile == ""), "TLS: CertFile and KeyFile go together")
	check(o.TLS == TLS{} || scheme == "pulsar+ssl", "TLS: only for pulsar+ssl:// URLs")
	check(o.OperationTimeout >= 100*time.Millisecond && o.OperationTimeout <= time.Minute, "OperationTimeout: 100 ms to 1 min")
	check(o.AppendTimeout >= 100*time.Millisecond, "AppendTimeout: at least 100 ms")
	check(o.ReadyTimeout > 0, "ReadyTimeout: more than 0")
	check(o.KeepAlive >= time.Second, "KeepAlive: at least 1 s")
	check(o.MaxPayloadBytes > 0 && o.MaxPayloadBytes <= 256*mib, "MaxPayloadBytes: 1 to 256 MiB")
	check(o.MaxEntryBytes >= o.MaxPayloadBytes+entryOverhead && o.MaxEntryBytes <= 512*mib, "MaxEntryBytes: at least MaxPayloadBytes plus 1 KiB, at most 512 MiB")
	check(o.GroupBytes > headerBytes && o.GroupBytes <= o.MaxEntryBytes, "GroupBytes: 1 KiB to MaxEntryBytes")
	check(o.MaxPendingBytes >= o.MaxEntryBytes, "MaxPendingBytes: at least MaxEntryBytes")
	check(o.ReadAheadBytes > 0, "ReadAheadBytes: more than 0")
	check(slices.Contains([]Compression{CompressNone, CompressLZ4, CompressZstd}, o.Compression), "Compression: none, lz4 or zstd")
	if len(bad) == 0 {
		return nil
	}
	return errclass.New(errclass.Invalid, "pulsar queue options: %s", strings.Join(bad, "; "))
}

// validHosts checks "host:port,host:port". It does not repeat what it was given
// in an error: somebody may have put a password there.
func validHosts(list string) bool {
	for h := range strings.SplitSeq(list, ",") {
		u, err := url.Parse("pulsar://" + h)
		if err != nil || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" {
			return false
		}
	}
	return true
}

// receiverEntries is the length of a reader's receive queue. The client counts
// entries, not bytes.
func (o *Options) receiverEntries() int {
	return min(max(o.ReadAheadBytes/o.GroupBytes, minReceiverEntries), maxReceiverEntries)
}
