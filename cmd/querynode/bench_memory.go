package main

import (
	"context"
	"math"
	"runtime"
	"strconv"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/console"
	"github.com/querynode/querynode/internal/vec"
)

type benchMemoryCmd struct {
	Sizes   []int `default:"64,128,256,512,1024,2048,4096,16384" placeholder:"BYTES" help:"Bytes of a read, each size is measured."`
	MiB     int   `name:"mib" default:"512" help:"Memory that the reads are spread over."`
	Threads []int `short:"t" default:"1,2" help:"Goroutines that read at the same time, each number is measured."`
	outputFlags
}

// Help is shown by --help.
func (benchMemoryCmd) Help() string {
	return `Reads memory at random places, a few lines at a time, as the search of an index does, and in order, with nothing to
compute: what this machine allows at most. "bench index --bound" does so with the reads of an index.

Example:
  querynode bench memory --sizes 128,512,3072 --mib 512 --threads 1,2 --json`
}

// memoryFigures is what bench memory measures.
type memoryFigures struct {
	MiB     int            `json:"mib"`
	Reads   []memoryRead   `json:"reads"`
	Streams []memoryStream `json:"streams"`
	CPUs    int            `json:"cpus"`
	Version string         `json:"version"`
}

// memoryRead is one kind of reads; nanoseconds are of each goroutine.
type memoryRead struct {
	Bytes   int     `json:"bytes"`
	Threads int     `json:"threads"`
	Small   float64 `json:"ns_4k_pages"`
	Huge    float64 `json:"ns_huge_pages"`
	GB      float64 `json:"gb_per_s_huge_pages"` // of all goroutines
}

// memoryStream is reading in order.
type memoryStream struct {
	Threads int     `json:"threads"`
	GB      float64 `json:"gb_per_s"` // of all goroutines
}

// Run measures.
func (b *benchMemoryCmd) Run(a *app) error {
	if b.MiB < 1 || b.MiB > 64<<10 {
		return usage(errors.New("--mib: want 1 to 65536"))
	}
	for _, n := range b.Sizes {
		if n < 1 || n > b.MiB<<20 {
			return usage(errors.Newf("--sizes %d: want 1 byte to what --mib is", n))
		}
	}
	for _, n := range b.Threads {
		if n < 1 || n > 1024 {
			return usage(errors.New("--threads: want 1 to 1024"))
		}
	}
	ctx, cancel := a.context()
	defer cancel()
	fig := memoryFigures{MiB: b.MiB, CPUs: runtime.GOMAXPROCS(0), Version: a.version}
	if err := b.measure(ctx, &fig); err != nil {
		return err
	}
	out := b.console(a)
	if out.JSON() {
		return out.Line(&fig)
	}
	fig.show(out)
	return nil
}

// streamRead is so long that reading on is all there is to it.
const streamRead = 4 << 20

func (b *benchMemoryCmd) measure(ctx context.Context, fig *memoryFigures) (err error) {
	for _, threads := range b.Threads {
		for _, size := range b.Sizes {
			fig.Reads = append(fig.Reads, memoryRead{Bytes: size, Threads: threads})
		}
	}
	for _, huge := range []bool{false, true} {
		p, err := newProbe(vec.Detect(), b.MiB<<20, huge)
		if err != nil {
			return err
		}
		err = b.fill(ctx, p, huge, fig)
		if err = errors.CombineErrors(err, p.free()); err != nil {
			return err
		}
	}
	return nil
}

func (b *benchMemoryCmd) fill(ctx context.Context, p *probe, huge bool, fig *memoryFigures) error {
	for i := range fig.Reads {
		r := &fig.Reads[i]
		ns, err := p.read(ctx, r.Bytes, len(p.region), r.Threads)
		if err != nil {
			return err
		}
		if !huge {
			r.Small = tenth(ns)
			continue
		}
		r.Huge, r.GB = tenth(ns), tenth(float64(r.Bytes*r.Threads)/ns)
	}
	if !huge {
		return nil
	}
	for _, threads := range b.Threads {
		ns, err := p.read(ctx, streamRead, len(p.region), threads)
		if err != nil {
			return err
		}
		fig.Streams = append(fig.Streams, memoryStream{Threads: threads, GB: tenth(float64(min(streamRead, len(p.region))*threads) / ns)})
	}
	return nil
}

func tenth(v float64) float64 { return math.Round(10*v) / 10 }

func (f *memoryFigures) show(out *console.Console) {
	t := &console.Table{Title: "Random reads in " + strconv.Itoa(f.MiB) + " MiB", Columns: []console.Column{console.Right("bytes"), console.Right("threads"),
		console.Right("ns, 4-KiB pages"), console.Right("ns, huge pages"), console.Right("GB/s, huge pages")}}
	for _, r := range f.Reads {
		t.Add(r.Bytes, r.Threads, r.Small, r.Huge, r.GB)
	}
	out.Table(t)
	t = &console.Table{Title: "In order, huge pages", Columns: []console.Column{console.Right("threads"), console.Right("GB/s")}}
	for _, s := range f.Streams {
		t.Add(s.Threads, s.GB)
	}
	out.Table(t)
}
