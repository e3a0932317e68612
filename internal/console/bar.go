package console

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"

	"github.com/querynode/querynode/internal/lifecycle"
)

// Unit says what a bar counts.
type Unit string

// The units.
const (
	Rows  Unit = "row"
	Bytes Unit = "byte"
	Steps Unit = "" // just a share
)

// labelWidth keeps the bars below one another.
const labelWidth = 30

// Bar shows how far something is: a moving bar on a terminal, one line at the
// end elsewhere, nothing with JSON. Its methods are safe for concurrent use, on
// a nil Bar too. End it with Done or Fail before anything else is written.
type Bar struct {
	c     *Console
	unit  Unit
	start time.Time
	group *lifecycle.Group // draws
	draw  progress.Writer
	track *progress.Tracker

	mu struct {
		sync.Mutex
		ended       bool
		label       string
		done, total int64
	}
}

// Bar starts one; total 0 = not known yet.
func (c *Console) Bar(label string, total int64, unit Unit) *Bar {
	b := &Bar{c: c, unit: unit, start: time.Now()}
	b.mu.label, b.mu.total = label, total
	if c.o.JSON || !c.err.rich {
		return b
	}
	b.draw = progress.NewWriter()
	b.draw.SetOutputWriter(fromLeft{c.err.w})
	b.draw.SetStyle(c.barStyle(unit))
	b.draw.SetMessageLength(labelWidth)
	b.draw.SetTrackerLength(24)
	b.draw.SetUpdateFrequency(80 * time.Millisecond)
	b.draw.SetTrackerPosition(progress.PositionRight)
	if c.err.width > 0 {
		b.draw.SetTerminalWidth(c.err.width)
	}
	b.track = &progress.Tracker{Message: label, Total: total, Units: units(unit)}
	b.draw.AppendTracker(b.track)
	b.group = lifecycle.NewGroup(context.Background(), nil)
	if err := b.group.Go("progress bar", func(context.Context) error { b.draw.Render(); return nil }); err != nil {
		b.draw = nil
	}
	return b
}

// fromLeft begins each frame at the left edge: what is typed meanwhile, such as
// Ctrl-C, has moved the cursor.
type fromLeft struct{ w io.Writer }

// Write writes one frame.
func (f fromLeft) Write(p []byte) (int, error) {
	n, err := f.w.Write(append([]byte("\r"), p...))
	return max(0, n-1), err
}

func units(u Unit) progress.Units {
	if u == Bytes {
		return progress.UnitsBytes
	}
	return progress.Units{Formatter: Count}
}

func (c *Console) barStyle(unit Unit) progress.Style {
	s := progress.StyleBlocks
	s.Chars.BoxLeft, s.Chars.BoxRight = "", ""
	s.Chars.Finished25, s.Chars.Finished50, s.Chars.Finished75 = "▎", "▌", "▊"
	s.Chars.Finished, s.Chars.Unfinished = "█", "░"
	s.Options.DoneString = c.PaintNote(Good, "✓")
	s.Options.ErrorString = c.PaintNote(Bad, "✗")
	s.Options.PercentFormat = "%4.0f%%"
	s.Options.Separator = " "
	s.Options.TimeDonePrecision = time.Millisecond
	s.Options.TimeInProgressPrecision = 100 * time.Millisecond
	s.Options.TimeOverallPrecision = 100 * time.Millisecond
	s.Visibility.ETA = false
	s.Visibility.Value = unit != Steps
	return s
}

// Set says how far it is.
func (b *Bar) Set(done int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.done = done
	if b.draw != nil && !b.mu.ended {
		b.track.SetValue(min(done, max(b.mu.total-1, 0))) // the end is said by Done
	}
}

// Total says how much it will be.
func (b *Bar) Total(total int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.total = total
	if b.draw != nil && !b.mu.ended {
		b.track.UpdateTotal(total)
	}
}

// Done ends the bar: all is done.
func (b *Bar) Done() { b.end(false) }

// Fail ends the bar where it is.
func (b *Bar) Fail() { b.end(true) }

func (b *Bar) end(failed bool) {
	if b == nil {
		return
	}
	b.mu.Lock()
	if b.mu.ended {
		b.mu.Unlock()
		return
	}
	b.mu.ended = true
	label, done, total := b.mu.label, b.mu.done, b.mu.total
	b.mu.Unlock()
	took := time.Since(b.start).Round(time.Millisecond)
	switch {
	case b.draw == nil && failed:
		b.c.Notef("%s: stopped after %s", label, took)
	case b.draw == nil && b.unit != Steps:
		b.c.Notef("%s: %s in %s", label, b.unit.text(max(done, total)), took)
	case b.draw == nil:
		b.c.Notef("%s: done in %s", label, took)
	default:
		if failed {
			b.track.MarkAsErrored()
		} else {
			if total > 0 {
				b.track.SetValue(total)
			}
			b.track.MarkAsDone()
		}
		b.stopDrawing()
	}
}

// stopDrawing ends Render, which draws the last frame. A Stop that comes before
// Render has begun is lost, so it is said until it is heard; a terminal that does
// not take the frame is left behind after a while.
func (b *Bar) stopDrawing() {
	for range 100 {
		b.draw.Stop()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		err := b.group.Close(ctx)
		cancel()
		if err == nil {
			return
		}
	}
}

func (u Unit) text(n int64) string {
	if u == Bytes {
		return Size(n)
	}
	return Several(n, string(u))
}
