package bench

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// errNoShaping says that links cannot be shaped here.
var errNoShaping = errors.New("links cannot be shaped here")

// shapedLink is a cable of a certain rate: a veth pair between two network
// namespaces, with a token bucket at either end. It is there for as long as
// connections over it are.
type shapedLink struct {
	hosts [2]netns.NsHandle
	addr  [2]string
}

// Token buckets: room for a few large segments, and a queue in which TCP never
// loses any.
const (
	bucketBytes = 128 << 10
	queueBytes  = 4 << 20
)

// newShapedLink makes one; close does not end the connections over it. The error
// Is errNoShaping where it takes more rights or another kernel. rate is in bytes
// per second.
func newShapedLink(rate uint64) (l *shapedLink, err error) {
	l = &shapedLink{hosts: [2]netns.NsHandle{netns.None(), netns.None()}, addr: [2]string{"10.99.0.1", "10.99.0.2"}}
	defer func() {
		if err != nil {
			l.close()
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
				err = fmt.Errorf("%w: %w", errNoShaping, err)
			}
			l = nil
		}
	}()
	for i := range l.hosts {
		if err := elsewhere(func() (err error) {
			l.hosts[i], err = netns.New()
			return err
		}); err != nil {
			return l, fmt.Errorf("make a network namespace: %w", err)
		}
	}
	for i, h := range l.hosts {
		if err := l.configure(i, h, rate); err != nil {
			return l, err
		}
	}
	return l, nil
}

// configure sets up an end of the cable; the first one lays it.
func (l *shapedLink) configure(i int, h netns.NsHandle, rate uint64) error {
	route, err := netlink.NewHandleAt(h, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer route.Close()
	if i == 0 {
		veth := netlink.NewVeth(netlink.NewLinkAttrs())
		veth.Name, veth.PeerName, veth.PeerNamespace = "shaped", "shaped", netlink.NsFd(int(l.hosts[1]))
		if err := route.LinkAdd(veth); err != nil {
			return fmt.Errorf("make a veth pair: %w", err)
		}
	}
	dev, err := route.LinkByName("shaped")
	if err != nil {
		return fmt.Errorf("find the veth pair: %w", err)
	}
	ip := net.IPNet{IP: net.ParseIP(l.addr[i]).To4(), Mask: net.CIDRMask(24, 32)}
	if err := route.AddrAdd(dev, &netlink.Addr{IPNet: &ip}); err != nil {
		return fmt.Errorf("set an address: %w", err)
	}
	tbf := &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: dev.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)},
		Rate:       rate, Limit: queueBytes, Buffer: bucketBytes,
	}
	if err := route.QdiscAdd(tbf); err != nil {
		return fmt.Errorf("add a token bucket (tbf): %w", err)
	}
	if err := route.LinkSetUp(dev); err != nil {
		return fmt.Errorf("switch an interface on: %w", err)
	}
	return nil
}

// wire returns the two ends of a TCP connection over the link.
func (l *shapedLink) wire() (a, b *os.File, err error) {
	var ln net.Listener
	if err := l.in(0, func() (err error) {
		ln, err = net.Listen("tcp", l.addr[0]+":0")
		return err
	}); err != nil {
		return nil, nil, fmt.Errorf("listen on a shaped link: %w", err)
	}
	defer ln.Close()
	var dialled net.Conn
	if err := l.in(1, func() (err error) {
		dialled, err = net.Dial("tcp", ln.Addr().String())
		return err
	}); err != nil {
		return nil, nil, fmt.Errorf("connect over a shaped link: %w", err)
	}
	return connectionFiles(ln, dialled)
}

// in runs f in one of the link's hosts.
func (l *shapedLink) in(i int, f func() error) error {
	return elsewhere(func() error {
		if err := netns.Set(l.hosts[i]); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

func (l *shapedLink) close() {
	for i := range l.hosts {
		if l.hosts[i].IsOpen() {
			l.hosts[i].Close() // an error leaves nothing to be done
		}
	}
}

// elsewhere runs f on a thread that ends with it, so that f may move that to
// another network namespace.
func elsewhere(f func() error) error {
	done := make(chan error, 1)
	go runElsewhere(f, done)
	return <-done
}

func runElsewhere(f func() error, done chan<- error) {
	runtime.LockOSThread() // and not unlocked again: that ends the thread
	if unix.Gettid() == unix.Getpid() {
		// Not the process's first thread. While this goroutine keeps it, another
		// one gets another.
		finished := make(chan error, 1)
		go runElsewhere(f, finished)
		done <- <-finished
		runtime.UnlockOSThread()
		return
	}
	done <- f()
}
