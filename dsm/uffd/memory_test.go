package uffd_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"coalesce/dsm/uffd"
	"coalesce/dsm/uffd/uffdtest"
)

const page = uffd.PageSize

func TestNewMemoryRefusesWindows(t *testing.T) {
	for name, tc := range map[string]struct {
		windows []uffd.Window
		want    string
	}{
		"none":      {nil, "no windows"},
		"empty":     {[]uffd.Window{{0, 0}}, "empty"},
		"ragged":    {[]uffd.Window{{0, page + 1}}, "whole pages"},
		"unaligned": {[]uffd.Window{{7, page}}, "whole pages"},
		"wraps":     {[]uffd.Window{{1<<64 - page, 2 * page}}, "wraps"},
		"overlaps":  {[]uffd.Window{{0, 4 * page}, {3 * page, page}}, "overlap"},
		"too large": {[]uffd.Window{{0, 1 << 62}}, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := uffd.NewMemory("uffd-test", tc.windows, uffd.MemoryOptions{})
			if err == nil {
				m.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %q does not say %q", err, tc.want)
			}
		})
	}
}

// threeWindows has two windows that touch and one apart, not in GPA order.
func threeWindows(t *testing.T) *uffd.Memory {
	t.Helper()
	m, err := uffd.NewMemory("uffd-test", []uffd.Window{
		{GPA: 0, Size: 2 * page},
		{GPA: 1 << 32, Size: 3 * page},
		{GPA: 2 * page, Size: page},
	}, uffd.MemoryOptions{})
	check(t, err)
	t.Cleanup(func() { check(t, m.Close()) })
	return m
}

func TestMemoryPlaces(t *testing.T) {
	m := threeWindows(t)
	if m.Pages() != 6 {
		t.Fatalf("%d pages", m.Pages())
	}
	for _, tc := range []struct {
		gpa  uint64
		page uint32
		ok   bool
	}{
		{0, 0, true}, {page - 1, 0, true}, {page, 1, true}, {2 * page, 5, true}, {3*page - 1, 5, true},
		{3 * page, 0, false}, {1<<32 - 1, 0, false}, {1 << 32, 2, true}, {1<<32 + 3*page - 1, 4, true},
		{1<<32 + 3*page, 0, false}, {1<<64 - 1, 0, false},
	} {
		p, ok := m.Index(tc.gpa)
		if p != tc.page || ok != tc.ok {
			t.Errorf("Index(%#x) = %d, %v; want %d, %v", tc.gpa, p, ok, tc.page, tc.ok)
		}
		if ok && m.GPA(p) != tc.gpa&^(page-1) {
			t.Errorf("GPA(%d) = %#x; want %#x", p, m.GPA(p), tc.gpa&^(page-1))
		}
	}
	slots := m.Slots()
	if len(slots) != 3 || slots[1].GPA != 1<<32 || slots[1].Size != 3*page || slots[1].HVA != m.HVA(2) {
		t.Errorf("slots %+v", slots)
	}
	if slots[0].HVA%(2<<20) != 0 {
		t.Errorf("guest view at %#x, not on a 2 MiB boundary", slots[0].HVA)
	}
}

func TestMemoryReadWriteAt(t *testing.T) {
	m := threeWindows(t)
	data := bytes.Repeat([]byte("coalesce"), 3*page/8)
	if n, err := m.WriteAt(data, 0); n != len(data) || err != nil {
		t.Fatalf("write across windows: %d, %v", n, err)
	}
	got := make([]byte, len(data))
	if n, err := m.ReadAt(got, 0); n != len(got) || err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read across windows: %d, %v, equal %v", n, err, bytes.Equal(got, data))
	}
	if !bytes.Equal(m.Alias(5, 1), data[2*page:]) {
		t.Error("the third page is not in the third window")
	}
	// The guest view shows the same bytes.
	if v, err := uffdtest.Load(m.HVA(5)); err != nil || v != 0x656373656c616f63 {
		t.Errorf("guest view holds %#x, %v", v, err)
	}
	if n, err := m.WriteAt([]byte("xxxx"), 3*page-2); n != 0 || !errors.Is(err, uffd.ErrNotRAM) {
		t.Errorf("write past the windows: %d, %v", n, err)
	}
	if b := m.Alias(5, 1)[page-1]; b == 'x' {
		t.Error("a write that does not fit was done in part")
	}
	if n, err := m.ReadAt(got[:4], 3*page-2); n != 2 || !errors.Is(err, uffd.ErrNotRAM) {
		t.Errorf("read past the windows: %d, %v", n, err)
	}
	if n, err := m.ReadAt(got[:4], -1); n != 0 || !errors.Is(err, uffd.ErrNotRAM) {
		t.Errorf("read at -1: %d, %v", n, err)
	}
	if n, err := m.ReadAt(nil, 1<<40); n != 0 || err != nil {
		t.Errorf("empty read: %d, %v", n, err)
	}
}

func TestMemoryResident(t *testing.T) {
	m := newMemory(t, 16, uffd.MemoryOptions{Lock: true})
	want := func(pages uint64) {
		t.Helper()
		if r := m.Resident(); r != pages*page {
			t.Fatalf("%d bytes resident, want %d pages", r, pages)
		}
	}
	want(0)
	check(t, m.PopulateAlias(0, 16))
	want(16)
	m.Alias(3, 1)[0] = 1
	check(t, m.PopulateAlias(3, 1))
	if m.Alias(3, 1)[0] != 1 {
		t.Error("populate changed a page that was there")
	}
	check(t, m.PunchAlias(3, 5))
	want(11)
	if m.Alias(3, 1)[0] != 0 {
		t.Error("a punched page is not zero")
	}
	wantErr(t, m.PunchAlias(15, 2), uffd.ErrRange)
	wantErr(t, m.PopulateAlias(16, 1), uffd.ErrRange)
	wantErr(t, m.PopulateAlias(0, 0), uffd.ErrRange)
	wantErr(t, m.PopulateAlias(1, -1), uffd.ErrRange)
}

func TestMemoryAliasBounds(t *testing.T) {
	m := newMemory(t, 4, uffd.MemoryOptions{})
	if a := m.Alias(1, 2); len(a) != 2*page || cap(a) != 2*page {
		t.Fatalf("alias has len %d, cap %d", len(a), cap(a))
	}
	for _, tc := range []struct {
		page uint32
		n    int
	}{{4, 1}, {3, 2}, {1<<32 - 1, 1}, {2, -1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Alias(%d, %d) did not panic", tc.page, tc.n)
				}
			}()
			m.Alias(tc.page, tc.n)
		}()
	}
}

func TestMemoryLeavesNothing(t *testing.T) {
	files := openFiles(t)
	for range 10 {
		m, err := uffd.NewMemory("uffd-leak", []uffd.Window{{0, 64 << 20}}, uffd.MemoryOptions{})
		check(t, err)
		check(t, m.PopulateAlias(0, 4))
		if n := mappings(t, "uffd-leak"); n != 2 {
			t.Fatalf("%d mappings, want two views", n)
		}
		check(t, m.Close())
		check(t, m.Close())
	}
	if n := mappings(t, "uffd-leak"); n != 0 {
		t.Errorf("%d mappings left", n)
	}
	if n := openFiles(t); n != files {
		t.Errorf("%d files open, %d before", n, files)
	}
}

func TestInUse(t *testing.T) {
	m := threeWindows(t)
	if _, err := m.WriteAt([]byte{1}, 1<<32+page); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		page uint32
		n    int
		want int
	}{{0, 6, 1}, {3, 1, 1}, {0, 3, 0}, {4, 2, 0}} {
		if n, err := m.InUse(tc.page, tc.n); err != nil || n != tc.want {
			t.Errorf("%d pages in use of %d from %d (%v), want %d", n, tc.n, tc.page, err, tc.want)
		}
	}
	if _, err := m.InUse(5, 2); !errors.Is(err, uffd.ErrRange) {
		t.Errorf("beyond the end: %v", err)
	}
}
