package bench

import (
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"coalesce/dsm"
	"coalesce/link"
)

// wire returns the two ends of a TCP connection over loopback. Both are to be
// closed.
func wire() (a, b *os.File, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen on loopback: %w", err)
	}
	defer ln.Close()
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return nil, nil, fmt.Errorf("connect over loopback: %w", err)
	}
	return connectionFiles(ln, dialled)
}

// connectionFiles accepts what was dialled and returns both ends' files. It
// closes dialled.
func connectionFiles(ln net.Listener, dialled net.Conn) (a, b *os.File, err error) {
	defer dialled.Close()
	accepted, err := ln.Accept()
	if err != nil {
		return nil, nil, fmt.Errorf("accept a connection: %w", err)
	}
	defer accepted.Close()
	if a, err = dialled.(*net.TCPConn).File(); err != nil {
		return nil, nil, fmt.Errorf("take a connection's file: %w", err)
	}
	if b, err = accepted.(*net.TCPConn).File(); err != nil {
		a.Close()
		return nil, nil, fmt.Errorf("take a connection's file: %w", err)
	}
	return a, b, nil
}

// pageLink makes a page connection of a wire's end, which it takes over.
func pageLink(f *os.File, from, to dsm.NodeID) (*link.Conn, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("duplicate a connection: %w", err)
	}
	peer := link.Hello{Protocol: link.ProtocolVersion, Build: "bench", From: to, To: from, Class: link.Page, PageSize: dsm.PageSize}
	return link.NewConn(fd, peer, link.Options{})
}

// rawSocket makes a wire's end a blocking socket without delays, for the floor.
// The file stays its owner.
func rawSocket(f *os.File) (int, error) {
	fd := int(f.Fd()) // makes it blocking
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return 0, fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	return fd, nil
}

// readFull fills b from a blocking socket.
func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(fd, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return io.EOF
		default:
			b = b[n:]
		}
	}
	return nil
}

// writeFull writes b to a blocking socket.
func writeFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil && err != unix.EINTR {
			return err
		}
		b = b[max(n, 0):]
	}
	return nil
}
