package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is a network namespace.
type Host struct {
	Name string

	lab   *Lab
	ns    netns.NsHandle
	link  string          // "net:[4026532000]": what /proc shows for a process in it
	route *netlink.Handle // a socket in the namespace
}

// AddHost makes a host whose loopback interface is up. It needs CAP_SYS_ADMIN.
func (l *Lab) AddHost(name string) (h *Host, err error) {
	h = &Host{Name: name, lab: l}
	err = await(func() error {
		if h.ns, err = netns.New(); err != nil {
			return err
		}
		h.link, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("make a network namespace (it takes root): %w: %w", ErrNotSupported, err)
	}
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	if h.route, err = netlink.NewHandleAt(h.ns, unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(fmt.Errorf("host %s: open netlink: %w", name, err), h.ns.Close())
	}
	if err := h.up("lo"); err != nil {
		return nil, errors.Join(err, h.close())
	}
	if err := l.add("add host "+name, func() { l.hosts = append(l.hosts, h) }); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// Do runs f on a thread in the host's namespace: a socket that f opens is the host's and stays so. f must not start
// goroutines that open sockets, nor end its goroutine.
func (h *Host) Do(f func() error) error {
	return await(func() error {
		if err := h.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread, which must be locked and never unlocked, into the host.
func (h *Host) enter() error {
	if err := netns.Set(h.ns); err != nil {
		return fmt.Errorf("enter host %s: %w", h.Name, err)
	}
	return nil
}

func (h *Host) up(name string) error {
	link, err := h.route.LinkByName(name)
	if err == nil {
		err = h.route.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("host %s: switch on %s: %w", h.Name, name, err)
	}
	return nil
}

// close gives the namespace up; it is an error if a process is still in it.
func (h *Host) close() error {
	h.route.Close()
	err := h.ns.Close()
	if left := h.inhabitants(); len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("host %s still has processes: %s", h.Name, strings.Join(left, ", ")))
	}
	return err
}

// inhabitants lists the processes with a thread in the host.
func (h *Host) inhabitants() []string {
	var found []string
	// A process that ends while we look makes its links unreadable: it is gone.
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || to != h.link {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		comm, _ := os.ReadFile(dir + "/comm")
		found = append(found, filepath.Base(dir)+" ("+strings.TrimSpace(string(comm))+")")
	}
	return found
}

// onOwnThread runs f on a thread that nothing else uses and that ends with f, so that f may change what belongs to a
// thread. It returns when f has got that thread.
func onOwnThread(f func()) {
	placed := make(chan struct{})
	go func() {
		runtime.LockOSThread() // and not unlocked again
		if unix.Gettid() == unix.Getpid() {
			// The main thread must stay as it is: /proc shows its namespaces as the process's. While this goroutine
			// keeps it, f goes to another one.
			onOwnThread(f)
			runtime.UnlockOSThread()
			close(placed)
			return
		}
		close(placed)
		f()
	}()
	<-placed
}

// await is onOwnThread that waits for f's end.
func await(f func() error) error {
	result := make(chan error, 1)
	onOwnThread(func() { result <- f() })
	return <-result
}
