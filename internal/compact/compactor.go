package compact

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// Compactor rewrites the segments of the channels that this node owns. Open it
// with New; Close it before the segments that it uses.
type Compactor struct {
	o     Options
	group *lifecycle.Group
	kick  chan struct{} // capacity 1
	turn  chan struct{} // capacity 1: one job at a time

	mu struct {
		sync.Mutex
		running *Running
		stats   Stats
		recent  []Done // the last few, oldest first
		failing map[string]failing
		aside   map[string]Aside // by path
	}
}

// failing is a channel whose last job failed.
type failing struct {
	err     error
	wait    time.Duration
	retryAt time.Time
}

// Running is the job under way.
type Running struct {
	VChannel    string    `json:"vchannel"`
	PartitionID int64     `json:"partition_id"`
	Why         string    `json:"why"`
	Inputs      []int64   `json:"inputs"`
	Phase       string    `json:"phase"` // fetch, index, upload, commit
	Began       time.Time `json:"began"`
}

// Stats are totals since the start.
type Stats struct {
	Jobs        int64 `json:"jobs"`
	Failed      int64 `json:"failed"`
	Segments    int64 `json:"segments"` // replaced
	RowsIn      int64 `json:"rows_in"`
	RowsOut     int64 `json:"rows_out"`
	BytesIn     int64 `json:"bytes_in"`
	BytesOut    int64 `json:"bytes_out"`
	DeltasFreed int64 `json:"deltas_freed"` // files of deletes that left the catalog
}

// Status is what an operator wants to know.
type Status struct {
	Running *Running          `json:"running,omitempty"`
	Recent  []Done            `json:"recent"`
	Failing map[string]string `json:"failing,omitempty"` // by vchannel: why, or what was done without
	Aside   []Aside           `json:"aside,omitempty"`   // what is not compacted since it cannot be read
	Stats   Stats             `json:"stats"`
}

const maxRecent = 32

// maxAsides bounds the files that are set aside before a channel has to wait.
const maxAsides = 100

// New returns a running Compactor.
func New(o Options) (*Compactor, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, errors.Wrapf(err, "create compaction folder %s", o.Dir)
	}
	c := &Compactor{o: o, kick: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
	c.mu.failing = map[string]failing{}
	c.mu.aside = map[string]Aside{}
	c.group = lifecycle.NewGroup(context.Background(), nil)
	return c, c.group.Go("compaction loop", c.loop)
}

// Kick makes the loop look for work now.
func (c *Compactor) Kick() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func (c *Compactor) loop(ctx context.Context) error {
	if c.o.Interval < 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(c.o.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-c.kick:
		}
		c.round(ctx)
	}
}

// round does what is worth it on each channel.
func (c *Compactor) round(ctx context.Context) {
	channels := c.o.Channels()
	c.forget(channels)
	for _, ch := range channels {
		if ctx.Err() != nil {
			return
		}
		c.background(ctx, ch)
	}
}

// forget drops what is known of all channels but these: others are not compacted
// here any more, and what failed there need not worry anybody.
func (c *Compactor) forget(but []Channel) {
	here := map[string]bool{}
	for _, ch := range but {
		here[ch.Name()] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.mu.failing, func(vchannel string, _ failing) bool { return !here[vchannel] })
	maps.DeleteFunc(c.mu.aside, func(_ string, a Aside) bool { return !here[a.VChannel] })
}

// background does what is worth it on one channel. A failure is retried with
// back-off and does not hold up other channels.
func (c *Compactor) background(ctx context.Context, ch Channel) {
	c.mu.Lock()
	f := c.mu.failing[ch.Name()]
	c.mu.Unlock()
	if c.o.Now().Before(f.retryAt) {
		return
	}
	done, err := c.channel(ctx, ch, false)
	if ctx.Err() != nil {
		return
	}
	if len(done) > 0 {
		f.wait = 0 // it gets on
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil || errors.Is(err, errAside) { // which was done without
		delete(c.mu.failing, ch.Name())
		return
	}
	wait := min(max(2*f.wait, time.Second), 5*time.Minute)
	c.mu.failing[ch.Name()] = failing{err, wait, c.o.Now().Add(wait)}
	c.o.Logger.Warn("compact: will be tried again", "vchannel", ch.Name(), "in", wait, "error", err)
}

// Run compacts channels now, whatever of them gets better by it, and returns what
// was done when nothing is left to do. A channel that fails does not hold up the others;
// the error tells of each.
func (c *Compactor) Run(ctx context.Context, channels []Channel) (done []Done, err error) {
	if c.group.Context().Err() != nil {
		return nil, errclass.New(errclass.Closed, "compact: closing")
	}
	// Its end is this compactor's end too.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.group.Context(), cancel)()
	var failed []error
	for _, ch := range channels {
		some, err := c.channel(ctx, ch, true)
		done = append(done, some...)
		if err != nil {
			failed = append(failed, errors.Wrapf(err, "compact channel %s", ch.Name()))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return done, errors.Join(failed...)
}

// channel does jobs on a channel until none is left. If that was without files that
// were set aside, or jobs that had no room, the error says so.
func (c *Compactor) channel(ctx context.Context, ch Channel, all bool) (done []Done, err error) {
	var without error
	asides, out := 0, newLeftOut()
	for {
		var d *Done
		select {
		case c.turn <- struct{}{}:
		case <-ctx.Done():
			return done, errclass.Wrap(ctx.Err(), errclass.Retryable, "another compaction is under way")
		}
		if err := ctx.Err(); err != nil {
			<-c.turn
			return done, errclass.Wrap(err, errclass.Retryable, "compaction ended")
		}
		err := lifecycle.Call("compact "+ch.Name(), func() (err error) {
			d, err = c.next(ctx, ch, all, out)
			return err
		})
		<-c.turn
		c.mu.Lock()
		c.mu.running = nil
		if err != nil && ctx.Err() == nil && !errors.Is(err, errSame) {
			c.mu.stats.Failed++
		}
		c.mu.Unlock()
		if errors.Is(err, errSame) || errors.Is(err, errNoRoom) {
			continue
		}
		if errors.Is(err, errAside) && asides < maxAsides {
			asides++
			without = errors.CombineErrors(without, err)
			continue
		}
		if err != nil || d == nil {
			return done, errors.CombineErrors(err, errors.CombineErrors(out.err(), without))
		}
		c.note(*d)
		done = append(done, *d)
		c.o.OnCompacted(*d)
	}
}

func (c *Compactor) note(d Done) {
	c.o.Logger.Info("compact: replaced", "vchannel", d.VChannel, "why", d.Why, "segments", d.Inputs, "by", d.Output,
		"rows", d.RowsIn, "rows_left", d.RowsOut, "bytes", d.BytesIn, "bytes_left", d.BytesOut, "took", d.Took)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.mu.stats
	s.Jobs++
	s.Segments += int64(len(d.Inputs))
	s.RowsIn += d.RowsIn
	s.RowsOut += d.RowsOut
	s.BytesIn += d.BytesIn
	s.BytesOut += d.BytesOut
	c.mu.recent = append(c.mu.recent, d)
	c.mu.recent = c.mu.recent[max(0, len(c.mu.recent)-maxRecent):]
}

func (c *Compactor) phase(ch Channel, j *job, phase string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	began := c.o.Now()
	if c.mu.running != nil {
		began = c.mu.running.Began
	}
	c.mu.running = &Running{VChannel: ch.Name(), PartitionID: j.partition, Why: j.why, Inputs: j.ids(), Phase: phase, Began: began}
}

// Status tells what is done and what was.
func (c *Compactor) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{Running: c.mu.running, Recent: slices.Clone(c.mu.recent), Aside: c.asideLocked(), Stats: c.mu.stats}
	for name, f := range c.mu.failing {
		if s.Failing == nil {
			s.Failing = map[string]string{}
		}
		s.Failing[name] = f.err.Error()
	}
	for _, a := range s.Aside {
		if s.Failing == nil {
			s.Failing = map[string]string{}
		}
		if s.Failing[a.VChannel] == "" {
			s.Failing[a.VChannel] = fmt.Sprintf("%s is set aside until %s: %s", a.Path, a.Until.UTC().Format(time.RFC3339), a.Error)
		}
	}
	slices.SortStableFunc(s.Recent, func(a, b Done) int { return cmp.Compare(a.VChannel, b.VChannel) })
	return s
}

// Close ends the job under way, which leaves nothing behind that matters, and
// waits for it until ctx ends.
func (c *Compactor) Close(ctx context.Context) error {
	if err := c.group.Close(ctx); err != nil {
		return errors.Wrap(err, "compact")
	}
	select {
	case c.turn <- struct{}{}: // whoever asked for a job by hand has ended
		<-c.turn
	case <-ctx.Done():
		return errclass.Wrap(ctx.Err(), errclass.Retryable, "compact: a job that was asked for is still under way")
	}
	return errors.Wrap(os.RemoveAll(c.o.Dir), "remove compaction folder")
}
