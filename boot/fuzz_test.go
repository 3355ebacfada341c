package boot

import (
	"bytes"
	"testing"
)

// FuzzLoad feeds arbitrary files to Load. Whatever they claim, writes stay in
// RAM (the test memory refuses others, which would surface as an error naming a
// write), and a kernel that loads starts inside what was loaded, with the initrd
// beside it.
func FuzzLoad(f *testing.F) {
	f.Add(bzImage(bzOptions{version: "6.12", payload: 600}), uint8(Auto), uint16(100))
	f.Add(elfKernel(elfOptions{entry: 16 * mib, segments: []segment{{paddr: 16 * mib, data: pattern(64, 1), memsz: 4096}}, notes: pvhNote(16*mib + 8)}), uint8(Auto), uint16(5000))
	f.Add(elfKernel(elfOptions{entry: 16 * mib, segments: []segment{{paddr: 16 * mib, data: pattern(64, 1)}}}), uint8(Linux64), uint16(0))
	f.Fuzz(func(t *testing.T, kernel []byte, mode uint8, initrdSize uint16) {
		mem := &ram{regions: testMap(32 * mib)}
		e, err := load(t, mem, kernel, make([]byte, initrdSize), func(p *Params) { p.Mode = Mode(mode % 3) })
		if err != nil {
			if bytes.Contains([]byte(err.Error()), []byte("write ")) {
				t.Fatalf("a write outside RAM: %v", err)
			}
			return
		}
		if e.RIP < e.KernelBase || e.RIP-e.KernelBase >= e.KernelSize {
			t.Errorf("entry %#x is outside the kernel %#x+%#x", e.RIP, e.KernelBase, e.KernelSize)
		}
		k, i := span{e.KernelBase, e.KernelBase + e.KernelSize}, span{e.InitrdBase, e.InitrdBase + e.InitrdSize}
		if initrdSize > 0 && (k.overlaps(i) || i.base%pageSize != 0) {
			t.Errorf("initrd %#x..%#x beside kernel %#x..%#x", i.base, i.end, k.base, k.end)
		}
		for _, c := range e.KernelVersion {
			if c < ' ' || c > '~' {
				t.Errorf("version %q", e.KernelVersion)
			}
		}
	})
}
