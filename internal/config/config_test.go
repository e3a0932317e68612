package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "querynode.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, s Sources) (*Config, Origins) {
	t.Helper()
	c, from, err := Load(s)
	if err != nil {
		t.Fatal(err)
	}
	return c, from
}

// mustComplain loads and wants one error that has every one of the words.
func mustComplain(t *testing.T, s Sources, words ...string) {
	t.Helper()
	_, _, err := Load(s)
	if !errclass.Is(err, errclass.Invalid) {
		t.Fatalf("%+v: error %v, want one of class invalid", s, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%+v: the error does not say %q:\n%v", s, w, err)
		}
	}
}

func TestNothingSetGivesDefaultsThatAreValid(t *testing.T) {
	c, from := load(t, Sources{})
	if c.GRPC.Listen != "127.0.0.1:19530" || c.Admin.Listen != "127.0.0.1:9091" || !c.Node.Standalone || !c.GRPC.Reflection ||
		c.Queue.PChannels != 2 || c.Shutdown.Total != 10*time.Second || c.GRPC.MaxRecvBytes != 64<<20 {
		t.Errorf("%+v", c)
	}
	if !filepath.IsAbs(c.Node.DataDir) || c.Storage.URL != "file://"+c.Node.DataDir+"/objects" || c.Queue.Dir != c.Node.DataDir+"/queue" {
		t.Errorf("folders: %q %q %q", c.Node.DataDir, c.Storage.URL, c.Queue.Dir)
	}
	if c.Memory.Limit < 16<<20 || c.Memory.GoLimit <= c.Memory.Limit || c.Node.Name == "" {
		t.Errorf("computed defaults: %v %v %q", c.Memory.Limit, c.Memory.GoLimit, c.Node.Name)
	}
	if names := c.PChannelNames(); !reflect.DeepEqual(names, []string{"querynode-dml-0", "querynode-dml-1"}) {
		t.Error(names)
	}
	for _, k := range keys() {
		if o := from[k.name]; o.Set || !strings.HasPrefix(o.Source, "default") {
			t.Errorf("%s comes from %q", k.name, o.Source)
		}
	}
	d := byDefault()
	if !reflect.DeepEqual(&d, c) {
		t.Errorf("byDefault differs from Load of nothing:\n%+v\n%+v", d, c)
	}
}

func TestLaterSourcesWin(t *testing.T) {
	path := writeFile(t, "grpc:\n  listen: 127.0.0.1:1\n  max_recv_bytes: 1 MiB\n  default_timeout: 1s\n  reflection: false\nlog:\n  level: debug\nnode:\n  name: file\n")
	c, from := load(t, Sources{
		File:    path,
		Environ: []string{"HOME=/", "QUERYNODE_GRPC_LISTEN=127.0.0.1:2", "QUERYNODE_LOG_LEVEL=warn", "QUERYNODE_NODE_NAME=env"},
		Flags:   map[string]string{"log.level": "error", "node.name": "flag"},
		Set:     []string{"node.name=first", "node.name=last"},
	})
	for _, x := range []struct{ got, want, key, origin string }{
		{c.GRPC.MaxRecvBytes.String(), "1MiB", "grpc.max_recv_bytes", "file querynode.yaml"},
		{c.GRPC.Listen, "127.0.0.1:2", "grpc.listen", "environment QUERYNODE_GRPC_LISTEN"},
		{c.Node.Name, "flag", "node.name", "flag --node-name"},
		{c.Log.Level, "error", "log.level", "flag --log-level"},
		{c.GRPC.DefaultTimeout.String(), "1s", "grpc.default_timeout", "file querynode.yaml"},
		{c.WAL.AppendTimeout.String(), "10s", "wal.append_timeout", "default"},
	} {
		if x.got != x.want || from[x.key].Source != x.origin {
			t.Errorf("%s is %q from %q, want %q from %q", x.key, x.got, from[x.key].Source, x.want, x.origin)
		}
	}
	if c.GRPC.Reflection {
		t.Error("false in the file was taken for not set")
	}
	if c, _ := load(t, Sources{Set: []string{"node.name=first", "node.name=last"}}); c.Node.Name != "last" {
		t.Errorf("of two --set the last wins, got %q", c.Node.Name)
	}
}

// What an image says for its containers gives way to a file that is mounted.
func TestVariablesThatAreWeakerThanTheFile(t *testing.T) {
	image := []string{"QUERYNODE_DEFAULT_GRPC_LISTEN=0.0.0.0:1", "QUERYNODE_DEFAULT_ADMIN_LISTEN=0.0.0.0:2"}
	c, from := load(t, Sources{Environ: image, File: writeFile(t, "grpc:\n  listen: 127.0.0.1:3\n")})
	if c.GRPC.Listen != "127.0.0.1:3" || c.Admin.Listen != "0.0.0.0:2" {
		t.Errorf("grpc.listen is %q, admin.listen %q", c.GRPC.Listen, c.Admin.Listen)
	}
	if o := from["admin.listen"]; o.Set || !o.Weak || o.Source != "default QUERYNODE_DEFAULT_ADMIN_LISTEN" {
		t.Errorf("admin.listen comes from %+v", o)
	}
	if c, _ := load(t, Sources{Environ: append(image, "QUERYNODE_GRPC_LISTEN=127.0.0.1:4")}); c.GRPC.Listen != "127.0.0.1:4" {
		t.Errorf("the stronger variable lost to the weaker: %q", c.GRPC.Listen)
	}
	mustComplain(t, Sources{Environ: []string{"QUERYNODE_DEFAULT_GRPC_LISEN=x", "QUERYNODE_DEFAULT_SHUTDOWN_DRAIN=soon"}},
		"did you mean QUERYNODE_DEFAULT_GRPC_LISTEN?", "shutdown.drain (environment QUERYNODE_DEFAULT_SHUTDOWN_DRAIN)")
}

func TestAllProblemsAreInOneMessage(t *testing.T) {
	path := writeFile(t, "grpc:\n  lisen: x\n  max_recv_bytes: lots\n  max_concurrent_streams: [1]\nqueue:\n  sync: sometimes\nwal: 5\ncompletely: {different: 1}\n")
	mustComplain(t, Sources{
		File:    path,
		Environ: []string{"QUERYNODE_SHUTDOWN_TOTAL=soon", "QUERYNODE_SHUTDWN_DRAIN=1s", "QUERYNODE_ADMIN_LISTEN=nowhere"},
		Set:     []string{"queue.pchannels=0", "pchannels=3", "novalue", "storage.secret_key=hush", "queue.pchannel=2", "storage.url=http://me:pw@x"},
		Flags:   map[string]string{"log.level": "loud"},
	},
		"grpc.lisen (file querynode.yaml): unknown key; did you mean grpc.listen?",
		`grpc.max_recv_bytes (file querynode.yaml): "lots" is not a size in bytes such as 1048576 or 64MiB`,
		"grpc.max_concurrent_streams (file querynode.yaml): want a whole number",
		`queue.sync: "sometimes" is not one of always, interval, none`,
		"wal (file querynode.yaml): unknown key",
		"completely.different (file querynode.yaml): unknown key",
		`shutdown.total (environment QUERYNODE_SHUTDOWN_TOTAL): "soon" is not a duration`,
		"QUERYNODE_SHUTDWN_DRAIN (environment): unknown key; did you mean QUERYNODE_SHUTDOWN_DRAIN?",
		`admin.listen: "nowhere" is not host:port`,
		"pchannels (--set): unknown key; did you mean queue.pchannels?",
		"--set novalue: want key=value",
		"--set storage.secret_key: the command line of a process can be read by others; use the variable QUERYNODE_STORAGE_SECRET_KEY",
		"queue.pchannel (--set): unknown key; did you mean queue.pchannels?",
		`log.level: "loud" is not one of debug, info, warn, error`,
		"storage.url: want file:///path or s3://",
		"problems:",
	)
	_, _, err := Load(Sources{Set: []string{"storage.url=http://me:pw@x"}, Environ: []string{"QUERYNODE_STORAGE_SECRET_KEY=hush"}})
	if err == nil || strings.Contains(err.Error(), "pw") || strings.Contains(err.Error(), "hush") {
		t.Errorf("the error shows a secret, or is none: %v", err)
	}
}

func TestValuesOutOfRangeSayWhatIsAllowed(t *testing.T) {
	for set, want := range map[string]string{
		"queue.pchannels=2000":         "queue.pchannels: 2000 is too much: want 1 to 1024",
		"shutdown.drain=-1s":           "shutdown.drain: -1s is too little: want 0s to 1h0m0s",
		"memory.limit=1KiB":            "memory.limit: 1KiB is too little: want 16MiB",
		"search.queue_len=-2":          "search.queue_len: -2 is too little",
		"grpc.listen=127.0.0.1:99999":  "want a port from 0 to 65535",
		"grpc.listen=127.0.0.1:9091":   "admin.listen: \"127.0.0.1:9091\" is the address of grpc.listen too",
		"grpc.tls_key=/k":              "goes together with grpc.tls_key",
		"grpc.default_timeout=1h":      "grpc.default_timeout: 1h0m0s is more than grpc.max_timeout",
		"node.name=a b":                "node.name: want",
		"queue.pchannel_prefix=a/b":    "queue.pchannel_prefix: want",
		"storage.upload_parallel=1000": "storage.upload_parallel: 1000 is too much",
	} {
		mustComplain(t, Sources{Set: []string{set}}, want)
	}
	if c, _ := load(t, Sources{Set: []string{"grpc.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0", "shutdown.drain=0s"}}); c.Shutdown.Drain != 0 {
		t.Error("zero is a value of its own for shutdown.drain")
	}
	if c, _ := load(t, Sources{Set: []string{"shutdown.total=0s"}}); c.Shutdown.Total != 10*time.Second {
		t.Error("zero means the default for shutdown.total")
	}
}

func TestEveryNumberIsChecked(t *testing.T) {
	var c Config
	checked := map[string]bool{}
	for _, s := range c.spans() {
		checked[s.key] = true
		if s.min > s.max {
			t.Errorf("%s: nothing is allowed", s.key)
		}
	}
	for _, k := range keys() {
		switch k.field(&c).Interface().(type) {
		case int, Bytes, time.Duration:
			if !checked[k.name] {
				t.Errorf("nobody checks %s", k.name)
			}
		}
		delete(checked, k.name)
	}
	if len(checked) > 0 {
		t.Errorf("checked, but no keys: %v", checked)
	}
}

func TestVariablesThatAreNotOurs(t *testing.T) {
	load(t, Sources{Environ: []string{
		"QUERYNODE_SIMD=off", "QUERYNODE_TEST_LONG=1", "QUERYNODE_CONFIG=/x", "QUERYNODE_ADDR=a:1", "broken",
		"QUERYNODE_SERVICE_HOST=10.0.0.1", "QUERYNODE_SERVICE_PORT=19530", "QUERYNODE_SERVICE_PORT_GRPC=19530", "QUERYNODE_PORT=tcp://10.0.0.1:19530",
		"QUERYNODE_PORT_19530_TCP=tcp://10.0.0.1:19530", "QUERYNODE_PORT_19530_TCP_ADDR=10.0.0.1", "QUERYNODE_PORT_19530_TCP_PORT=19530", "QUERYNODE_PORT_19530_TCP_PROTO=tcp",
		"QUERYNODE_HEADLESS_SERVICE_HOST=None", "QUERYNODE_HEADLESS_PORT_9091_TCP=tcp://10.0.0.1:9091",
		"QUERYNODE_DEFAULT_SERVICE_HOST=10.0.0.1", "QUERYNODE_DEFAULT_SERVICE_PORT=19530", "QUERYNODE_DEFAULT_PORT=tcp://10.0.0.1:19530", "QUERYNODE_DEFAULT_PORT_19530_TCP_ADDR=10.0.0.1",
	}})
	mustComplain(t, Sources{Environ: []string{"QUERYNODE_DEFAULT_PORT=19530"}}, "QUERYNODE_DEFAULT_PORT (environment): unknown key")
	mustComplain(t, Sources{Environ: []string{"QUERYNODE_GRPC_PORT=19530"}}, "QUERYNODE_GRPC_PORT (environment): unknown key")
}

func TestAFileThatCannotBeRead(t *testing.T) {
	mustComplain(t, Sources{File: filepath.Join(t.TempDir(), "absent.yaml")}, "--config:", "absent.yaml", "no such file")
	mustComplain(t, Sources{File: t.TempDir()}, "want a file")
	mustComplain(t, Sources{File: writeFile(t, "grpc: [")}, "--config:", "yaml")
	mustComplain(t, Sources{File: writeFile(t, "log:\n  level: info\n  level: warn\n")}, "already defined")
	load(t, Sources{File: writeFile(t, "# nothing\n")})
	load(t, Sources{File: writeFile(t, "grpc:\n  # all commented out\nlog: {}\nwal:\n  append_timeout:\n")})
}

func TestWhatIsPrintedCanBeReadBack(t *testing.T) {
	c, from := load(t, Sources{
		Environ: []string{"QUERYNODE_STORAGE_ACCESS_KEY=me", "QUERYNODE_STORAGE_SECRET_KEY=hush", "QUERYNODE_NODE_NAME=no", "QUERYNODE_GRPC_MAX_RECV_BYTES=1.5MiB"},
		Set:     []string{"queue.dir=/a: b # c", "shutdown.drain=0s"},
	})
	var text bytes.Buffer
	if err := WriteYAML(&text, c, from); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"  # listen: 127.0.0.1:19530  # default\n", "name: \"no\"  # environment QUERYNODE_NODE_NAME", "# environment QUERYNODE_STORAGE_SECRET_KEY (set, not shown)", "drain: 0s  # --set"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in:\n%s", want, &text)
		}
	}
	again, _ := load(t, Sources{File: writeFile(t, text.String())})
	again.Storage.AccessKey, again.Storage.SecretKey = "me", "hush"
	if !reflect.DeepEqual(c, again) {
		t.Errorf("read back:\n%+v\n%+v", c, again)
	}

	var js bytes.Buffer
	if err := WriteJSON(&js, c, from); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Values  map[string]map[string]any
		Sources map[string]string
	}
	if err := json.Unmarshal(js.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Values["grpc"]["max_recv_bytes"] != "1536KiB" || doc.Sources["shutdown.drain"] != "--set" || doc.Values["node"]["standalone"] != true {
		t.Errorf("%+v", doc)
	}
	for _, out := range []string{text.String(), js.String()} {
		if strings.Contains(out, "hush") {
			t.Errorf("a secret is printed:\n%s", out)
		}
	}
}

// A file that was printed on one machine sets on another what was set on the first.
func TestPrintingFreezesNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	print := func(s Sources) string {
		c, from := load(t, s)
		var text bytes.Buffer
		if err := WriteYAML(&text, c, from); err != nil {
			t.Fatal(err)
		}
		return text.String()
	}
	nothing := print(Sources{})
	for line := range strings.Lines(nothing) {
		if s := strings.TrimSpace(line); s != "" && !strings.HasPrefix(s, "# ") && !strings.HasSuffix(s, ":") {
			t.Errorf("nothing was set, and the print sets %q", s)
		}
	}
	if !strings.Contains(nothing, "# default, of the memory of the cgroup or the machine\n") {
		t.Errorf("what is derived is not said to be:\n%s", nothing)
	}
	text := print(Sources{File: writeFile(t, "node:\n  data_dir: data\nmemory:\n  limit: 0\n")})
	for _, want := range []string{"  data_dir: data  # file querynode.yaml, in force: /", "  limit: \"0\"  # file querynode.yaml, in force: ", "  # dir: /"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	path := writeFile(t, text)
	t.Chdir(t.TempDir()) // the folder moves along, and all that is derived of it
	here, _ := filepath.Abs("data")
	c, _ := load(t, Sources{File: path})
	if c.Node.DataDir != here || c.Queue.Dir != filepath.Join(here, "queue") || !strings.HasSuffix(c.Storage.URL, filepath.Join(here, "objects")) {
		t.Errorf("the folders are %q, %q, %q, want below %q", c.Node.DataDir, c.Queue.Dir, c.Storage.URL, here)
	}
}

func TestTheReferenceIsFresh(t *testing.T) {
	var want bytes.Buffer
	if err := WriteReference(&want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/configuration.md")
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("docs/configuration.md is not what the comments say (%v); run: go run ./cmd/querynode config doc > docs/configuration.md", err)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Bytes{
		"0": 0, "7": 7, "1KiB": 1024, "1 kib": 1024, "1.5 GiB": 3 << 29, "10MB": 10_000_000, "3 B": 3, "2TiB": 2 << 40, "0.5KiB": 512,
	} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%q = %d, %v, want %d", text, b, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1e9", "NaN", "Inf", "9999999TiB", "1MiBB", "KiB", "0x10", "1_0", "9e99", "1.5.5"} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken for %d", text, b)
		}
	}
}

func FuzzSizes(f *testing.F) {
	for _, s := range []string{"1.5GiB", "10 MB", "-3", "18446744073709551616", "0.0000001TiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b, again Bytes
		if b.UnmarshalText([]byte(s)) != nil {
			return
		}
		if b < 0 {
			t.Fatalf("%q = %d", s, b)
		}
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Fatalf("%q = %d, printed %s, read back %d, %v", s, b, b, again, err)
		}
	})
}

// No file makes Load panic, and what it accepts is valid.
func FuzzFile(f *testing.F) {
	for _, s := range []string{"", "grpc:\n  listen: 1.2.3.4:5\n", "a: &a [*a]", "1: {2: 3}", "grpc: {listen: !!binary aGk=}", "? [x]\n: y", "---\n---\n", "grpc.listen: x:1"} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, s string) {
		path := filepath.Join(dir, "f.yaml")
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		c, _, err := Load(Sources{File: path})
		if err == nil && c.Validate() != nil {
			t.Fatal(c.Validate())
		}
	})
}

func TestListenAddressesToDial(t *testing.T) {
	for listen, want := range map[string]string{
		"0.0.0.0:9": "127.0.0.1:9", ":9": "127.0.0.1:9", "[::]:9": "127.0.0.1:9", "[::1]:9": "[::1]:9", "10.1.2.3:9": "10.1.2.3:9", "node:9": "node:9", "junk": "junk",
	} {
		if got := DialAddress(listen); got != want {
			t.Errorf("%s: %s, want %s", listen, got, want)
		}
	}
}

// byDefault is the configuration that an empty file gives.
func byDefault() Config {
	c := raw()
	c.EnsureDefaults()
	return c
}

// TestWhatMayGoBeyondTheLimitHasRoom: calls and small reads, 48 MiB of them, and the program, also in a small container.
func TestWhatMayGoBeyondTheLimitHasRoom(t *testing.T) {
	for _, c := range []struct{ all, data, process int64 }{ // MiB
		{96, 64, 80}, {192, 128, 160}, {216, 144, 184}, {256, 184, 224}, {288, 216, 256}, {1 << 10, 768, 921}, {64 << 10, 48 << 10, 58982},
	} {
		if data, process := dataMemory(c.all<<20)>>20, processMemory(c.all<<20)>>20; data != c.data || process != c.process {
			t.Errorf("of %d MiB %d are for data and %d for the process, want %d and %d", c.all, data, process, c.data, c.process)
		}
	}
}
