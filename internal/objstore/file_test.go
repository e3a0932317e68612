package objstore_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

func put(t *testing.T, b objstore.Bucket, key, content string) objstore.Info {
	t.Helper()
	info, err := b.Put(t.Context(), key, strings.NewReader(content), int64(len(content)), objstore.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func wantClass(t *testing.T, err error, class errclass.Class) {
	t.Helper()
	if err == nil || !errclass.Is(err, class) {
		t.Errorf("got %v (class %v), want class %v", err, errclass.Of(err), class)
	}
}

func TestFileSyncsAndSurvivesReopening(t *testing.T) {
	root := filepath.Join(t.TempDir(), "deep", "bucket")
	first := put(t, open(t, root, objstore.Options{}), "a/b/c", "content")
	again := open(t, "file://"+root, objstore.Options{})
	info, err := again.Head(t.Context(), "a/b/c")
	if err != nil || info.ETag != first.ETag {
		t.Errorf("%+v, %v; put said %+v", info, err, first)
	}
	if err := again.Delete(t.Context(), "a/b/c"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty folder is still there: %v", err)
	}
}

func TestFileRemovesWhatDeadWritersLeftAndSparesTheLiving(t *testing.T) {
	root := t.TempDir()
	b := open(t, root, objstore.Options{})
	dead := filepath.Join(root, ".tmp", "put-dead")
	if err := os.WriteFile(dead, []byte("half an object"), 0o600); err != nil {
		t.Fatal(err)
	}
	inRead, goOn, result := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		src := io.MultiReader(strings.NewReader("alive"), readerFunc(func([]byte) (int, error) { close(inRead); <-goOn; return 0, io.EOF }))
		_, err := b.Put(context.Background(), "k", src, 5, objstore.PutOptions{})
		result <- err
	}()
	<-inRead
	other := open(t, root, objstore.Options{})
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead writer's file is still there: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(root, ".tmp"))
	if err != nil || len(left) != 1 {
		t.Errorf("temporary files: %v, %v; want that of the running put", left, err)
	}
	close(goOn)
	if err := <-result; err != nil {
		t.Errorf("the running put: %v", err)
	}
	if data, err := objstore.ReadAll(t.Context(), other, "k", 10); err != nil || string(data) != "alive" {
		t.Errorf("%q, %v", data, err)
	}
	if left, _ := os.ReadDir(filepath.Join(root, ".tmp")); len(left) != 0 {
		t.Errorf("temporary files after the put: %v", left)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestFileRefusesAKeyThatIsAnothersFolder(t *testing.T) {
	b := open(t, t.TempDir(), objstore.Options{NoSync: true})
	put(t, b, "a/b", "x")
	_, err := b.Put(t.Context(), "a", strings.NewReader("y"), 1, objstore.PutOptions{})
	wantClass(t, err, errclass.Invalid)
	_, err = b.Put(t.Context(), "a/b/c", strings.NewReader("y"), 1, objstore.PutOptions{})
	wantClass(t, err, errclass.Invalid)
	if data, err := objstore.ReadAll(t.Context(), b, "a/b", 10); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestFileMapsWhatTheSystemRefuses(t *testing.T) {
	root := t.TempDir()
	if _, err := objstore.Open(t.Context(), "file://"+filepath.Join(root, "file", "x"), objstore.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "plain"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := objstore.Open(t.Context(), filepath.Join(root, "plain"), objstore.Options{})
	if err == nil {
		t.Error("a file was opened as a bucket")
	}
	if os.Geteuid() == 0 {
		t.Skip("root may write anywhere")
	}
	b := open(t, filepath.Join(root, "closed"), objstore.Options{})
	if err := os.Chmod(filepath.Join(root, "closed", ".tmp"), 0o500); err != nil {
		t.Fatal(err)
	}
	_, err = b.Put(t.Context(), "k", strings.NewReader("x"), 1, objstore.PutOptions{})
	wantClass(t, err, errclass.Denied)
}

// A full disk is played by the device that always is: writing a temporary file
// of a folder that is a link to /dev/full is not possible, so the class is
// tested through a source that ran into it.
func TestFileFullDiskIsExhausted(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	defer full.Close()
	b := open(t, t.TempDir(), objstore.Options{NoSync: true})
	src := readerFunc(func([]byte) (int, error) { return full.Write([]byte("x")) })
	_, err = b.Put(t.Context(), "k", src, 1, objstore.PutOptions{})
	wantClass(t, err, errclass.Exhausted)
	_, err = b.Head(t.Context(), "k")
	wantClass(t, err, errclass.NotFound)
}

func TestFileLockHeldElsewhereEndsWithTheTimeout(t *testing.T) {
	root := t.TempDir()
	b := open(t, root, objstore.Options{NoSync: true, CallTimeout: 50 * time.Millisecond})
	put(t, b, "k", "x")
	locks, err := filepath.Glob(filepath.Join(root, ".lock", "*"))
	if err != nil || len(locks) != 1 {
		t.Fatalf("lock files %q, %v", locks, err)
	}
	stuck, err := os.OpenFile(locks[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	if ok, err := objstore.TryFlock(stuck); !ok || err != nil {
		t.Fatal(ok, err)
	}
	_, err = b.Put(t.Context(), "k", strings.NewReader("y"), 1, objstore.PutOptions{})
	wantClass(t, err, errclass.Retryable)
	wantClass(t, b.Delete(t.Context(), "k"), errclass.Retryable)
	if data, err := objstore.ReadAll(t.Context(), b, "k", 10); err != nil || string(data) != "x" {
		t.Errorf("reading needs no lock: %q, %v", data, err)
	}
}

func TestFileListIgnoresWhatIsNoObject(t *testing.T) {
	root := t.TempDir()
	b := open(t, root, objstore.Options{NoSync: true})
	put(t, b, "a/k", "x")
	for _, dir := range []string{"empty", "a/.hidden"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(root, "a", "link")); err != nil {
		t.Fatal(err)
	}
	var keys []string
	if err := b.List(t.Context(), "", "", func(i objstore.Info) error { keys = append(keys, i.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(keys, []string{"a/k"}) {
		t.Errorf("listed %q", keys)
	}
}

// counterEnv makes the test binary a process that counts in the folder it names.
const counterEnv = "QUERYNODE_TEST_COUNT_IN"

// TestFileCounterAcrossProcesses runs this very test in other processes.
func TestFileCounterAcrossProcesses(t *testing.T) {
	const processes, steps = 3, 40
	if root := os.Getenv(counterEnv); root != "" {
		count(t, open(t, root, objstore.Options{NoSync: true}), steps)
		return
	}
	root := t.TempDir()
	b := open(t, root, objstore.Options{NoSync: true})
	put(t, b, "counter", "0")
	var running []*exec.Cmd
	var outs []*bytes.Buffer
	for range processes {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFileCounterAcrossProcesses$", "-test.timeout=60s")
		out := &bytes.Buffer{}
		cmd.Env = append(os.Environ(), counterEnv+"="+root)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running, outs = append(running, cmd), append(outs, out)
	}
	for i, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v\n%s", i, err, outs[i])
		}
	}
	if data, err := objstore.ReadAll(t.Context(), b, "counter", 100); err != nil || string(data) != fmt.Sprint(processes*steps) {
		t.Errorf("counted %s, %v, want %d", data, err, processes*steps)
	}
}

func count(t *testing.T, b objstore.Bucket, steps int) {
	for done := 0; done < steps; {
		data, info, err := objstore.ReadVersion(t.Context(), b, "counter", 100)
		if err != nil {
			t.Fatal(err)
		}
		var n int
		_, _ = fmt.Sscan(string(data), &n)
		next := fmt.Sprint(n + 1)
		_, err = b.Put(t.Context(), "counter", strings.NewReader(next), int64(len(next)), objstore.PutOptions{IfMatch: info.ETag})
		if err == nil {
			done++
		} else if !errors.Is(err, objstore.ErrPrecondition) {
			t.Fatal(err)
		}
	}
}
