package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// takeFD returns a descriptor of nc's socket that is blocking and unknown to the
// runtime's poller, and closes nc.
func takeFD(nc net.Conn) (int, error) {
	defer nc.Close()
	sc, ok := nc.(*net.TCPConn)
	if !ok {
		return -1, fmt.Errorf("taking the socket of a %T", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("taking the socket: %w", err)
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(orig uintptr) {
		fd, dupErr = unix.FcntlInt(orig, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return -1, fmt.Errorf("taking the socket: %w", err)
	}
	if dupErr != nil {
		return -1, fmt.Errorf("duplicating the socket: %w", dupErr)
	}
	return fd, nil
}

// prepareSocket makes fd blocking and, if it is TCP, quick to send and quick to
// notice a peer that has gone.
func prepareSocket(fd int, o *Options) error {
	if err := unix.SetNonblock(fd, false); err != nil {
		return fmt.Errorf("making the socket blocking: %w", err)
	}
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return fmt.Errorf("asking for the socket's protocol: %w", err)
	}
	if proto != unix.IPPROTO_TCP {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("setting TCP_NODELAY: %w", err)
	}
	if o.Congestion != "" {
		if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, o.Congestion); err != nil {
			return fmt.Errorf("setting TCP congestion control %q: %w", o.Congestion, err)
		}
	}
	if o.KeepAlive < 0 {
		return nil
	}
	// An idle peer is probed after KEEPIDLE and every KEEPINTVL, both in whole
	// seconds, and given up at the first probe later than USER_TIMEOUT (tcp(7)):
	// half of it for both makes that the second probe.
	every := max(1, int(o.KeepAlive/(2*time.Second)))
	for _, opt := range []struct {
		name            string
		level, id, want int
	}{
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, every},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, every},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.KeepAlive.Milliseconds())},
	} {
		if err := unix.SetsockoptInt(fd, opt.level, opt.id, opt.want); err != nil {
			return fmt.Errorf("setting %s to %d: %w", opt.name, opt.want, err)
		}
	}
	return nil
}

// readBlocking is read(2) on the caller's thread. 0, nil is the end of the stream.
func readBlocking(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// writeBlocking is send(2) on the caller's thread; like write(2), but a peer that
// has gone is EPIPE without a signal.
func writeBlocking(fd int, p []byte) (int, error) {
	for {
		n, err := unix.SendmsgN(fd, p, nil, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// gone tells the errors that mean the peer closed its end from the others.
func gone(err error) bool { return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) }

// vanished tells the errors by which TCP reports a silent peer from the others.
func vanished(err error) bool {
	return errors.Is(err, unix.ETIMEDOUT) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH)
}

// addrText returns an address for people. It takes Getsockname's and
// Getpeername's results as they are; their only error is that the peer has gone already.
func addrText(sa unix.Sockaddr, _ error) string {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)).String()
	case *unix.SockaddrUnix:
		return "a unix socket"
	default:
		return "an unknown address"
	}
}
