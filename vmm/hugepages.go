package vmm

import (
	"sync"
	"time"

	"coalesce/dsm"
	"coalesce/dsm/uffd"
)

// hugePages makes 2 MiB pages of a guest's memory while the guest has one host,
// in the background: stock hosts make none of shared memory by themselves
// (shmem_enabled=never), and without them a guest that works on much memory is
// slower here than on any other machine monitor.
//
// A region is taken once most of it is in use, so that memory at most doubles.
// What is in use is copied, in a few ms for each region, during which a vCPU
// that touches the region waits.
type hugePages struct {
	mem  *uffd.Memory
	done []bool // by region; the goroutine's
	quit chan struct{}
	over sync.WaitGroup
}

const (
	// hugeLook is how long after a look at all regions the next one comes; it
	// doubles up to hugeRest while there is nothing to do.
	hugeLook = time.Second
	hugeRest = 16 * time.Second
	// hugeShare bounds what this takes of a processor: one part in so many.
	hugeShare = 4
	// hugeUse is how many pages of a region must be in use.
	hugeUse = dsm.RegionPages / 2
)

// startHugePages lets the guest view have huge pages from now on, and makes
// some. stop ends both.
func startHugePages(mem *uffd.Memory) (*hugePages, error) {
	if err := mem.AllowHuge(true); err != nil {
		return nil, err
	}
	h := &hugePages{mem: mem, done: make([]bool, mem.Pages()/dsm.RegionPages), quit: make(chan struct{})}
	h.over.Go(h.run)
	return h, nil
}

func (h *hugePages) run() {
	for rest := hugeLook; h.sleep(rest); {
		made, more := h.look()
		if !more {
			return
		}
		rest = min(2*rest, hugeRest)
		if made > 0 {
			rest = hugeLook
		}
	}
}

// sleep returns false when it is interrupted for good.
func (h *hugePages) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-h.quit:
		return false
	}
}

// look goes through the regions once. It returns how many became huge pages, and
// whether there are others or it was not interrupted.
func (h *hugePages) look() (made int, more bool) {
	for i := range h.done {
		select {
		case <-h.quit:
			return made, false
		default:
		}
		first := uint32(i) * dsm.RegionPages
		if h.done[i] {
			continue
		}
		more = true
		if n, err := h.mem.InUse(first, dsm.RegionPages); err != nil || n < hugeUse {
			continue
		}
		start := time.Now()
		// It fails where the kernel has no huge page to give, or something has
		// hold of a page: the next look tries again.
		if h.mem.Collapse(first, dsm.RegionPages) == nil {
			h.done[i] = true
			made++
		}
		if !h.sleep((hugeShare - 1) * time.Since(start)) {
			return made, false
		}
	}
	return made, more
}

// stop returns when no page is being made huge any more, and none will be. What
// is huge stays so until it is split.
func (h *hugePages) stop() error {
	close(h.quit)
	h.over.Wait()
	return h.mem.AllowHuge(false)
}
