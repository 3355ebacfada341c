package vcpu_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/guest/micro"
	"coalesce/vcpu"
	"coalesce/vcpu/kvm"
	"coalesce/vcpu/microvm"
)

// peerEnv makes the test binary play the other process of TestMove.
const peerEnv = "COALESCE_VCPU_MOVE_PEER"

func TestMain(m *testing.M) {
	if os.Getenv(peerEnv) != "" {
		if err := movePeer(); err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const (
	moves         = 1000
	moveTSCOffset = 1 << 40 // the same in both processes: one host, one TSC
)

// A running, self-checking guest's vCPU is moved between two processes that
// share the guest's memory, a thousand times.
func TestMove(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	v := r.add(0)
	must(t, offsetTSC(r.VM))
	vectors := bestVectors(t)
	must(t, micro.SelfCheck(r.Machine, micro.SelfCheckOptions{
		Code: codeAt, Data: dataAt, Vectors: vectors, Rounds: 10,
		Timer: 300_000, TimerVector: irqVector, IO: true,
	}))
	peer := startPeer(t, r.RAM.File())
	r.start(v, micro.Options{RIP: codeAt, XCR0: vectors.XCR0()})

	var bytes int
	var away time.Duration
	rng := rand.New(rand.NewPCG(1, 2))
	for range moves / 2 {
		must(t, nap(rng))
		begin := time.Now()
		s, err := v.Recall(ctx)
		must(t, err)
		b, err := s.Append(nil)
		must(t, err)
		must(t, writeFrame(peer, b))
		b, err = readFrame(peer)
		if err != nil {
			t.Fatalf("the peer ended: %v; guest %+v", err, micro.SelfCheckStatus(dataAt, r.RAM.Load))
		}
		bytes += len(b)
		s, err = vcpu.DecodeState(b)
		must(t, err)
		must(t, v.Restore(ctx, s))
		must(t, v.Resume(ctx))
		away += time.Since(begin)
	}
	must(t, v.Pause(ctx))
	select {
	case e := <-r.Events:
		t.Error(e)
	default:
	}
	st := micro.SelfCheckStatus(dataAt, r.RAM.Load)
	if st.Failed != 0 || st.Passes < moves/10 || st.Ticks == 0 {
		t.Errorf("after %d moves: %+v", moves, st)
	}
	t.Logf("%d moves, %d bytes of state each, %v per round trip with %v vectors; guest %+v",
		moves, bytes/(moves/2), away/(moves/2), vectors, st)
}

// offsetTSC gives both processes' vCPUs the same time, which they have anyway
// where KVM knows no offset.
func offsetTSC(m *microvm.VM) error {
	err := m.SetTSCOffset(context.Background(), moveTSCOffset)
	if errors.Is(err, kvm.ErrNotSupported) {
		return nil
	}
	return err
}

// nap lets some time pass, up to 300 us and a little, at a grain that Go's
// timers do not have. It does not keep the CPU: the guest may need it.
func nap(rng *rand.Rand) error {
	return ignoreEINTR(unix.Nanosleep(&unix.Timespec{Nsec: rng.Int64N(300_000)}, nil))
}

// startPeer starts the other process and sends it the guest's memory.
func startPeer(t *testing.T, ram *os.File) *net.UnixConn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	theirs := os.NewFile(uintptr(fds[1]), "peer")
	conn := unixConn(t, os.NewFile(uintptr(fds[0]), "peer"))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), peerEnv+"=1")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	theirs.Close()
	t.Cleanup(func() {
		conn.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("peer: %v", err)
		}
	})
	_, _, err = conn.WriteMsgUnix([]byte{0}, unix.UnixRights(int(ram.Fd())), nil)
	must(t, err)
	return conn
}

func unixConn(t testing.TB, f *os.File) *net.UnixConn {
	c, err := net.FileConn(f)
	must(t, err)
	f.Close()
	return c.(*net.UnixConn)
}

// movePeer is the other process: it receives the memory, then runs each state
// it gets for a moment and sends it back.
func movePeer() error {
	c, err := net.FileConn(os.NewFile(3, "peer"))
	if err != nil {
		return err
	}
	conn := c.(*net.UnixConn)
	ram, err := receiveRAM(conn)
	if err != nil {
		return err
	}
	sys, err := kvm.Open(kvm.Device)
	if err != nil {
		return err
	}
	m, err := microvm.New(sys, ram)
	if err != nil {
		return err
	}
	ctx := context.Background()
	v, err := m.Add(0)
	if err != nil {
		return err
	}
	if err := offsetTSC(m); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for {
		b, err := readFrame(conn)
		if err == io.EOF {
			return m.Close()
		}
		if err != nil {
			return err
		}
		s, err := vcpu.DecodeState(b)
		if err != nil {
			return err
		}
		if err := v.Restore(ctx, s); err != nil {
			return err
		}
		if err := v.Resume(ctx); err != nil {
			return err
		}
		if err := nap(rng); err != nil {
			return err
		}
		if s, err = v.Recall(ctx); err != nil {
			return err
		}
		select {
		case e := <-m.Events:
			return fmt.Errorf("%v", e)
		default:
		}
		if b, err = s.Append(nil); err != nil {
			return err
		}
		if err := writeFrame(conn, b); err != nil {
			return err
		}
	}
}

func receiveRAM(conn *net.UnixConn) (*microvm.RAM, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, fmt.Errorf("%d control messages: %w", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil, err
	}
	return microvm.MapRAM(os.NewFile(uintptr(fds[0]), "guest memory"))
}

func writeFrame(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > vcpu.MaxStateBytes {
		return nil, fmt.Errorf("frame of %d bytes", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}
