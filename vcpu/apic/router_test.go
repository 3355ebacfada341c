package apic

import (
	"fmt"
	"slices"
	"testing"
)

// net is a Router with local APICs 0, 1, 2 and 17, remote ids 3 and 18 on node
// 1, 19 and 300 on node 2, all enabled, and id 40 on a node that cannot be
// reached.
type net struct {
	*Router
	apics  map[uint32]*APIC
	remote []string // "node: message"
	kicks  []uint32
	eois   []uint8
}

func newNet(t *testing.T) *net {
	t.Helper()
	n := &net{apics: map[uint32]*APIC{}}
	n.Router = NewRouter(func(v uint8) { n.eois = append(n.eois, v) })
	for _, id := range []uint32{17, 0, 2, 1} {
		a := New(id, id == 0, n.Router, &fakeClock{})
		write(t, a, MSRSVR, svrEnable|0xff)
		a.SetActivity(Running)
		n.apics[id] = a
		n.SetLocal(a, func() { n.kicks = append(n.kicks, id) })
	}
	for node := uint32(1); node <= 2; node++ {
		n.SetNode(node, func(m Message) {
			n.remote = append(n.remote, fmt.Sprintf("%d: %#x/%d", node, m.Dest, m.DestMode))
		})
	}
	for _, r := range [][2]uint32{{19, 2}, {300, 2}, {18, 1}, {3, 1}, {40, 9}} {
		n.SetRemote(r[0], r[1])
	}
	return n
}

// got returns the ids of the local APICs that have something pending.
func (n *net) got() (ids []uint32) {
	for id, a := range n.apics {
		if _, ok := a.Pending(); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func TestRoute(t *testing.T) {
	const bc = "0xffffffff/0"
	for _, c := range []struct {
		name      string
		m         Message
		shorthand Shorthand
		local     []uint32
		kicked    []uint32 // if not local
		remote    []string
		lost      bool
	}{
		{name: "local", m: Message{Dest: 2}, local: []uint32{2}},
		{name: "remote", m: Message{Dest: 300}, remote: []string{"2: 0x12c/0"}},
		{name: "nobody", m: Message{Dest: 99}, lost: true},
		{name: "unreachable node", m: Message{Dest: 40}, lost: true},
		{name: "broadcast", m: Message{Dest: Broadcast, From: FromDevice}, local: []uint32{0, 1, 2, 17}, remote: []string{"1: " + bc, "2: " + bc}},
		{name: "broadcast has its sender", m: Message{Dest: Broadcast, From: 1}, local: []uint32{0, 1, 2, 17}, kicked: []uint32{0, 2, 17}, remote: []string{"1: " + bc, "2: " + bc}},
		{name: "logical broadcast", m: Message{Dest: Broadcast, DestMode: Logical, From: FromDevice}, local: []uint32{0, 1, 2, 17}, remote: []string{"1: 0xffffffff/1", "2: 0xffffffff/1"}},
		{name: "cluster 0", m: Message{Dest: 0b1110, DestMode: Logical, From: 1}, local: []uint32{1, 2}, kicked: []uint32{2}, remote: []string{"1: 0xe/1"}},
		{name: "cluster 1", m: Message{Dest: 1<<16 | 0b1010, DestMode: Logical}, local: []uint32{17}, remote: []string{"2: 0x1000a/1"}},
		{name: "empty cluster", m: Message{Dest: 5<<16 | 1, DestMode: Logical}, lost: true},
		{name: "self", m: Message{Dest: 99, From: 2}, shorthand: Self, local: []uint32{2}, kicked: []uint32{}},
		{name: "all", m: Message{From: 2}, shorthand: AllIncludingSelf, local: []uint32{0, 1, 2, 17}, kicked: []uint32{0, 1, 17}, remote: []string{"1: " + bc, "2: " + bc}},
		{name: "all but self", m: Message{From: 2, Dest: 1, DestMode: Logical}, shorthand: AllExcludingSelf, local: []uint32{0, 1, 17}, remote: []string{"1: " + bc, "2: " + bc}},
	} {
		n := newNet(t)
		c.m.Vector, c.m.Assert = 0x40, true
		if found := n.Route(c.m, c.shorthand); found == c.lost {
			t.Errorf("%s: found %t", c.name, found)
		}
		if c.kicked == nil {
			c.kicked = c.local
		}
		if got := n.got(); !slices.Equal(got, c.local) {
			t.Errorf("%s: local %v, want %v", c.name, got, c.local)
		}
		if !slices.Equal(n.kicks, c.kicked) {
			t.Errorf("%s: kicked %v, want %v", c.name, n.kicks, c.kicked)
		}
		if !slices.Equal(n.remote, c.remote) {
			t.Errorf("%s: remote %v, want %v", c.name, n.remote, c.remote)
		}
		want := RouterStats{Local: uint64(len(c.local)), Remote: uint64(len(c.remote))}
		if c.lost {
			want.Unroutable = 1
		}
		if got := n.Stats(); got != want {
			t.Errorf("%s: counted %+v, want %+v", c.name, got, want)
		}
	}
}

func TestInject(t *testing.T) {
	for _, c := range []struct {
		name  string
		m     Message
		local []uint32
	}{
		{"unicast", Message{Dest: 17, From: 3}, []uint32{17}},
		{"a remote id is not sent on", Message{Dest: 300, From: 3}, nil},
		{"broadcast", Message{Dest: Broadcast, From: 3}, []uint32{0, 1, 2, 17}},
		{"broadcast of a sender that moved here", Message{Dest: Broadcast, From: 2}, []uint32{0, 1, 17}},
		{"unicast from its own id", Message{Dest: 2, From: 2}, []uint32{2}},
		{"cluster", Message{Dest: 3, DestMode: Logical, From: 3}, []uint32{0, 1}},
		{"lowest priority", Message{Dest: 1 << 2, DestMode: Logical, Delivery: LowestPriority, From: 3}, []uint32{2}},
	} {
		n := newNet(t)
		c.m.Vector, c.m.Assert = 0x40, true
		if found := n.Inject(c.m); found != (len(c.local) > 0) {
			t.Errorf("%s: found %t", c.name, found)
		}
		if got := n.got(); !slices.Equal(got, c.local) {
			t.Errorf("%s: %v, want %v", c.name, got, c.local)
		}
		if !slices.Equal(n.kicks, c.local) {
			t.Errorf("%s: kicked %v, want %v", c.name, n.kicks, c.local)
		}
		if len(n.remote) != 0 {
			t.Errorf("%s: sent on %v", c.name, n.remote)
		}
		if s := n.Stats(); s.Injected != 1 {
			t.Errorf("%s: %+v", c.name, s)
		}
	}
}

func TestLowestPriority(t *testing.T) {
	n := newNet(t)
	m := Message{Dest: 0b1111, DestMode: Logical, Delivery: LowestPriority, Assert: true, From: FromDevice}
	route := func(m Message) string {
		t.Helper()
		n.remote = nil
		m.Vector = 0x40
		n.Route(m, NoShorthand)
		ids := n.got()
		for _, id := range ids {
			take(n.apics[id])
			write(t, n.apics[id], MSREOI, 0)
			n.apics[id].TakeEvents()
		}
		return fmt.Sprint(ids, n.remote)
	}
	want := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("went to %s, want %s", got, want)
		}
	}
	n.apics[0].SetTPR(2)
	n.apics[1].SetTPR(1)
	n.apics[2].SetTPR(3)
	want(route(m), "[1] []")
	want(route(m), "[1] []")
	n.apics[0].SetTPR(1)
	first, second := route(m), route(m)
	want(min(first, second), "[0] []") // those with the same priority take turns
	want(max(first, second), "[1] []")
	// Those that are disabled take no part; remote ones come last.
	for _, id := range []uint32{0, 1, 2} {
		write(t, n.apics[id], MSRSVR, 0xff)
	}
	want(route(m), "[] [1: 0x3/0]")
	m.Dest = 1<<16 | 0b1100 // 18 and 19
	first, second = route(m), route(m)
	want(min(first, second), "[] [1: 0x12/0]")
	want(max(first, second), "[] [2: 0x13/0]")
	// The sender can be chosen, but not if the shorthand leaves it out.
	write(t, n.apics[2], MSRSVR, 0x1ff)
	m = Message{Dest: 1 << 2, DestMode: Logical, Delivery: LowestPriority, Assert: true, From: 2}
	n.kicks = nil
	want(route(m), "[2] []")
	if len(n.kicks) != 0 {
		t.Errorf("kicked %v", n.kicks)
	}
	m.Vector = 0x40
	n.Remove(17)
	n.Route(m, AllExcludingSelf)
	if _, ok := n.apics[2].Pending(); ok {
		t.Error("all-but-self reached the sender")
	}
}

// TestRouteChanges moves an id between nodes and takes nodes away.
func TestRouteChanges(t *testing.T) {
	n := newNet(t)
	m := Message{Dest: 2, Vector: 0x40, Assert: true, From: FromDevice}
	n.SetRemote(2, 1)
	n.Route(m, NoShorthand)
	if got := fmt.Sprint(n.got(), n.remote); got != "[] [1: 0x2/0]" {
		t.Errorf("moved away: %s", got)
	}
	n.SetLocal(n.apics[2], func() {})
	n.Route(m, NoShorthand)
	if got := fmt.Sprint(n.got(), n.remote); got != "[2] [1: 0x2/0]" {
		t.Errorf("moved back: %s", got)
	}
	n.RemoveNode(1)
	if n.Route(Message{Dest: 3}, NoShorthand) || n.Route(Message{Dest: 18}, NoShorthand) {
		t.Error("ids of a removed node are still routed")
	}
	n.Remove(300)
	if n.Route(Message{Dest: 300}, NoShorthand) {
		t.Error("a removed id is still routed")
	}
	if !n.Route(Message{Dest: 19}, NoShorthand) {
		t.Error("node 2 has gone, too")
	}
}

// TestIPIThroughRouter sends IPIs through ICR writes, and an EOI.
func TestIPIThroughRouter(t *testing.T) {
	n := newNet(t)
	write(t, n.apics[1], MSRICR, 2<<32|0x40f1)
	write(t, n.apics[1], MSRICR, 0xc40f2)
	if got := take(n.apics[2]); got != 0xf2 {
		t.Errorf("took %#x", got)
	}
	if got := take(n.apics[1]); got != 0 {
		t.Errorf("the sender took %#x", got)
	}
	if got := fmt.Sprint(n.remote); got != "[1: 0xffffffff/0 2: 0xffffffff/0]" {
		t.Errorf("remote %s", got)
	}
	n.apics[0].Deliver(levelled(0xf3))
	take(n.apics[0])
	write(t, n.apics[0], MSREOI, 0)
	if !slices.Equal(n.eois, []uint8{0xf3}) || n.Stats().EOIs != 1 {
		t.Errorf("EOIs %v, %+v", n.eois, n.Stats())
	}
}

// TestRouteFromKick routes and changes routes out of the callbacks.
func TestRouteFromKick(t *testing.T) {
	var r *Router
	b := New(1, true, nil, &fakeClock{})
	r = NewRouter(nil)
	a := New(0, true, r, &fakeClock{})
	r.SetLocal(a, func() {
		r.SetLocal(b, func() {})
		r.Route(Message{Dest: 1, Delivery: NMI, Assert: true, From: FromDevice}, NoShorthand)
	})
	r.Route(Message{Dest: 0, Delivery: NMI, Assert: true, From: FromDevice}, NoShorthand)
	if !a.TakeEvents().NMI || !b.TakeEvents().NMI {
		t.Error("an NMI is missing")
	}
}
