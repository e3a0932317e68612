package main

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/segments"
)

// diskInterval is how often it is looked what the queue has on the local disk.
const diskInterval = time.Second

// diskPercent is the share of what is free on the local disk that the node takes unless
// disk.limit says: the rest is for logs, for what others write, and because file systems
// that are nearly full become slow.
const diskPercent = 80

// lookAtDisk works out once what the node may take on the local disk, which its parts
// share, and what its queue may take if that is on another one.
func (r *running) lookAtDisk(context.Context) (err error) {
	queue := ""
	if r.cfg.Queue.Kind != "pulsar" {
		queue = r.cfg.Queue.Dir
	}
	if queue != "" && !r.o.sameVolume(r.dir.run, queue) {
		r.apart = true
		if r.queueDisk, err = r.budget("disk.queue_limit", int64(r.cfg.Disk.QueueLimit), existing(queue), queue); err != nil {
			return err
		}
		r.log.Info("the queue is on a volume of its own", "dir", queue, "limit", r.queueDisk)
		queue = ""
	}
	r.disk, err = r.budget("disk.limit", int64(r.cfg.Disk.Limit), r.dir.run, queue)
	return err
}

// budget is what was configured, or worked out of what is free where dir is and what a
// queue has there, "" = none.
func (r *running) budget(key string, configured int64, dir, queue string) (int64, error) {
	if configured > 0 {
		return configured, nil
	}
	free, err := r.o.free(dir)
	if err != nil {
		return 0, errors.Wrapf(err, "%s: set it, since what is free cannot be found out", key)
	}
	return diskBudget(free, queue), nil
}

// diskBudget is what the node may take where so many bytes are free: what a queue on the
// disk has from earlier runs is not free any more, but in the budget. queue is its folder, ""
// = none. 0 = no limit, where nobody knows what is free; a disk that is full is one with a
// limit, under which only flushes and deletes have room.
func diskBudget(free int64, queue string) int64 {
	if free < 0 {
		return 0
	}
	if queue != "" {
		free += folderBytes(queue)
	}
	return max(free/100*diskPercent, 1)
}

// watchDisk tells the segments how large the queue is: it shares the disk's budget with them,
// or has one of its own on another volume.
func watchDisk(ctx context.Context, set *segments.Set, dir string) error {
	tick := time.NewTicker(diskInterval)
	defer tick.Stop()
	for {
		set.ObserveQueue(func() int64 { return folderBytes(dir) })
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// folderBytes sums the files in a folder. What goes meanwhile, or cannot be looked at,
// does not count.
func folderBytes(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}

// existing is a folder, or the nearest one above it that there is: one that is made later
// is on the same volume.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// queueFile is the size at which the queue begins a new file: it keeps the last one of
// each topic, and where the node may take few bytes on the disk these are to have no more than
// an eighth of them. disk is how many; 0 = no limit.
func queueFile(configured, disk int64, topics int) int64 {
	const least = 64 << 10
	if disk == 0 {
		return configured
	}
	return min(configured, max(disk/8/int64(max(topics, 1)), least))
}
