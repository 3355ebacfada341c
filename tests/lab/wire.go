package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Shape is what a cable does to what passes it, in each direction.
type Shape struct {
	Delay, Jitter time.Duration
	Loss          float32 // percent of the packets
	Rate          uint64  // bytes per second; 0: as fast as it goes
}

// Wire is a cable between two hosts: a veth pair.
type Wire struct {
	ends [2]end
}

// end is one host's side of a cable.
type end struct {
	host *Host
	name string // of the interface
	addr netip.Prefix
}

// Join connects two hosts by a new cable. They get the addresses 10.77.N.1 and 10.77.N.2 on it, N counting the lab's
// cables from 1.
func (l *Lab) Join(a, b *Host) (*Wire, error) {
	var n int
	if err := l.add("join "+a.Name+" and "+b.Name, func() { l.wires++; n = l.wires }); err != nil {
		return nil, err
	}
	w := &Wire{}
	for i, h := range []*Host{a, b} {
		addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(n), byte(i + 1)}), 24)
		w.ends[i] = end{host: h, name: fmt.Sprintf("wire%d", n), addr: addr}
	}
	veth := netlink.NewVeth(netlink.NewLinkAttrs())
	veth.Name, veth.PeerName = w.ends[0].name, w.ends[1].name
	veth.PeerNamespace = netlink.NsFd(int(b.ns))
	err := a.route.LinkAdd(veth)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("make a veth pair: %w: %w", ErrNotSupported, err)
	}
	if err != nil {
		return nil, fmt.Errorf("make a veth pair: %w", err)
	}
	for _, e := range w.ends {
		if err := e.configure(); err != nil {
			return nil, err
		}
	}
	return w, w.Restore()
}

func (e *end) link() (netlink.Link, error) {
	link, err := e.host.route.LinkByName(e.name)
	if err != nil {
		return nil, fmt.Errorf("host %s: find %s: %w", e.host.Name, e.name, err)
	}
	return link, nil
}

func (e *end) configure() error {
	link, err := e.link()
	if err != nil {
		return err
	}
	ip := net.IPNet{IP: e.addr.Addr().AsSlice(), Mask: net.CIDRMask(e.addr.Bits(), 32)}
	if err := e.host.route.AddrAdd(link, &netlink.Addr{IPNet: &ip}); err != nil {
		return fmt.Errorf("host %s: give %s the address %s: %w", e.host.Name, e.name, e.addr, err)
	}
	return nil
}

// Addr returns a host's address on the cable; the zero Addr if it is not connected by it.
func (w *Wire) Addr(h *Host) netip.Addr {
	for _, e := range w.ends {
		if e.host == h {
			return e.addr.Addr()
		}
	}
	return netip.Addr{}
}

// Cut pulls the cable: nothing passes any more and nobody is told. What is lost is lost, but connections survive a cut
// that is mended soon.
func (w *Wire) Cut() error {
	for _, e := range w.ends {
		link, err := e.link()
		if err == nil {
			err = e.host.route.LinkSetDown(link)
		}
		if err != nil {
			return fmt.Errorf("host %s: cut %s: %w", e.host.Name, e.name, err)
		}
	}
	return nil
}

// Restore mends a cable that was cut, and returns once both ends see a carrier.
func (w *Wire) Restore() error {
	for _, e := range w.ends {
		if err := e.host.up(e.name); err != nil {
			return err
		}
	}
	return nil
}

// Traffic control handles of what Shape installs: netem at the root, the rate's bucket below it.
var (
	netemHandle = netlink.MakeHandle(1, 0)
	tbfParent   = netlink.MakeHandle(1, 1)
	tbfHandle   = netlink.MakeHandle(2, 0)
)

// Shape makes the cable behave like s from now on; the zero Shape takes all limits away. The error Is ErrNotSupported
// where the kernel has no netem or tbf.
func (w *Wire) Shape(s Shape) error {
	for _, e := range w.ends {
		if err := e.shape(s); err != nil {
			return fmt.Errorf("host %s: shape %s: %w", e.host.Name, e.name, err)
		}
	}
	return nil
}

func (e *end) shape(s Shape) error {
	link, err := e.link()
	if err != nil {
		return err
	}
	attrs := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netemHandle}
	old := &netlink.GenericQdisc{QdiscAttrs: attrs}
	if err := e.host.route.QdiscDel(old); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("take the old shape away: %w", err)
	}
	if s.Delay > 0 || s.Jitter > 0 || s.Loss > 0 {
		netem := netlink.NewNetem(attrs, netlink.NetemQdiscAttrs{
			Latency: uint32(s.Delay.Microseconds()), Jitter: uint32(s.Jitter.Microseconds()), Loss: s.Loss, Limit: 10000})
		if err := e.host.route.QdiscAdd(netem); err != nil {
			return noQdisc("netem", err)
		}
		attrs.Parent, attrs.Handle = tbfParent, tbfHandle
	}
	if s.Rate > 0 {
		// Room for 20 ms at full rate, and for one large segment.
		room := uint32(max(s.Rate/50, 64<<10))
		tbf := &netlink.Tbf{QdiscAttrs: attrs, Rate: s.Rate, Limit: 4 * room, Buffer: room}
		if err := e.host.route.QdiscAdd(tbf); err != nil {
			return noQdisc("tbf", err)
		}
	}
	return nil
}

// noQdisc tells a queueing discipline that this kernel lacks from other errors.
func noQdisc(kind string, err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("this kernel has no %s: %w", kind, ErrNotSupported)
	}
	return fmt.Errorf("add %s: %w", kind, err)
}
