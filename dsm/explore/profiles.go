package explore

import "coalesce/dsm"

// A stands for the first page, B for the second.
const (
	pageA = 0
	pageB = 1
)

// both is an instruction that writes both pages, like a MOVS from one to the
// other under a page walk that counts as a write.
var both = Instr{{pageA, true}, {pageB, true}}

// widens reads a page, needs another, and then writes the first: its copy is
// upgraded while the other is waited for.
var widens = Instr{{pageA, false}, {pageB, true}, {pageA, true}}

// one has a single disturbance happen once.
func one(d Disturbance) (b [disturbances]uint8) {
	b[d] = 1
	return b
}

// each has every disturbance happen once.
var each = [disturbances]uint8{1, 1, 1, 1, 1, 1}

// Profiles returns all profiles.
func Profiles() []Profile {
	onePage := []Instr{R(pageA), W(pageA)}
	twoPages := []Instr{R(pageA), W(pageA), R(pageB), W(pageB)}
	home0, homes00, homes01 := []dsm.NodeID{0}, []dsm.NodeID{0, 0}, []dsm.NodeID{0, 1}
	list := []Profile{
		{Name: "2x1 all disturbances", Nodes: 2, Homes: home0, Threads: free(2, onePage...), Hold: HoldFree, Habit: true, Budget: each},
		{Name: "2x1 devices, two vCPUs a node", Nodes: 2, Homes: home0, Threads: append(free(2, onePage...), free(2, onePage...)...),
			Devices: []dsm.NodeID{0, 1}, Hold: HoldFree, Habit: true},
		{Name: "2x1 fair", Nodes: 2, Homes: home0, Threads: free(2, onePage...), Hold: HoldUsed, Starvation: true},
		{Name: "2x2 fair", Nodes: 2, Homes: homes01, Threads: free(2, twoPages...), Hold: HoldUsed, Starvation: true},
		{Name: "3x1 fair", Nodes: 3, Homes: home0, Threads: free(3, onePage...), Hold: HoldUsed, Starvation: true},
	}
	for d := range disturbances {
		list = append(list,
			Profile{Name: "2x2 " + d.String(), Nodes: 2, Homes: homes01, Threads: free(2, twoPages...), Hold: HoldFree, Budget: one(d)},
			Profile{Name: "2x2 one home " + d.String(), Nodes: 2, Homes: homes00, Threads: free(2, twoPages...), Hold: HoldFree, Budget: one(d)},
			Profile{Name: "3x1 " + d.String(), Nodes: 3, Homes: home0, Threads: free(3, onePage...), Hold: HoldFree, Budget: one(d)},
			Profile{Name: "3x2 " + d.String(), Nodes: 3, Homes: homes01, Threads: free(3, twoPages...), Hold: HoldFree, Budget: one(d), Slow: true},
		)
	}
	list = append(list,
		Profile{Name: "3x2 writes", Nodes: 3, Homes: homes01, Hold: HoldUsed, Starvation: true,
			Threads: []Thread{once(0, W(pageA), W(pageB)), once(1, W(pageB), W(pageA)), once(2, W(pageA), W(pageB))}},
		Profile{Name: "3x2", Nodes: 3, Homes: homes01, Threads: free(3, twoPages...), Hold: HoldFree},
		Profile{Name: "token 2x1", Nodes: 2, Homes: home0, Threads: free(2, W(pageA)), Hold: HoldFree, Token: true, Eager: true, Starvation: true},
		Profile{Name: "token 2x2", Nodes: 2, Homes: homes01, Threads: []Thread{once(0, both, both), once(1, widens)},
			Hold: HoldFree, Token: true, Starvation: true},
		Profile{Name: "token 3x1", Nodes: 3, Homes: home0, Threads: []Thread{once(0, W(pageA)), once(1, W(pageA)), once(2, W(pageA))},
			Hold: HoldFree, Token: true, Eager: true, Starvation: true},
	)
	list = append(list,
		Profile{Name: "contents 2x1", Nodes: 2, Homes: home0, Threads: append(free(2, onePage...), free(1, W(pageA))...),
			Devices: []dsm.NodeID{0}, Hold: HoldFree, Habit: true, Contents: true},
		Profile{Name: "contents 3x1", Nodes: 3, Homes: home0, Threads: free(3, onePage...), Hold: HoldFree, Habit: true, Contents: true, Budget: one(Fetch)},
	)
	for _, d := range []Disturbance{Stale, Duplicate, Interrupt, Reclaim, Fetch} {
		list = append(list, Profile{Name: "token 2x2 " + d.String(), Nodes: 2, Homes: homes01, Threads: []Thread{once(0, both), once(1, both)},
			Hold: HoldFree, Token: true, Eager: true, Starvation: true, Budget: one(d)})
	}
	return append(list, []Profile{
		{Name: "2x1 all disturbances, device", Nodes: 2, Homes: home0, Threads: free(2, onePage...), Devices: []dsm.NodeID{0},
			Hold: HoldFree, Habit: true, Budget: each, Slow: true},
		{Name: "3x2 fair", Nodes: 3, Homes: homes01, Threads: free(3, twoPages...), Hold: HoldUsed, Starvation: true, Slow: true},
		{Name: "3x1 devices", Nodes: 3, Homes: home0, Threads: free(3, onePage...), Devices: []dsm.NodeID{0, 1, 2}, Hold: HoldFree, Slow: true},
		{Name: "token 2x2 four instructions", Nodes: 2, Homes: homes01, Threads: []Thread{once(0, both, widens), once(1, both, both)},
			Hold: HoldFree, Token: true, Starvation: true, Slow: true},
		{Name: "token 2x2 three vCPUs", Nodes: 2, Homes: homes01, Threads: []Thread{once(0, both), once(1, widens), once(1, W(pageA))},
			Hold: HoldFree, Token: true, Eager: true, Starvation: true, Slow: true},
		{Name: "token 2x1 for ever", Nodes: 2, Homes: home0, Threads: free(2, onePage...), Hold: HoldFree, Token: true, Starvation: true, Slow: true},
		{Name: "token 2x2 for ever", Nodes: 2, Homes: homes00, Threads: free(2, both), Hold: HoldFree, Token: true, Eager: true, Starvation: true, Slow: true},
		{Name: "3x1 three disturbances", Nodes: 3, Homes: home0, Threads: free(3, onePage...), Hold: HoldFree,
			Budget: [disturbances]uint8{Stale: 1, Reclaim: 1, Fetch: 1}, Slow: true},
		{Name: "2x2 three disturbances", Nodes: 2, Homes: homes01, Threads: free(2, twoPages...), Hold: HoldFree,
			Budget: [disturbances]uint8{Stale: 1, Reclaim: 1, Fetch: 1}, Slow: true},
		{Name: "contents 3x1 devices", Nodes: 3, Homes: home0, Threads: free(3, onePage...), Devices: []dsm.NodeID{0, 1, 2}, Hold: HoldFree, Contents: true, Slow: true},
		{Name: "contents 3x1 disturbances", Nodes: 3, Homes: home0, Threads: free(3, onePage...), Hold: HoldFree, Habit: true, Contents: true,
			Budget: [disturbances]uint8{Stale: 1, Reclaim: 1, Fetch: 1}, Slow: true},
		{Name: "token 3x1 for ever", Nodes: 3, Homes: home0, Threads: free(3, W(pageA)), Hold: HoldFree, Token: true, Eager: true, Slow: true},
		{Name: "token 3x1 patient", Nodes: 3, Homes: home0, Threads: []Thread{once(0, W(pageA)), once(1, W(pageA)), once(2, W(pageA))},
			Hold: HoldFree, Token: true, Starvation: true, Slow: true},
		{Name: "token 3x2", Nodes: 3, Homes: homes01, Threads: []Thread{once(0, both), once(1, both), once(2, both)},
			Hold: HoldFree, Token: true, Eager: true, Starvation: true, Slow: true},
	}...)
}

// Find returns the profile of a name.
func Find(name string) (Profile, bool) {
	for _, p := range Profiles() {
		if p.Name == name {
			return p, true
		}
	}
	return Profile{}, false
}
