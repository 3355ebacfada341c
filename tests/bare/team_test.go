package bare

import (
	"bytes"
	"debug/elf"
	"strings"
	"testing"

	"coalesce/guest/micro"
)

// walk follows page tables in the image from root to what va is mapped to.
func walk(t *testing.T, team *Team, root, va uint64) (gpa uint64) {
	t.Helper()
	table := root
	for level := 3; ; level-- {
		entry := team.get(table + va>>(12+9*level)&511*8)
		if entry&pteTable != pteTable {
			t.Fatalf("va %#x: entry %#x at level %d", va, entry, level)
		}
		switch {
		case level == 1 && entry&pteLarge != 0:
			return entry&pteAddr + va%largePage
		case level == 0:
			return entry&pteAddr + va%pageSize
		}
		table = entry & pteAddr
	}
}

// Every vCPU has its own private memory, finds everybody's, and shares the rest; pages lie where their homes' memory is.
func TestTeamMemory(t *testing.T) {
	const n = 3
	team, err := NewTeam(n, 1)
	if err != nil {
		t.Fatal(err)
	}
	private, shared := team.Private(1), team.Shared(2, 0, 1)
	for cpu := range n {
		root := team.roots[cpu]
		if got := walk(t, team, root, codeBase); got != codeBase {
			t.Errorf("vCPU %d: code at %#x", cpu, got)
		}
		for other := range n {
			own := walk(t, team, team.roots[other], private)
			if got := walk(t, team, root, team.PrivateOf(other, private)); got != own {
				t.Errorf("vCPU %d finds vCPU %d's private memory at %#x, it has it at %#x", cpu, other, got, own)
			}
		}
		for i, home := range []int{2, 0, 1} {
			window := team.layout.Windows[home]
			if got := walk(t, team, root, shared+uint64(i)*pageSize); got < window.GPA || got >= window.GPA+window.Size {
				t.Errorf("vCPU %d: page %d, homed at %d, lies at %#x", cpu, i, home, got)
			}
		}
	}
	if walk(t, team, team.roots[0], private) == walk(t, team, team.roots[1], private) {
		t.Error("two vCPUs have the same private memory")
	}
}

// The kernel is an ELF file that is entered at code of its own.
func TestTeamImage(t *testing.T) {
	team, err := NewTeam(2, 1)
	if err != nil {
		t.Fatal(err)
	}
	team.Barrier()
	image, err := team.End()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	if p := f.Progs[0]; len(f.Progs) != 1 || p.Paddr != tablesBase || f.Entry < codeBase || f.Entry >= p.Paddr+p.Filesz || f.Entry != team.Address(team.entry) {
		t.Errorf("entry %#x, segments %+v", f.Entry, p)
	}
}

// What does not fit is an error, not a kernel that goes wrong.
func TestTeamErrors(t *testing.T) {
	for _, n := range []int{0, MaxTeam + 1} {
		if _, err := NewTeam(n, 1); err == nil {
			t.Errorf("a team of %d", n)
		}
	}
	for want, misuse := range map[string]func(team *Team){
		"private memory":   func(team *Team) { team.Private(privateSize) },
		"homed at node 2":  func(team *Team) { team.Shared(2) },
		"at node 1":        func(team *Team) { team.Shared(team.Homes(1, 2*TeamLent/pageSize+2)...) },
		"room is up to":    func(team *Team) { team.Data(make([]byte, sharedBase)) },
		"the root has an":  func(team *Team) { team.MapApart(0, team.PageAt(0), func() int { return 0 }) },
		"is not bound":     func(team *Team) { team.Jmp(team.Label()) },
		"bytes of code":    func(team *Team) { team.Bytes(make([]byte, imageBase-codeBase)...) },
		"is not below 2 G": func(team *Team) { team.Load(micro.RAX, 1<<31) },
	} {
		team, err := NewTeam(2, 1)
		if err != nil {
			t.Fatal(err)
		}
		misuse(team)
		if _, err := team.End(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
