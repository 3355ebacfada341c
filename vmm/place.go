package vmm

import (
	"fmt"

	"coalesce/boot"
)

// span is a part of the guest's physical memory that has a name.
type span struct {
	base, end uint64
	name      string
}

// places names the parts of guest memory that are known from outside the guest, the
// particular ones first. Where a kernel that places itself at random went is not,
// nor what it allocates.
func (l *Layout) places(e *boot.Entry) []span {
	var s []span
	add := func(base, size uint64, name string) {
		if size > 0 {
			s = append(s, span{base, base + size, name})
		}
	}
	if e != nil {
		add(0, boot.LowEnd, "low memory (boot data)")
		add(acpiBase, 1<<20-acpiBase, "ACPI tables")
		add(e.KernelBase, e.KernelSize, "kernel, as loaded")
		add(e.InitrdBase, e.InitrdSize, "initrd, as loaded")
	}
	for i, w := range l.Windows {
		name := "client's RAM"
		if l.owners[i] != 0 {
			name = fmt.Sprintf("lender %d's memory", l.owners[i])
		}
		add(w.GPA, w.Size, name)
	}
	return s
}

// placeOf returns the name of the part that gpa is in.
func placeOf(places []span, gpa uint64) string {
	for _, s := range places {
		if gpa >= s.base && gpa < s.end {
			return s.name
		}
	}
	return "no memory"
}
