package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

const (
	lockFile     = "LOCK"
	nodeInfoFile = "node.json"
	runPrefix    = "run-"
)

// dataDir is a locked data folder:
//
//	LOCK         held while a node uses the folder; has its pid
//	node.json    where the node listens, while it does
//	run-<epoch>/ scratch of one run, removed when it ends or, if it was killed, by the next one
//	objects/     object storage, unless it is elsewhere
//	queue/       the embedded queue, unless it is elsewhere
type dataDir struct {
	path string
	run  string // this run's folder
	lock *os.File
}

// openDataDir creates the folder if need be and locks it. The kernel frees the
// lock when the process ends, however it ends.
func openDataDir(path string) (_ *dataDir, err error) {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, noDataDir(err, "create data folder %s", path)
	}
	name := filepath.Join(path, lockFile)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, noDataDir(err, "open the lock of data folder %s", path)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	switch err := flock(f); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, errclass.New(errclass.Conflict, "data folder %s is in use by %s: stop it, or choose another folder with --data-dir", path, holder(f))
	case err != nil:
		return nil, errors.Wrapf(err, "lock data folder %s", path)
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Wrapf(err, "write %s", name)
	}
	if _, err := fmt.Fprintf(f, "%d\n", os.Getpid()); err != nil {
		return nil, errors.Wrapf(err, "write %s", name)
	}
	d := &dataDir{path: path, lock: f}
	_ = os.Remove(filepath.Join(path, nodeInfoFile)) // of a run that was killed
	for {
		d.run = filepath.Join(path, runPrefix+strconv.FormatInt(time.Now().UnixMicro(), 10))
		if err := os.Mkdir(d.run, 0o750); !errors.Is(err, os.ErrExist) {
			return d, errors.Wrapf(err, "create %s", d.run)
		}
	}
}

// noDataDir says why there is no data folder, and to whom it has to belong.
func noDataDir(err error, format, path string) error {
	out := errclass.Wrap(err, errclass.Denied, format, path)
	if !errors.Is(err, os.ErrPermission) {
		return out
	}
	return &problem{text: out.Error(), cause: out,
		next: fmt.Sprintf("let user %d write there, or choose another folder with --data-dir; a volume of Kubernetes takes securityContext.fsGroup: %d", os.Getuid(), os.Getgid())}
}

func flock(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// holder names the process that holds the lock.
func holder(f *os.File) string {
	raw, err := io.ReadAll(io.LimitReader(f, 32))
	pid, perr := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || perr != nil {
		return "another process"
	}
	return fmt.Sprintf("process %d", pid)
}

// close removes this run's folder and gives the lock back.
func (d *dataDir) close(ctx context.Context) error {
	err := removeTree(ctx, d.run)
	return errors.Join(err, errors.Wrap(d.lock.Close(), "unlock the data folder"))
}

// clean removes what earlier runs have left. It never fails the start: what it
// cannot remove is logged and tried again by the next run.
func (d *dataDir) clean(ctx context.Context, log *slog.Logger) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		log.Warn("cannot look for leftovers", "folder", d.path, "error", err)
		return nil
	}
	for _, e := range entries {
		path := filepath.Join(d.path, e.Name())
		if !strings.HasPrefix(e.Name(), runPrefix) || path == d.run {
			continue
		}
		if err := removeTree(ctx, path); err != nil && ctx.Err() == nil {
			log.Warn("cannot remove what an earlier run left", "folder", path, "error", err)
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		log.Info("removed what an earlier run left", "folder", path)
	}
	return nil
}

// removeTree is os.RemoveAll that stops when ctx ends.
func removeTree(ctx context.Context, path string) error {
	if err := ctx.Err(); err != nil {
		return errors.Wrapf(err, "remove %s", path)
	}
	err := os.Remove(path) // files, links and empty folders
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	st, statErr := os.Lstat(path)
	if statErr != nil || !st.IsDir() {
		return errors.Wrapf(err, "remove %s", path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return errors.Wrapf(err, "remove %s", path)
	}
	for _, e := range entries {
		if err := removeTree(ctx, filepath.Join(path, e.Name())); err != nil {
			return err
		}
	}
	return errors.Wrapf(os.Remove(path), "remove %s", path)
}

// nodeInfo is node.json: how to find a node on this machine.
type nodeInfo struct {
	PID       int       `json:"pid"`
	Version   string    `json:"version"`
	Name      string    `json:"name"`
	GRPCAddr  string    `json:"grpc_addr"`
	AdminAddr string    `json:"admin_addr"`
	TLS       bool      `json:"tls"`
	Started   time.Time `json:"started"`
}

// announce writes node.json in one step.
func (d *dataDir) announce(info nodeInfo) error {
	raw, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return errors.Wrap(err, "encode node.json")
	}
	tmp := filepath.Join(d.run, nodeInfoFile)
	if err := os.WriteFile(tmp, append(raw, '\n'), 0o640); err != nil {
		return errors.Wrap(err, "write node.json")
	}
	return errors.Wrap(os.Rename(tmp, filepath.Join(d.path, nodeInfoFile)), "write node.json")
}

func (d *dataDir) withdraw(context.Context) error {
	if err := os.Remove(filepath.Join(d.path, nodeInfoFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.Wrap(err, "remove node.json")
	}
	return nil
}

// readNodeInfo reads node.json of a data folder.
func readNodeInfo(dir string) (nodeInfo, error) {
	var info nodeInfo
	raw, err := os.ReadFile(filepath.Join(dir, nodeInfoFile))
	if err != nil {
		return info, errors.Wrap(err, "find the node")
	}
	return info, errors.Wrapf(json.Unmarshal(raw, &info), "read %s", filepath.Join(dir, nodeInfoFile))
}
